"""Patch baselines: their life, the default of an operating system, and the document that the agent fetches."""

import json
import urllib.request
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

RULE = {
    "PatchFilterGroup": {"PatchFilters": [{"Key": "CLASSIFICATION", "Values": ["Security"]}]},
    "ComplianceLevel": "CRITICAL",
    "ApproveAfterDays": 0,
}


def made(aws, name="mine", system="UBUNTU", rules=(RULE,), **more):
    return aws.ssm.create_patch_baseline(Name=name, OperatingSystem=system, ApprovalRules={"PatchRules": list(rules)}, **more)[
        "BaselineId"
    ]


def code(raised) -> str:
    return str(raised.value.response["Error"]["Code"])


def as_windows(aws):
    """The world's Amazon Linux 2023 called Windows, whose patches the operations list."""
    world = aws.simulator.world
    platform = replace(world.catalogue.platforms["amazon-linux-2023"], operating_system="WINDOWS", product="WindowsServer2022")
    others = {key: found for key, found in world.catalogue.platforms.items() if found.operating_system != "WINDOWS"}
    world.catalogue = replace(world.catalogue, platforms={**others, "windows": platform})


def test_a_rule_has_exactly_one_of_days_and_date(aws):
    """Both or neither is refused."""
    both = {**RULE, "ApproveUntilDate": "2026-01-01"}
    neither = {key: value for key, value in RULE.items() if key != "ApproveAfterDays"}
    for rule in (both, neither):
        with pytest.raises(ClientError) as refused:
            made(aws, rules=[rule])
        assert code(refused) == "ValidationException"


def test_a_client_token_makes_one_baseline(aws):
    """The same request again answers the same id, another one is refused."""
    first = made(aws, ClientToken="once")
    assert made(aws, ClientToken="once") == first
    with pytest.raises(ClientError) as refused:
        made(aws, name="other", ClientToken="once")
    assert code(refused) == "IdempotentParameterMismatch"


def test_a_registered_default_is_what_nodes_without_a_group_use(aws):
    """From their next run on; and it cannot be deleted meanwhile."""
    assert aws.ssm.get_default_patch_baseline()["OperatingSystem"] == "WINDOWS"
    before = aws.ssm.get_default_patch_baseline(OperatingSystem="UBUNTU")["BaselineId"]
    assert before.startswith("arn:aws:ssm:")
    identifier = made(aws)
    assert aws.ssm.register_default_patch_baseline(BaselineId=identifier)["BaselineId"] == identifier
    assert aws.ssm.get_default_patch_baseline(OperatingSystem="UBUNTU")["BaselineId"] == identifier
    host = aws.hosts("odd")[4]
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert aws.patch_state(host)["BaselineId"] == identifier
    with pytest.raises(ClientError) as refused:
        aws.ssm.delete_patch_baseline(BaselineId=identifier)
    assert code(refused) == "ResourceInUseException"
    aws.ssm.register_default_patch_baseline(BaselineId=before)
    aws.ssm.delete_patch_baseline(BaselineId=identifier)
    assert aws.ssm.delete_patch_baseline(BaselineId=identifier)["BaselineId"] == identifier


def test_an_update_replaces_lists_as_a_whole(aws):
    """With Replace what is not given is emptied, and the name is required."""
    identifier = made(aws, ApprovedPatches=["expat.x86_64"], Description="first")
    aws.advance(60)
    changed = aws.ssm.update_patch_baseline(BaselineId=identifier, RejectedPatches=["curl"])
    assert (changed["ApprovedPatches"], changed["RejectedPatches"]) == (["expat.x86_64"], ["curl"])
    assert changed["ModifiedDate"] > changed["CreatedDate"]
    with pytest.raises(ClientError) as refused:
        aws.ssm.update_patch_baseline(BaselineId=identifier, Replace=True)
    assert code(refused) == "ValidationException"
    emptied = aws.ssm.update_patch_baseline(BaselineId=identifier, Replace=True, Name="mine")
    assert (emptied["ApprovedPatches"], emptied["RejectedPatches"], emptied["ApprovalRules"]) == ([], [], {"PatchRules": []})
    assert "PatchGroups" in aws.ssm.get_patch_baseline(BaselineId=identifier)
    with pytest.raises(ClientError) as refused:
        aws.ssm.update_patch_baseline(BaselineId="pb-0123456789abcdef0", Name="none")
    assert code(refused) == "DoesNotExistException"


def test_baselines_of_aws_and_of_the_account_are_listed(aws):
    """OWNER tells them apart; pages hold together."""
    identifier = made(aws)
    own = aws.ssm.describe_patch_baselines(Filters=[{"Key": "OWNER", "Values": ["Self"]}])["BaselineIdentities"]
    assert identifier in {row["BaselineId"] for row in own}
    pages = aws.ssm.get_paginator("describe_patch_baselines").paginate(PaginationConfig={"PageSize": 4})
    rows = [row for page in pages for row in page["BaselineIdentities"]]
    assert len(rows) == len({row["BaselineId"] for row in rows}) > 10
    assert {row["OperatingSystem"] for row in rows if row["DefaultBaseline"]} >= {"WINDOWS", "UBUNTU", "AMAZON_LINUX_2023"}


def test_a_deregistered_group_uses_the_default_again(aws):
    """moto would register the baseline once more."""
    identifier = made(aws)
    aws.ssm.register_patch_baseline_for_patch_group(BaselineId=identifier, PatchGroup="odd")
    with pytest.raises(ClientError) as refused:
        aws.ssm.delete_patch_baseline(BaselineId=identifier)
    assert code(refused) == "ResourceInUseException"
    aws.ssm.deregister_patch_baseline_for_patch_group(BaselineId=identifier, PatchGroup="odd")
    found = aws.ssm.get_patch_baseline_for_patch_group(PatchGroup="odd", OperatingSystem="UBUNTU")["BaselineId"]
    assert found == aws.ssm.get_default_patch_baseline(OperatingSystem="UBUNTU")["BaselineId"]


def test_effective_patches_are_told_for_windows_only(aws):
    """Other operating systems are refused with a code of their own; a patch waits until its approval date."""
    with pytest.raises(ClientError) as refused:
        aws.ssm.describe_effective_patches_for_patch_baseline(BaselineId=made(aws))
    assert code(refused) == "UnsupportedOperatingSystem"
    as_windows(aws)
    late = {**RULE, "ApproveAfterDays": 360}
    identifier = made(aws, name="windows", system="WINDOWS", rules=[late], RejectedPatches=["expat*"])
    rows = aws.ssm.describe_effective_patches_for_patch_baseline(BaselineId=identifier)["EffectivePatches"]
    states = {row["PatchStatus"]["DeploymentStatus"] for row in rows}
    assert "EXPLICIT_REJECTED" in states
    assert states <= {"EXPLICIT_REJECTED", "PENDING_APPROVAL", "APPROVED"}
    assert {"Id", "KbNumber", "MsrcSeverity", "Product"} <= set(rows[0]["Patch"])


def test_available_patches_are_those_of_windows_unless_a_product_says_otherwise(aws):
    """Filters are ANDed; unknown keys are refused."""
    as_windows(aws)
    pages = aws.ssm.get_paginator("describe_available_patches").paginate(PaginationConfig={"PageSize": 7})
    rows = [row for page in pages for row in page["Patches"]]
    assert len(rows) > 7
    assert {row["Product"] for row in rows} == {"WindowsServer2022"}
    some = aws.ssm.describe_available_patches(
        Filters=[{"Key": "PRODUCT", "Values": ["WindowsServer2022"]}, {"Key": "CLASSIFICATION", "Values": ["Security"]}]
    )["Patches"]
    assert 0 < len(some) < len(rows)
    with pytest.raises(ClientError) as refused:
        aws.ssm.describe_available_patches(Filters=[{"Key": "COLOUR", "Values": ["red"]}])
    assert code(refused) == "ValidationException"


def test_patch_properties_are_the_vocabulary_of_an_operating_system(aws):
    """As the filters of a baseline take them."""
    answer = aws.ssm.describe_patch_properties(OperatingSystem="AMAZON_LINUX", Property="PRODUCT")
    names = [row["Name"] for row in answer["Properties"]]
    assert (names[0], names[-1]) == ("AmazonLinux2012.03", "AmazonLinux2018.03")
    with pytest.raises(ClientError) as refused:
        aws.ssm.describe_patch_properties(OperatingSystem="UBUNTU", Property="MSRC_SEVERITY")
    assert code(refused) == "ValidationException"


def test_the_snapshot_of_a_node_can_be_fetched_for_a_day(aws):
    """The URL looks pre-signed and awsim serves it itself."""
    host = aws.hosts("web")[0]
    answer = aws.ssm.get_deployable_patch_snapshot_for_instance(
        InstanceId=host, SnapshotId="521c3536-930c-4aa9-950e-01234567abcd"
    )
    assert answer["Product"] == "AmazonLinux2023"
    url = answer["SnapshotDownloadUrl"]
    assert "X-Amz-Expires=86400" in url
    with urllib.request.urlopen(url, timeout=20) as found:
        document = json.loads(found.read())
    assert document["patchGroup"] == "web"
    assert document["patchBaseline"]["approvalRules"]["patchRules"]
    aws.advance(86_400 + 1)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url, timeout=20)
