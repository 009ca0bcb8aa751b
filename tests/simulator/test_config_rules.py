"""Managed rules that are really evaluated, automatic remediation and its exceptions, summaries."""

import io
import json
import zipfile
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import BASE, FEW, Aws
from tests.simulator.test_config import KIND, PREFIX, RULE, code, config, details

RULED = FEW + f"\nconfig_rules: [{{name: {RULE}}}]\n"
BROKEN = """
schemaVersion: "0.3"
parameters:
  Resource: {type: String}
  AutomationAssumeRole: {type: String, default: ""}
mainSteps:
  - {name: Break, action: "aws:assertAwsResourceProperty",
     inputs: {Service: sts, Api: GetCallerIdentity, PropertySelector: $.Account, DesiredValues: ["0"]}}
"""


@pytest.fixture
def aws(start) -> Aws:
    return start(RULED)


def put(aws: Aws, name: str, identifier: str, **parameters: str) -> None:
    rule = {"ConfigRuleName": name, "Source": {"Owner": "AWS", "SourceIdentifier": identifier}}
    if parameters:
        rule["InputParameters"] = json.dumps(parameters)
    config(aws).put_config_rule(ConfigRule=rule)


def verdicts(aws: Aws, rule: str) -> dict[str, str]:
    return {identifier: row["ComplianceType"] for identifier, row in details(aws, rule).items()}


def test_a_running_host_that_ssm_cannot_reach_is_non_compliant(aws):
    put(aws, "managed", "EC2_INSTANCE_MANAGED_BY_SSM")
    aws.advance(30)
    found, odd = verdicts(aws, "managed"), aws.hosts("odd")
    assert {found[host] for host in aws.hosts("web")} == {"COMPLIANT"}
    assert found[odd[0]] == "NON_COMPLIANT", "its agent is silent"
    assert found[odd[1]] == "COMPLIANT", "it is stopped"
    assert found[odd[2]] == "NON_COMPLIANT", "it never registered"


def test_an_agent_that_dies_is_noticed_after_a_while(aws):
    """SSM notices after five minutes, Config two minutes later."""
    put(aws, "managed", "EC2_INSTANCE_MANAGED_BY_SSM")
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "agent_dead", "host": host})
    aws.advance(400)
    assert verdicts(aws, "managed")[host] == "COMPLIANT"
    aws.advance(60)
    assert verdicts(aws, "managed")[host] == "NON_COMPLIANT"
    aws.control("faults", {"kind": "agent_online", "host": host})
    aws.advance(180)
    assert verdicts(aws, "managed")[host] == "COMPLIANT"


def test_approved_images_are_known_by_id_and_by_tag(aws):
    machines = [row for page in aws.ec2.describe_instances()["Reservations"] for row in page["Instances"]]
    image = next(row["ImageId"] for row in machines if row["InstanceId"] == aws.hosts("web")[0])
    aws.ec2.create_tags(Resources=[image], Tags=[{"Key": "golden", "Value": "yes"}])
    put(aws, "by-id", "APPROVED_AMIS_BY_ID", amiIds=f"ami-1, {image}")
    put(aws, "by-tag", "APPROVED_AMIS_BY_TAG", amisByTagKeyAndValue="golden:yes,silver")
    put(aws, "by-other", "APPROVED_AMIS_BY_TAG", amisByTagKeyAndValue="golden:no")
    aws.advance(30)
    for name in ("by-id", "by-tag"):
        found = verdicts(aws, name)
        assert {found[host] for host in aws.hosts("web")} == {"COMPLIANT"}
        assert {found[host] for host in aws.hosts("odd")} == {"NON_COMPLIANT"}
    assert set(verdicts(aws, "by-other").values()) == {"NON_COMPLIANT"}


def test_a_host_that_stopped_long_ago_is_told(aws):
    put(aws, "stopped", "EC2_STOPPED_INSTANCE", AllowedDays="1")
    host = aws.hosts("web")[0]
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(3600)
    assert verdicts(aws, "stopped")[host] == "COMPLIANT"
    aws.advance(2 * 86_400)
    assert verdicts(aws, "stopped")[host] == "NON_COMPLIANT"
    assert verdicts(aws, "stopped")[aws.hosts("web")[1]] == "COMPLIANT"


def test_associations_and_groups_are_judged(start):
    world = RULED.replace("    tags: {Environment: dev, PatchGroup: web}\n", "    tags: {PatchGroup: web}\n")
    aws = start(world.replace("    count: 4\n", "    count: 4\n    auto_scaling_group: {name: web, min: 1, max: 9}\n"))
    put(aws, "association", "EC2_MANAGEDINSTANCE_ASSOCIATION_COMPLIANCE_STATUS_CHECK")
    put(aws, "template", "AUTOSCALING_LAUNCH_TEMPLATE")
    aws.advance(30)
    rows = config(aws).get_compliance_details_by_config_rule(ConfigRuleName="association")["EvaluationResults"]
    qualifier = rows[0]["EvaluationResultIdentifier"]["EvaluationResultQualifier"]
    assert (qualifier["ResourceType"], qualifier["ResourceId"][: len(PREFIX)]) == ("AWS::SSM::AssociationCompliance", PREFIX)
    (group,) = verdicts(aws, "template").items()
    assert (":autoScalingGroup:" in group[0], group[1]) == (True, "COMPLIANT")


def test_a_rule_of_which_the_world_has_no_resources_has_insufficient_data(aws):
    put(aws, "volumes", "ENCRYPTED_VOLUMES")
    aws.advance(60)
    (row,) = config(aws).describe_compliance_by_config_rule(ConfigRuleNames=["volumes"])["ComplianceByConfigRules"]
    assert row["Compliance"] == {"ComplianceType": "INSUFFICIENT_DATA"}


def test_summaries_count_rules_and_resources(aws):
    put(aws, "managed", "EC2_INSTANCE_MANAGED_BY_SSM")
    aws.advance(60)
    summary = config(aws).get_compliance_summary_by_config_rule()["ComplianceSummary"]
    assert summary["NonCompliantResourceCount"] == {"CappedCount": 2, "CapExceeded": False}
    (everything,) = config(aws).get_compliance_summary_by_resource_type()["ComplianceSummariesByResourceType"]
    assert "ResourceType" not in everything
    (row,) = config(aws).get_compliance_summary_by_resource_type(ResourceTypes=["AWS::EC2::Instance"])[
        "ComplianceSummariesByResourceType"
    ]
    assert row["ComplianceSummary"]["NonCompliantResourceCount"]["CappedCount"] == 2


def automatic(aws: Aws, content: str, attempts: int = 2) -> None:
    aws.ssm.create_document(Name="Remedy", Content=content, DocumentType="Automation", DocumentFormat="YAML")
    role = {"StaticValue": {"Values": ["arn:aws:iam::111111111111:role/remedy"]}}
    config(aws).put_remediation_configurations(
        RemediationConfigurations=[
            {
                "ConfigRuleName": RULE,
                "TargetType": "SSM_DOCUMENT",
                "TargetId": "Remedy",
                "Parameters": {"Resource": {"ResourceValue": {"Value": "RESOURCE_ID"}}, "AutomationAssumeRole": role},
                "Automatic": True,
                "MaximumAutomaticAttempts": attempts,
                "RetryAttemptSeconds": 60,
            }
        ]
    )


def exceptions(aws: Aws) -> list[dict]:
    return config(aws).describe_remediation_exceptions(ConfigRuleName=RULE, Limit=100)["RemediationExceptions"]


def test_automatic_remediation_follows_an_evaluation(aws):
    """Nobody starts it: each resource that was found NON_COMPLIANT gets its runbook."""
    automatic(aws, BROKEN.replace('["0"]', '["111111111111"]'))
    aws.advance(60)
    assert aws.ssm.describe_automation_executions()["AutomationExecutionMetadataList"] == []
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    aws.advance(60)
    rows = config(aws).describe_remediation_execution_status(ConfigRuleName=RULE)["RemediationExecutionStatuses"]
    assert {row["ResourceKey"]["resourceId"].removeprefix(PREFIX) for row in rows} == set(aws.hosts("web"))
    assert {row["State"] for row in rows} == {"SUCCEEDED"}


def test_a_report_that_is_bad_starts_automatic_remediation(aws):
    automatic(aws, BROKEN.replace('["0"]', '["111111111111"]'))
    aws.patch(aws.hosts("web")[0], operation="Scan")
    aws.advance(240)
    assert config(aws).describe_remediation_execution_status(ConfigRuleName=RULE)["RemediationExecutionStatuses"]


def test_config_writes_an_exception_by_itself_after_failures(aws):
    """Then the resource is left alone, until somebody deletes the exception."""
    automatic(aws, BROKEN, attempts=2)
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    aws.advance(120)
    found = exceptions(aws)
    assert {row["ResourceId"].removeprefix(PREFIX) for row in found} == set(aws.hosts("web"))
    assert "2 failed" in found[0]["Message"]
    count = len(aws.ssm.describe_automation_executions(MaxResults=50)["AutomationExecutionMetadataList"])
    assert count == 2 * 4
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    aws.advance(120)
    assert len(aws.ssm.describe_automation_executions(MaxResults=50)["AutomationExecutionMetadataList"]) == count
    key = {"ResourceType": KIND, "ResourceId": found[0]["ResourceId"]}
    config(aws).delete_remediation_exceptions(ConfigRuleName=RULE, ResourceKeys=[key])
    config(aws).start_config_rules_evaluation(ConfigRuleNames=[RULE])
    aws.advance(120)
    assert len(aws.ssm.describe_automation_executions(MaxResults=50)["AutomationExecutionMetadataList"]) == count + 2


def test_exceptions_are_for_what_is_not_compliant_and_they_expire(aws):
    good = {"ResourceType": KIND, "ResourceId": f"{PREFIX}{aws.hosts('web')[0]}"}
    unknown = {"ResourceType": KIND, "ResourceId": f"{PREFIX}{aws.hosts('odd')[0]}"}
    expires = aws.simulator.world.now + 3600
    answer = config(aws).put_remediation_exceptions(
        ConfigRuleName=RULE, ResourceKeys=[good, unknown], Message="agreed", ExpirationTime=expires
    )
    (batch,) = answer["FailedBatches"]
    assert [row["ResourceId"] for row in batch["FailedItems"]] == [unknown["ResourceId"]]
    (row,) = exceptions(aws)
    assert row["Message"] == "agreed"
    aws.advance(3700)
    assert exceptions(aws) == []
    with pytest.raises(ClientError) as refused:
        config(aws).delete_remediation_exceptions(ConfigRuleName=RULE, ResourceKeys=[unknown])
    assert code(refused) == "NoSuchRemediationExceptionException"


def custom(aws: Aws, name: str = "kernel-is-new") -> str:
    """A custom rule with its function; the token by which its evaluations are put."""
    role = aws.client("iam").create_role(RoleName="rule", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("rule.py", "def handler(event, context):\n    return None\n")
    function = aws.client("lambda").create_function(
        FunctionName="rule", Runtime="python3.12", Role=role, Handler="rule.handler", Code={"ZipFile": archive.getvalue()}
    )["FunctionArn"]
    details = [{"EventSource": "aws.config", "MessageType": "ConfigurationItemChangeNotification"}]
    source = {"Owner": "CUSTOM_LAMBDA", "SourceIdentifier": function, "SourceDetails": details}
    config(aws).put_config_rule(ConfigRule={"ConfigRuleName": name, "Source": source})
    return name


def evaluation(host: str, compliance: str, at: float = 0, **more: str) -> dict:
    moment = datetime.fromtimestamp(BASE + at, tz=UTC)
    return {
        "ComplianceResourceType": "AWS::EC2::Instance", "ComplianceResourceId": host, "ComplianceType": compliance,
        "OrderingTimestamp": moment, **more,
    }  # fmt: skip


def compliance(aws: Aws, rule: str) -> str:
    (row,) = config(aws).describe_compliance_by_config_rule(ConfigRuleNames=[rule])["ComplianceByConfigRules"]
    return str(row["Compliance"]["ComplianceType"])


def test_a_custom_rule_says_what_was_put(aws):
    """INSUFFICIENT_DATA until then; details with the annotation; a test run changes nothing; NOT_APPLICABLE takes away."""
    rule, (first, second) = custom(aws), aws.hosts("web")[:2]
    assert compliance(aws, rule) == "INSUFFICIENT_DATA"
    given = [evaluation(first, "COMPLIANT"), evaluation(second, "NON_COMPLIANT", Annotation="kernel of last year")]
    config(aws).put_evaluations(Evaluations=given, ResultToken=rule, TestMode=True)
    assert compliance(aws, rule) == "INSUFFICIENT_DATA"
    assert config(aws).put_evaluations(Evaluations=given, ResultToken=rule)["FailedEvaluations"] == []
    assert compliance(aws, rule) == "NON_COMPLIANT"
    rows = config(aws).get_compliance_details_by_config_rule(ConfigRuleName=rule)["EvaluationResults"]
    found = {row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"]: row for row in rows}
    assert (found[second]["ComplianceType"], found[second]["Annotation"]) == ("NON_COMPLIANT", "kernel of last year")
    assert "Annotation" not in found[first]
    config(aws).put_evaluations(Evaluations=[evaluation(second, "COMPLIANT", -60)], ResultToken=rule)
    assert verdicts(aws, rule)[second] == "NON_COMPLIANT"
    config(aws).put_evaluations(Evaluations=[evaluation(second, "NOT_APPLICABLE", 60)], ResultToken=rule)
    assert verdicts(aws, rule) == {first: "COMPLIANT"}
    config(aws).delete_evaluation_results(ConfigRuleName=rule)
    assert compliance(aws, rule) == "INSUFFICIENT_DATA"


def test_evaluations_are_refused_without_the_token_of_a_custom_rule(aws):
    """A managed rule takes none; INSUFFICIENT_DATA is no evaluation."""
    rule, host = custom(aws), aws.hosts("web")[0]
    put(aws, "managed", "EC2_INSTANCE_MANAGED_BY_SSM")
    for token in ("nobody", "managed"):
        with pytest.raises(ClientError, match="InvalidResultTokenException"):
            config(aws).put_evaluations(Evaluations=[evaluation(host, "COMPLIANT")], ResultToken=token)
    with pytest.raises(ClientError, match="INSUFFICIENT_DATA is not valid"):
        config(aws).put_evaluations(Evaluations=[evaluation(host, "INSUFFICIENT_DATA")], ResultToken=rule)


def test_results_of_a_managed_rule_are_deleted_until_the_next_evaluation(aws):
    """DeleteEvaluationResults."""
    put(aws, "managed", "EC2_INSTANCE_MANAGED_BY_SSM")
    aws.advance(120)
    before = verdicts(aws, "managed")
    assert before
    config(aws).delete_evaluation_results(ConfigRuleName="managed")
    assert verdicts(aws, "managed") == {}
    config(aws).start_config_rules_evaluation(ConfigRuleNames=["managed"])
    aws.advance(120)
    assert verdicts(aws, "managed") == before
