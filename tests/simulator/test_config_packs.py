"""Conformance packs, organization packs, aggregators and their queries."""

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from awsim.services.config.query import BadQuery, parse, run
from tests.simulator.conftest import FEW, REGION, Aws
from tests.simulator.test_config import PREFIX, RULE, code, config, details

SAMPLES = Path(__file__).resolve().parents[3] / "shared/data/conformance-packs"
RULED = FEW + f"\nconfig_rules: [{{name: {RULE}}}]\n"
PATCH = "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"
TEMPLATE = f"""
Parameters:
  Days: {{Type: String, Default: "30"}}
  Wanted: {{Type: String, Default: "yes"}}
Conditions:
  wanted: !Equals [!Ref Wanted, "yes"]
Resources:
  Patch:
    Type: AWS::Config::ConfigRule
    Properties: {{ConfigRuleName: patch, Source: {{Owner: AWS, SourceIdentifier: {PATCH}}}}}
  Stopped:
    Type: AWS::Config::ConfigRule
    Properties:
      ConfigRuleName: stopped
      InputParameters: {{AllowedDays: !If [wanted, !Ref Days, !Ref "AWS::NoValue"]}}
      Source: {{Owner: AWS, SourceIdentifier: EC2_STOPPED_INSTANCE}}
  Volumes:
    Type: AWS::Config::ConfigRule
    Condition: wanted
    Properties: {{ConfigRuleName: volumes, Source: {{Owner: AWS, SourceIdentifier: ENCRYPTED_VOLUMES}}}}
"""


@pytest.fixture
def aws(start) -> Aws:
    return start(RULED)


def pack(aws: Aws, name: str = "patching", body: str = TEMPLATE, **request) -> str:
    return str(config(aws).put_conformance_pack(ConformancePackName=name, TemplateBody=body, **request)["ConformancePackArn"])


def state(aws: Aws, name: str = "patching") -> str:
    (row,) = config(aws).describe_conformance_pack_status(ConformancePackNames=[name])["ConformancePackStatusDetails"]
    return str(row["ConformancePackState"])


def test_a_pack_makes_rules_with_a_suffix(aws):
    arn = pack(aws)
    assert (state(aws), ":conformance-pack/patching/" in arn) == ("CREATE_IN_PROGRESS", True)
    with pytest.raises(ClientError) as refused:
        pack(aws)
    assert code(refused) == "ResourceInUseException"
    aws.advance(60)
    assert state(aws) == "CREATE_COMPLETE"
    (detail,) = config(aws).describe_conformance_packs()["ConformancePackDetails"]
    names = {row["ConfigRuleName"]: row for row in config(aws).describe_config_rules()["ConfigRules"]}
    suffix = detail["ConformancePackId"]
    assert set(names) == {RULE, f"patch-{suffix}", f"stopped-{suffix}", f"volumes-{suffix}"}
    assert json.loads(names[f"stopped-{suffix}"]["InputParameters"]) == {"AllowedDays": "30"}
    with pytest.raises(ClientError) as refused:
        config(aws).delete_config_rule(ConfigRuleName=f"patch-{suffix}")
    assert code(refused) == "ResourceInUseException"


def test_a_pack_tells_the_compliance_of_its_rules(aws):
    pack(aws)
    aws.advance(60)
    rows = config(aws).describe_conformance_pack_compliance(ConformancePackName="patching")["ConformancePackRuleComplianceList"]
    assert {row["ConfigRuleName"].split("-")[0]: row["ComplianceType"] for row in rows} == {
        "patch": "NON_COMPLIANT",
        "stopped": "COMPLIANT",
        "volumes": "INSUFFICIENT_DATA",
    }
    bad = config(aws).get_conformance_pack_compliance_details(
        ConformancePackName="patching", Filters={"ComplianceType": "NON_COMPLIANT"}
    )["ConformancePackRuleEvaluationResults"]
    assert len(bad) == 4
    (summary,) = config(aws).get_conformance_pack_compliance_summary(ConformancePackNames=["patching"])[
        "ConformancePackComplianceSummaryList"
    ]
    assert summary["ConformancePackComplianceStatus"] == "NON_COMPLIANT"
    (score,) = config(aws).list_conformance_pack_compliance_scores()["ConformancePackComplianceScores"]
    assert score["Score"] == f"{100 * 9 / 13:.2f}"


def test_parameters_and_conditions_decide(aws):
    pack(aws, ConformancePackInputParameters=[{"ParameterName": "Wanted", "ParameterValue": "no"}])
    aws.advance(60)
    names = [row["ConfigRuleName"].split("-")[0] for row in config(aws).describe_config_rules()["ConfigRules"]]
    assert "volumes" not in names
    assert "stopped" in names


def test_a_pack_is_changed_and_deleted(aws):
    pack(aws)
    aws.advance(60)
    pack(aws, body="\n".join(TEMPLATE.splitlines()[:-4]))
    aws.advance(60)
    assert len(config(aws).describe_config_rules()["ConfigRules"]) == 3
    config(aws).delete_conformance_pack(ConformancePackName="patching")
    assert state(aws) == "DELETE_IN_PROGRESS"
    aws.advance(60)
    assert len(config(aws).describe_config_rules()["ConfigRules"]) == 1
    with pytest.raises(ClientError) as refused:
        config(aws).describe_conformance_packs(ConformancePackNames=["patching"])
    assert code(refused) == "NoSuchConformancePackException"


@pytest.mark.parametrize(
    "body", ["Resources: {}", "nothing", "Resources: {A: {Type: 'AWS::S3::Bucket'}}", TEMPLATE + "  X: !Ref Q"]
)
def test_a_template_that_is_wrong_is_refused(aws, body):
    with pytest.raises(ClientError) as refused:
        pack(aws, body=body)
    assert code(refused) == "ConformancePackTemplateValidationException"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample packs of awslabs/aws-config-rules are not on this machine")
def test_every_pack_that_aws_publishes_loads(aws):
    files = sorted(SAMPLES.glob("*.yaml"))
    for number, path in enumerate(files):
        body = path.read_text("utf-8")
        given = {}
        if "Default" not in body.split("Resources:")[0] and "Parameters:" in body:
            names = [line.strip(" :") for line in body.split("Parameters:")[1].split("Resources:")[0].splitlines()]
            wanted = [name for name in names if name and name.isalnum() and not name.startswith(("Type", "Desc"))]
            given = {"ConformancePackInputParameters": [{"ParameterName": n, "ParameterValue": "x"} for n in wanted]}
        pack(aws, f"pack-{number}", body, **given)
    aws.advance(120)
    for number in range(len(files)):
        assert state(aws, f"pack-{number}") == "CREATE_COMPLETE"
        rows = config(aws).describe_conformance_pack_compliance(ConformancePackName=f"pack-{number}", Limit=1000)
        assert rows["ConformancePackRuleComplianceList"]


def test_an_organization_pack_reaches_every_member(aws):
    organizations = aws.client("organizations")
    organizations.create_organization(FeatureSet="ALL")
    made = organizations.create_account(AccountName="shop", Email="shop@example.com")["CreateAccountStatus"]["AccountId"]
    config(aws).put_organization_conformance_pack(OrganizationConformancePackName="all", TemplateBody=TEMPLATE)
    (row,) = config(aws).describe_organization_conformance_pack_statuses()["OrganizationConformancePackStatuses"]
    assert row["Status"] == "CREATE_IN_PROGRESS"
    aws.advance(60)
    rows = config(aws).get_organization_conformance_pack_detailed_status(OrganizationConformancePackName="all")[
        "OrganizationConformancePackDetailedStatuses"
    ]
    assert {row["AccountId"]: row["Status"] for row in rows} == {
        "111111111111": "CREATE_SUCCESSFUL",
        made: "CREATE_SUCCESSFUL",
    }
    (own,) = config(aws).describe_conformance_packs()["ConformancePackDetails"]
    assert own["ConformancePackName"].startswith("OrgConformsPack-all-")
    with pytest.raises(ClientError) as refused:
        config(aws).delete_conformance_pack(ConformancePackName=own["ConformancePackName"])
    assert code(refused) == "ResourceInUseException"


def aggregated(aws: Aws) -> None:
    config(aws).put_configuration_aggregator(
        ConfigurationAggregatorName="all",
        AccountAggregationSources=[{"AccountIds": ["111111111111", "222222222222"], "AllAwsRegions": True}],
    )


def test_an_aggregator_sees_all_regions_some_minutes_later(aws):
    aggregated(aws)
    rows = config(aws).describe_aggregate_compliance_by_config_rules(ConfigurationAggregatorName="all")[
        "AggregateComplianceByConfigRules"
    ]
    assert {row["AwsRegion"] for row in rows} == {REGION, "us-east-1"}
    asked = {
        "ConfigurationAggregatorName": "all",
        "ConfigRuleName": RULE,
        "AccountId": "111111111111",
        "AwsRegion": REGION,
        "ComplianceType": "COMPLIANT",
    }
    host, client = aws.hosts("web")[0], config(aws)
    aws.patch(host)
    while details(aws)[host]["ComplianceType"] != "COMPLIANT":
        aws.advance(20)
    assert client.get_aggregate_compliance_details_by_config_rule(**asked)["AggregateEvaluationResults"] == []
    aws.advance(180)
    (row,) = client.get_aggregate_compliance_details_by_config_rule(**asked)["AggregateEvaluationResults"]
    assert row["AccountId"] == "111111111111"
    (summary,) = client.get_aggregate_config_rule_compliance_summary(ConfigurationAggregatorName="all")[
        "AggregateComplianceCounts"
    ]
    assert summary["ComplianceSummary"]["NonCompliantResourceCount"]["CappedCount"] == 2


def test_another_account_must_allow_it(aws):
    aggregated(aws)
    rows = config(aws).describe_configuration_aggregator_sources_status(ConfigurationAggregatorName="all")[
        "AggregatedSourceStatusList"
    ]
    assert {row["SourceId"]: row["LastUpdateStatus"] for row in rows} == {"111111111111": "SUCCEEDED", "222222222222": "FAILED"}
    with pytest.raises(ClientError) as refused:
        config(aws).describe_aggregate_compliance_by_config_rules(ConfigurationAggregatorName="none")
    assert code(refused) == "NoSuchConfigurationAggregatorException"


def select(aws: Aws, expression: str, **request) -> list[dict]:
    answer = config(aws).select_aggregate_resource_config(
        ConfigurationAggregatorName="all", Expression=expression, **{"Limit": 100, **request}
    )
    return [json.loads(row) for row in answer["Results"]]


def test_a_query_finds_instances_and_what_is_wrong_with_them(aws):
    aggregated(aws)
    aws.advance(300)
    rows = select(
        aws,
        "SELECT resourceId, configuration.instanceType, tags.tag WHERE resourceType = 'AWS::EC2::Instance' "
        "AND configuration.state.name = 'running' AND tags.tag = 'PatchGroup=web' ORDER BY resourceId",
    )
    assert [row["resourceId"] for row in rows] == sorted(aws.hosts("web") + aws.hosts("far"))
    assert rows[0]["configuration"] == {"instanceType": "t3.medium"}
    bad = select(
        aws,
        "SELECT configuration.targetResourceId WHERE resourceType = 'AWS::Config::ResourceCompliance' "
        "AND configuration.complianceType = 'NON_COMPLIANT' AND awsRegion LIKE 'eu-%'",
    )
    assert {row["configuration"]["targetResourceId"] for row in bad} == {f"{PREFIX}{host}" for host in aws.hosts("web")}
    counts = select(aws, "SELECT awsRegion, COUNT(*) WHERE resourceType IN ('AWS::EC2::Instance') GROUP BY awsRegion")
    assert {row["awsRegion"]: row["COUNT(*)"] for row in counts} == {REGION: 9, "us-east-1": 1}
    page = config(aws).select_aggregate_resource_config(
        ConfigurationAggregatorName="all", Expression="SELECT resourceId", Limit=3
    )
    assert (len(page["Results"]), bool(page["NextToken"])) == (3, True)
    assert page["QueryInfo"]["SelectFields"] == [{"Name": "resourceId"}]
    with pytest.raises(ClientError) as refused:
        select(aws, "DELETE everything")
    assert code(refused) == "InvalidExpressionException"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("SELECT n WHERE n > 1 AND NOT n = 3", [2]),
        ("SELECT n WHERE n = 1 OR (n >= 3 AND name <> 'x')", [1, 3]),
        ("SELECT n WHERE n BETWEEN 2 AND 3 ORDER BY n DESC", [3, 2]),
        ("SELECT n WHERE name NOT IN ('a', 'b')", [3]),
        ("SELECT n WHERE name LIKE '%b%'", [2]),
    ],
)
def test_conditions_hold_as_in_sql(expression, found):
    rows = [{"n": 1, "name": "a"}, {"n": 2, "name": "b"}, {"n": 3, "name": "c"}]
    assert [row["n"] for row in run(parse(expression), rows)] == found


@pytest.mark.parametrize("expression", ["", "SELECT", "SELECT a FROM b", "SELECT a WHERE", "SELECT a WHERE b = c"])
def test_what_is_no_query_is_refused(expression):
    with pytest.raises(BadQuery):
        parse(expression)
