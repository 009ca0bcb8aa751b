"""What do Auto Scaling groups, target groups, alarms, rules, images and organizations look like in moto?

The second half of `estate.py`: the services `autoscaling`, `elbv2`, `cloudwatch`, `events`, `ec2` and `organizations` read and
move moto's models here and nowhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.events.models import events_backends
from moto.iam.models import iam_backends
from moto.organizations.models import organizations_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from moto.ssm.models import ssm_backends

from awsim import estate

# --- Auto Scaling groups ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An instance of a group as moto knows it."""

    id: str
    lifecycle: str
    health: str
    protected: bool
    zone: str
    subnet: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    name: str
    arn: str
    least: int
    most: int
    desired: int
    health_check: str
    grace: int
    suspended: frozenset[str]
    target_groups: tuple[str, ...]
    template_id: str | None
    template_name: str | None
    template_version: str | None
    """As the group names it: a number, `$Latest`, `$Default`; None without a launch template."""
    _states: list[Any] = field(repr=False)
    _members: list[tuple[Member, ...]] = field(default_factory=list, repr=False, compare=False)

    @property
    def members(self) -> tuple[Member, ...]:
        """Made when first asked for: most questions about a large group are not about its members."""
        if not self._members:
            self._members.append(tuple(_member(state) for state in self._states))
        return self._members[0]


def group_names(account: str, region: str) -> list[str]:
    if account not in autoscaling_backends:
        return []
    return list(autoscaling_backends[account][region].autoscaling_groups)


def group(account: str, region: str, name: str) -> Group | None:
    found = autoscaling_backends[account][region].autoscaling_groups.get(name)
    if found is None:
        return None
    template = found.ec2_launch_template
    return Group(
        name=found.name,
        arn=found.arn,
        least=int(found.min_size or 0),
        most=int(found.max_size or 0),
        desired=int(found.desired_capacity or 0),
        health_check=found.health_check_type,
        grace=int(found.health_check_grace_period or 0),
        suspended=frozenset(row["ProcessName"] for row in found.suspended_processes),
        target_groups=tuple(found.target_group_arns or ()),
        template_id=template.id if template is not None else None,
        template_name=template.name if template is not None else None,
        template_version=str(found.launch_template_version) if template is not None else None,
        _states=list(found.instance_states),
    )


def member(account: str, region: str, name: str, identifier: str) -> Member | None:
    """One instance of a group, as it is now."""
    found = autoscaling_backends[account][region].autoscaling_groups.get(name)
    states = found.instance_states if found is not None else ()
    return next((_member(state) for state in states if state.instance.id == identifier), None)


def _member(state: Any) -> Member:
    return Member(
        id=state.instance.id,
        lifecycle=state.lifecycle_state,
        health=state.health_status,
        protected=bool(state.protected_from_scale_in),
        zone=str(state.instance.placement.zone or ""),
        subnet=str(state.instance.subnet_id or ""),
    )


def asks_balancers(account: str, region: str, name: str) -> bool:
    """Whether the group's health checks include those of its load balancers."""
    found = autoscaling_backends[account][region].autoscaling_groups.get(name)
    return found is not None and found.health_check_type == "ELB"


def set_lifecycle(account: str, region: str, name: str, identifier: str, lifecycle: str) -> None:
    for state in autoscaling_backends[account][region].autoscaling_groups[name].instance_states:
        if state.instance.id == identifier:
            state.lifecycle_state = lifecycle


def launch(account: str, region: str, name: str, *, profile: str | None, number: int) -> str:
    """One more instance of a group, made by its present launch template; its id. Subnets are taken in turn."""
    found = autoscaling_backends[account][region].autoscaling_groups[name]
    subnets = found.vpc_zone_identifier
    before = {state.instance.id for state in found.instance_states}
    if subnets:
        several = subnets.split(",")
        found.vpc_zone_identifier = several[number % len(several)]
    with estate.quick_look_ups(account, region):
        try:
            found.replace_autoscaling_group_instances(1, found.get_propagated_tags())
        finally:
            found.vpc_zone_identifier = subnets
        (identifier,) = {state.instance.id for state in found.instance_states} - before
        ec2 = ec2_backends[account][region]
        if profile and identifier not in ec2.iam_instance_profile_associations:
            ec2.associate_iam_instance_profile(identifier, iam_instance_profile_arn=profile)
    return str(identifier)


def zones_of(account: str, region: str, name: str) -> list[str]:
    """The zone of each subnet of a group, in the order that `launch` takes them."""
    subnets = autoscaling_backends[account][region].autoscaling_groups[name].vpc_zone_identifier
    return [str(ec2_backends[account][region].get_subnet(one).availability_zone) for one in (subnets or "").split(",") if one]


def terminate(account: str, region: str, name: str, identifier: str) -> None:
    """Take an instance out of its group and end it; nobody launches another one."""
    found = autoscaling_backends[account][region].autoscaling_groups.get(name)
    if found is not None:
        found.instance_states = [state for state in found.instance_states if state.instance.id != identifier]
    elbv2_backends[account][region].notify_terminate_instances([identifier])
    with estate.quick_look_ups(account, region):
        ec2_backends[account][region].terminate_instances([identifier])


@contextmanager
def only_the_number(account: str, region: str, name: str) -> Iterator[None]:
    """While moto carries out a call, a new desired capacity is but a number: whoever uses this launches and terminates."""
    found: Any = autoscaling_backends[account][region].autoscaling_groups[name]
    found.set_desired_capacity = lambda capacity: setattr(found, "desired_capacity", capacity)
    try:
        yield
    finally:
        del found.set_desired_capacity


@contextmanager
def without_replacement(account: str, region: str, names: set[str]) -> Iterator[None]:
    """While moto terminates instances, these groups keep them as members until a health check finds them."""
    scaling: Any = autoscaling_backends[account][region]
    all_groups = scaling.autoscaling_groups
    scaling.autoscaling_groups = {name: group for name, group in all_groups.items() if name not in names}
    try:
        yield
    finally:
        scaling.autoscaling_groups = all_groups


def refresh_balancers(account: str, region: str, name: str) -> None:
    """Classic load balancers know exactly the members in service."""
    autoscaling_backends[account][region].update_attached_elbs(name)


def group_of(account: str, region: str, identifier: str) -> str | None:
    return estate.group_of(account, region, identifier)


def machine(account: str, region: str, identifier: str) -> estate.Machine | None:
    return estate.machine(account, region, identifier)


def set_image(account: str, region: str, identifier: str, image: str) -> None:
    """The instance runs from a root volume of another image now."""
    instance = estate.instances_of(ec2_backends[account][region]).get(identifier)
    if instance is not None:
        instance.image_id = image


def set_desired(account: str, region: str, name: str, desired: int) -> None:
    """Only the number; whoever calls launches and terminates."""
    autoscaling_backends[account][region].autoscaling_groups[name].desired_capacity = desired


def use_template(account: str, region: str, name: str, template: dict[str, Any]) -> None:
    found = autoscaling_backends[account][region].autoscaling_groups[name]
    found._set_launch_configuration("", template, None)


@contextmanager
def with_template(account: str, region: str, name: str, template: dict[str, Any] | None) -> Iterator[None]:
    """While a refresh runs, new instances are made by its desired configuration and the group still shows its old one."""
    found = autoscaling_backends[account][region].autoscaling_groups.get(name)
    if found is None or template is None:
        yield
        return
    fields = ("ec2_launch_template", "launch_template_version", "provided_launch_template_version")
    old = {field: getattr(found, field, None) for field in fields}
    use_template(account, region, name, template)
    try:
        yield
    finally:
        for field, value in old.items():
            setattr(found, field, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A lifecycle hook of a group."""

    name: str
    transition: str
    timeout: float
    default_result: str


def hooks(account: str, region: str, name: str, transition: str | None = None) -> list[Hook]:
    return [
        Hook(
            name=str(found.name),
            transition=str(found.lifecycle_transition),
            timeout=float(found.heartbeat_timeout),
            default_result=str(found.default_result),
        )
        for found in autoscaling_backends[account][region].lifecycle_hooks.values()
        if found.auto_scaling_group_name == name and transition in (None, found.lifecycle_transition)
    ]


def make_hook(
    account: str, region: str, name: str, *, hook: str, transition: str, timeout: int | None, result: str | None
) -> None:
    autoscaling_backends[account][region].create_lifecycle_hook(hook, name, transition, timeout, result or "ABANDON")


def keep_of_hook(account: str, region: str, name: str, before: Hook, said: set[str]) -> None:
    """An update of a hook leaves what it does not say; moto falls back to the defaults."""
    found = autoscaling_backends[account][region].lifecycle_hooks[f"{name}_{before.name}"]
    if "LifecycleTransition" not in said:
        found.lifecycle_transition = before.transition
    if "HeartbeatTimeout" not in said:
        found.heartbeat_timeout = int(before.timeout)
    if "DefaultResult" not in said:
        found.default_result = before.default_result


def send_message(target: str, body: str) -> None:
    """To a queue or a topic, by its ARN."""
    _, _, service, region, account, name = target.split(":", 5)
    if service == "sqs":
        sqs_backends[account][region].send_message(name, body)
    else:
        sns_backends[account][region].publish(message=body, arn=target)


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateVersion:
    id: str
    name: str
    number: int
    image: str
    profile: str | None


def template_version(account: str, region: str, specification: dict[str, Any]) -> TemplateVersion | None:
    """The numbered version that `$Latest`, `$Default`, a number or nothing means now; None when there is none."""
    ec2 = ec2_backends[account][region]
    identifier = specification.get("LaunchTemplateId")
    if not identifier:
        identifier = ec2.launch_template_name_to_ids.get(specification.get("LaunchTemplateName", ""))
    template = ec2.launch_templates.get(identifier) if identifier else None
    wanted = str(specification.get("Version") or "$Default")
    if template is None or not (wanted.lower() in ("$latest", "$default") or wanted.isdigit()):
        return None
    if wanted.isdigit() and not 1 <= int(wanted) <= len(template.versions):
        return None
    version = template.get_version(wanted)
    given = version.data.get("IamInstanceProfile") or {}
    return TemplateVersion(
        id=template.id,
        name=template.name,
        number=version.number,
        image=version.image_id,
        profile=_profile_arn(account, given),
    )


def inherit_template_version(account: str, region: str, identifier: str, number: int, source: str) -> dict[str, Any]:
    """A new version has all of its source version that it does not say otherwise; moto leaves that out. The complete data."""
    template = ec2_backends[account][region].launch_templates[identifier]
    made = template.versions[number - 1]
    wanted = {"$latest": number - 1, "$default": template.default_version_number}.get(source.lower())
    base = template.versions[(wanted if wanted is not None else int(source)) - 1]
    made.data = {**base.data, **made.data}
    made.instance_tags = {**base.instance_tags, **made.instance_tags}
    return dict(made.data)


def _profile_arn(account: str, given: dict[str, Any]) -> str | None:
    if given.get("Arn"):
        return str(given["Arn"])
    name = given.get("Name")
    found = next((one for one in iam_backends[account]["aws"].instance_profiles.values() if one.name == name), None)
    return str(found.arn) if found is not None else None


def templated_profile(account: str, region: str, identifier: str) -> str | None:
    """The instance profile that an instance has by its launch template or launch configuration; moto forgets to attach it."""
    ec2, tags = ec2_backends[account][region], estate.tags_of(account, region, identifier)
    made_by = {"LaunchTemplateId": tags.get("aws:ec2launchtemplate:id"), "Version": tags.get("aws:ec2launchtemplate:version")}
    template = template_version(account, region, made_by)
    profile = template.profile if template is not None else None
    group = autoscaling_backends[account][region].autoscaling_groups.get(tags.get("aws:autoscaling:groupName", ""))
    if profile is None and group is not None and group.launch_config is not None:
        named = str(group.launch_config.iam_instance_profile or "")
        profile = _profile_arn(account, {"Arn": named} if named.startswith("arn:") else {"Name": named})
    if profile is None or identifier in ec2.iam_instance_profile_associations:
        return profile
    with suppress(Exception):  # a profile that IAM does not know makes nobody a managed node
        ec2.associate_iam_instance_profile(identifier, iam_instance_profile_arn=profile)
        return profile
    return None


def group_profile(account: str, region: str, name: str) -> str | None:
    """The instance profile of a group's launch configuration, or of one of its instances."""
    found = autoscaling_backends[account][region].autoscaling_groups[name]
    associations = ec2_backends[account][region].iam_instance_profile_associations
    for state in found.instance_states:
        association = associations.get(state.instance.id)
        if association is not None:
            return str(association.iam_instance_profile.arn)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmPool:
    least: int
    most: int | None
    state: str


def warm_pool(account: str, region: str, name: str) -> WarmPool | None:
    found = autoscaling_backends[account][region].autoscaling_groups[name].warm_pool
    if found is None:
        return None
    return WarmPool(
        least=int(found.min_size or 0),
        most=found.max_group_prepared_capacity if found.max_group_prepared_capacity not in (None, -1) else None,
        state=found.pool_state or "Stopped",
    )


def launch_warm(account: str, region: str, name: str, *, stopped: bool, profile: str | None, number: int) -> str:
    """An instance beside the group, kept by its warm pool; its id."""
    found = autoscaling_backends[account][region].autoscaling_groups[name]
    identifier = launch(account, region, name, profile=profile, number=number)
    found.instance_states = [state for state in found.instance_states if state.instance.id != identifier]
    if stopped:
        ec2_backends[account][region].stop_instances([identifier])
    return identifier


# --- target groups ---


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetGroup:
    arn: str
    delay: int
    interval: int
    timeout: int
    healthy_threshold: int
    unhealthy_threshold: int
    in_use: bool
    targets: dict[str, int]
    """Instance id -> port."""


def target_group(account: str, region: str, arn: str) -> TargetGroup | None:
    if account not in elbv2_backends:
        return None
    found = elbv2_backends[account][region].target_groups.get(arn)
    if found is None:
        return None
    return TargetGroup(
        arn=found.arn,
        delay=int(found.attributes.get("deregistration_delay.timeout_seconds") or 0),
        interval=int(found.health_check_interval_seconds or 30),
        timeout=int(found.health_check_timeout_seconds or 5),
        healthy_threshold=int(found.healthy_threshold_count or 5),
        unhealthy_threshold=int(found.unhealthy_threshold_count or 2),
        in_use=bool(found.load_balancer_arns),
        targets={identifier: int(target["Port"] or 0) for identifier, target in found.targets.items()},
    )


def target_groups(account: str, region: str) -> list[str]:
    return list(elbv2_backends[account][region].target_groups) if account in elbv2_backends else []


def target_groups_with(account: str, region: str, identifier: str) -> list[str]:
    """The target groups that an instance is registered with."""
    if account not in elbv2_backends:
        return []
    groups = elbv2_backends[account][region].target_groups.values()
    return [str(group.arn) for group in groups if identifier in group.targets]


def target_group_named(account: str, region: str, part: str) -> str | None:
    """The ARN for the value of the dimension TargetGroup (`targetgroup/name/id`)."""
    return next((arn for arn in target_groups(account, region) if arn.endswith(f":{part}")), None)


def register_target(account: str, region: str, arn: str, identifier: str) -> bool:
    found = elbv2_backends[account][region].target_groups.get(arn)
    if found is None or identifier in found.targets:
        return False
    found.register([{"Id": identifier, "Port": found.port}])
    return True


def deregister_target(account: str, region: str, arn: str, identifier: str) -> bool:
    found = elbv2_backends[account][region].target_groups.get(arn)
    if found is None or identifier not in found.targets:
        return False
    found.deregister([{"Id": identifier}])
    return True


def make_target_group(account: str, region: str, *, name: str, vpc: str, subnets: tuple[str, ...], port: int, delay: int) -> str:
    """A target group behind a load balancer of the same name, with a listener, so that its targets are in use."""
    elb, ec2 = elbv2_backends[account][region], ec2_backends[account][region]
    group_made = elb.create_target_group(name=name, vpc_id=vpc, protocol="HTTP", port=str(port), healthcheck_path="/")
    group_made.attributes["deregistration_delay.timeout_seconds"] = str(delay)
    security = ec2.create_security_group(f"{name}-lb", f"load balancer of {name}", vpc_id=vpc)
    balancer = elb.create_load_balancer(name, [security.id], list(subnets))
    elb.create_listener(
        load_balancer_arn=balancer.arn,
        protocol="HTTP",
        port=str(port),
        ssl_policy=None,
        certificate=None,
        actions=[{"Type": "forward", "TargetGroupArn": group_made.arn}],
    )
    return str(group_made.arn)


def attach_target_group(account: str, region: str, name: str, arn: str) -> None:
    autoscaling_backends[account][region].autoscaling_groups[name].append_target_groups([arn])


# --- alarms ---


def alarm(account: str, region: str, name: str) -> Any | None:
    """moto's alarm (metric or composite) of that name."""
    if account not in cloudwatch_backends:
        return None
    return cloudwatch_backends[account][region].alarms.get(name)


def set_alarm(account: str, region: str, name: str, *, state: str, reason: str, at: float) -> None:
    found = alarm(account, region, name)
    if found is None:
        return
    found.update_state(reason, "{}", state)
    found.state_updated_timestamp = datetime.fromtimestamp(round(at, 3), tz=UTC).replace(tzinfo=None)


def make_alarm(account: str, region: str, *, name: str, description: str) -> None:
    """An alarm of a metric that the world does not measure: its state changes when a fault says so."""
    cloudwatch_backends[account][region].put_metric_alarm(
        name=name,
        namespace="awsim",
        metric_name=name,
        comparison_operator="GreaterThanThreshold",
        evaluation_periods=1,
        period=60,
        threshold=0.0,
        statistic="Maximum",
        description=description,
        dimensions=[],
        alarm_actions=[],
    )


# --- parameters and calendars ---


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterVersion:
    version: int
    type: str
    description: str


def parameters(account: str, region: str) -> dict[str, ParameterVersion]:
    """The newest version of each parameter that callers put."""
    if account not in ssm_backends or region not in ssm_backends[account]:
        return {}
    stored = dict.items(ssm_backends[account][region]._parameters)  # items() would load those that AWS publishes
    return {
        name: ParameterVersion(
            version=int(versions[-1].version),
            type=str(versions[-1].parameter_type),
            description=str(versions[-1].description or ""),
        )
        for name, versions in stored
        if versions and not name.startswith("/aws/")
    }


def parameter_value(account: str, region: str, name: str) -> str | None:
    """AWS's public parameters, too."""
    found = ssm_backends[account][region].get_parameter(name)
    return str(found.value) if found is not None else None


def put_parameter(account: str, region: str, name: str, value: str, *, data_type: str) -> None:
    """A new version of a parameter, made if there is none."""
    ssm_backends[account][region].put_parameter(
        name=name,
        description="",
        value=value,
        parameter_type="String",
        allowed_pattern="",
        keyid="",
        overwrite=True,
        tags=[],
        data_type=data_type,
        tier=None,
        policies=None,
    )


def change_calendars(account: str, region: str) -> dict[str, str]:
    """Name and content of each change calendar."""
    if account not in ssm_backends or region not in ssm_backends[account]:
        return {}
    newest = ((name, kept.get_default_version()) for name, kept in ssm_backends[account][region]._documents.items())
    return {name: str(found.content) for name, found in newest if found.document_type == "ChangeCalendar"}


# --- events ---


def listening() -> list[tuple[str, str]]:
    """The cells whose default bus has an enabled rule with a target."""
    return [
        (account, region)
        for account in list(events_backends)
        for region in list(events_backends[account])
        if listens(account, region)
    ]


def listens(account: str, region: str) -> bool:
    """Whether any rule of the cell's default bus is enabled."""
    if account not in events_backends or region not in events_backends[account]:
        return False
    bus = events_backends[account][region].event_buses.get("default")
    return bus is not None and any(rule.state == "ENABLED" and rule.targets for rule in bus.rules.values())


def deliver_event(account: str, region: str, event: dict[str, Any]) -> None:
    bus = events_backends[account][region].event_buses["default"]
    for rule in list(bus.rules.values()):
        if rule.state != "ENABLED" or not rule.event_pattern.get_pattern():
            continue
        transformed = any(target.get("InputTransformer") for target in rule.targets)
        given = {**event, "ingestion-time": event["time"]} if transformed else dict(event)
        with suppress(Exception):  # a target that is gone is nobody's failure but the rule's
            rule.send_to_targets(given, transform_input=transformed)


# --- images, volumes ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    id: str
    name: str
    platform: str
    source: str | None
    """The instance it was made of."""
    owner: str


def image(account: str, region: str, identifier: str) -> Image | None:
    if account not in ec2_backends or region not in ec2_backends[account]:
        return None
    found = ec2_backends[account][region].amis.get(identifier)
    if found is None:
        return None
    source = getattr(found, "instance", None)
    return Image(
        id=found.id,
        name=str(found.name or ""),
        platform=str(found.platform or ""),
        source=getattr(source, "id", None),
        owner=str(found.owner_id),
    )


def date_image(account: str, region: str, identifier: str, at: datetime) -> None:
    """An image is made at the world's time, and not at that of the machine on which it is simulated."""
    ec2_backends[account][region].amis[identifier].creation_date = at.replace(tzinfo=None)  # moto's convention


def image_named(account: str, region: str, part: str) -> str | None:
    """An AMI whose name begins so."""
    amis = ec2_backends[account][region].amis.values()
    return next((str(one.id) for one in amis if str(one.name or "").startswith(part)), None)


def is_deregistered(account: str, region: str, identifier: str) -> bool:
    if account not in ec2_backends or region not in ec2_backends[account]:
        return False
    return identifier in ec2_backends[account][region].deleted_amis


def is_region(region: str) -> bool:
    return region in ec2_backends[estate.DEFAULT_ACCOUNT_ID].regions


def make_image(
    account: str,
    region: str,
    *,
    name: str,
    description: str | None,
    platform: str,
    tags: dict[str, str],
    users: tuple[str, ...],
    at: float,
) -> str:
    """An AMI that a service of AWS registers; its id. Its snapshot carries the same tags."""
    ec2 = ec2_backends[account][region]
    made = ec2.register_image(name=name, description=description)
    made.creation_date = made.ebs_snapshot.start_time = datetime.fromtimestamp(round(at, 3), tz=UTC).replace(tzinfo=None)
    made.platform = "windows" if platform == "Windows" else None
    made.architecture, made.virtualization_type, made.root_device_type = "x86_64", "hvm", "ebs"
    made.add_tags(tags)
    made.ebs_snapshot.add_tags(tags)
    made.launch_permissions += [{"UserId": user} for user in users]
    return str(made.id)


def snapshots_of(account: str, region: str, image: str) -> list[str]:
    """The snapshots that an AMI is made of."""
    found = ec2_backends[account][region].amis.get(image)
    return [str(found.ebs_snapshot.id)] if found is not None else []


def delete_snapshot(account: str, region: str, snapshot: str) -> None:
    with suppress(Exception):  # somebody deleted it before
        ec2_backends[account][region].delete_snapshot(snapshot)


def use_image_in_template(account: str, region: str, identifier: str, image: str, *, default: bool) -> bool:
    """A new version of a launch template, like its default one but for the AMI; False when there is no such template."""
    template = ec2_backends[account][region].launch_templates.get(identifier)
    if template is None:
        return False
    made = template.create_version({**template.default_version().data, "ImageId": image}, "by EC2 Image Builder")
    if default:
        template.default_version_number = made.number
    return True


def holder(account: str, region: str, volume: str) -> str | None:
    """The instance that a volume is attached to."""
    found = ec2_backends[account][region].volumes.get(volume)
    attachment = getattr(found, "attachment", None)
    return str(attachment.instance.id) if attachment is not None else None


def snapshot_volume(account: str, region: str, snapshot: str) -> tuple[str, int] | None:
    """Volume id and size in GiB of a snapshot."""
    found = ec2_backends[account][region].snapshots.get(snapshot)
    volume = getattr(found, "volume", None)
    return (str(volume.id), int(volume.size or 8)) if volume is not None else None


def image_of(account: str, region: str, identifier: str) -> str:
    """The image that an instance was launched from; empty for none."""
    instance = estate.instances_of(ec2_backends[account][region]).get(identifier)
    return str(instance.image_id or "") if instance is not None else ""


def root_volume(account: str, region: str, identifier: str) -> str | None:
    instance = estate.instances_of(ec2_backends[account][region]).get(identifier)
    device = instance.block_device_mapping.get(instance.root_device_name) if instance is not None else None
    return str(device.volume_id) if device is not None else None


def replace_root(account: str, region: str, identifier: str, snapshot: str | None, *, delete: bool) -> str | None:
    """Attach a volume of a snapshot in the place of an instance's root volume; its id, or None without such a volume."""
    ec2 = ec2_backends[account][region]
    instance = estate.instances_of(ec2).get(identifier)
    had = root_volume(account, region, identifier)
    if instance is None or had is None:
        return None
    old, device = ec2.volumes[had], instance.root_device_name
    new = ec2.create_volume(size=old.size, zone_name=old.zone.name, snapshot_id=snapshot, volume_type=old.volume_type)
    ec2.detach_volume(had, identifier, device)
    ec2.attach_volume(new.id, identifier, device)
    if delete:
        del ec2.volumes[had]
    return str(new.id)


# --- organizations, roles ---


def make_organization(management: str, name: str, members: list[tuple[str, str]], *, since: float) -> None:
    """An organization of the first account since a moment; each member is (id, name)."""
    organizations_backends.master_accounts.clear()
    backend = organizations_backends[management]["aws"]
    backend.create_organization("us-east-1", FeatureSet="ALL")
    backend.accounts[0].name = name or "management"
    for identifier, name in members:
        created = backend.create_account(AccountName=name, Email=f"aws+{identifier}@example.com")
        made = backend.accounts[-1]
        made_as = created["CreateAccountStatus"]["AccountId"]
        made.id = identifier
        organizations_backends.master_accounts.pop(made_as, None)
        organizations_backends.master_accounts[identifier] = (management, "aws")
    for number, account in enumerate(backend.accounts):
        account.create_time = datetime.fromtimestamp(since + number, tz=UTC).replace(tzinfo=None)


def management_account(account: str) -> str | None:
    """The management account of the organization that an account belongs to."""
    if account in organizations_backends and organizations_backends[account]["aws"].org is not None:
        return account
    found = organizations_backends.master_accounts.get(account)
    return str(found[0]) if found is not None else None


def is_delegated(management: str, account: str) -> bool:
    return any(admin.account.id == account for admin in organizations_backends[management]["aws"].admins)


def organization_accounts(management: str) -> list[dict[str, Any]]:
    """As ListAccounts tells them."""
    backend = organizations_backends[management]["aws"]
    path = f"{backend.org.id}/{backend.org.root_id}"
    return [
        {
            **account.describe(),
            "JoinedTimestamp": account.create_time.replace(tzinfo=UTC),
            "Paths": [f"{path}/{account.id}/"],
        }
        for account in backend.accounts
    ]


def has_role(account: str, name: str) -> bool:
    if account not in iam_backends:
        return False
    roles = iam_backends[account]["aws"].roles.values()
    return any(role.name == name for role in roles)


def role_limit(account: str, name: str) -> int | None:
    """Seconds that a session of a role may last; None for a role that IAM does not know."""
    if account not in iam_backends:
        return None
    for role in iam_backends[account]["aws"].roles.values():
        if role.name == name:
            return int(role.max_session_duration or 3600)
    return None


def is_session(access_key: str) -> bool:
    """Whether the key was made by AssumeRole: the next one is chained."""
    for partitions in list(iam_backends.values()):
        for backend in list(partitions.values()):
            key = backend.access_keys.get(access_key)
            if key is not None:
                return bool(getattr(key, "role_arn", None))
    return False
