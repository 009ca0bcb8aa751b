"""Inventory: what nodes told of themselves and when; and its way into a bucket."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW
from tests.simulator.test_ssm_baselines import code


def entities(aws, *filters, kind=None, size=50):
    request = {"ResultAttributes": [{"TypeName": kind}]} if kind else {}
    if filters:
        request["Filters"] = [{"Key": key, "Type": how, "Values": [value]} for key, how, value in filters]
    pages = aws.ssm.get_paginator("get_inventory").paginate(**request, PaginationConfig={"PageSize": size})
    return {row["Id"]: row["Data"] for page in pages for row in page["Entities"]}


def entries(aws, host, kind, **request):
    found, token = [], None
    while True:
        answer = aws.ssm.list_inventory_entries(
            InstanceId=host, TypeName=kind, **request, **({"NextToken": token} if token else {})
        )
        found += answer["Entries"]
        token = answer.get("NextToken")
        if not token:
            return found


def captured(aws, host):
    return aws.ssm.list_inventory_entries(InstanceId=host, TypeName="AWS:Application")["CaptureTime"]


def test_every_node_that_registered_has_instance_information(aws):
    """A node that never did has no entity; pages hold together."""
    found = entities(aws, size=2)
    assert set(found) == {*aws.hosts("web"), *aws.hosts("odd")} - {aws.hosts("odd")[2]}
    (row,) = found[aws.hosts("web")[0]]["AWS:InstanceInformation"]["Content"]
    assert (row["PlatformName"], row["PlatformType"], row["InstanceStatus"]) == ("Amazon Linux", "Linux", "Active")
    (row,) = found[aws.hosts("odd")[1]]["AWS:InstanceInformation"]["Content"]
    assert row["InstanceStatus"] == "Stopped"


def test_applications_are_those_of_the_last_inventory(aws):
    """A package that was installed since shows its old version until then."""
    host = aws.hosts("web")[0]
    (before,) = entries(aws, host, "AWS:Application", Filters=[{"Key": "Name", "Values": ["expat"]}])
    aws.patch(host)
    aws.advance(600)
    aws.advance(1800)
    (after,) = entries(aws, host, "AWS:Application", Filters=[{"Key": "Name", "Values": ["expat"]}])
    assert (after["Version"], after["Release"]) != (before["Version"], before["Release"])
    assert after["InstalledTime"] > before["InstalledTime"]


def test_a_template_may_have_its_inventory_taken_at_other_times(start):
    """Where everything else of a fast world may wait for hours."""
    world = f"inspector: {{inventory_every: 86400}}\n{FEW}".replace(
        "ubuntu: {os: ubuntu-24.04,", "ubuntu: {os: ubuntu-24.04, inventory_every: 600,"
    )
    aws = start(world)
    late, soon = aws.hosts("web")[0], aws.hosts("odd")[4]
    before = {host: captured(aws, host) for host in (late, soon)}
    aws.advance(600)
    assert {host: captured(aws, host) == before[host] for host in before} == {late: True, soon: False}


def test_the_release_of_amazon_linux_2023_is_a_package(aws):
    """system-release says which repositories the host has seen, never older ones than its image; other systems have none."""
    web, odd = aws.hosts("web")[0], aws.hosts("odd")[4]
    (before,) = entries(aws, web, "AWS:Application", Filters=[{"Key": "Name", "Values": ["system-release"]}])
    aws.patch(web)
    aws.advance(8_000)
    (after,) = entries(aws, web, "AWS:Application", Filters=[{"Key": "Name", "Values": ["system-release"]}])
    assert "2023.6.20241010" <= before["Version"] <= after["Version"]
    assert after["Version"] == "2023.6.20250114"  # the day of the catalogue's newest update
    assert not entries(aws, odd, "AWS:Application", Filters=[{"Key": "Name", "Values": ["system-release"]}])


def test_versions_of_dpkg_are_whole(aws):
    """Epoch and revision stand in Version, an epoch of zero nowhere; rpm's stand beside it."""
    by_name = {row["Name"]: row for row in entries(aws, aws.hosts("odd")[4], "AWS:Application")}
    assert by_name["openssh-server"]["Version"].startswith("1:9.6p1-3ubuntu")
    assert ":" not in by_name["libexpat1"]["Version"]
    assert {row.get("Release", "") for row in by_name.values()} == {""}
    rpm = {row["Name"]: row for row in entries(aws, aws.hosts("web")[0], "AWS:Application")}["kernel"]
    assert (rpm["Epoch"], "-" in rpm["Version"], rpm["Release"].endswith(".amzn2023")) == ("0", False, True)


def test_the_patch_summary_says_what_the_patch_state_says(aws):
    """Its counts are strings."""
    host = aws.hosts("web")[0]
    (row,) = entries(aws, host, "AWS:PatchSummary")
    state = aws.patch_state(host)
    assert row["MissingCount"] == str(state["MissingCount"])
    assert (row["BaselineId"], row["OperationType"]) == (state["BaselineId"], "Scan")
    assert aws.hosts("odd")[3] in entities(aws, kind="AWS:PatchSummary")
    assert entities(aws, kind="AWS:PatchSummary")[aws.hosts("odd")[3]] == {}


def test_filters_choose_nodes_by_what_one_entry_says(aws):
    """Two conditions on applications must hold for the same application."""
    web = set(aws.hosts("web"))
    assert set(entities(aws, ("AWS:InstanceInformation.PlatformName", "Equal", "Amazon Linux"))) == web
    assert set(entities(aws, ("AWS:InstanceInformation.PlatformName", "NotEqual", "Amazon Linux"))).isdisjoint(web)
    host = aws.hosts("web")[0]
    (row,) = entries(aws, host, "AWS:Application", Filters=[{"Key": "Name", "Values": ["expat"]}])
    same = entities(aws, ("AWS:Application.Name", "Equal", "expat"), ("AWS:Application.Release", "Equal", row["Release"]))
    assert host in same
    assert entities(aws, ("AWS:Application.Name", "Equal", "expat"), ("AWS:Application.Version", "Equal", "none")) == {}
    for wrong, expected in (
        ("AWS:Application.Colour", "InvalidFilter"),
        ("Colour", "InvalidFilter"),
        ("AWS:Nothing.Name", "InvalidTypeNameException"),
    ):
        with pytest.raises(ClientError) as refused:
            entities(aws, (wrong, "Equal", "x"))
        assert code(refused) == expected


def test_aggregators_count(aws):
    """As the guide's samples do: in lower case, with strings."""
    answer = aws.ssm.get_inventory(
        Aggregators=[
            {
                "Expression": "AWS:InstanceInformation.PlatformName",
                "Aggregators": [{"Expression": "AWS:InstanceInformation.PlatformType"}],
            }
        ]
    )
    content = answer["Entities"][0]["Data"]["AWS:InstanceInformation"]["Content"]
    assert {"Count": "4", "PlatformName": "amazon linux", "PlatformType": "linux"} in content
    grouped = aws.ssm.get_inventory(
        Aggregators=[
            {"Groups": [{"Name": "Scanned", "Filters": [{"Key": "TypeName", "Values": ["AWS:PatchSummary"], "Type": "Exists"}]}]}
        ]
    )
    assert grouped["Entities"][0]["Data"]["Scanned"]["Content"] == [{"notMatchingCount": "4"}, {"matchingCount": "4"}]


def test_callers_write_inventory_of_their_own(aws):
    """Of types that begin with Custom; those of AWS are the agent's."""
    host = aws.hosts("web")[0]
    entry = {
        "TypeName": "Custom:RackInfo",
        "SchemaVersion": "1.0",
        "CaptureTime": "2026-01-05T08:00:00Z",
        "Content": [{"RackLocation": "Bay B"}],
    }
    aws.ssm.put_inventory(InstanceId=host, Items=[entry])
    assert entries(aws, host, "Custom:RackInfo") == [{"RackLocation": "Bay B"}]
    schemas = aws.ssm.get_inventory_schema(TypeName="Custom:RackInfo")["Schemas"]
    assert schemas[0]["Attributes"] == [{"Name": "RackLocation", "DataType": "STRING"}]
    with pytest.raises(ClientError) as refused:
        aws.ssm.put_inventory(InstanceId=host, Items=[{**entry, "TypeName": "AWS:Application"}])
    assert code(refused) == "InvalidTypeNameException"
    with pytest.raises(ClientError) as refused:
        entries(aws, "i-0123456789abcdef0", "AWS:Application")
    assert code(refused) == "InvalidInstanceId"


def test_a_resource_data_sync_writes_into_its_bucket(aws):
    """All nodes after its making, and patch data when it arrives."""
    s3 = aws.client("s3")
    where = {"BucketName": "synced", "SyncFormat": "JsonSerDe", "Region": "eu-central-1", "Prefix": "fleet"}
    with pytest.raises(ClientError) as refused:
        aws.ssm.create_resource_data_sync(SyncName="all", S3Destination=where)
    assert code(refused) == "ResourceDataSyncInvalidConfigurationException"
    s3.create_bucket(Bucket="synced", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    aws.ssm.create_resource_data_sync(SyncName="all", S3Destination=where)
    with pytest.raises(ClientError) as refused:
        aws.ssm.create_resource_data_sync(SyncName="all", S3Destination=where)
    assert code(refused) == "ResourceDataSyncAlreadyExistsException"
    aws.advance(61)
    (row,) = aws.ssm.list_resource_data_sync()["ResourceDataSyncItems"]
    assert (row["LastStatus"], row["S3Destination"]) == ("Successful", where)
    host = aws.hosts("web")[0]

    def summary():
        key = (
            f"fleet/AWS:PatchSummary/accountid=111111111111/region=eu-central-1/resourcetype=ManagedInstanceInventory/{host}.json"
        )
        return json.loads(s3.get_object(Bucket="synced", Key=key)["Body"].read())

    assert summary()["resourceId"] == host
    aws.patch(host)
    aws.advance(200)
    assert (summary()["OperationType"], summary()["MissingCount"]) == ("Install", "0")
    aws.ssm.delete_resource_data_sync(SyncName="all")
    assert aws.ssm.list_resource_data_sync()["ResourceDataSyncItems"] == []
    with pytest.raises(ClientError) as refused:
        aws.ssm.delete_resource_data_sync(SyncName="all")
    assert code(refused) == "ResourceDataSyncNotFoundException"
