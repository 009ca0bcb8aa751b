"""What EC2 says and does beyond moto: reboots, status checks, what is on an image, and snapshots that take their time.

`content` decides what an instance of an image finds on its disk (`World.image_content`): an image made of a host (CreateImage)
has that host's packages of that moment, one that was registered has every update of that moment, one of the world or of moto's
own lacks what its template lacks, the same on each instance. Everything else stays moto's.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from awsim import groups
from awsim.clock import iso, moment
from awsim.journal import Cause
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import elbv2
from awsim.wire import Answer, MotoTripped
from awsim.world import ImageContent, World
from awsim.world_file import Template

_INSTANCE = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
_PLATFORMS = (
    (r"ubuntu.*(22\.04|jammy)", "ubuntu-22.04"),
    (r"ubuntu|noble|24\.04", "ubuntu-24.04"),
    (r"windows.*2022|windows", "windows-server-2022"),
    (r"rhel|red ?hat", "rhel-9"),
    (r"al2023|amazon-linux-2023", "amazon-linux-2023"),
    (r"amzn2|amazon-linux-2", "amazon-linux-2"),
)
"""What an image's name says of its OS, the first that fits; otherwise Amazon Linux 2023."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """A snapshot or image on its way."""

    begun: float
    ends: float

    def percent(self, now: float) -> int:
        return min(99, int(100 * (now - self.begun) / max(self.ends - self.begun, 1.0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What was on a host's root volume at a moment."""

    host: str
    levels: dict[str, int]
    files: dict[str, str]


@dataclass(slots=True, eq=False)
class Disks:
    """Images with known content, and snapshots and images that are not complete yet."""

    contents: dict[str, ImageContent] = field(default_factory=dict)
    images: dict[str, Making] = field(default_factory=dict)
    snapshots: dict[str, Making] = field(default_factory=dict)
    saved: dict[str, Saved] = field(default_factory=dict)
    """Snapshot -> what it remembers, of root volumes only."""
    deprecated: dict[str, float] = field(default_factory=dict)
    """Image -> when it is, or will be, deprecated."""


@on_world
def attach(world: World) -> None:
    world.image_content = lambda account, region, image: content(world, account, region, image)


def content(world: World, account: str, region: str, image: str) -> ImageContent | None:
    """What is on an image; None only when there is no such image."""
    known = world.state(account, region, Disks).contents.get(image)
    if known is not None:
        return known
    network = world.networks.get((account, region))
    key = next((key for key, one in network.images.items() if one == image), None) if network else None
    if key is None:
        found = groups.image(account, region, image)
        if found is None:
            return None
        key = platform_of_name(world, f"{found.name} {found.platform}")
    template = _template(world, key)
    platform = world.catalogue.platforms[key]
    return ImageContent(template=template, levels=world.image_levels(platform, template, key if network else image))


def keep(world: World, account: str, region: str, image: str, made: ImageContent) -> None:
    """What is on an image that another service of AWS made."""
    world.state(account, region, Disks).contents[image] = made


def _template(world: World, key: str) -> Template:
    """The world's first template of an OS, so that what Auto Scaling launches lacks what the fleet lacked."""
    templates = world.file.templates.values() if world.file else ()
    return next((template for template in templates if template.os == key), Template(os=key))


def platform_of_name(world: World, name: str) -> str:
    """A platform of the catalogue, by what an image is called."""
    for pattern, key in _PLATFORMS:
        if re.search(pattern, name.lower()) and key in world.catalogue.platforms:
            return key
    return "amazon-linux-2023"


def _check_ids(params: dict[str, Any]) -> None:
    for identifier in [] if params.get("DryRun") else params.get("InstanceIds") or []:
        if not _INSTANCE.fullmatch(identifier):
            raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{identifier}"')


# --- instances ---


@operation("ec2", "RebootInstances", check=False)
def reboot_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    """moto checks the ids; then the machines go down."""
    _check_ids(params)
    answer = ctx.moto_answer()
    if answer.status == 200:
        for identifier in params.get("InstanceIds") or []:
            host = ctx.world.host(ctx.account, ctx.region, identifier)
            if host is not None:
                ctx.world.reboot(host, cause=Cause(request_id=ctx.request_id))
    return answer


@operation("ec2", "StopInstances", check=False)
def stop_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    _check_ids(params)
    return ctx.moto_answer()


@operation("ec2", "StartInstances", check=False)
def start_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    _check_ids(params)
    return ctx.moto_answer()


@operation("ec2", "TerminateInstances", check=False)
def terminate_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    """A group finds out about a member that somebody terminates by its health checks, and replaces it then."""
    _check_ids(params)
    patient = set()
    for identifier in params.get("InstanceIds") or []:
        host = ctx.world.host(ctx.account, ctx.region, identifier)
        if host is not None and host.group is not None and elbv2.paced(ctx.world, host):
            patient.add(host.group)
    with groups.without_replacement(ctx.account, ctx.region, patient):
        return ctx.moto_answer()


@operation("ec2", "DescribeInstances", check=False)
def describe_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    _check_ids(params)
    return ctx.moto_answer()


@operation("ec2", "RunInstances", check=False)
def run_instances(ctx: Context, params: dict[str, Any]) -> Answer:
    """An image that is not complete yet, or not any more there, cannot be used."""
    if groups.is_deregistered(ctx.account, ctx.region, params.get("ImageId") or ""):
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{params['ImageId']}]' does not exist")
    making = ctx.state(Disks).images.get(params.get("ImageId") or "")
    if making is not None and ctx.at < making.ends:
        raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{params['ImageId']}' is not available")
    return ctx.moto_answer()


@operation("ec2", "DescribeInstanceStatus", check=False)
def describe_instance_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto says ok always; a machine that reboots is impaired, one that just came up initializes."""
    _check_ids(params)
    told = ctx.call_moto()
    for row in told.get("InstanceStatuses") or []:
        host = ctx.world.host(ctx.account, ctx.region, row["InstanceId"])
        if host is None or host.state != "running":
            continue
        status = host.status_check(ctx.at)
        reachability = {"ok": "passed", "impaired": "failed"}.get(status, status)
        row["InstanceStatus"] = {"Status": status, "Details": [{"Name": "reachability", "Status": reachability}]}
        system = "ok" if status != "initializing" else status
        row["SystemStatus"] = {
            "Status": system,
            "Details": [{"Name": "reachability", "Status": "passed" if system == "ok" else system}],
        }
    wanted = _filters(params)
    for name, part in (("instance-status.status", "InstanceStatus"), ("system-status.status", "SystemStatus")):
        if name in wanted:
            told["InstanceStatuses"] = [row for row in told["InstanceStatuses"] if row[part]["Status"] in wanted[name]]
    return _paged(ctx, params, told, "InstanceStatuses")


def _filters(params: dict[str, Any]) -> dict[str, list[str]]:
    return {entry["Name"]: entry.get("Values") or [] for entry in params.get("Filters") or [] if entry.get("Name")}


def _paged(ctx: Context, params: dict[str, Any], told: dict[str, Any], key: str) -> dict[str, Any]:
    """moto gives all rows at once, whatever MaxResults says."""
    told[key], told["NextToken"] = ctx.page(told.get(key) or [], params, default=1000)
    return told


# --- launch templates ---


@operation("ec2", "CreateLaunchTemplateVersion", check=False)
def create_launch_template_version(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A version made from another one inherits what it does not say itself."""
    if not params.get("LaunchTemplateId") and not params.get("LaunchTemplateName"):
        raise AwsError("MissingParameter", "Either a launch template ID or a launch template name must be specified.")
    source = params.get("SourceVersion")
    named = {key: params[key] for key in ("LaunchTemplateId", "LaunchTemplateName") if params.get(key)}
    exists = bool(named) and groups.template_version(ctx.account, ctx.region, named) is not None
    if source and exists and groups.template_version(ctx.account, ctx.region, {**named, "Version": source}) is None:
        raise AwsError("InvalidLaunchTemplateId.VersionNotFound", f"Could not find launch template version {source}")
    told = ctx.call_moto()
    if source:
        row = told["LaunchTemplateVersion"]
        row["LaunchTemplateData"] = groups.inherit_template_version(
            ctx.account, ctx.region, row["LaunchTemplateId"], row["VersionNumber"], source
        )
    return told


# --- images ---


@operation("ec2", "CreateImage", check=False)
def create_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The host is rebooted unless NoReboot says otherwise, and the image needs minutes to be available."""
    told = ctx.call_moto()
    _date(ctx, told)
    host = ctx.world.host(ctx.account, ctx.region, params.get("InstanceId") or "")
    if host is None:
        return told
    disks = ctx.state(Disks)
    template = _template(ctx.world, host.platform.key)
    disks.contents[told["ImageId"]] = ImageContent(template=template, levels=dict(host.levels))
    if elbv2.paced(ctx.world, host):
        takes = ctx.random("image", ctx.account, ctx.region, len(disks.contents)).uniform(120, 300)
        disks.images[told["ImageId"]] = Making(begun=ctx.at, ends=ctx.at + takes)
        if not params.get("NoReboot"):
            ctx.world.reboot(host, cause=Cause(request_id=ctx.request_id))
    return told


@operation("ec2", "RegisterImage", check=False)
def register_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Somebody's own build: it has every update of today."""
    told = ctx.call_moto()
    _date(ctx, told)
    key = platform_of_name(ctx.world, f"{params.get('Name') or ''} {params.get('Description') or ''}")
    platform = ctx.world.catalogue.platforms[key]
    ctx.state(Disks).contents[told["ImageId"]] = ImageContent(
        template=_template(ctx.world, key), levels=ctx.world.newest_levels(platform, ctx.at)
    )
    return told


@operation("ec2", "CopyImage", check=False)
def copy_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What is on the source is on the copy."""
    try:
        told = ctx.call_moto()
    except MotoTripped:  # moto knows no such region
        told_wrong = f"Value ({params.get('SourceRegion')}) for parameter sourceRegion is invalid."
        raise AwsError("InvalidParameterValue", told_wrong) from None
    _date(ctx, told)
    source = content(ctx.world, ctx.account, params.get("SourceRegion") or ctx.region, params.get("SourceImageId") or "")
    if source is not None:
        ctx.state(Disks).contents[told["ImageId"]] = source
    return told


def _date(ctx: Context, told: dict[str, Any]) -> None:
    groups.date_image(ctx.account, ctx.region, told["ImageId"], moment(ctx.at))


@operation("ec2", "DescribeImages", check=False)
def describe_images(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """moto's list as it is, unless one of its images is still being made or has a time of deprecation.

    An owner sees his deprecated images whatever IncludeDeprecated says, and only owners deprecate.
    """
    deprecated = ctx.state(Disks).deprecated
    pending = {key for key, making in ctx.state(Disks).images.items() if ctx.at < making.ends}
    if not pending and not deprecated and not params.get("MaxResults") and not params.get("NextToken"):
        return ctx.moto_answer()
    told = ctx.call_moto()
    for row in told.get("Images") or []:
        if row["ImageId"] in pending:
            row["State"] = "pending"
        if row["ImageId"] in deprecated:
            row["DeprecationTime"] = iso(deprecated[row["ImageId"]])
    wanted = _filters(params).get("state")
    if wanted:
        told["Images"] = [row for row in told["Images"] if row["State"] in wanted]
    return _paged(ctx, params, told, "Images")


@operation("ec2", "DeregisterImage", check=False)
def deregister_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Snapshots stay unless they are to go as well."""
    snapshots = groups.snapshots_of(ctx.account, ctx.region, params.get("ImageId") or "")
    told = ctx.call_moto()
    ctx.state(Disks).deprecated.pop(params.get("ImageId") or "", None)
    if params.get("DeleteAssociatedSnapshots"):
        for snapshot in snapshots:
            groups.delete_snapshot(ctx.account, ctx.region, snapshot)
        told["DeleteSnapshotResults"] = [{"SnapshotId": one, "ReturnCode": "success"} for one in snapshots]
    return told


@operation("ec2", "EnableImageDeprecation")
def enable_image_deprecation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """To the minute, in the future, within ten years; a later call moves it."""
    _own_image(ctx, params)
    at = round(params["DeprecateAt"].replace(tzinfo=params["DeprecateAt"].tzinfo or UTC).timestamp() / 60) * 60.0
    if not ctx.at - 60 <= at <= ctx.at + 10 * 366 * 86_400:
        raise AwsError("InvalidParameterValue", "The specified deprecation time must be in the future, within 10 years.")
    ctx.state(Disks).deprecated[params["ImageId"]] = at
    return {"Return": True}


@operation("ec2", "DisableImageDeprecation")
def disable_image_deprecation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _own_image(ctx, params)
    ctx.state(Disks).deprecated.pop(params["ImageId"], None)
    return {"Return": True}


def _own_image(ctx: Context, params: dict[str, Any]) -> None:
    identifier = params["ImageId"]
    if not identifier.startswith("ami-"):
        raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{identifier}" (expecting "ami-...")')
    found = groups.image(ctx.account, ctx.region, identifier)
    if found is None:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{identifier}]' does not exist")
    if found.owner != ctx.account:
        raise AwsError("AuthFailure", f"Not authorized for image:{identifier}")
    if params.get("DryRun"):
        raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


# --- snapshots ---


@operation("ec2", "CreateSnapshot", check=False)
def create_snapshot(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    told = ctx.call_moto()
    _begin(ctx, told)
    return told


@operation("ec2", "CreateSnapshots", check=False)
def create_snapshots(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    given = params.get("InstanceSpecification") or {}
    ids = [given["InstanceId"]] if given.get("InstanceId") else []
    _check_ids({"InstanceIds": ids, "DryRun": params.get("DryRun")})
    told = ctx.call_moto()
    for row in told.get("Snapshots") or []:
        _begin(ctx, row)
    return told


def _begin(ctx: Context, row: dict[str, Any]) -> None:
    """A snapshot is pending from now on; larger volumes take longer."""
    found = groups.snapshot_volume(ctx.account, ctx.region, row["SnapshotId"])
    holder = groups.holder(ctx.account, ctx.region, found[0]) if found else None
    host = ctx.world.host(ctx.account, ctx.region, holder) if holder else None
    if found is None or host is None:
        return
    if found[0] == groups.root_volume(ctx.account, ctx.region, host.id):
        ctx.state(Disks).saved[row["SnapshotId"]] = Saved(host=host.id, levels=dict(host.levels), files=dict(host.files))
    if not elbv2.paced(ctx.world, host):
        return
    snapshots = ctx.state(Disks).snapshots
    takes = ctx.random("snapshot", ctx.account, ctx.region, len(snapshots)).uniform(60, 180) + 4.0 * found[1]
    snapshots[row["SnapshotId"]] = Making(begun=ctx.at, ends=ctx.at + takes)
    row["State"], row["Progress"] = "pending", ""
    row["StartTime"] = ctx.now


@operation("ec2", "DescribeSnapshots", check=False)
def describe_snapshots(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """moto's list as it is, unless a snapshot of it is still pending."""
    pending = {key: making for key, making in ctx.state(Disks).snapshots.items() if ctx.at < making.ends}
    if not pending and not params.get("MaxResults") and not params.get("NextToken"):
        return ctx.moto_answer()
    told = ctx.call_moto()
    for row in told.get("Snapshots") or []:
        making = pending.get(row["SnapshotId"])
        if making is not None:
            row["State"], row["Progress"] = "pending", f"{making.percent(ctx.at)}%"
    wanted = _filters(params).get("status")
    if wanted:
        told["Snapshots"] = [row for row in told["Snapshots"] if row["State"] in wanted]
    return _paged(ctx, params, told, "Snapshots")
