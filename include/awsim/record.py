"""Which world file makes a fleet like the one of a real account? `python -m awsim record --region R --out FILE`.

Reads with Describe, List and Get calls only (a client that is asked for another call refuses it), and writes a world in which
nothing identifies the account: account, instance and other ids, ARNs, names of hosts and addresses are not in it. What is kept:
how many hosts of which OS and type, tags (without Name and AWS's own; `--tags` keeps the named ones only), agents' state, how
much is missing, Auto Scaling and target groups, own patch baselines, managed Config rules.
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from awsim.catalogue import shipped
from awsim.world import templates_of
from awsim.world_file import Fleet, load

ACCOUNT = "111111111111"
_READS = re.compile(r"(Describe|List|Get)[A-Z]")
_IDS = re.compile(
    r"arn:aws[\w-]*:\S+|\b(?:i|ami|vpc|subnet|sg|vol|snap|eni|lt|pb|mw|mi|igw|rtb)-[0-9a-f]{8,17}\b|\b\d{12}\b"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b|\bip-\d+-\d+-\d+-\d+\b"
)


class NotReadOnly(Exception):
    """A call that could change something was about to be made."""


_IMAGES = (
    (r"al2023-ami", "amazon-linux-2023"),
    (r"amzn2-ami", "amazon-linux-2"),
    (r"ubuntu.*22\.04", "ubuntu-22.04"),
    (r"ubuntu.*24\.04", "ubuntu-24.04"),
    (r"RHEL-9", "rhel-9"),
    (r"Windows_Server-2022", "windows-server-2022"),
)
"""What the names of published images tell of hosts that SSM does not list (stopped ones, for instance)."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """One instance as the account tells it; masked already."""

    os: str
    type: str
    tags: dict[str, str]
    group: str | None
    state: str
    ping: str | None
    missing: int | None
    agent: str | None
    coverage: str | None

    @property
    def template(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.os}-{self.type}".lower())


@dataclass(kw_only=True, slots=True)
class Recorder:
    session: Any
    endpoint: str | None
    kept_tags: frozenset[str] | None
    notes: list[str] = field(default_factory=list)

    def client(self, service: str, region: str) -> Any:
        client = self.session.client(service, region_name=region, endpoint_url=self.endpoint)
        client.meta.events.register("before-call.*", _refuse_writes)
        return client

    def pages(self, service: str, region: str, operation: str, key: str, **params: Any) -> list[Any]:
        """All rows of a list; none, and a note, where the caller may not ask."""
        try:
            pages = self.client(service, region).get_paginator(operation).paginate(**params)
            return [row for page in pages for row in page.get(key) or []]
        except (ClientError, BotoCoreError) as refused:
            self.notes.append(f"{region}: {service} {operation} told nothing: {refused}")
            return []

    def hosts(self, region: str) -> list[Seen]:
        reservations = self.pages("ec2", region, "describe_instances", "Reservations")
        instances = [row for part in reservations for row in part["Instances"] if row["State"]["Name"] in ("running", "stopped")]
        ids = [row["InstanceId"] for row in instances]
        nodes = {
            row["InstanceId"]: row
            for row in self.pages("ssm", region, "describe_instance_information", "InstanceInformationList")
        }
        states: dict[str, Any] = {}
        for start in range(0, len(ids), 50):
            some = ids[start : start + 50]
            rows = self.pages("ssm", region, "describe_instance_patch_states", "InstancePatchStates", InstanceIds=some)
            states.update({row["InstanceId"]: row for row in rows})
        covered = {
            row["resourceId"]: row["scanStatus"]
            for row in self.pages("inspector2", region, "list_coverage", "coveredResources")
            if row.get("resourceType") == "AWS_EC2_INSTANCE"
        }
        unknown = sorted({row["ImageId"] for row in instances if row["InstanceId"] not in nodes})
        filters = [{"Name": "image-id", "Values": unknown[:200]}]
        rows = self.pages("ec2", region, "describe_images", "Images", Filters=filters) if unknown else []
        images = {row["ImageId"]: row.get("Name", "") for row in rows}
        return [
            self._seen(row, nodes.get(row["InstanceId"]), states.get(row["InstanceId"]), covered, images) for row in instances
        ]

    def _seen(self, row: dict[str, Any], node: Any, state: Any, covered: dict[str, Any], images: dict[str, str]) -> Seen:
        tags = {tag["Key"]: tag["Value"] for tag in row.get("Tags") or []}
        scan = covered.get(row["InstanceId"], {})
        failing = ("MissingCount", "FailedCount", "InstalledRejectedCount", "InstalledPendingRebootCount")
        return Seen(
            os=self._os(row, node, images.get(row["ImageId"], "")),
            type=row.get("InstanceType", "t3.medium"),
            tags={masked(key): masked(value) for key, value in sorted(tags.items()) if self._kept(key)},
            group=tags.get("aws:autoscaling:groupName"),
            state=row["State"]["Name"],
            ping=node["PingStatus"] if node else None,
            missing=sum(state.get(name) or 0 for name in failing) if state else None,
            agent=node.get("AgentVersion") if node else None,
            coverage=scan.get("reason") if scan.get("statusCode") == "INACTIVE" else None,
        )

    def _kept(self, key: str) -> bool:
        if key.startswith("aws:") or key == "Name":
            return False
        return self.kept_tags is None or key in self.kept_tags or key in ("Patch Group", "PatchGroup")

    def _os(self, row: dict[str, Any], node: Any, image: str) -> str:
        name, version = (node.get("PlatformName", ""), node.get("PlatformVersion", "")) if node else ("", "")
        for key, platform in shipped().platforms.items():
            family = platform.name.partition(" 2022")[0]
            wanted = (
                platform.version.partition(".")[0] if platform.operating_system == "REDHAT_ENTERPRISE_LINUX" else platform.version
            )
            if name.startswith(family) and (version == wanted or version.startswith(f"{wanted}.")):
                return key
        told = next((key for pattern, key in _IMAGES if re.search(pattern, image)), None)
        if told is not None:
            return told
        guess = "windows-server-2022" if row.get("Platform") == "windows" else "amazon-linux-2023"
        known = f"{name} {version}".strip() or "an operating system that SSM does not know"
        self.notes.append(f"a host with {known} is recorded as {guess}")
        return guess

    def groups(self, region: str) -> dict[str, dict[str, Any]]:
        rows = self.pages("autoscaling", region, "describe_auto_scaling_groups", "AutoScalingGroups")
        return {row["AutoScalingGroupName"]: row for row in rows}

    def target_group(self, region: str, arn: str) -> dict[str, Any] | None:
        try:
            elb = self.client("elbv2", region)
            (row,) = elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"]
            attributes = elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        except (ClientError, BotoCoreError, ValueError) as refused:
            self.notes.append(f"{region}: a target group could not be read: {refused}")
            return None
        delay = next((one["Value"] for one in attributes if one["Key"] == "deregistration_delay.timeout_seconds"), "300")
        return {
            "name": slug(row["TargetGroupName"])[:32],
            "port": row.get("Port") or 80,
            "deregistration_delay": int(float(delay)),
        }

    def baselines(self, region: str) -> list[dict[str, Any]]:
        filters = [{"Key": "OWNER", "Values": ["Self"]}]
        found = []
        for row in self.pages("ssm", region, "describe_patch_baselines", "BaselineIdentities", Filters=filters):
            told = self.client("ssm", region).get_patch_baseline(BaselineId=row["BaselineId"])
            rules = [
                {
                    "filters": {one["Key"]: one["Values"] for one in rule["PatchFilterGroup"]["PatchFilters"]},
                    "approve_after_days": rule.get("ApproveAfterDays") or 0,
                    "compliance_level": rule.get("ComplianceLevel") or "UNSPECIFIED",
                    "enable_non_security": bool(rule.get("EnableNonSecurity")),
                }
                for rule in (told.get("ApprovalRules") or {}).get("PatchRules") or []
            ]
            found.append(
                {
                    "name": masked(told["Name"]),
                    "operating_system": told["OperatingSystem"],
                    "patch_groups": [masked(group) for group in told.get("PatchGroups") or []],
                    "rules": rules,
                    "rejected": told.get("RejectedPatches") or [],
                }
            )
        return found

    def config_rules(self, region: str) -> list[dict[str, Any]]:
        rows = self.pages("config", region, "describe_config_rules", "ConfigRules")
        return [
            {"name": masked(row["ConfigRuleName"]), "source_identifier": row["Source"]["SourceIdentifier"], "regions": [region]}
            for row in rows
            if row["Source"]["Owner"] == "AWS"
        ]

    def world(self, regions: list[str], name: str) -> dict[str, Any]:
        templates: dict[str, dict[str, Any]] = {}
        fleets: list[dict[str, Any]] = []
        baselines: dict[tuple[str, str], dict[str, Any]] = {}
        rules: list[dict[str, Any]] = []
        for region in regions:
            hosts = self.hosts(region)
            _add_templates(templates, hosts)
            groups = self.groups(region)
            for number, (key, members) in enumerate(_fleets(hosts).items(), start=1):
                fleets.append(self._fleet(region, number, key[0], members, groups))
            for baseline in self.baselines(region):
                baselines.setdefault((baseline["name"], baseline["operating_system"]), baseline)
            rules += self.config_rules(region)
        return {
            "name": name,
            "description": "recorded from an account; ids are masked",
            "accounts": [{"id": ACCOUNT, "name": "recorded"}],
            "regions": regions,
            **({"baselines": list(baselines.values())} if baselines else {}),
            **({"config_rules": rules} if rules else {}),
            "templates": templates or {"amazon-linux": {"os": "amazon-linux-2023"}},
            "fleets": fleets,
        }

    def _fleet(self, region: str, number: int, group: str | None, members: list[Seen], groups: dict[str, Any]) -> dict[str, Any]:
        fleet: dict[str, Any] = {
            "name": f"{slug(group).lower()[:40] if group else 'fleet'}-{region}-{number:02d}",
            "account": ACCOUNT,
            "region": region,
            "count": len(members),
            "mix": [{"template": name, "count": count} for name, count in Counter(host.template for host in members).items()],
            "tags": members[0].tags,
        }
        row = groups.get(group or "")
        if row is not None:
            fleet["auto_scaling_group"] = {
                "name": f"{slug(group or '')}-{number:02d}",
                "min": min(row["MinSize"], len(members)),
                "max": max(row["MaxSize"], len(members)),
                "health_check": "ELB" if row.get("HealthCheckType") == "ELB" else "EC2",
            }
            arn = next(iter(row.get("TargetGroupARNs") or []), None)
            service = self.target_group(region, arn) if arn else None
            if service is not None:
                fleet["target_group"] = service
        unlike = _exceptions(fleet, members)
        if unlike:
            fleet["exceptions"] = unlike
        if all(host.missing is None for host in members):
            fleet["scanned"] = False
        return fleet


def masked(text: str) -> str:
    """The text without ids, ARNs and addresses."""
    return _IDS.sub("masked", text)


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", masked(text)).strip("-") or "unnamed"


def _refuse_writes(model: Any, **_: Any) -> None:
    if _READS.match(model.name) is None:
        raise NotReadOnly(f"awsim record: {model.name} is no read-only call")


def _add_templates(templates: dict[str, dict[str, Any]], hosts: list[Seen]) -> None:
    missing: dict[str, list[int]] = defaultdict(list)
    for host in hosts:
        entry = templates.setdefault(host.template, {"os": host.os, "instance_type": host.type, "missing": {"count": [5, 12]}})
        if host.agent:
            entry.setdefault("agent_version", host.agent)
        if host.missing:
            missing[host.template].append(host.missing)
    for name, counts in missing.items():
        templates[name]["missing"] = {"count": [min(counts), max(counts)]}


def _fleets(hosts: list[Seen]) -> dict[tuple[str | None, tuple[tuple[str, str], ...]], list[Seen]]:
    """Hosts of one Auto Scaling group, or with the same tags, belong together."""
    found: dict[tuple[str | None, tuple[tuple[str, str], ...]], list[Seen]] = defaultdict(list)
    for host in hosts:
        found[host.group, () if host.group else tuple(host.tags.items())].append(host)
    return dict(sorted(found.items(), key=lambda item: (item[0][0] or "", item[0][1])))


def _exceptions(fleet: dict[str, Any], members: list[Seen]) -> list[dict[str, Any]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, template in enumerate(templates_of(Fleet.model_validate(fleet)), start=1):
        numbers[template].append(number)
    unlike = []
    for host in members:
        entry: dict[str, Any] = {"host": numbers[host.template].pop(0)}
        if host.state == "stopped":
            entry["state"] = "stopped"
        if host.ping is None and host.state == "running":
            entry["agent"] = "not_registered"
        elif host.ping == "ConnectionLost" and host.state == "running":
            entry["agent"] = "connection_lost"
        if host.missing == 0:
            entry["compliant"] = True
        if host.coverage:
            entry["inspector"] = {"covered": False, "reason": host.coverage}
        tags = {key: value for key, value in host.tags.items() if fleet["tags"].get(key) != value}
        if tags:
            entry["tags"] = tags
        if len(entry) > 1:
            unlike.append(entry)
    return sorted(unlike, key=lambda entry: int(entry["host"]))


def main(arguments: list[str] | None = None, session: Callable[..., Any] = boto3.Session) -> int:
    """Returns the exit status: 0, or 2 when the account could not be read or FILE could not be written."""
    options = _parser().parse_args(arguments)
    regions = list(dict.fromkeys(region for given in options.region for region in given.split(",")))
    kept = frozenset(options.tags.split(",")) if options.tags else None
    try:
        recorder = Recorder(session=session(profile_name=options.profile), endpoint=options.endpoint_url, kept_tags=kept)
        recorder.client("sts", regions[0]).get_caller_identity()
        recorded = recorder.world(regions, options.name)
    except (ClientError, BotoCoreError) as refused:
        print(f"awsim record: the account cannot be read: {refused}", file=sys.stderr)
        return 2
    head = "# Written by `python -m awsim record`. Nothing in here identifies the account; read it before you pass it on.\n"
    try:
        options.out.write_text(head + yaml.safe_dump(recorded, sort_keys=False, width=120), encoding="utf-8")
        world = load(options.out, shipped())
    except OSError as unwritable:
        print(f"awsim record: --out {options.out}: {unwritable.strerror}", file=sys.stderr)
        return 2
    except (ValueError, ValidationError) as odd:
        print(f"awsim record: {options.out} was written, but has to be mended by hand:\n{odd}", file=sys.stderr)
        return 2
    for note, times in Counter(recorder.notes).items():
        print(f"awsim record: {note}" + (f" ({times} times)" if times > 1 else ""), file=sys.stderr)
    print(f"{options.out}: {sum(fleet.count for fleet in world.fleets)} hosts in {len(world.fleets)} fleets")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m awsim record", description="Write a world file from a real account, with read-only calls; ids are masked."
    )
    parser.add_argument("--region", action="append", required=True, help="a region, or several with commas; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="the world file to write")
    parser.add_argument("--profile", help="profile of the AWS configuration; default: the environment's credentials")
    parser.add_argument("--endpoint-url", help="another endpoint than AWS, e.g. an awsim")
    parser.add_argument("--name", default="recorded", help="name of the world; default %(default)s")
    parser.add_argument("--tags", help="keep these tag keys only (with commas); patch groups are kept always")
    return parser
