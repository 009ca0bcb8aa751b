"""OpsItems: their life, deduplication, filters, tags and related items."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.test_ssm_baselines import code


def item(aws, title="Disk full", **more):
    return aws.ssm.create_ops_item(Title=title, Source="patching", Description="what was seen", **more)


def listed(aws, *filters):
    pages = aws.ssm.get_paginator("describe_ops_items").paginate(
        OpsItemFilters=[{"Key": key, "Operator": how, "Values": [value]} for key, how, value in filters],
        PaginationConfig={"PageSize": 2},
    )
    return [row["Title"] for page in pages for row in page["OpsItemSummaries"]]


def test_an_item_is_open_until_it_is_updated(aws):
    """Operational data is merged, the version counts up."""
    made = item(aws, Priority=2, OperationalData={"host": {"Value": "i-1", "Type": "SearchableString"}})
    assert made["OpsItemId"].startswith("oi-")
    assert made["OpsItemArn"].endswith(f":opsitem/{made['OpsItemId']}")
    aws.advance(60)
    aws.ssm.update_ops_item(
        OpsItemId=made["OpsItemId"], Status="Resolved", OperationalData={"wave": {"Value": "2"}}, OperationalDataToDelete=["host"]
    )
    found = aws.ssm.get_ops_item(OpsItemId=made["OpsItemId"])["OpsItem"]
    assert (found["Status"], found["Version"], found["Priority"]) == ("Resolved", "2", 2)
    assert found["OperationalData"] == {"wave": {"Value": "2", "Type": "String"}}
    assert found["LastModifiedTime"] > found["CreatedTime"]
    with pytest.raises(ClientError) as refused:
        aws.ssm.get_ops_item(OpsItemId="oi-0123456789ab")
    assert code(refused) == "OpsItemNotFoundException"


def test_a_dedup_string_makes_one_open_item(aws):
    """The refusal names the item that is there; once it is resolved another one may be made."""
    data = {"/aws/dedup": {"Value": '{"dedupString": "halted wave 2"}', "Type": "SearchableString"}}
    first = item(aws, OperationalData=data)["OpsItemId"]
    with pytest.raises(ClientError) as refused:
        item(aws, OperationalData=data)
    assert code(refused) == "OpsItemAlreadyExistsException"
    assert refused.value.response["OpsItemId"] == first
    aws.ssm.update_ops_item(OpsItemId=first, Status="Resolved")
    assert item(aws, OperationalData=data)["OpsItemId"] != first


def test_items_are_found_by_their_filters(aws):
    """Newest first, filters ANDed, pages hold together."""
    item(aws, "first", Severity="1", OperationalData={"host": {"Value": "i-1", "Type": "SearchableString"}})
    aws.advance(3600)
    item(aws, "second", Severity="2")
    item(aws, "third", Severity="2")
    assert listed(aws) == ["third", "second", "first"]
    assert listed(aws, ("Severity", "Equal", "2"), ("Title", "Contains", "sec")) == ["second"]
    assert listed(aws, ("OperationalData", "Equal", '{"key":"host","value":"i-1"}')) == ["first"]
    assert listed(aws, ("CreatedTime", "LessThan", "2026-01-05T08:30:00Z")) == ["first"]
    for wrong in (("Colour", "Equal", "red"), ("Status", "GreaterThan", "Open"), ("CreatedTime", "Equal", "2026-01-05")):
        with pytest.raises(ClientError) as refused:
            listed(aws, wrong)
        assert code(refused) == "ValidationException"


def test_reserved_keys_of_operational_data_are_refused(aws):
    """Words that begin with aws belong to AWS."""
    with pytest.raises(ClientError) as refused:
        item(aws, OperationalData={"/aws/mine": {"Value": "x"}})
    assert code(refused) == "OpsItemInvalidParameterException"


def test_items_and_baselines_carry_tags(aws):
    """moto refuses tags on both."""
    identifier = item(aws, Tags=[{"Key": "team", "Value": "shop"}])["OpsItemId"]
    where = {"ResourceType": "OpsItem", "ResourceId": identifier}
    aws.ssm.add_tags_to_resource(**where, Tags=[{"Key": "wave", "Value": "2"}])
    aws.ssm.remove_tags_from_resource(**where, TagKeys=["team"])
    assert aws.ssm.list_tags_for_resource(**where)["TagList"] == [{"Key": "wave", "Value": "2"}]
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_tags_for_resource(ResourceType="PatchBaseline", ResourceId="pb-0123456789abcdef0")
    assert code(refused) == "InvalidResourceId"


def test_related_items_are_associated_once(aws):
    """And go with their item."""
    identifier = item(aws)["OpsItemId"]
    given = {
        "OpsItemId": identifier,
        "AssociationType": "RelatesTo",
        "ResourceType": "AWS::SSM::ManagedInstance",
        "ResourceUri": "arn:aws:ssm:eu-central-1:111111111111:managed-instance/i-1",
    }
    association = aws.ssm.associate_ops_item_related_item(**given)["AssociationId"]
    with pytest.raises(ClientError) as refused:
        aws.ssm.associate_ops_item_related_item(**given)
    assert code(refused) == "OpsItemRelatedItemAlreadyExistsException"
    (row,) = aws.ssm.list_ops_item_related_items(OpsItemId=identifier)["Summaries"]
    assert row["AssociationId"] == association
    aws.ssm.delete_ops_item(OpsItemId=identifier)
    assert aws.ssm.list_ops_item_related_items()["Summaries"] == []
