"""Which instances, Auto Scaling groups, baselines and documents exist in moto? The only module that knows its models.

The world creates its machines here (directly in moto's backends: one HTTP call a host would take minutes for a large fleet),
and looks up here what callers did to them since.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.config.models import config_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.base_backend import AccountSpecificBackend, BackendDict
from moto.core.model_instances import reset_model_data
from moto.ec2 import utils as ec2_utils
from moto.ec2.models import ec2_backends
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.tags import TagBackend
from moto.iam.models import iam_backends
from moto.moto_api._internal import mock_random
from moto.s3.models import s3_backends
from moto.ssm.models import FakePatchGroup, ssm_backends

GROUP_TAG = "aws:autoscaling:groupName"
__all__ = ["DEFAULT_ACCOUNT_ID", "GROUP_TAG"]


_search_all_tags = TagBackend.describe_tags


def _tags_of_one(tags: Any, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
    """moto searches the tags of everything for each instance that it describes: a minute for 5,000 of them."""
    wanted = (filters or {}).get("resource-id", [])
    if len(filters or {}) != 1 or len(wanted) != 1 or wanted[0] not in tags.tags:
        return _search_all_tags(tags, filters)
    one = TagBackend()
    one.tags[wanted[0]] = tags.tags[wanted[0]]
    return _search_all_tags(one, filters)


TagBackend.describe_tags = _tags_of_one


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What moto knows of an instance."""

    id: str
    state: str
    image: str
    profile: str | None
    zone: str
    vpc: str | None
    subnet: str | None
    address: str
    instance_type: str
    launched: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    vpc: str
    subnets: tuple[str, ...]
    profile_arn: str
    images: dict[str, str]
    further: tuple[tuple[str, ...], ...] = ()
    """Subnets of further VPCs, where there are more machines than one VPC has addresses."""

    def subnets_for(self, machines: int) -> tuple[str, ...]:
        """Where the next machine of a cell goes that has so many already."""
        return (self.subnets, *self.further)[min(machines // MACHINES_IN_A_VPC, len(self.further))]


MACHINES_IN_A_VPC = 40_000


def reset(seed: int) -> None:
    """An empty AWS; ids follow from the seed."""
    ec2_backends.clear()  # each reset of one loads its thousands of images again, wanted or not
    BackendDict.reset()
    reset_model_data()
    AccountSpecificBackend._generate_regions.cache_clear()  # these two would keep all dropped backends alive
    Subnet._base_avail_ip_iterator.cache_clear()
    mock_random.seed(seed)


def random_uuid() -> str:
    return str(mock_random.uuid4())


def account_of_key(access_key: str) -> str | None:
    """The account that issued an access key; None for a key that moto never issued (then the world's first account is meant)."""
    for account, partitions in list(iam_backends.items()):
        for backend in list(partitions.values()):
            if access_key in backend.access_keys:
                return str(account)
    return None


def build_network(
    account: str, region: str, images: dict[str, str], *, images_made_at: datetime, zones: int = 3, machines: int = 0
) -> Network:
    """A VPC (more, for very many machines) with a subnet in each of up to three zones, a profile, and an image a platform."""
    ec2 = ec2_backends[account][region]
    vpc = ec2.create_vpc(cidr_block="10.20.0.0/16")
    names = [zone.name for zone in ec2.describe_availability_zones()][:zones]
    subnets = _subnets(ec2, vpc.id, 20, names)
    further = tuple(
        _subnets(ec2, ec2.create_vpc(cidr_block=f"10.{block}.0.0/16").id, block, names)
        for block in range(21, 21 + max(0, machines - 1) // MACHINES_IN_A_VPC)
    )
    registered = {}
    for platform, name in sorted(images.items()):
        made = ec2.register_image(name=name, description=f"awsim {platform}")
        made.creation_date = images_made_at.replace(tzinfo=None)  # moto's convention
        registered[platform] = made.id
    return Network(vpc=vpc.id, subnets=subnets, profile_arn=_instance_profile(account), images=registered, further=further)


def _subnets(ec2: Any, vpc: str, block: int, zones: list[str]) -> tuple[str, ...]:
    return tuple(
        str(ec2.create_subnet(vpc_id=vpc, cidr_block=f"10.{block}.{64 * number}.0/18", availability_zone=name).id)
        for number, name in enumerate(zones)
    )


def _instance_profile(account: str) -> str:
    iam = iam_backends[account]["aws"]
    name = "awsim-managed-instance"
    if name not in {profile.name for profile in iam.instance_profiles.values()}:
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
        }
        iam.create_role(name, json.dumps(trust), "/", None, "", [], "3600")
        profile = iam.create_instance_profile(name, "/", [])
        iam.add_role_to_instance_profile(name, name)
        return str(profile.arn)
    return f"arn:aws:iam::{account}:instance-profile/{name}"


@contextmanager
def building(account: str, region: str) -> Iterator[None]:
    """While a fleet is made, moto makes ids at once, not digit by digit, and looks nothing up by going through all."""
    ec2 = ec2_backends[account][region]
    digit_by_digit = ec2_utils.random_resource_id
    known: dict[str, Any] = {}

    def get_instance(instance_id: str) -> Any:
        if instance_id not in known:
            known.update({instance.id: instance for instance in next(reversed(ec2.reservations.values())).instances})
        return known[instance_id] if instance_id in known else type(ec2).get_instance(ec2, instance_id)

    def describe_volumes(volume_ids: list[str] | None = None, filters: Any = None) -> list[Any]:
        if volume_ids and not filters and all(identifier in ec2.volumes for identifier in volume_ids):
            return [ec2.volumes[identifier] for identifier in volume_ids]
        found: list[Any] = type(ec2).describe_volumes(ec2, volume_ids, filters)
        return found

    ec2.get_instance, ec2.describe_volumes = get_instance, describe_volumes
    ec2_utils.random_resource_id = lambda size=8: f"{mock_random.getrandbits(4 * size):0{size}x}"
    try:
        yield
    finally:
        del ec2.get_instance, ec2.describe_volumes
        ec2_utils.random_resource_id = digit_by_digit


def instances_of(ec2: Any) -> dict[str, Any]:
    """moto's instances by id; moto itself goes through all of them (copying every reservation) for each look."""
    known: dict[str, Any] = ec2.__dict__.setdefault("_awsim_instances", {})
    number: int = ec2.__dict__.get("_awsim_reservations", 0)
    if number != len(ec2.reservations):
        newest = islice(reversed(ec2.reservations.values()), max(0, len(ec2.reservations) - number))
        known.update({instance.id: instance for reservation in newest for instance in reservation.instances})
        ec2._awsim_reservations = len(ec2.reservations)
    return known


@contextmanager
def quick_look_ups(account: str, region: str) -> Iterator[None]:
    """While Auto Scaling moves single instances of a large cell, moto finds instances, images and volumes by their id."""
    ec2 = ec2_backends[account][region]
    kind = type(ec2)

    def get_instance(instance_id: str) -> Any:
        known = instances_of(ec2)
        return known[instance_id] if instance_id in known else kind.get_instance(ec2, instance_id)

    def get_multi_instances_by_id(instance_ids: list[str], filters: Any = None) -> list[Any]:
        known = instances_of(ec2)
        if filters is None and all(identifier in known for identifier in instance_ids):
            return [known[identifier] for identifier in instance_ids]
        found: list[Any] = kind.get_multi_instances_by_id(ec2, instance_ids, filters)
        return found

    def describe_images(ami_ids: list[str] | None = None, filters: Any = None, *arguments: Any, **named: Any) -> list[Any]:
        asked = ami_ids or ((filters or {}).get("image-id") if set(filters or {}) == {"image-id"} else None)
        if isinstance(asked, str):
            asked = [asked]
        if asked and not (ami_ids and filters) and not arguments and not named and all(one in ec2.amis for one in asked):
            return [ec2.amis[identifier] for identifier in asked]
        found: list[Any] = kind.describe_images(ec2, ami_ids, filters, *arguments, **named)
        return found

    def describe_volumes(volume_ids: list[str] | None = None, filters: Any = None) -> list[Any]:
        if volume_ids and not filters and all(identifier in ec2.volumes for identifier in volume_ids):
            return [ec2.volumes[identifier] for identifier in volume_ids]
        found: list[Any] = kind.describe_volumes(ec2, volume_ids, filters)
        return found

    quick = (get_instance, get_multi_instances_by_id, describe_images, describe_volumes)
    for function in quick:
        setattr(ec2, function.__name__, function)
    try:
        yield
    finally:
        for function in quick:
            delattr(ec2, function.__name__)


def launch(
    account: str,
    region: str,
    network: Network,
    *,
    subnets: tuple[str, ...],
    platform: str,
    instance_type: str,
    tags: dict[str, str],
    number: int,
    zones: int,
    launched: float,
) -> str:
    """One running instance; its id."""
    ec2 = ec2_backends[account][region]
    image = network.images[platform]
    known = ec2.amis[image]
    ec2.describe_images = lambda *_, **__: [known]  # moto searches thousands of images for each new instance
    try:
        reservation = ec2.run_instances(
            image,
            1,
            None,
            [],
            instance_type=instance_type,
            is_instance_type_default=True,  # spares the search in the table of offerings
            region_name=region,
            subnet_id=subnets[number % min(zones, len(subnets))],
            tags={},
        )
    finally:
        del ec2.describe_images
    instance = reservation.instances[0]
    instance.launch_time = datetime.fromtimestamp(launched, tz=UTC).replace(tzinfo=None)
    ec2.tags[instance.id].update(tags)
    return str(instance.id)


def attach_profile(account: str, region: str, network: Network, ids: list[str]) -> None:
    ec2 = ec2_backends[account][region]
    for identifier in ids:
        if identifier not in ec2.iam_instance_profile_associations:
            ec2.associate_iam_instance_profile(identifier, iam_instance_profile_arn=network.profile_arn)


def stop(account: str, region: str, identifier: str) -> None:
    ec2_backends[account][region].stop_instances([identifier])


def group_up(
    account: str,
    region: str,
    network: Network,
    *,
    name: str,
    least: int,
    most: int,
    health_check: str,
    image: str,
    instance_type: str,
    ids: list[str],
    tags: dict[str, str],
) -> None:
    """A real Auto Scaling group of existing instances, made by a launch template; what it launches gets the tags, too."""
    ec2, scaling = ec2_backends[account][region], autoscaling_backends[account][region]
    template = ec2.create_launch_template(name, "", _template_data(network, image, instance_type), {})
    scaling.create_auto_scaling_group(
        name=name,
        availability_zones=[],
        desired_capacity=0,
        max_size=most,
        min_size=0,
        launch_config_name=None,
        launch_template={"LaunchTemplateId": template.id, "Version": "1"},
        vpc_zone_identifier=",".join(network.subnets),
        default_cooldown=300,
        health_check_period=300,
        health_check_type=health_check,
        load_balancers=[],
        target_group_arns=[],
        placement_group=None,
        termination_policies=["Default"],
        tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()],
    )
    scaling.attach_instances(name, ids)
    scaling.autoscaling_groups[name].min_size = least


def _template_data(network: Network, image: str, instance_type: str) -> dict[str, Any]:
    return {"ImageId": image, "InstanceType": instance_type, "IamInstanceProfile": {"Arn": network.profile_arn}}


def machines(account: str, region: str) -> Iterator[Machine]:
    """Every instance of a cell, terminated ones included as long as moto keeps them."""
    if account not in ec2_backends or region not in ec2_backends[account]:
        return
    ec2 = ec2_backends[account][region]
    profiles = _profiles(ec2)
    for reservation in list(ec2.reservations.values()):
        for instance in reservation.instances:
            yield _machine(instance, profiles)


def machine(account: str, region: str, identifier: str) -> Machine | None:
    if account not in ec2_backends or region not in ec2_backends[account]:
        return None
    ec2 = ec2_backends[account][region]
    instance = instances_of(ec2).get(identifier)
    if instance is None:
        return None
    association = ec2.iam_instance_profile_associations.get(identifier)
    profile = {identifier: str(getattr(association.iam_instance_profile, "arn", ""))} if association is not None else {}
    return _machine(instance, profile)


def _profiles(ec2: Any) -> dict[str, str]:
    associations = ec2.iam_instance_profile_associations
    return {key: str(getattr(found.iam_instance_profile, "arn", "")) for key, found in associations.items()}


def _machine(instance: Any, profiles: dict[str, str]) -> Machine:
    launch_time = instance.launch_time
    launched = launch_time.replace(tzinfo=UTC).timestamp() if isinstance(launch_time, datetime) else 0.0
    own = instance.iam_instance_profile
    return Machine(
        id=instance.id,
        state=instance._state.name,
        image=instance.image_id or "",
        zone=instance.placement.zone or "",
        profile=profiles.get(instance.id) or (str(getattr(own, "arn", own)) if own else None),
        vpc=instance.vpc_id,
        subnet=instance.subnet_id,
        address=str(instance.private_ip or ""),
        instance_type=instance.instance_type,
        launched=launched,
    )


def tags_of(account: str, region: str, identifier: str) -> dict[str, str]:
    if account not in ec2_backends:
        return {}
    tags = ec2_backends[account][region].tags
    return dict(tags[identifier]) if identifier in tags else {}


def group_of(account: str, region: str, identifier: str) -> str | None:
    """The Auto Scaling group that an instance belongs to now."""
    if account not in autoscaling_backends:
        return None
    for group in autoscaling_backends[account][region].autoscaling_groups.values():
        if any(state.instance.id == identifier for state in group.instance_states):
            return str(group.name)
    return None


def members(account: str, region: str) -> dict[str, str]:
    """Instance -> Auto Scaling group, of all groups of a cell."""
    if account not in autoscaling_backends:
        return {}
    groups = autoscaling_backends[account][region].autoscaling_groups.values()
    return {str(state.instance.id): str(group.name) for group in groups for state in group.instance_states}


def change_group(account: str, region: str, name: str, change: int, replaced: int) -> None:
    """Somebody scales the group by `change`, or, with 0, its health check replaces the first `replaced` instances."""
    scaling = autoscaling_backends[account][region]
    group = scaling.autoscaling_groups.get(name)
    if group is None:
        return
    if change:
        wanted = max(0, (group.desired_capacity or 0) + change)
        group.max_size, group.min_size = max(group.max_size or 0, wanted), min(group.min_size or 0, wanted)
        group.set_desired_capacity(wanted)
        return
    for state in list(group.instance_states)[:replaced]:
        scaling.terminate_instance(state.instance.id, False)


def set_alarm(account: str, region: str, name: str, state: str) -> None:
    """A CloudWatch alarm changes its state; one that does not exist does nothing."""
    if name in cloudwatch_backends[account][region].alarms:
        cloudwatch_backends[account][region].set_alarm_state(name, "set by a fault", "{}", state)


def create_baseline(account: str, region: str, *, groups: list[str], **definition: Any) -> str:
    ssm = ssm_backends[account][region]
    identifier = ssm.create_patch_baseline(
        approved_patches=[],
        approved_patches_compliance_level="UNSPECIFIED",
        approved_patches_enable_non_security=False,
        rejected_patches_action="ALLOW_AS_DEPENDENCY",
        sources=[],
        tags=[],
        global_filters={"PatchFilters": []},
        **definition,
    )
    for group in groups:
        register_group(account, region, group, definition["operating_system"], str(identifier))
    return str(identifier)


def register_group(account: str, region: str, group: str, operating_system: str, baseline_id: str) -> None:
    """moto's own registration refuses a second operating system for a group; AWS takes one baseline an operating system."""
    groups = ssm_backends[account][region].patch_groups
    if group not in groups:
        groups[group] = FakePatchGroup(group, region)
    groups[group].associations[operating_system] = baseline_id


def baseline(account: str, region: str, identifier: str) -> dict[str, Any] | None:
    """A baseline that somebody created, in the shape of moto's own answer."""
    found = ssm_backends[account][region].baselines.get(identifier)
    return found.to_json() if found is not None else None


def baseline_groups(account: str, region: str, identifier: str) -> list[str]:
    groups = ssm_backends[account][region].patch_groups
    return sorted(name for name, group in groups.items() if identifier in group.associations.values())


def patch_groups(account: str, region: str) -> dict[str, dict[str, str]]:
    """Patch group -> operating system -> baseline id, for the groups that are registered."""
    defaults = default_baselines(region)
    groups = ssm_backends[account][region].patch_groups
    return {
        name: {system: found for system, found in group.associations.items() if found != defaults.get(system)}
        for name, group in groups.items()
    }


@cache
def default_baselines(region: str) -> dict[str, str]:
    """Operating system -> ARN of AWS's own default baseline."""
    from moto.utilities.utils import load_resource

    return dict(load_resource("ssm/resources/default_baselines.json").get(region, {})) if _has_defaults() else {}


@cache
def _has_defaults() -> bool:
    try:
        from moto.utilities.utils import load_resource

        load_resource("ssm/resources/default_baselines.json")
    except FileNotFoundError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigRule:
    """A rule of AWS Config."""

    name: str
    arn: str
    id: str
    source_identifier: str
    parameters: dict[str, str] = field(default_factory=dict)


def create_config_rule(account: str, region: str, name: str, source_identifier: str) -> None:
    """A managed rule, and the running recorder that it needs."""
    config = config_backends[account][region]
    if not config.recorders:
        role = f"arn:aws:iam::{account}:role/aws-service-role/config.amazonaws.com/AWSServiceRoleForConfig"
        config.put_configuration_recorder({"name": "default", "roleARN": role})
        config.put_delivery_channel({"name": "default", "s3BucketName": f"config-bucket-{account}"})
        config.start_configuration_recorder("default")
    config.put_config_rule({"ConfigRuleName": name, "Source": {"Owner": "AWS", "SourceIdentifier": source_identifier}})


def config_rules(account: str, region: str) -> dict[str, ConfigRule]:
    """By name; custom rules have the ARN of their function as source identifier."""
    if account not in config_backends:
        return {}
    return {
        name: ConfigRule(
            name=name,
            arn=rule.config_rule_arn,
            id=rule.config_rule_id,
            source_identifier=rule.source.source_identifier or "",
            parameters={key: str(value) for key, value in (rule.input_parameters_dict or {}).items()},
        )
        for name, rule in sorted(config_backends[account][region].config_rules.items())
    }


def document(account: str, region: str, name: str, version: str | None = None) -> dict[str, Any] | None:
    """A Command or Automation document that somebody created: `Name`, `DocumentType`, `Content` (parsed), `Version`.

    `version`: a number, `$LATEST`, or `$DEFAULT` (None too); None is the answer to a version that does not exist, too.
    """
    found = ssm_backends[account][region]._documents.get(name)
    if found is None:
        return None
    stored = found.get_default_version() if version in (None, "", "$DEFAULT") else found.find(version, strict=False)
    if stored is None:
        return None
    content = stored.content_json if hasattr(stored, "content_json") else json.loads(stored.content)
    return {"Name": name, "DocumentType": stored.document_type, "Content": content, "Version": stored.document_version}


def create_bucket(account: str, name: str) -> None:
    """An empty bucket of S3; nothing if somebody has one of that name."""
    if name not in s3_backends.bucket_accounts:
        s3_backends[account]["aws"].create_bucket(name, "us-east-1")


def s3_object(account: str, bucket: str, key: str) -> bytes | None:
    try:
        found = s3_backends[account]["aws"].get_object(bucket, key)
    except Exception:  # noqa: BLE001 - moto raises a class a reason; to the host they are all "cannot download"
        return None
    return bytes(found.value) if found is not None else None
