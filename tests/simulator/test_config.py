"""AWS Config as documented: when a patch report becomes a verdict, how it is read, and what a remediation does."""

from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import BASE, FEW, SMALL, Aws

RULE = "ec2-managedinstance-patch-compliance-status-check"
RULED = FEW + f"\nconfig_rules: [{{name: {RULE}}}]\n"
KIND, PREFIX = "AWS::SSM::PatchCompliance", "AWS::SSM::ManagedInstanceInventory/"
RUNBOOK = """
schemaVersion: "0.3"
parameters:
  Resource: {type: String}
  Seconds: {type: String, default: PT30S}
mainSteps:
  - {name: Wait, action: "aws:sleep", inputs: {Duration: "{{ Seconds }}"}}
"""


@pytest.fixture
def aws(start) -> Aws:
    return start(RULED)


def config(aws: Aws, region: str = "eu-central-1"):
    return aws.client("config", region)


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def details(aws: Aws, rule: str = RULE, region: str = "eu-central-1", **asked):
    """Instance id -> its evaluation result."""
    pages = config(aws, region).get_paginator("get_compliance_details_by_config_rule").paginate(ConfigRuleName=rule, **asked)
    rows = [row for page in pages for row in page["EvaluationResults"]]
    return {
        row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"].removeprefix(PREFIX): row for row in rows
    }


def status(aws: Aws, rule: str = RULE):
    (row,) = config(aws).describe_config_rule_evaluation_status(ConfigRuleNames=[rule])["ConfigRulesEvaluationStatus"]
    return row


def reported(aws: Aws, host: str) -> float:
    """Run a Scan; the moment at which its report was uploaded."""
    aws.patch(host, operation="Scan")
    aws.advance(60)
    return float(next(row for row in aws.simulator.world.all_hosts() if row.id == host).report.uploaded)


def fix(aws: Aws, host: str) -> float:
    """Install, reboot and scan; when the clean report was uploaded."""
    aws.patch(host)
    aws.advance(400)
    return reported(aws, host)


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, tz=UTC)


def until(aws: Aws, epoch: float) -> None:
    aws.advance(epoch - aws.simulator.world.clock.now())


def test_a_result_names_the_resource_as_config_does(aws):
    """Not the instance id: who compares it with one finds no host compliant."""
    rows = details(aws)
    qualifier = rows[aws.hosts("web")[0]]["EvaluationResultIdentifier"]["EvaluationResultQualifier"]
    assert qualifier["ResourceType"] == KIND
    assert qualifier["ResourceId"] == f"{PREFIX}{aws.hosts('web')[0]}"
    assert {row["ComplianceType"] for row in rows.values()} == {"NON_COMPLIANT"}


def test_a_host_that_never_reported_has_no_result(aws):
    """No result is unknown, not compliant; the fleet `odd` was never scanned."""
    assert set(details(aws)) == set(aws.hosts("web"))
    fix(aws, aws.hosts("odd")[4])
    aws.advance(121)
    assert details(aws)[aws.hosts("odd")[4]]["ComplianceType"] == "COMPLIANT"


def test_a_report_becomes_a_verdict_two_minutes_later(aws):
    """Before that, Config repeats what it knew: an old evaluation is no proof."""
    host = aws.hosts("web")[0]
    uploaded = fix(aws, host)
    until(aws, uploaded + 119)
    before = details(aws)[host]
    assert before["ResultRecordedTime"] < moment(uploaded + 100)
    until(aws, uploaded + 121)
    after = details(aws)[host]
    assert after["ComplianceType"] == "COMPLIANT"
    assert after["ResultRecordedTime"] == pytest.approx(moment(uploaded + 120), abs=datetime.resolution * 5000)
    assert status(aws)["LastSuccessfulEvaluationTime"] == after["ResultRecordedTime"]


def test_an_evaluation_asked_for_too_early_reports_the_old_state(aws):
    """StartConfigRulesEvaluation records nothing: it judges the items that are there."""
    host = aws.hosts("web")[0]
    aws.patch(host)
    aws.advance(400)
    before = details(aws)[host]["EvaluationResultIdentifier"]["OrderingTimestamp"]
    aws.patch(host, operation="Scan")
    aws.advance(30)
    uploaded = next(row for row in aws.simulator.world.all_hosts() if row.id == host).report.uploaded
    asked = aws.simulator.world.clock.now()
    assert asked < uploaded + 60
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    aws.advance(21)
    row = details(aws)[host]
    assert row["ResultRecordedTime"] > moment(asked), "it is a new result"
    assert row["EvaluationResultIdentifier"]["OrderingTimestamp"] == before, "of the item before the Scan"
    until(aws, uploaded + 121)
    assert details(aws)[host]["EvaluationResultIdentifier"]["OrderingTimestamp"] > before


def test_an_evaluation_takes_a_while_and_judges_every_host(aws):
    started = moment(BASE)
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    (rule,) = config(aws).describe_config_rules()["ConfigRules"]
    assert rule["ConfigRuleState"] == "EVALUATING"
    assert status(aws)["LastSuccessfulEvaluationTime"] < started
    aws.advance(21)
    (rule,) = config(aws).describe_config_rules()["ConfigRules"]
    assert rule["ConfigRuleState"] == "ACTIVE"
    assert status(aws)["LastSuccessfulEvaluationTime"] > started
    rows = details(aws).values()
    assert all(row["ConfigRuleInvokedTime"] == started and row["ResultRecordedTime"] > started for row in rows)


def test_a_second_evaluation_within_a_minute_is_refused(aws):
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    for seconds in (0, 10, 45):
        aws.advance(seconds)
        with pytest.raises(ClientError) as refused:
            config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
        assert code(refused) == "LimitExceededException"
    aws.advance(6)
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])


def test_a_rule_that_does_not_exist_is_named_as_such(aws):
    for call in (
        lambda: config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE, "absent"]),
        lambda: config(aws).get_compliance_details_by_config_rule(ConfigRuleName="absent"),
        lambda: config(aws).describe_config_rule_evaluation_status(ConfigRuleNames=["absent"]),
    ):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "NoSuchConfigRuleException"
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])


def test_insufficient_data_cannot_be_asked_for_by_rule(aws):
    """The model lists the value, the service refuses it."""
    with pytest.raises(ClientError) as refused:
        details(aws, ComplianceTypes=["INSUFFICIENT_DATA"])
    assert code(refused) == "InvalidParameterValueException"


def test_results_come_in_pages_and_limit_nought_means_ten(start):
    """Everywhere in Config a limit of 0 is the default, and the default is small."""
    aws = start(SMALL)
    client = config(aws)
    for asked in ({}, {"Limit": 0}):
        page = client.get_compliance_details_by_config_rule(ConfigRuleName=RULE, **asked)
        assert len(page["EvaluationResults"]) == 10
        assert page["NextToken"]
    assert len(details(aws)) == len(details(aws, Limit=100)) == 60
    with pytest.raises(ClientError) as refused:
        client.get_compliance_details_by_config_rule(ConfigRuleName=RULE, NextToken="made up")
    assert code(refused) == "InvalidNextTokenException"


def test_the_small_world_has_its_rule_in_both_regions(start):
    aws = start(SMALL)
    for region, hosts in (("eu-central-1", 60), ("us-east-1", 6)):
        (rule,) = config(aws, region).describe_config_rules()["ConfigRules"]
        assert rule["ConfigRuleName"] == RULE
        assert (
            config(aws, region).describe_configuration_recorder_status()["ConfigurationRecordersStatus"][0]["recording"] is True
        )
        assert len(details(aws, region=region)) == hosts


def test_a_stopped_host_keeps_its_last_verdict_and_a_terminated_one_has_none(aws):
    """Absent is not compliant."""
    stopped, gone = aws.hosts("web")[:2]
    before = details(aws)[stopped]
    aws.ec2.stop_instances(InstanceIds=[stopped])
    aws.ec2.terminate_instances(InstanceIds=[gone])
    aws.advance(3600)
    rows = details(aws)
    assert rows[stopped] == before
    assert gone not in rows


def test_a_rule_that_a_caller_puts_is_evaluated_too(aws):
    config(aws).put_config_rule(
        ConfigRule={
            "ConfigRuleName": "mine",
            "Source": {"Owner": "AWS", "SourceIdentifier": "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"},
        }
    )
    assert details(aws, "mine") == {}
    aws.advance(21)
    assert set(details(aws, "mine")) == set(aws.hosts("web"))
    config(aws).delete_config_rule(ConfigRuleName="mine")
    with pytest.raises(ClientError):
        details(aws, "mine")


def test_a_rule_of_another_kind_has_no_results(aws):
    config(aws).put_config_rule(
        ConfigRule={"ConfigRuleName": "other", "Source": {"Owner": "AWS", "SourceIdentifier": "EC2_INSTANCE_PROFILE_ATTACHED"}}
    )
    aws.advance(60)
    assert details(aws, "other") == {}
    rows = config(aws).describe_compliance_by_config_rule(ConfigRuleNames=["other"])["ComplianceByConfigRules"]
    assert rows[0]["Compliance"]["ComplianceType"] == "INSUFFICIENT_DATA"


def test_compliance_is_summed_up_by_rule_and_by_resource(aws):
    host = aws.hosts("web")[0]
    fix(aws, host)
    aws.advance(121)
    (row,) = config(aws).describe_compliance_by_config_rule()["ComplianceByConfigRules"]
    assert row["Compliance"] == {
        "ComplianceType": "NON_COMPLIANT",
        "ComplianceContributorCount": {"CappedCount": 3, "CapExceeded": False},
    }
    good = config(aws).describe_compliance_by_resource(ComplianceTypes=["COMPLIANT"])["ComplianceByResources"]
    assert [entry["ResourceId"] for entry in good] == [f"{PREFIX}{host}"]
    (found,) = config(aws).get_compliance_details_by_resource(ResourceType=KIND, ResourceId=f"{PREFIX}{host}")[
        "EvaluationResults"
    ]
    assert found["ComplianceType"] == "COMPLIANT"


# --- remediation ---


def attach(aws: Aws, **parameters) -> None:
    aws.ssm.create_document(Name="Wrapper", Content=RUNBOOK, DocumentType="Automation", DocumentFormat="YAML")
    entry = {
        "ConfigRuleName": RULE,
        "TargetType": "SSM_DOCUMENT",
        "TargetId": "Wrapper",
        "Parameters": {"Resource": {"ResourceValue": {"Value": "RESOURCE_ID"}}, **parameters},
    }
    assert config(aws).put_remediation_configurations(RemediationConfigurations=[entry])["FailedBatches"] == []


def remedy(aws: Aws, host: str):
    (row,) = config(aws).describe_remediation_execution_status(ConfigRuleName=RULE, ResourceKeys=[key(host)])[
        "RemediationExecutionStatuses"
    ]
    return row


def key(host: str) -> dict[str, str]:
    return {"resourceType": KIND, "resourceId": f"{PREFIX}{host}"}


def test_a_remediation_runs_the_runbook_with_configs_own_id_of_the_resource(aws):
    """A runbook that wants an instance id cannot be attached directly: it gets the composite id."""
    host = aws.hosts("web")[0]
    attach(aws)
    assert config(aws).start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=[key(host)])["FailedItems"] == []
    assert remedy(aws, host)["State"] == "QUEUED"
    aws.advance(10)
    assert remedy(aws, host)["State"] == "IN_PROGRESS"
    aws.advance(60)
    row = remedy(aws, host)
    assert row["State"] == "SUCCEEDED"
    assert [(step["Name"], step["State"]) for step in row["StepDetails"]] == [("Wait", "SUCCEEDED")]
    (execution,) = aws.ssm.describe_automation_executions()["AutomationExecutionMetadataList"]
    full = aws.ssm.get_automation_execution(AutomationExecutionId=execution["AutomationExecutionId"])["AutomationExecution"]
    assert full["Parameters"]["Resource"] == [f"{PREFIX}{host}"]
    assert details(aws)[host]["ComplianceType"] == "NON_COMPLIANT", "that the runbook ran makes nothing compliant"


def test_a_remediation_that_runs_is_not_begun_twice(aws):
    """Refused items come back with HTTP 200."""
    host = aws.hosts("web")[0]
    attach(aws)
    config(aws).start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=[key(host)])
    again = config(aws).start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=[key(host), key(aws.hosts("web")[1])])
    assert again["FailedItems"] == [key(host)]
    assert again["FailureMessage"]
    aws.advance(60)
    assert len(aws.ssm.describe_automation_executions()["AutomationExecutionMetadataList"]) == 2


def test_a_remediation_whose_runbook_refuses_its_parameters_fails(aws):
    host = aws.hosts("web")[0]
    attach(aws, Colour={"StaticValue": {"Values": ["red"]}})
    config(aws).start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=[key(host)])
    aws.advance(5)
    row = remedy(aws, host)
    assert row["State"] == "FAILED"
    assert "Colour" in row["StepDetails"][0]["ErrorMessage"]


def test_a_rule_without_remediation_says_so(aws):
    with pytest.raises(ClientError) as refused:
        config(aws).start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=[key("i-1")])
    assert code(refused) == "NoSuchRemediationConfigurationException"


def test_a_rule_with_a_remediation_cannot_be_deleted(aws):
    attach(aws)
    with pytest.raises(ClientError) as refused:
        config(aws).delete_config_rule(ConfigRuleName=RULE)
    assert code(refused) == "ResourceInUseException"
    config(aws).delete_remediation_configuration(ConfigRuleName=RULE)
    config(aws).delete_config_rule(ConfigRuleName=RULE)
