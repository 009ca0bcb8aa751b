"""Config and compliance: an old evaluation, a missing rule and a busy one are told apart."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchwave.campaign import errors
from patchwave.campaign.compliance import Compliance, Evaluation
from patchwave.campaign.remediation import RemedyState
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, NOW, Wire, host

RULE = "ec2-managedinstance-patch-compliance-status-check"


def key(number: int) -> dict[str, str]:
    return {"resourceType": "AWS::SSM::PatchCompliance", "resourceId": f"AWS::SSM::ManagedInstanceInventory/{host(number)}"}


def result(number: int, word: str) -> dict[str, Any]:
    return {
        "EvaluationResultIdentifier": {
            "EvaluationResultQualifier": {
                "ConfigRuleName": RULE, "ResourceType": "AWS::SSM::PatchCompliance", "ResourceId": key(number)["resourceId"],
            },
            "OrderingTimestamp": NOW - timedelta(hours=1),
        },
        "ComplianceType": word,
        "ResultRecordedTime": NOW,
        "ConfigRuleInvokedTime": NOW - timedelta(minutes=1),
    }  # fmt: skip


def test_each_rule_is_asked_for_itself(wire: Wire) -> None:
    """One that is busy, or missing, would refuse all of a call; neither is an error of the campaign."""
    for name in ("free", "running", "recent", "absent"):
        request = {"ConfigRuleNames": [name]}
        match name:
            case "free":
                wire.expects("config", "start_config_rules_evaluation", {}, request)
            case "running":
                wire.refuses("config", "start_config_rules_evaluation", "ResourceInUseException")
            case "recent":
                wire.refuses("config", "start_config_rules_evaluation", "LimitExceededException")
            case "absent":
                wire.refuses("config", "start_config_rules_evaluation", "NoSuchConfigRuleException")
    assert wire.gateway.evaluate(CELL, ["free", "running", "recent", "absent", "free"]) == {
        "free": Evaluation.STARTED, "running": Evaluation.LATER, "recent": Evaluation.LATER, "absent": Evaluation.NO_RULE,
    }  # fmt: skip


def test_a_denied_evaluation_is_an_error(wire: Wire) -> None:
    """Waiting would not end."""
    wire.refuses("config", "start_config_rules_evaluation", "AccessDeniedException")
    with pytest.raises(errors.AccessDenied):
        wire.gateway.evaluate(CELL, [RULE])


def test_the_status_of_a_missing_rule_is_absent_and_the_others_are_told(wire: Wire) -> None:
    """Config refuses the list for the one that does not exist."""
    good = {"ConfigRuleName": RULE, "LastSuccessfulEvaluationTime": NOW}
    bad = {"ConfigRuleName": "broken", "LastFailedEvaluationTime": NOW, "LastErrorCode": "E", "LastErrorMessage": "no role"}
    wire.refuses("config", "describe_config_rule_evaluation_status", "NoSuchConfigRuleException")
    wire.expects(
        "config", "describe_config_rule_evaluation_status", {"ConfigRulesEvaluationStatus": [good]}, {"ConfigRuleNames": [RULE]}
    )
    wire.expects(
        "config",
        "describe_config_rule_evaluation_status",
        {"ConfigRulesEvaluationStatus": [bad]},
        {"ConfigRuleNames": ["broken"]},
    )
    wire.refuses("config", "describe_config_rule_evaluation_status", "NoSuchConfigRuleException")
    found = wire.gateway.rule_status(CELL, [RULE, "broken", "absent"])
    assert set(found) == {RULE, "broken"}
    assert (found[RULE].succeeded_at, found[RULE].error) == (NOW, "")
    assert (found["broken"].succeeded_at, found["broken"].failed_at, found["broken"].error) == (None, NOW, "E: no role")


def test_twenty_six_rules_are_two_calls(wire: Wire) -> None:
    """ConfigRuleNames takes 25."""
    names = [f"rule-{n}" for n in range(26)]
    for some in (names[:25], names[25:]):
        wire.expects(
            "config", "describe_config_rule_evaluation_status",
            {"ConfigRulesEvaluationStatus": [{"ConfigRuleName": name} for name in some]}, {"ConfigRuleNames": some},
        )  # fmt: skip
    assert list(wire.gateway.rule_status(CELL, names)) == names


def test_results_name_the_host_and_keep_configs_own_id(wire: Wire) -> None:
    """Config's id of a host under the patch rule is not the instance's id."""
    request = {"ConfigRuleName": RULE, "Limit": 100}
    wire.expects(
        "config", "get_compliance_details_by_config_rule",
        {"EvaluationResults": [result(1, "COMPLIANT")], "NextToken": "n"}, request,
    )  # fmt: skip
    wire.expects(
        "config", "get_compliance_details_by_config_rule",
        {"EvaluationResults": [result(2, "NON_COMPLIANT"), result(3, "A_NEW_WORD")]}, {**request, "NextToken": "n"},
    )  # fmt: skip
    found = wire.gateway.rule_compliance(CELL, RULE)
    assert found is not None
    assert [(one.host, one.compliance) for one in found] == [
        (host(1), Compliance.COMPLIANT),
        (host(2), Compliance.NON_COMPLIANT),
        (host(3), Compliance.INSUFFICIENT_DATA),
    ]
    assert found[0].resource == key(1)["resourceId"]
    assert (found[0].recorded_at, found[0].invoked_at) == (NOW, NOW - timedelta(minutes=1))


def test_a_rule_that_the_cell_lacks_is_none_and_not_an_empty_list(wire: Wire) -> None:
    """An empty list would say that no host is not compliant."""
    wire.refuses("config", "get_compliance_details_by_config_rule", "NoSuchConfigRuleException")
    assert wire.gateway.rule_compliance(CELL, RULE) is None


def test_systems_managers_compliance_is_read_by_type_and_chosen_by_host(wire: Wire) -> None:
    """Associations have a compliance of their own, and say nothing of patches."""

    def summary(number: int, status: str, kind: str = "Patch") -> dict[str, Any]:
        return {
            "ComplianceType": kind, "ResourceType": "ManagedInstance", "ResourceId": host(number), "Status": status,
            "OverallSeverity": "HIGH", "ExecutionSummary": {"ExecutionTime": NOW, "ExecutionId": "snapshot"},
            "NonCompliantSummary": {"NonCompliantCount": 2},
        }  # fmt: skip

    wire.expects(
        "ssm", "list_resource_compliance_summaries",
        {"ResourceComplianceSummaryItems": [summary(1, "NON_COMPLIANT"), summary(1, "COMPLIANT", "Association")],
         "NextToken": "n"},
        {"Filters": [{"Key": "ComplianceType", "Values": ["Patch"], "Type": "EQUAL"}], "MaxResults": 50},
    )  # fmt: skip
    wire.expects("ssm", "list_resource_compliance_summaries", {"ResourceComplianceSummaryItems": [summary(9, "COMPLIANT")]})
    found = wire.gateway.resource_compliance(CELL, [HostId(host(1)), HostId(host(2))])
    assert set(found) == {host(1)}
    one = found[HostId(host(1))]
    assert (one.compliant, one.severity, one.executed_at, one.non_compliant) == (False, "HIGH", NOW, 2)


def test_what_config_did_not_begin_to_remedy_is_told_by_host(wire: Wire) -> None:
    """A partial failure is HTTP 200."""
    wire.expects(
        "config", "start_remediation_execution", {"FailureMessage": "already running", "FailedItems": [key(2)]},
        {"ConfigRuleName": RULE, "ResourceKeys": [key(1), key(2)]},
    )  # fmt: skip
    refused = wire.gateway.start_config_remediation(CELL, RULE, [HostId(host(1)), HostId(host(2)), HostId(host(1))])
    assert refused == {host(2): "already running"}


def test_a_remedy_says_how_it_stands_and_what_failed(wire: Wire) -> None:
    """SUCCEEDED means that it ran through, no more."""
    rows = [
        {"ResourceKey": key(1), "State": "SUCCEEDED", "InvocationTime": NOW, "LastUpdatedTime": NOW},
        {"ResourceKey": key(2), "State": "FAILED", "StepDetails": [{"Name": "Install", "ErrorMessage": "no agent"}]},
        {"ResourceKey": key(3), "State": "QUEUED"},
        {"ResourceKey": key(4), "State": "UNKNOWN"},
    ]
    wire.expects("config", "describe_remediation_execution_status", {"RemediationExecutionStatuses": rows})
    found = wire.gateway.config_remediation_status(CELL, RULE, [HostId(host(n)) for n in (1, 2, 3, 4)])
    assert [one.state for one in found.values()] == [
        RemedyState.SUCCEEDED, RemedyState.FAILED, RemedyState.RUNNING, RemedyState.UNKNOWN,
    ]  # fmt: skip
    assert found[HostId(host(2))].failure == "Install: no agent"
