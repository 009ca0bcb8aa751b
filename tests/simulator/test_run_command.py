"""Run Command as AWS documents it: who is accepted, how a command ramps up, and which status it ends with."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, Aws


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def test_fifty_one_ids_are_refused_in_the_words_of_aws(aws):
    """botocore lets 51 ids pass; a wave of 60 must fail here, not on the first day in AWS."""
    with pytest.raises(ClientError) as refused:
        aws.patch(*[f"i-{number:017x}" for number in range(51)])
    assert code(refused) == "ValidationException"
    assert "1 validation error detected: Value '[i-" in str(refused.value)
    assert "at 'instanceIds' failed to satisfy constraint: Member must have length less than or equal to 50" in str(refused.value)


def test_an_id_given_twice_is_refused(aws):
    """moto drops the second one silently."""
    host = aws.hosts("web")[0]
    with pytest.raises(ClientError) as refused:
        aws.patch(host, host)
    assert code(refused) == "DuplicateInstanceId"


@pytest.mark.parametrize("stranger", ["unknown", "not registered", "another region"])
def test_one_bad_id_fails_the_whole_call(aws, stranger):
    """Nothing is sent to anybody, so nothing is in the journal either."""
    bad = {"unknown": "i-0123456789abcdef0", "not registered": aws.hosts("odd")[2], "another region": aws.hosts("far")[0]}[
        stranger
    ]
    with pytest.raises(ClientError, match=rf"Instances \[\[{bad}\]\] not in a valid state for account {ACCOUNT}") as refused:
        aws.patch(aws.hosts("web")[0], bad)
    assert code(refused) == "InvalidInstanceId"
    aws.advance(600)
    assert aws.journal() == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "InvalidParameters"),
        ({"Operation": ["Fix"]}, "InvalidParameters"),
        ({"Operation": ["Scan", "Install"]}, "InvalidParameters"),
        ({"Operation": ["Install"], "RebootOption": ["Maybe"]}, "InvalidParameters"),
        ({"Operation": ["Install"], "SnapshotId": ["mine"]}, "InvalidParameters"),
        ({"Operation": ["Install"], "Colour": ["red"]}, "InvalidParameters"),
        ({"Operation": ["Install"], "InstallOverrideList": ["file:///etc/passwd"]}, "InvalidParameters"),
    ],
)
def test_the_documents_parameters_are_checked(aws, parameters, expected):
    """AWS checks them against the document when the command is sent."""
    with pytest.raises(ClientError) as refused:
        aws.ssm.send_command(DocumentName="AWS-RunPatchBaseline", InstanceIds=aws.hosts("web")[:1], Parameters=parameters)
    assert code(refused) == expected


def test_other_refusals_of_send_command(aws):
    """Each with its own code."""
    host = aws.hosts("web")[:1]
    scan = {"Operation": ["Scan"]}
    for request, expected in [
        ({"DocumentName": "AWS-Nothing", "InstanceIds": host}, "InvalidDocument"),
        ({"DocumentName": "AWS-RunPatchBaseline", "InstanceIds": host, "DocumentVersion": "77"}, "InvalidDocumentVersion"),
        ({"DocumentName": "AWS-RunPatchBaseline"}, "InvalidParameters"),
        ({"DocumentName": "AWS-RunPatchBaseline", "InstanceIds": host, "Comment": "x" * 101}, "ValidationException"),
        ({"DocumentName": "AWS-RunPatchBaseline", "InstanceIds": host, "MaxConcurrency": "0"}, "ValidationException"),
        ({"DocumentName": "AWS-RunPatchBaseline", "InstanceIds": host, "TimeoutSeconds": 2_592_001}, "ValidationException"),
    ]:
        with pytest.raises(ClientError) as refused:
            aws.ssm.send_command(Parameters=scan, **request)
        assert code(refused) == expected, request


def test_a_new_command_is_not_visible_at_once(aws):
    """GetCommandInvocation raises, ListCommandInvocations is empty: no more rows does not mean no more hosts."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, operation="Scan")
    with pytest.raises(ClientError) as refused:
        aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)
    assert code(refused) == "InvocationDoesNotExist"
    assert aws.details(command) == {}
    assert aws.status(command) == "Pending"
    aws.advance(1)
    assert aws.details(command) == {host: "Pending"}
    aws.advance(60)
    assert aws.details(command) == {host: "Success"}
    assert aws.status(command) == "Success"


def test_a_command_ramps_up_one_two_four(aws):
    """One host is tried first, then as many more as have acknowledged, up to MaxConcurrency."""
    command = aws.patch(*aws.hosts("web"), operation="Scan")
    seen = []
    for _ in range(8):
        aws.advance(0.5)
        seen.append(len(aws.details(command)))
    assert seen[:6] == [0, 1, 2, 2, 4, 4]


def test_max_concurrency_limits_how_many_run_at_once(aws):
    """The journal says it, not SSM."""
    aws.patch(*aws.hosts("web"), MaxConcurrency="2")
    aws.advance(3600)
    assert aws.control("journal/summary")["max_in_flight"]["Environment=dev"] == 2


def test_the_rest_is_terminated_when_one_error_more_than_allowed_happened(aws):
    """MaxErrors 1 stops at the second error; what was not sent yet is Cancelled with the detail Terminated."""
    hosts = aws.hosts("web")
    aws.control("faults", {"kind": "install_fails", "exit_code": 1})
    command = aws.patch(*hosts, MaxConcurrency="1", MaxErrors="1")
    aws.advance(3600)
    assert [aws.details(command)[host] for host in hosts] == ["Failed", "Failed", "Terminated", "Terminated"]
    (told,) = aws.ssm.list_commands(CommandId=command)["Commands"]
    assert (told["Status"], told["ErrorCount"], told["CompletedCount"], told["TargetCount"]) == ("Failed", 2, 4, 4)


def test_errors_within_the_limit_end_as_incomplete(aws):
    """Neither Success nor Failed: somebody has to look at the hosts one by one."""
    hosts = aws.hosts("web")
    aws.control("faults", {"kind": "install_fails", "host": hosts[0]})
    command = aws.patch(*hosts, MaxErrors="2")
    aws.advance(3600)
    assert aws.status(command) == "Incomplete"
    assert aws.details(command)[hosts[0]] == "Failed"


def test_an_offline_host_keeps_the_command_open_until_it_expires(aws):
    """TimeoutSeconds plus 3600 s of execution time-out; only then is it TimedOut, with the detail DeliveryTimedOut."""
    lost, stopped, fine = aws.hosts("odd")[0], aws.hosts("odd")[1], aws.hosts("web")[0]
    command = aws.patch(lost, stopped, fine, operation="Scan", TimeoutSeconds=60)
    aws.advance(3600 + 59)
    assert aws.details(command) == {lost: "Delayed", stopped: "Delayed", fine: "Success"}
    assert aws.ssm.list_commands(CommandId=command)["Commands"][0]["Status"] == "InProgress"
    aws.advance(2)
    assert aws.details(command) == {lost: "DeliveryTimedOut", stopped: "DeliveryTimedOut", fine: "Success"}
    (told,) = aws.ssm.list_commands(CommandId=command)["Commands"]
    assert (told["StatusDetails"], told["ErrorCount"], told["DeliveryTimedOutCount"]) == ("Incomplete", 0, 2)
    assert aws.events(lost) == []


def test_a_delayed_host_is_served_when_its_agent_returns_in_time_only(aws):
    """After TimeoutSeconds an invocation that has not started will not start."""
    host, late = aws.hosts("web")[:2]
    aws.control("faults", {"kind": "agent_dead", "host": [host, late]})
    command = aws.patch(host, late, operation="Scan", TimeoutSeconds=60)
    aws.advance(30)
    assert aws.details(command) == {host: "Delayed", late: "Delayed"}
    aws.control("faults", {"kind": "agent_online", "host": host})
    aws.advance(60)
    assert aws.details(command)[host] == "Success"
    aws.control("faults", {"kind": "agent_online", "host": late})
    aws.advance(600)
    assert aws.details(command)[late] == "Delayed"


def test_an_undeliverable_host_does_not_count_as_an_error(aws):
    """SSM calls the command a success as soon as one host succeeded: our own budgets must count it."""
    bad, fine = aws.hosts("web")[:2]
    aws.control("faults", {"kind": "undeliverable", "host": bad})
    command = aws.patch(bad, fine, operation="Scan")
    aws.advance(120)
    assert aws.details(command) == {bad: "Undeliverable", fine: "Success"}
    assert aws.status(command) == "Success"


def test_a_host_that_dies_while_it_works_is_reported_as_a_delivery_time_out(aws):
    """Silence is never an execution time-out; the host goes on and the journal knows it."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, TimeoutSeconds=60)
    aws.advance(40)
    aws.control("faults", {"kind": "agent_dead", "host": host})
    aws.advance(7200)
    assert aws.details(command) == {host: "DeliveryTimedOut"}
    assert "package_installed" in aws.events(host)


def test_targets_by_tag_are_resolved_in_aws(aws):
    """The count appears later; no match ends as NoInstancesInTag."""
    sent = aws.ssm.send_command(
        DocumentName="AWS-RunPatchBaseline",
        Targets=[{"Key": "tag:PatchGroup", "Values": ["web"]}],
        Parameters={"Operation": ["Scan"]},
    )["Command"]
    assert sent["TargetCount"] == 0
    nobody = aws.ssm.send_command(
        DocumentName="AWS-RunPatchBaseline",
        Targets=[{"Key": "tag:PatchGroup", "Values": ["none"]}],
        Parameters={"Operation": ["Scan"]},
    )["Command"]["CommandId"]
    aws.advance(120)
    assert set(aws.details(sent["CommandId"])) == set(aws.hosts("web"))
    assert aws.ssm.list_commands(CommandId=sent["CommandId"])["Commands"][0]["TargetCount"] == 4
    assert aws.status(nobody) == "NoInstancesInTag"


def test_a_command_cancelled_at_once_ends_cancelled_on_each_of_its_hosts(aws):
    """Before it was sent to anybody: it has targets all the same, and none of them ever begins."""
    hosts = aws.hosts("web")
    command = aws.patch(*hosts)
    aws.ssm.cancel_command(CommandId=command)
    aws.advance(60)
    assert aws.details(command) == dict.fromkeys(hosts, "Cancelled")
    (row,) = aws.ssm.list_commands(CommandId=command)["Commands"]
    assert (row["Status"], row["TargetCount"], row["CompletedCount"]) == ("Cancelled", len(hosts), len(hosts))
    assert not [event for host in hosts for event in aws.events(host)]


def test_a_cancelled_command_stops_what_has_not_begun(aws):
    """Unsent hosts are Cancelled at once; what scans is stopped; a package transaction goes on to its end."""
    first, second, *_ = hosts = aws.hosts("web")
    command = aws.patch(*hosts, MaxConcurrency="1")
    aws.advance(60)
    aws.ssm.cancel_command(CommandId=command)
    assert aws.details(command)[first] == "Cancelling"
    assert aws.details(command)[second] == "Cancelled"
    aws.advance(600)
    assert aws.status(command) == "Cancelled"
    assert "package_installed" in aws.events(first)
    assert "reboot_begun" not in aws.events(first)
    assert aws.events(second) == []


def test_two_patch_commands_on_one_host_collide(aws):
    """They fight for the download directory; one ends with exit code 155 and the other goes on."""
    host = aws.hosts("web")[0]
    first = aws.patch(host, operation="Scan")
    second = aws.patch(host, operation="Scan")
    aws.advance(60)
    assert sorted([aws.details(first)[host], aws.details(second)[host]]) == ["Failed", "Success"]
    codes = sorted(line["exit_code"] for line in aws.journal() if line["event"] == "command_ended")
    assert codes == [0, 155]


def test_a_command_is_found_by_its_comment_document_and_time(aws):
    """SendCommand takes no token: whoever resumes looks here before sending again."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, operation="Scan", Comment="run-7/wave-1")
    aws.patch(host, operation="Scan", Comment="run-7/wave-2")
    filters = [{"key": "DocumentName", "value": "AWS-RunPatchBaseline"}, {"key": "InvokedAfter", "value": "2026-01-05T07:59:00Z"}]
    found = [row for row in aws.ssm.list_commands(Filters=filters)["Commands"] if row["Comment"] == "run-7/wave-1"]
    assert [row["CommandId"] for row in found] == [command]
    late = [{"key": "InvokedAfter", "value": "2026-01-05T09:00:00Z"}]
    assert aws.ssm.list_commands(Filters=late)["Commands"] == []


def test_pages_have_real_tokens(aws):
    """A token belongs to its request: another filter, another operation or an invention is refused."""
    for _ in range(3):
        aws.patch(aws.hosts("web")[0], operation="Scan")
    pages = list(aws.ssm.get_paginator("list_commands").paginate(PaginationConfig={"PageSize": 1}))
    assert [len(page["Commands"]) for page in pages] == [1, 1, 1]
    token = pages[0]["NextToken"]
    for wrong in ({"NextToken": "invented"}, {"NextToken": token, "InstanceId": aws.hosts("web")[0]}):
        with pytest.raises(ClientError) as refused:
            aws.ssm.list_commands(**wrong)
        assert code(refused) == "InvalidNextToken"


def test_what_a_host_says_is_told_by_the_step_that_ran(aws):
    """AWS-RunPatchBaseline has three steps; two are skipped on Linux, and without a name the output is empty."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, operation="Scan")
    aws.advance(60)
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["StandardOutputContent"] == ""
    linux = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PatchLinux")
    assert "Operation type: Scan" in linux["StandardOutputContent"]
    assert (linux["Status"], linux["ResponseCode"]) == ("Success", 0)
    (row,) = aws.ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
    outputs = {plugin["Name"]: plugin["Output"] for plugin in row["CommandPlugins"]}
    assert "skipped" in outputs["PatchWindows"]
    assert "Summary" in outputs["PatchLinux"]


def test_accounts_and_regions_do_not_see_each_other(aws: Aws):
    """A command of one region is unknown in the other."""
    command = aws.patch(aws.hosts("web")[0], operation="Scan")
    with pytest.raises(ClientError) as refused:
        aws.client("ssm", "us-east-1").list_commands(CommandId=command)
    assert code(refused) == "InvalidCommandId"
