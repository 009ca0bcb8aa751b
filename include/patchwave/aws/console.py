"""Where in AWS's console does a person find it? Addresses only; nothing is asked."""

from __future__ import annotations

from urllib.parse import quote


def _console(region: str) -> str:
    """The console of a region, in any of AWS's partitions."""
    if region.startswith("cn-"):
        return f"https://{region}.console.amazonaws.cn"
    if region.startswith("us-gov-"):
        return f"https://{region}.console.amazonaws-us-gov.com"
    return f"https://{region}.console.aws.amazon.com"


def command(region: str, command_id: str) -> str:
    """A Run Command."""
    return f"{_console(region)}/systems-manager/run-command/{quote(command_id, safe='')}?region={region}"


def invocation(region: str, command_id: str, host: str) -> str:
    """What a Run Command did on one host."""
    path = f"{quote(command_id, safe='')}/{quote(host, safe='')}"
    return f"{_console(region)}/systems-manager/run-command/{path}?region={region}"


def instance(region: str, host: str) -> str:
    """An EC2 instance."""
    return f"{_console(region)}/ec2/home?region={region}#InstanceDetails:instanceId={quote(host, safe='')}"


def automation(region: str, execution: str) -> str:
    """An Automation execution."""
    return f"{_console(region)}/systems-manager/automation/execution/{quote(execution, safe='')}?region={region}"


def rule(region: str, name: str) -> str:
    """A Config rule with its results."""
    return f"{_console(region)}/config/home?region={region}#/rules/details?configRuleName={quote(name, safe='')}"


def findings(region: str) -> str:
    """Inspector's findings."""
    return f"{_console(region)}/inspector/v2/home?region={region}#/findings/all"
