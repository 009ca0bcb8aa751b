"""Inspector's filters that suppress, details, switches, administrators and counts."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, FEW, Aws
from tests.simulator.test_inspector2 import TICK, active, coverage, equals, findings, moment, now

OTHER = "222222222222"
TWO = FEW.replace('accounts: [{id: "111111111111"}]', f'accounts: [{{id: "111111111111"}}, {{id: "{OTHER}"}}]') + (
    f'  - {{name: shop, account: "{OTHER}", region: eu-central-1, count: 2, template: amazon, tags: {{Shop: "yes"}}}}\n'
)
CVE = "CVE-2024-45491"


def inspector(aws: Aws, **credentials):
    return aws.client("inspector2", **credentials)


def of_other(aws: Aws):
    """A client of the other account, as an assumed role."""
    role = f"arn:aws:iam::{OTHER}:role/OrganizationAccountAccessRole"
    key = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return inspector(
        aws,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
    )


def suppress(aws: Aws, **criteria) -> str:
    return str(inspector(aws).create_filter(action="SUPPRESS", name="known", filterCriteria=criteria)["arn"])


def statuses(aws: Aws, **criteria) -> set[str]:
    return {row["status"] for row in findings(aws, **criteria)}


def test_a_filter_suppresses_findings_until_it_is_deleted(aws):
    """Suppressed is neither active nor closed: counts of active findings leave it out."""
    before = moment(now(aws))
    arn = suppress(aws, vulnerabilityId=equals(CVE))
    found = findings(aws, vulnerabilityId=equals(CVE))
    assert {row["status"] for row in found} == {"SUPPRESSED"}
    assert all(row["updatedAt"] >= before for row in found), "incremental readers see the change"
    assert findings(aws, vulnerabilityId=equals(CVE), findingStatus=equals("ACTIVE")) == []
    assert "ACTIVE" in statuses(aws)
    aws.advance(100)
    inspector(aws).delete_filter(arn=arn)
    found = findings(aws, vulnerabilityId=equals(CVE))
    assert {row["status"] for row in found} == {"ACTIVE"}
    assert all(row["updatedAt"] >= moment(now(aws) - 1) for row in found)


def test_a_filter_that_does_not_suppress_changes_nothing(aws):
    inspector(aws).create_filter(action="NONE", name="view", filterCriteria={"vulnerabilityId": equals(CVE)})
    assert statuses(aws, vulnerabilityId=equals(CVE)) == {"ACTIVE"}


def test_a_changed_filter_suppresses_something_else(aws):
    arn = suppress(aws, vulnerabilityId=equals(CVE))
    aws.advance(60)
    client = inspector(aws)
    client.update_filter(filterArn=arn, filterCriteria={"vulnerabilityId": equals("CVE-0000-1")}, description="nothing")
    assert statuses(aws, vulnerabilityId=equals(CVE)) == {"ACTIVE"}
    (row,) = client.list_filters(action="SUPPRESS")["filters"]
    assert (row["description"], row["criteria"]) == ("nothing", {"vulnerabilityId": equals("CVE-0000-1")})
    assert row["updatedAt"] > row["createdAt"]
    with pytest.raises(ClientError) as refused:
        client.update_filter(filterArn=arn + "0", name="other")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_details_tell_of_exploitation_and_of_what_is_not_there(aws):
    found = findings(aws)
    known = next(row for row in found if row["exploitAvailable"] == "YES")
    unknown = found[0]["findingArn"][:-4] + "0000"
    answer = inspector(aws).batch_get_finding_details(findingArns=[known["findingArn"], unknown])
    (row,) = answer["findingDetails"]
    assert row["cisaData"]["dateDue"] > row["cisaData"]["dateAdded"]
    assert row["epssScore"] == known["epss"]["score"]
    (error,) = answer["errors"]
    assert (error["findingArn"], error["errorCode"]) == (unknown, "FINDING_DETAILS_NOT_FOUND")


def test_disabling_takes_the_findings_and_enabling_scans_again(aws):
    client = inspector(aws)

    def status() -> str:
        (row,) = client.batch_get_account_status(accountIds=[ACCOUNT])["accounts"]
        assert row["state"]["status"] == row["resourceState"]["ec2"]["status"]
        return str(row["state"]["status"])

    assert status() == "ENABLED"
    host = aws.hosts("web")[0]
    assert active(aws, host)
    client.disable(resourceTypes=["EC2"])
    assert status() == "DISABLING"
    aws.advance(61)
    assert (status(), findings(aws), coverage(aws)) == ("DISABLED", [], {})
    client.enable(resourceTypes=["EC2"])
    assert status() == "ENABLING"
    aws.advance(61)
    assert status() == "ENABLED"
    assert coverage(aws, resourceId=equals(host))[host, "PACKAGE"]["scanStatus"]["reason"] == "PENDING_INITIAL_SCAN"
    aws.advance(TICK)
    assert active(aws, host)
    assert coverage(aws, resourceId=equals(host))[host, "PACKAGE"]["scanStatus"]["statusCode"] == "ACTIVE"


def test_an_administrator_sees_its_members_and_they_see_themselves(start):
    aws = start(TWO)
    admin, member = inspector(aws), of_other(aws)
    assert {row["awsAccountId"] for row in findings(aws)} == {ACCOUNT}
    (refused,) = admin.batch_get_account_status(accountIds=[OTHER])["failedAccounts"]
    assert refused["errorCode"] == "ACCESS_DENIED"
    admin.enable_delegated_admin_account(delegatedAdminAccountId=ACCOUNT)
    with pytest.raises(ClientError) as conflict:
        admin.enable_delegated_admin_account(delegatedAdminAccountId=OTHER)
    assert conflict.value.response["Error"]["Code"] == "ConflictException"
    admin.associate_member(accountId=OTHER)
    assert {row["awsAccountId"] for row in findings(aws)} == {ACCOUNT, OTHER}
    assert {row["awsAccountId"] for row in findings(aws, awsAccountId=equals(OTHER))} == {OTHER}
    shop = set(aws.hosts("shop"))
    assert shop <= {host for host, _ in coverage(aws)}
    assert admin.batch_get_account_status(accountIds=[OTHER])["accounts"][0]["state"]["status"] == "ENABLED"
    found = member.list_findings(maxResults=100)["findings"]
    assert {row["awsAccountId"] for row in found} == {OTHER}
    assert member.get_delegated_admin_account()["delegatedAdmin"]["accountId"] == ACCOUNT
    rows = admin.list_finding_aggregations(aggregationType="ACCOUNT")["responses"]
    assert {row["accountAggregation"]["accountId"] for row in rows} == {ACCOUNT, OTHER}
    suppress(aws, awsAccountId=equals(OTHER))
    assert {row["status"] for row in member.list_findings(maxResults=100)["findings"]} == {"SUPPRESSED"}
    admin.disassociate_member(accountId=OTHER)
    assert {row["awsAccountId"] for row in findings(aws)} == {ACCOUNT}


def counted(aws: Aws, kind: str, **request) -> list[dict]:
    given = {"aggregationRequest": request} if request else {}
    pages = inspector(aws).get_paginator("list_finding_aggregations").paginate(aggregationType=kind, **given)
    return [next(iter(row.values())) for page in pages for row in page["responses"]]


def test_counts_by_image_tell_how_many_instances_are_affected(aws):
    rows = counted(aws, "AMI", amiAggregation={"sortBy": "AFFECTED_INSTANCES", "sortOrder": "DESC"})
    assert rows[0]["affectedInstances"] == 4
    image = aws.ec2.describe_instances(InstanceIds=[aws.hosts("web")[0]])["Reservations"][0]["Instances"][0]["ImageId"]
    assert rows[0]["ami"] == image
    (only,) = counted(aws, "AMI", amiAggregation={"amis": equals(image)})
    assert only["severityCounts"]["all"] == rows[0]["severityCounts"]["all"]


@pytest.mark.parametrize(
    ("kind", "request_", "member"),
    [
        ("PACKAGE", {"packageAggregation": {"packageNames": equals("expat")}}, "packageName"),
        ("TITLE", {"titleAggregation": {"vulnerabilityIds": equals(CVE)}}, "vulnerabilityId"),
        ("AWS_EC2_INSTANCE", {"ec2InstanceAggregation": {"operatingSystems": equals("AMAZON_LINUX_2023")}}, "instanceId"),
    ],
)
def test_counts_are_of_what_the_request_names(aws, kind, request_, member):
    every, found = counted(aws, kind), counted(aws, kind, **request_)
    assert 0 < len(found) < len(every)
    assert all(row[member] for row in found)


def test_counts_of_types_without_resources_are_empty(aws):
    for kind in ("AWS_ECR_CONTAINER", "AWS_LAMBDA_FUNCTION", "REPOSITORY", "CODE_REPOSITORY"):
        assert counted(aws, kind) == []
    (row,) = counted(aws, "FINDING_TYPE", findingTypeAggregation={"findingType": "PACKAGE_VULNERABILITY"})
    assert row["severityCounts"]["all"] == len(findings(aws, findingStatus=equals("ACTIVE")))
    assert counted(aws, "FINDING_TYPE", findingTypeAggregation={"findingType": "NETWORK_REACHABILITY"}) == []


def test_every_filter_and_sort_of_the_model_is_answered(aws):
    """Filters of resources that are not here match nothing; none is an error."""
    client = inspector(aws)
    shape = client.meta.service_model.shape_for("FilterCriteria")
    entries = {
        "StringFilter": {"comparison": "EQUALS", "value": "no-such-value"},
        "DateFilter": {"startInclusive": 4_000_000_000},
        "NumberFilter": {"lowerInclusive": 1000.0},
        "MapFilter": {"comparison": "EQUALS", "key": "no-such-key"},
        "PortRangeFilter": {"beginInclusive": 1, "endInclusive": 2},
        "PackageFilter": {"name": {"comparison": "EQUALS", "value": "no-such-package"}},
    }
    for name, member in shape.members.items():
        assert client.list_findings(filterCriteria={name: [entries[member.member.name]]})["findings"] == [], name
    for name in client.meta.service_model.shape_for("SortField").enum:
        assert client.list_findings(sortCriteria={"field": name, "sortOrder": "ASC"}, maxResults=1)["findings"], name
