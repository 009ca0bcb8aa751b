"""Inspector as AWS documents it: which findings a host has, when they close, and what coverage says of hosts without any."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, BASE, FEW, Aws

TICK = 1800
NEW_ADVISORY = "ALAS2023-2024-649"


def equals(value: str) -> list[dict[str, str]]:
    return [{"comparison": "EQUALS", "value": value}]


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, tz=UTC)


def findings(aws: Aws, region: str = "eu-central-1", **criteria):
    pages = aws.client("inspector2", region).get_paginator("list_findings").paginate(filterCriteria=criteria)
    return [row for page in pages for row in page["findings"]]


def active(aws: Aws, host: str):
    """CVE -> finding, of the host's active ones."""
    found = findings(aws, resourceId=equals(host), findingStatus=equals("ACTIVE"))
    return {row["packageVulnerabilityDetails"]["vulnerabilityId"]: row for row in found}


def packages(row) -> list[dict]:
    return row["packageVulnerabilityDetails"]["vulnerablePackages"]


def now(aws: Aws) -> float:
    return datetime.fromisoformat(aws.control("clock")["now"].replace("Z", "+00:00")).timestamp()


def coverage(aws: Aws, **criteria):
    pages = aws.client("inspector2").get_paginator("list_coverage").paginate(filterCriteria=criteria)
    return {(row["resourceId"], row["scanType"]): row for page in pages for row in page["coveredResources"]}


def test_a_host_has_one_finding_a_vulnerability_with_all_its_packages(aws):
    """Two packages with the same CVE are one finding, as the reference says; a CVE twice on a host would count twice."""
    found = findings(aws)
    keys = [(row["resources"][0]["id"], row["packageVulnerabilityDetails"]["vulnerabilityId"]) for row in found]
    assert len(keys) == len(set(keys))
    assert any(len(packages(row)) > 1 for row in found)
    assert {row["status"] for row in found} == {"ACTIVE"}


def test_a_finding_tells_package_fix_severity_and_the_host(aws):
    """These members decide track and deadline of a finding."""
    host = aws.hosts("web")[0]
    row = active(aws, host)["CVE-2024-45491"]
    assert row["severity"] == "CRITICAL"
    assert row["fixAvailable"] == "YES"
    assert packages(row)[0]["packageManager"] == "OS"
    assert packages(row)[0]["fixedInVersion"].startswith("0:2.6.3")
    assert packages(row)[0]["remediation"] == "yum update expat"
    assert row["packageVulnerabilityDetails"]["source"] == "AMAZON_CVE"
    resource = row["resources"][0]
    assert (resource["type"], resource["tags"]["PatchGroup"], resource["region"]) == ("AWS_EC2_INSTANCE", "web", "eu-central-1")
    assert row["firstObservedAt"] < moment(BASE)
    assert row["firstObservedAt"] <= row["lastObservedAt"] <= moment(BASE)


def test_ubuntus_findings_come_from_ubuntu(aws):
    rows = active(aws, aws.hosts("odd")[3]).values()
    assert {row["packageVulnerabilityDetails"]["source"] for row in rows} == {"UBUNTU_CVE"}


def test_what_no_operating_system_patch_fixes_is_listed_with_its_file(aws):
    row = active(aws, aws.hosts("web")[0])["CVE-2024-24790"]
    assert packages(row)[0]["packageManager"] == "GOBINARY"
    assert packages(row)[0]["filePath"] == "/usr/local/bin/node_exporter"


def test_a_finding_without_a_fix_says_not_available(start):
    aws = start(FEW.replace("[go-binary-stdlib]", "[no-fix-libgcrypt]"))
    row = active(aws, aws.hosts("web")[0])["CVE-2024-2236"]
    assert row["fixAvailable"] == "NO"
    assert packages(row)[0]["fixedInVersion"] == "NotAvailable"


def test_findings_close_at_the_first_inventory_after_the_patch_not_before(aws):
    """Patched is not closed: the next inventory may be half an hour away, and `updatedAt` moves only then."""
    host = aws.hosts("web")[0]
    before = active(aws, host)
    aws.patch(host)
    aws.advance(240)
    patched = now(aws)
    host_row = next(row for row in aws.control("hosts")["hosts"] if row["host"] == host)
    assert host_row["boots"] == 2
    for _ in range(TICK // 60 + 1):
        seen = active(aws, host)
        if seen != before and len(seen) < len(before):
            break
        assert set(seen) == set(before), "between two inventories nothing changes"
        aws.advance(60)
    assert set(active(aws, host)) == {"CVE-2024-24790"}, "the Go binary stays"
    closed = findings(aws, resourceId=equals(host), findingStatus=equals("CLOSED"))
    assert len(closed) == len(before) - 1
    assert {row["findingArn"] for row in closed} < {row["findingArn"] for row in before.values()}
    assert all(row["updatedAt"] > moment(patched - 240) for row in closed)
    assert all(row["lastObservedAt"] < row["updatedAt"] for row in closed)
    assert len({row["updatedAt"] for row in closed}) == 1


def test_a_kernels_findings_close_only_after_the_reboot(aws):
    """An installed kernel that does not run protects nobody: NoReboot leaves its findings open over any number of inventories."""
    host = aws.hosts("web")[1]
    kernel = {cve for cve, row in active(aws, host).items() if any(package["name"] == "kernel" for package in packages(row))}
    assert kernel
    aws.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    aws.advance(2 * TICK + 600)
    assert set(active(aws, host)) == kernel | {"CVE-2024-24790"}
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(TICK + 600)
    assert set(active(aws, host)) == {"CVE-2024-24790"}


def test_an_incremental_reader_finds_what_closed_by_updated_at(aws):
    """`lastObservedAt` stays at the last sighting, so only `updatedAt` tells what moved since the last look."""
    host = aws.hosts("web")[0]
    aws.patch(host)
    aws.advance(TICK + 600)
    since = [{"startInclusive": moment(BASE)}]
    moved = findings(aws, updatedAt=since)
    assert {row["status"] for row in moved} == {"CLOSED"}
    assert {row["resources"][0]["id"] for row in moved} == {host}
    assert all(row["status"] == "ACTIVE" for row in findings(aws, updatedAt=[{"endInclusive": moment(BASE)}]))


def test_a_new_advisory_opens_findings_at_the_next_inventory(start):
    """Vulnerabilities do not wait for the campaign's end."""
    world = FEW + f"\ncatalogue: {{appears: {{{NEW_ADVISORY}: 600}}}}\n"
    aws = start(world)
    assert not findings(aws, vulnerabilityId=equals("CVE-2024-6387"), resourceTags=tag("PatchGroup", "web"))
    aws.advance(600 + TICK)
    found = findings(aws, vulnerabilityId=equals("CVE-2024-6387"), resourceTags=tag("PatchGroup", "web"))
    assert len(found) == 4
    assert all(moment(BASE + 600) <= row["firstObservedAt"] <= moment(BASE + 600 + TICK) for row in found)


def tag(key: str, value: str) -> list[dict[str, str]]:
    return [{"comparison": "EQUALS", "key": key, "value": value}]


def test_a_stopped_hosts_findings_stay_as_they_are(aws):
    """Stopping a host mends nothing."""
    host = aws.hosts("web")[2]
    before = set(active(aws, host))
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(4 * TICK)
    after = active(aws, host)
    assert set(after) == before
    assert all(row["lastObservedAt"] <= moment(BASE) for row in after.values())
    assert coverage(aws)[host, "PACKAGE"]["scanStatus"] == {"statusCode": "INACTIVE", "reason": "EC2_INSTANCE_STOPPED"}


def test_a_terminated_hosts_findings_close_and_are_deleted_after_three_days(aws):
    host = aws.hosts("web")[2]
    aws.ec2.terminate_instances(InstanceIds=[host])
    aws.advance(600)
    assert active(aws, host) == {}
    assert findings(aws, resourceId=equals(host))
    aws.advance(3 * 86_400)
    assert findings(aws, resourceId=equals(host)) == []


def test_an_inventory_that_a_silent_agent_missed_closes_nothing_later_either(aws):
    """The past does not depend on when somebody looks: what happened while the agent was lost is seen after it came back."""
    host = aws.hosts("web")[3]
    aws.patch(host)
    aws.advance(230)
    assert now(aws) < BASE + TICK
    aws.control("faults", {"kind": "agent_dead", "host": host})
    gone = now(aws)
    aws.advance(5 * TICK)
    assert len(active(aws, host)) > 1, "no inventory fell between the patch and the loss"
    aws.control("faults", {"kind": "agent_online", "host": host})
    back = now(aws)
    aws.advance(TICK)
    closed = findings(aws, resourceId=equals(host), findingStatus=equals("CLOSED"))
    assert closed
    assert all(row["updatedAt"] >= moment(back) and row["lastObservedAt"] <= moment(gone) for row in closed)


@pytest.mark.parametrize(
    ("criteria", "holds"),
    [
        ({"severity": equals("CRITICAL")}, lambda row: row["severity"] == "CRITICAL"),
        ({"severity": equals("CRITICAL") + equals("LOW")}, lambda row: row["severity"] in ("CRITICAL", "LOW")),
        ({"severity": [{"comparison": "NOT_EQUALS", "value": "HIGH"}]}, lambda row: row["severity"] != "HIGH"),
        ({"exploitAvailable": equals("YES")}, lambda row: row["exploitAvailable"] == "YES"),
        (
            {"vulnerabilityId": [{"comparison": "PREFIX", "value": "CVE-2024-5"}]},
            lambda row: row["title"].startswith("CVE-2024-5"),
        ),
        ({"inspectorScore": [{"lowerInclusive": 9.0}]}, lambda row: row["inspectorScore"] >= 9),
        ({"resourceTags": tag("PatchGroup", "web")}, lambda row: row["resources"][0]["tags"].get("PatchGroup") == "web"),
        (
            {"vulnerablePackages": [{"name": {"comparison": "EQUALS", "value": "kernel"}}]},
            lambda row: any(package["name"] == "kernel" for package in packages(row)),
        ),
        (
            {"firstObservedAt": [{"endInclusive": moment(BASE - 5 * 86_400)}]},
            lambda row: row["firstObservedAt"] <= moment(BASE - 432_000),
        ),
    ],
)
def test_a_filter_gives_exactly_what_it_names(aws, criteria, holds):
    """Entries of a key are ORed, keys ANDed; a filter that is ignored would make every campaign too large."""
    everything, chosen = findings(aws), findings(aws, **criteria)
    assert {row["findingArn"] for row in chosen} == {row["findingArn"] for row in everything if holds(row)}
    assert 0 < len(chosen) < len(everything)


def test_resources_of_other_kinds_have_no_findings_here(aws):
    assert findings(aws, resourceType=equals("AWS_LAMBDA_FUNCTION")) == []
    assert findings(aws, ecrImageRepositoryName=equals("shop")) == []
    assert findings(aws, awsAccountId=equals("999999999999")) == []


def test_pages_are_disjoint_and_a_token_belongs_to_its_question(aws):
    client = aws.client("inspector2")
    first = client.list_findings(maxResults=7)
    second = client.list_findings(maxResults=7, nextToken=first["nextToken"])
    assert len(first["findings"]) == len(second["findings"]) == 7
    assert not {row["findingArn"] for row in first["findings"]} & {row["findingArn"] for row in second["findings"]}
    for question in ({"nextToken": "made up"}, {"nextToken": first["nextToken"], "filterCriteria": {"severity": equals("HIGH")}}):
        with pytest.raises(ClientError) as refused:
            client.list_findings(maxResults=7, **question)
        assert refused.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("size", [0, 101])
def test_a_page_of_findings_is_between_one_and_a_hundred(aws, size):
    with pytest.raises(Exception, match=r"ValidationException|maxResults"):
        aws.client("inspector2").list_findings(maxResults=size)


def test_eleven_entries_of_a_filter_are_refused(aws):
    """More than ten instances cannot be asked for by id."""
    with pytest.raises(ClientError) as refused:
        aws.client("inspector2").list_findings(
            filterCriteria={"resourceId": [entry for _ in range(11) for entry in equals("i-1")]}
        )
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_findings_are_sorted_as_asked(aws):
    rows = aws.client("inspector2").list_findings(sortCriteria={"field": "INSPECTOR_SCORE", "sortOrder": "DESC"})["findings"]
    scores = [row["inspectorScore"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1


def test_regions_and_accounts_see_their_own_findings_only(aws):
    here, far = findings(aws), findings(aws, "us-east-1")
    assert {row["resources"][0]["region"] for row in far} == {"us-east-1"}
    assert {row["resources"][0]["id"] for row in far} == set(aws.hosts("far"))
    assert not {row["findingArn"] for row in here} & {row["findingArn"] for row in far}
    assert {row["awsAccountId"] for row in here} == {ACCOUNT}


def test_coverage_says_why_a_host_is_not_scanned(aws):
    """Absent findings are proof only where the scan is active."""
    rows = coverage(aws, scanType=equals("PACKAGE"))
    lost, stopped, unmanaged, *_ = aws.hosts("odd")
    web = aws.hosts("web")[0]
    assert rows[web, "PACKAGE"]["scanStatus"] == {"statusCode": "ACTIVE", "reason": "SUCCESSFUL"}
    assert moment(BASE) - rows[web, "PACKAGE"]["lastScannedAt"] < timedelta(seconds=TICK)
    assert rows[stopped, "PACKAGE"]["scanStatus"]["reason"] == "EC2_INSTANCE_STOPPED"
    assert rows[unmanaged, "PACKAGE"]["scanStatus"] == {"statusCode": "INACTIVE", "reason": "UNMANAGED_EC2_INSTANCE"}
    assert moment(BASE) - rows[lost, "PACKAGE"]["lastScannedAt"] > timedelta(days=3)
    assert active(aws, unmanaged) == {}
    aws.advance(5 * 86_400)
    assert coverage(aws)[lost, "PACKAGE"]["scanStatus"] == {"statusCode": "INACTIVE", "reason": "STALE_INVENTORY"}


def test_a_host_excluded_by_tag_is_not_scanned_and_its_findings_close(aws):
    host = aws.hosts("web")[0]
    aws.ec2.create_tags(Resources=[host], Tags=[{"Key": "InspectorEc2Exclusion", "Value": "true"}])
    row = coverage(aws, resourceId=equals(host))[host, "PACKAGE"]
    assert row["scanStatus"] == {"statusCode": "INACTIVE", "reason": "EXCLUDED_BY_TAG"}
    assert "lastScannedAt" not in row
    assert {row["status"] for row in findings(aws, resourceId=equals(host))} == {"CLOSED"}
    aws.ec2.delete_tags(Resources=[host], Tags=[{"Key": "InspectorEc2Exclusion"}])
    assert {row["status"] for row in findings(aws, resourceId=equals(host))} == {"CLOSED"}, "until the next inventory"
    aws.advance(TICK + 1)
    assert active(aws, host)


def test_coverage_statistics_count_what_coverage_lists(aws):
    client = aws.client("inspector2")
    counted = client.list_coverage_statistics(groupBy="SCAN_STATUS_REASON", filterCriteria={"scanType": equals("PACKAGE")})
    listed = coverage(aws, scanType=equals("PACKAGE"))
    assert counted["totalCounts"] == len(listed)
    reasons = {row["groupKey"]: row["count"] for row in counted["countsByGroup"]}
    assert reasons["EC2_INSTANCE_STOPPED"] == 1
    assert sum(reasons.values()) == len(listed)


def test_aggregations_count_active_findings_by_severity(aws):
    client, host = aws.client("inspector2"), aws.hosts("web")[0]
    rows = client.list_finding_aggregations(
        aggregationType="AWS_EC2_INSTANCE", aggregationRequest={"ec2InstanceAggregation": {"instanceIds": equals(host)}}
    )["responses"]
    (row,) = [entry["ec2InstanceAggregation"] for entry in rows]
    mine = active(aws, host).values()
    assert row["severityCounts"]["all"] == len(mine)
    assert row["severityCounts"]["critical"] == sum(entry["severity"] == "CRITICAL" for entry in mine)
    (account,) = client.list_finding_aggregations(aggregationType="ACCOUNT")["responses"]
    assert account["accountAggregation"]["severityCounts"]["all"] == len(findings(aws))


def test_the_same_seed_makes_the_same_findings(start):
    """A rehearsal can be repeated."""
    first = findings(start(seed=7))
    assert findings(start(seed=7)) == first
    assert findings(start(seed=8)) != first
