"""How does an image come about? Its states on the virtual clock, the AMIs that it ends in, and what is on them.

`begin` starts a build (by a pipeline or by CreateImage); each state passes by itself, unless a fault or CancelImageCreation ends
it. The packages are those of the moment at which BUILDING begins: with a component that updates, everything that is released and
in the repositories; otherwise the parent's. AMIs are registered in moto's EC2 of each region and account that the distribution
names, the build's own at the end of BUILDING. Everybody is told by EventBridge and by the journal.
"""

import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from awsim import groups
from awsim.clock import iso
from awsim.faults import Kind
from awsim.host import Host
from awsim.journal import Cause, Event
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import ec2, events
from awsim.services.imagebuilder import resources
from awsim.services.imagebuilder.resources import Resources
from awsim.services.inspector2 import accounts as inspector
from awsim.services.inspector2.sightings import vulnerable_at
from awsim.world import ImageContent, World

STATES = ("PENDING", "CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING")
"""Those that pass; AVAILABLE, FAILED and CANCELLED stay."""
CANCELLING = 20.0
"""Seconds from CancelImageCreation until the image says so."""

_REASONS = {
    "PENDING": "The image could not be started. Rate exceeded (Service: AmazonSSM; Status Code: 400).",
    "CREATING": "The build instance could not be launched: insufficient capacity.",
    "BUILDING": "SSM execution failed with status = 'Failed' and failure message = 'A build component failed!'",
    "TESTING": "SSM execution failed with status = 'Failed' during testing and failure message = 'A test component failed!'",
    "DISTRIBUTING": "The distribution of the AMI failed.",
    "INTEGRATING": "The integration of the output resources failed.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One AMI of an image."""

    account: str
    region: str
    ami: str
    name: str
    description: str | None


@dataclass(kw_only=True, slots=True, eq=False)
class Build:
    """One image build version."""

    arn: str
    version: str
    number: int
    account: str
    region: str
    recipe: dict[str, Any]
    infrastructure: dict[str, Any]
    distribution: dict[str, Any] | None
    pipeline: dict[str, Any] | None
    tests: dict[str, Any]
    scanning: dict[str, Any]
    tags: dict[str, str]
    enhanced: bool
    created: float
    cause: Cause
    status: str = "PENDING"
    reason: str | None = None
    failure: dict[str, Any] | None = None
    began: dict[str, float] = field(default_factory=dict)
    """When each state began."""
    cancelled: float | None = None
    """When its cancellation was asked for."""
    content: ImageContent | None = None
    outputs: list[Output] = field(default_factory=list)
    scan: str | None = None
    scan_reason: str | None = None
    disk: Host | None = None
    """The image as a machine that never runs, for questions of what is on it."""
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe["name"])

    @property
    def over(self) -> bool:
        return self.status not in STATES


@on_world
def attach(world: World) -> None:
    def made_by(account: str, region: str, image: str) -> str | None:
        build = world.state(account, region, Origins).of.get(image)
        return _pipeline(build) if build is not None else None

    world.pipeline_of = made_by


@dataclass(slots=True, eq=False)
class Origins:
    """AMI of a cell -> the build that made it."""

    of: dict[str, Build] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Builds:
    """Images of a cell by build version ARN, oldest first, and how many there were of each version."""

    of: dict[str, Build] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


def find(world: World, account: str, region: str, wanted: str) -> Build | None:
    """By build version ARN; one without build number, or with `x`, means the newest that is available."""
    kept = world.state(account, region, Builds).of
    if wanted in kept:
        return kept[wanted]
    stem, _, version = wanted.rpartition("/")
    if version.count(".") != 2:
        return None
    meant = [
        build
        for build in kept.values()
        if build.status == "AVAILABLE" and build.arn.rsplit("/", 2)[0] == stem and resources.fits(build.version, version)
    ]
    return max(meant, key=lambda build: (resources.versions_in_order(build.version), build.number), default=None)


def ami_of(world: World, account: str, region: str, wanted: str) -> str | None:
    """The AMI of an own image in this cell, for recipes that start from it."""
    build = find(world, account, region, wanted)
    here = [output.ami for output in build.outputs if (output.account, output.region) == (account, region)] if build else []
    return here[0] if here else None


# --- the life of a build ---


def begin(
    ctx: Context, recipe_arn: str, params: dict[str, Any], *, pipeline: dict[str, Any] | None, tags: dict[str, str]
) -> Build:
    """A new build version; `params` names configurations as a pipeline does."""
    kept, builds = ctx.state(Resources), ctx.state(Builds)
    recipe = resources.newest(kept.recipes, recipe_arn)
    if recipe is None:
        raise AwsError("InvalidRequestException", f"The recipe {recipe_arn} does not exist.")
    stem = resources.arn(ctx.account, ctx.region, "image", recipe["name"], recipe["version"])
    number = builds.numbers[stem] = builds.numbers.get(stem, 0) + 1
    enhanced = params.get("enhancedImageMetadataEnabled")
    build = Build(
        arn=f"{stem}/{number}",
        version=recipe["version"],
        number=number,
        account=ctx.account,
        region=ctx.region,
        recipe=recipe,
        infrastructure=deepcopy(kept.infrastructures[params["infrastructureConfigurationArn"]]),
        distribution=deepcopy(kept.distributions.get(params.get("distributionConfigurationArn") or "")),
        pipeline=pipeline,
        tests={**resources.DEFAULT_TESTS, **(params.get("imageTestsConfiguration") or {})},
        scanning=params.get("imageScanningConfiguration") or {},
        tags=tags,
        enhanced=True if enhanced is None else bool(enhanced),
        created=ctx.at,
        cause=Cause(request_id=ctx.request_id),
        scan="PENDING" if (params.get("imageScanningConfiguration") or {}).get("imageScanningEnabled") else None,
    )
    builds.of[build.arn] = build
    if pipeline is not None:
        pipeline["dateLastRun"] = iso(ctx.at)
    _enter(ctx.world, build, "PENDING")
    return build


def _enter(world: World, build: Build, status: str) -> None:
    """The build is in a state from now on; the next one follows by itself."""
    before = build.status if build.began else None
    build.status = status
    build.began[status] = world.now
    if build.pipeline is not None:
        build.pipeline["lastRunStatus"] = status
        if build.over:
            failed = build.pipeline.get("consecutiveFailures", 0) + 1 if status == "FAILED" else 0
            build.pipeline["consecutiveFailures"] = failed
    _tell(world, build, before)
    if status == "BUILDING":
        build.content = _made(world, build)
    if status == "TESTING":
        _scan_begins(world, build)
    if not build.over:
        world.at(world.now + _takes(world, build, status), lambda _: _pass(world, build, status))


def _tell(world: World, build: Build, before: str | None) -> None:
    amis = {f"{output.account} {output.region}": output.ami for output in build.outputs} if build.over else {}
    world.record_managed(
        build.arn,
        Event.IMAGE_STATE,
        account=build.account,
        region=build.region,
        tags=build.tags,
        operation="Build",
        cause=build.cause,
        pipeline=build.pipeline["name"] if build.pipeline else None,
        status=build.status,
        reason=build.reason,
        amis=amis,
    )
    events.emit(
        world,
        build.account,
        build.region,
        source="aws.imagebuilder",
        detail_type="EC2 Image Builder Image State Change",
        resources=[build.arn],
        detail={**({"previous-state": {"status": before}} if before else {}), "state": {"status": build.status}},
    )


def _takes(world: World, build: Build, status: str) -> float:
    """Seconds that a state lasts: no tests are quickly over, and a scan is part of testing."""
    timings = world.image_timings
    chance = world.random("image", build.arn, status)
    if status != "TESTING":
        return float(getattr(timings, status.lower()).draw(chance))
    tested = timings.testing.draw(chance) if build.tests.get("imageTestsEnabled") else 1.0
    return float(tested + (timings.scan.draw(world.random("image", build.arn, "scan")) if build.scan is not None else 0.0))


def _pass(world: World, build: Build, status: str) -> None:
    """A state is over, unless the build ended before."""
    if build.status != status or build.cancelled is not None:
        return
    fault = world.faults.take_image(Kind.IMAGE_BUILD_FAILS, _pipeline(build), build.account, build.region, image_state=status)
    if fault is not None:
        _fail(world, build, _REASONS[status])
        return
    if status == "CREATING" and _parent(world, build) is None:
        _fail(world, build, f"The parent image {build.recipe['parentImage']} does not exist or cannot be used.")
        return
    if status == "BUILDING":
        build.outputs.append(_register(world, build, build.account, build.region, _own_settings(build)))
    if status == "TESTING" and build.scan is not None:
        _scan_ends(world, build)
    if status == "DISTRIBUTING" and not _distribute(world, build):
        return
    _enter(world, build, (*STATES, "AVAILABLE")[STATES.index(status) + 1])


def _pipeline(build: Build) -> str | None:
    return str(build.pipeline["name"]) if build.pipeline is not None else None


def _fail(world: World, build: Build, reason: str, **context: Any) -> None:
    build.reason = reason
    build.failure = {"imageStatus": build.status, **context}
    if build.scan not in (None, "COMPLETED"):
        build.scan, build.scan_reason = "ABANDONED", "The image build did not complete."
    _enter(world, build, "FAILED")


def cancel(world: World, build: Build) -> None:
    """AMIs that there are by then stay."""
    build.cancelled = world.now

    def gone(_: float) -> None:
        if not build.over:
            build.reason = "The image creation was cancelled."
            if build.scan not in (None, "COMPLETED"):
                build.scan, build.scan_reason = "ABANDONED", build.reason
            _enter(world, build, "CANCELLED")

    world.at(world.now + CANCELLING, gone)


# --- what is on it ---


def _parent(world: World, build: Build) -> str | None:
    return resources.parent_of(world, build.account, build.region, build.recipe["parentImage"])


def _made(world: World, build: Build) -> ImageContent:
    """The parent's packages, brought up to date when a component does that."""
    parent = _parent(world, build)
    content = ec2.content(world, build.account, build.region, parent) if parent is not None else None
    assert content is not None  # CREATING fails without a parent
    build.disk = world.disk(build.arn, build.account, build.region, content)
    if not resources.updates(world, build.account, build.region, build.recipe):
        return content
    seen = build.disk.sees_until()
    levels = dict(content.levels)
    for name, package in build.disk.platform.packages.items():
        there = [one.level for one in package.updates if world.available(one, build.disk) and one.released < seen]
        levels[name] = max(levels.get(name, 0), *there, 0)
    build.disk.levels = levels
    return ImageContent(template=content.template, levels=dict(levels))


# --- the scan ---


def _scan_begins(world: World, build: Build) -> None:
    if build.scan is None:
        return
    if inspector.scanning_since(world, build.account, build.region) is None:
        build.scan, build.scan_reason = "FAILED", "Amazon Inspector is not enabled for EC2 in this account and Region."
        return
    build.scan = "SCANNING"


def _scan_ends(world: World, build: Build) -> None:
    """Inspector's findings of this moment are kept with the image and never looked at again."""
    if build.scan != "SCANNING" or build.disk is None:
        return
    if world.faults.take_image(Kind.IMAGE_SCAN_FAILS, _pipeline(build), build.account, build.region):
        build.scan, build.scan_reason = "TIMED_OUT", "The scan of the image did not complete in time."
        return
    from awsim.services.imagebuilder import scans

    found = vulnerable_at(world, build.disk, world.now)
    build.findings = [scans.finding(world, build, cve, packages) for cve, packages in found.values()]
    fault = world.faults.take_image(Kind.IMAGE_SCAN_FINDS, _pipeline(build), build.account, build.region)
    if fault is not None:
        build.findings.append(scans.injected(world, build, fault.cve))
    build.scan = "COMPLETED"


# --- AMIs ---


def _own_settings(build: Build) -> dict[str, Any]:
    """How the distribution wants the AMI of the build's own region."""
    rows = (build.distribution or {}).get("distributions") or []
    found: dict[str, Any] = next((row for row in rows if row["region"] == build.region), {})
    settings: dict[str, Any] = found.get("amiDistributionConfiguration") or {}
    return settings


def _distribute(world: World, build: Build) -> bool:
    """An AMI for each region and account that has none yet; False when one could not be made, and the build has failed."""
    failures: list[dict[str, Any]] = []
    for row in (build.distribution or {}).get("distributions") or []:
        settings: dict[str, Any] = row.get("amiDistributionConfiguration") or {}
        for account in dict.fromkeys([build.account, *(settings.get("targetAccountIds") or [])]):
            made = next((out for out in build.outputs if (out.account, out.region) == (account, row["region"])), None)
            fault = world.faults.take_image(
                Kind.IMAGE_DISTRIBUTION_FAILS, _pipeline(build), account, build.region, to_region=row["region"]
            )
            if fault is not None or not groups.is_region(row["region"]):
                failures.append(_region_failure(row["region"], account))
                continue
            if made is None:
                made = _register(world, build, account, row["region"], settings)
                build.outputs.append(made)
            failures += _hand_out(world, row, made)
    if failures:
        regions = ", ".join(dict.fromkeys(failure["region"] for failure in failures))
        reason = f"Distribution failed with the following errors: the AMI could not be copied to {regions}."
        _fail(world, build, reason, distributionFailure={"errorMessage": reason, "regionFailures": failures})
    return not failures


def _region_failure(region: str, account: str) -> dict[str, Any]:
    return {
        "region": region,
        "status": "FAILED",
        "errorMessage": f"The AMI could not be copied to {region}.",
        "targetAccountId": account,
    }


def _hand_out(world: World, row: dict[str, Any], made: Output) -> list[dict[str, Any]]:
    """New versions of launch templates and parameters, where the distribution wants them; failures where that cannot be."""
    failures = []
    for wanted in row.get("launchTemplateConfigurations") or []:
        named, default = wanted["launchTemplateId"], bool(wanted.get("setDefaultVersion"))
        meant = wanted.get("accountId") in (None, made.account)
        if meant and not groups.use_image_in_template(made.account, made.region, named, made.ami, default=default):
            failures.append(_region_failure(made.region, made.account))
    for wanted in row.get("ssmParameterConfigurations") or []:
        if wanted.get("amiAccountId") in (None, made.account):
            kind = wanted.get("dataType") or "text"
            groups.put_parameter(made.account, made.region, wanted["parameterName"], made.ami, data_type=kind)
    return failures


def _register(world: World, build: Build, account: str, region: str, settings: dict[str, Any]) -> Output:
    name = settings.get("name") or f"{build.name} {{{{ imagebuilder:buildDate }}}}"
    description = settings.get("description") or build.recipe.get("description")
    tags = {"CreatedBy": "EC2 Image Builder", "Ec2ImageBuilderArn": build.arn, **build.recipe.get("amiTags", {})}
    permission = settings.get("launchPermission") or {}
    spelled = _named(name, build, world.now)
    identifier = groups.make_image(
        account,
        region,
        name=spelled,
        description=description,
        platform=str(build.recipe["platform"]),
        tags={**tags, **{key: _named(value, build, world.now) for key, value in (settings.get("amiTags") or {}).items()}},
        users=tuple(permission.get("userIds") or ()),
        at=world.now,
    )
    assert build.content is not None
    ec2.keep(world, account, region, identifier, build.content)
    world.state(account, region, Origins).of[identifier] = build
    world.record_managed(
        build.arn,
        Event.IMAGE_REGISTERED,
        account=account,
        region=region,
        tags=build.tags,
        operation="Build",
        cause=build.cause,
        pipeline=_pipeline(build),
        ami=identifier,
    )
    return Output(account=account, region=region, ami=identifier, name=spelled, description=description)


_DATE = re.compile(r"\{\{\s*imagebuilder:build(Date|Version)\s*\}\}")


def _named(text: str, build: Build, now: float) -> str:
    """`{{ imagebuilder:buildDate }}` and `buildVersion`, as AWS fills them in."""
    date = iso(now).replace(":", "-")
    return _DATE.sub(lambda found: date if found.group(1) == "Date" else str(build.number), text)


# --- operations ---


@operation("imagebuilder", "StartImagePipelineExecution")
def start_image_pipeline_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A disabled pipeline starts as well; one that is building does not."""

    def start() -> dict[str, Any]:
        pipeline = ctx.state(Resources).pipelines.get(params["imagePipelineArn"])
        if pipeline is None:
            raise resources.missing(params["imagePipelineArn"])
        busy = next((one for one in ctx.state(Builds).of.values() if one.pipeline is pipeline and not one.over), None)
        if busy is not None:
            raise AwsError("ResourceInUseException", f"The image pipeline {pipeline['arn']} is in use: it builds {busy.arn}.")
        tags = params.get("tags") or pipeline.get("imageTags") or {}
        build = begin(ctx, pipeline["imageRecipeArn"], pipeline, pipeline=pipeline, tags=tags)
        return {"imageBuildVersionArn": build.arn}

    return resources.once(ctx, params, start)


@operation("imagebuilder", "CreateImage")
def create_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    def start() -> dict[str, Any]:
        resources.check_parts(ctx, params)
        build = begin(ctx, params["imageRecipeArn"], params, pipeline=None, tags=params.get("tags") or {})
        return {"imageBuildVersionArn": build.arn}

    return resources.once(ctx, params, start)


@operation("imagebuilder", "CancelImageCreation")
def cancel_image_creation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Asked for now, done a little later."""

    def stop() -> dict[str, Any]:
        build = need(ctx, params["imageBuildVersionArn"])
        if build.over:
            raise AwsError("InvalidRequestException", f"The image {build.arn} is {build.status} and cannot be cancelled.")
        if build.cancelled is None:
            cancel(ctx.world, build)
        return {"imageBuildVersionArn": build.arn}

    return resources.once(ctx, params, stop)


@operation("imagebuilder", "DeleteImage")
def delete_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The record goes, AMIs stay."""
    build = need(ctx, params["imageBuildVersionArn"])
    if not build.over:
        raise AwsError("ResourceInUseException", f"The image {build.arn} is {build.status}.")
    del ctx.state(Builds).of[build.arn]
    return {"requestId": ctx.request_id, "imageBuildVersionArn": build.arn}


def need(ctx: Context, arn: str) -> Build:
    found = find(ctx.world, ctx.account, ctx.region, arn)
    if found is None:
        raise resources.missing(arn)
    return found
