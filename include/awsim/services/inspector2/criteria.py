"""Which findings do filter criteria mean, and in which order are they told?"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from awsim.estate import Machine
from awsim.registry import AwsError
from awsim.services.functions.functions import Function
from awsim.services.inspector2.functions import runtime_of
from awsim.services.inspector2.sightings import Sighting, Vulnerable

RANK = {"UNTRIAGED": 0, "INFORMATIONAL": 1, "LOW": 2, "MEDIUM": 3, "HIGH": 4, "CRITICAL": 5}


@lru_cache(maxsize=4096)
def parts_of(evr: str) -> tuple[int, str, str]:
    epoch, colon, rest = evr.partition(":")
    if not colon or not epoch.isdigit():
        return 0, evr, ""
    version, _, release = rest.partition("-")
    return int(epoch), version, release


def strings_hold(entries: list[dict[str, Any]], values: Iterable[str]) -> bool:
    """EQUALS and PREFIX are ORed, every NOT_EQUALS must hold."""
    present = [value for value in values if value]
    wanted = [entry for entry in entries if entry["comparison"] != "NOT_EQUALS"]
    for entry in entries:
        if entry["comparison"] == "NOT_EQUALS" and entry["value"] in present:
            return False
    return not wanted or any(
        value.startswith(entry["value"]) if entry["comparison"] == "PREFIX" else value == entry["value"]
        for entry in wanted
        for value in present
    )


def _epoch(when: Any) -> float:
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return float(when)


def dates_hold(entries: list[dict[str, Any]], value: float | None) -> bool:
    return value is not None and any(
        ("startInclusive" not in entry or _epoch(entry["startInclusive"]) <= value)
        and ("endInclusive" not in entry or value <= _epoch(entry["endInclusive"]))
        for entry in entries
    )


def numbers_hold(entries: list[dict[str, Any]], value: float | None) -> bool:
    return value is not None and any(
        entry.get("lowerInclusive", value) <= value <= entry.get("upperInclusive", value) for entry in entries
    )


def tags_hold(entries: list[dict[str, Any]], tags: dict[str, str]) -> bool:
    return any(entry["key"] in tags and ("value" not in entry or tags[entry["key"]] == entry["value"]) for entry in entries)


def _packages(entries: list[dict[str, Any]], packages: tuple[Vulnerable, ...]) -> bool:
    def meant(entry: dict[str, Any], package: Vulnerable) -> bool:
        epoch, version, release = parts_of(package.evr)
        facts = {
            "name": package.name,
            "version": version,
            "release": release,
            "architecture": package.arch.upper(),
            "filePath": package.path,
        }
        return all(
            numbers_hold([wanted], float(epoch)) if key == "epoch" else strings_hold([wanted], [facts.get(key, "")])
            for key, wanted in entry.items()
        )

    return any(meant(entry, package) for entry in entries for package in packages)


_STRING_FACTS: dict[str, Callable[[Sighting], str]] = {
    "findingArn": lambda sighting: sighting.arn,
    "awsAccountId": lambda sighting: sighting.host.account,
    "findingType": lambda sighting: sighting.type,
    "severity": lambda sighting: sighting.severity,
    "findingStatus": lambda sighting: sighting.status,
    "title": lambda sighting: sighting.title,
    "resourceType": lambda sighting: sighting.resource_type,
    "resourceId": lambda sighting: sighting.host.id,
    "vulnerabilityId": lambda sighting: sighting.cve.id if sighting.weakness is None else "",
    "vulnerabilitySource": lambda sighting: sighting.source,
    "vendorSeverity": lambda sighting: sighting.update.severity if sighting.update else "",
    "lambdaFunctionName": lambda sighting: sighting.host.name if isinstance(sighting.host, Function) else "",
    "lambdaFunctionRuntime": lambda sighting: runtime_of(sighting.host) if isinstance(sighting.host, Function) else "",
    "codeVulnerabilityDetectorName": lambda sighting: sighting.weakness.title if sighting.weakness else "",
    "codeVulnerabilityFilePath": lambda sighting: sighting.weakness.file if sighting.weakness else "",
    "fixAvailable": lambda sighting: sighting.fix,
    "exploitAvailable": lambda sighting: "YES" if sighting.cve.exploited else "NO",
    "cloudProvider": lambda _: "AWS",
    "cloudProviderAccountId": lambda sighting: sighting.host.account,
    "cloudProviderRegion": lambda sighting: sighting.host.region,
}
_MACHINE_FACTS: dict[str, Callable[[Machine], str | None]] = {
    "ec2InstanceImageId": lambda machine: machine.image,
    "ec2InstanceVpcId": lambda machine: machine.vpc,
    "ec2InstanceSubnetId": lambda machine: machine.subnet,
}
_DATE_FACTS: dict[str, Callable[[Sighting], float]] = {
    "firstObservedAt": lambda sighting: sighting.first,
    "lastObservedAt": lambda sighting: sighting.last,
    "updatedAt": lambda sighting: sighting.updated,
}
_NUMBER_FACTS: dict[str, Callable[[Sighting], float | None]] = {
    "inspectorScore": lambda sighting: sighting.cve.score,
    "epssScore": lambda sighting: sighting.cve.epss,
}


def passes(sighting: Sighting, criteria: dict[str, list[dict[str, Any]]], machines: dict[str, Machine]) -> bool:
    """Keys are ANDed. Keys of resources that this world does not have match nothing."""
    for key, entries in criteria.items():
        if key in _STRING_FACTS:
            held = strings_hold(entries, [_STRING_FACTS[key](sighting)])
        elif key in _DATE_FACTS:
            held = dates_hold(entries, _DATE_FACTS[key](sighting))
        elif key in _NUMBER_FACTS:
            held = numbers_hold(entries, _NUMBER_FACTS[key](sighting))
        elif key == "resourceTags":
            held = tags_hold(entries, sighting.host.tags())
        elif key == "vulnerablePackages":
            held = _packages(entries, sighting.packages)
        elif key in _MACHINE_FACTS:
            machine = machines.get(sighting.host.id)
            held = strings_hold(entries, [_MACHINE_FACTS[key](machine) or "" if machine else ""])
        else:
            held = all("comparison" in entry for entry in entries) and strings_hold(entries, [])
        if not held:
            return False
    return True


SORTS: dict[str, Callable[[Sighting], Any]] = {
    "FINDING_TYPE": lambda sighting: sighting.type,
    "RESOURCE_TYPE": lambda sighting: sighting.resource_type,
    "AWS_ACCOUNT_ID": lambda sighting: sighting.host.account,
    "SEVERITY": lambda sighting: RANK[sighting.severity],
    "FIRST_OBSERVED_AT": lambda sighting: sighting.first,
    "LAST_OBSERVED_AT": lambda sighting: sighting.last,
    "FINDING_STATUS": lambda sighting: sighting.status,
    "VULNERABILITY_ID": lambda sighting: sighting.cve.id,
    "VULNERABILITY_SOURCE": lambda sighting: sighting.source,
    "INSPECTOR_SCORE": lambda sighting: sighting.cve.score,
    "VENDOR_SEVERITY": lambda sighting: sighting.update.severity if sighting.update else "",
    "EPSS_SCORE": lambda sighting: sighting.cve.epss or 0.0,
}


def check_entries(criteria: dict[str, list[dict[str, Any]]]) -> None:
    for key, entries in criteria.items():
        if len(entries) > 10:
            field_ = {"name": f"filterCriteria.{key}", "message": "must have at most 10 entries"}
            raise AwsError(
                "ValidationException",
                f"filterCriteria.{key} has {len(entries)} entries, at most 10 are allowed",
                reason="FIELD_VALIDATION_FAILED",
                fields=[field_],
            )
