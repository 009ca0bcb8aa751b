"""Links into AWS's console: the right region, the right page, in every partition."""

from __future__ import annotations

import pytest

from patchwave.aws import console


def test_links_lead_to_the_thing_in_its_region() -> None:
    """A link without its region opens whatever region was open last."""
    region = "eu-central-1"
    base = "https://eu-central-1.console.aws.amazon.com"
    assert console.command(region, "c-1") == f"{base}/systems-manager/run-command/c-1?region={region}"
    assert console.invocation(region, "c-1", "i-1") == f"{base}/systems-manager/run-command/c-1/i-1?region={region}"
    assert console.instance(region, "i-1") == f"{base}/ec2/home?region={region}#InstanceDetails:instanceId=i-1"
    assert console.automation(region, "e-1") == f"{base}/systems-manager/automation/execution/e-1?region={region}"
    assert console.rule(region, "a rule") == f"{base}/config/home?region={region}#/rules/details?configRuleName=a%20rule"
    assert console.findings(region) == f"{base}/inspector/v2/home?region={region}#/findings/all"


@pytest.mark.parametrize(
    ("region", "domain"),
    [("cn-north-1", "console.amazonaws.cn"), ("us-gov-west-1", "console.amazonaws-us-gov.com")],
)
def test_other_partitions_have_consoles_of_their_own(region: str, domain: str) -> None:
    """Their accounts do not exist on the other one."""
    assert console.instance(region, "i-1").startswith(f"https://{region}.{domain}/")
