"""Maintenance windows: when they open, what they run, when they stop, and what is read of them."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from botocore.exceptions import ClientError

from awsim.schedules import BadSchedule, parse
from tests.simulator.conftest import BASE
from tests.simulator.test_ssm_baselines import code

HOUR = 3600


def window(aws, schedule="cron(0 9 * * ? *)", **more):
    given = {"Name": "nightly", "Duration": 2, "Cutoff": 1, "AllowUnassociatedTargets": False, **more}
    return aws.ssm.create_maintenance_window(Schedule=schedule, **given)["WindowId"]


def registered(aws, identifier, key="tag:PatchGroup", value="web"):
    return aws.ssm.register_target_with_maintenance_window(
        WindowId=identifier, ResourceType="INSTANCE", Targets=[{"Key": key, "Values": [value]}], OwnerInformation="shop"
    )["WindowTargetId"]


def task(aws, identifier, target, document="AWS-RunShellScript", parameters=None, **more):
    given = {"MaxConcurrency": "10", "MaxErrors": "0", "TaskType": "RUN_COMMAND", **more}
    return aws.ssm.register_task_with_maintenance_window(
        WindowId=identifier,
        TaskArn=document,
        Targets=[{"Key": "WindowTargetIds", "Values": [target]}],
        TaskInvocationParameters={"RunCommand": {"Parameters": parameters or {"commands": ["echo night"]}}},
        **given,
    )["WindowTaskId"]


def runs(aws, identifier, **request):
    return aws.ssm.describe_maintenance_window_executions(WindowId=identifier, **request)["WindowExecutions"]


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("cron(0 2 ? * TUE#3 *)", "UTC", ["2026-01-20T02:00Z", "2026-02-17T02:00Z"]),
        ("cron(0 16 ? * SUN *)", "Europe/Berlin", ["2026-01-11T16:00+01:00", "2026-01-18T16:00+01:00"]),
        ("cron(30 23 L * ? *)", "UTC", ["2026-01-31T23:30Z", "2026-02-28T23:30Z"]),
        ("cron(0 4 LW * ? *)", "UTC", ["2026-01-30T04:00Z", "2026-02-27T04:00Z"]),
        ("cron(30 0 2 ? * SAT *)", "UTC", ["2026-01-10T02:00:30.000Z", "2026-01-17T02:00:30.000Z"]),
        ("cron(0/30 9 * * ? *)", "UTC", ["2026-01-05T09:00Z", "2026-01-05T09:30Z"]),
        ("cron(0 10 ? 1/3 7L 2030)", "UTC", ["2030-01-26T10:00Z", "2030-04-27T10:00Z"]),
        ("rate(5 minutes)", "UTC", ["2026-01-05T08:05Z", "2026-01-05T08:10Z"]),
        ("rate(30 minutes)", "UTC", ["2026-01-05T08:30Z", "2026-01-05T09:00Z"]),
        ("cron(0 2 1,15 * ? *)", "UTC", ["2026-01-15T02:00Z", "2026-02-01T02:00Z"]),
        ("cron(0 2 ? * MON-FRI *)", "UTC", ["2026-01-06T02:00Z", "2026-01-07T02:00Z"]),
        ("cron(0 2 15W * ? *)", "UTC", ["2026-01-15T02:00Z", "2026-02-16T02:00Z"]),
        ("rate(7 days)", "UTC", ["2026-01-12T08:00Z", "2026-01-19T08:00Z"]),
        ("at(2026-12-24T02:00:00)", "America/New_York", ["2026-12-24T02:00-05:00", None]),
    ],
)
def test_schedules_are_those_of_aws(expression, zone, expected):
    """Sunday is 1, exactly one day field is `?`, times are those of the zone."""
    schedule, at, found = parse(expression, created=BASE, zone=zone), BASE, []
    for _ in expected:
        following = schedule.after(at)
        found.append(schedule.spelled(following) if following is not None else None)
        at = following if following is not None else at
    assert found == expected


def test_a_window_keeps_its_local_time_over_the_change_of_the_clocks():
    """Two in the morning that does not exist becomes three."""
    zone = ZoneInfo("Europe/Berlin")
    schedule = parse("cron(0 2 * * ? *)", created=BASE, zone="Europe/Berlin")
    before = datetime(2026, 3, 27, 12, tzinfo=zone).timestamp()
    hours = []
    for _ in range(3):
        before = schedule.after(before)
        hours.append(datetime.fromtimestamp(before, tz=zone).hour)
    assert hours == [2, 3, 2]


@pytest.mark.parametrize(
    "expression",
    [
        "daily",
        "cron(0 2 * * * *)",
        "cron(0 2 ? * ? *)",
        "rate(1 hours)",
        "rate(2 hour)",
        "rate(4 minutes)",
        "cron(0/2 * * * ? *)",
        "cron(0 25 * * ? *)",
        "cron(0 2 ? * FOO *)",
        "at(tomorrow)",
        "cron(0 2 * *)",
    ],
)
def test_what_cannot_be_a_schedule_is_refused(aws, expression):
    """At the window's making, before anything waits for it."""
    with pytest.raises(BadSchedule):
        parse(expression, created=BASE)
    with pytest.raises(ClientError) as refused:
        window(aws, expression)
    assert code(refused) == "ValidationException"


def test_a_cutoff_is_less_than_the_duration(aws):
    """And the zone is one of IANA's."""
    for wrong in ({"Cutoff": 2}, {"ScheduleTimezone": "Middle/Earth"}, {"StartDate": "soon"}):
        with pytest.raises(ClientError) as refused:
            window(aws, **wrong)
        assert code(refused) == "ValidationException"
    with pytest.raises(ClientError):
        window(aws, "rate(1 day)", ScheduleOffset=2)


def test_a_window_opens_and_runs_its_task_on_its_targets(aws):
    """The command is one of Run Command, and the execution tells its parameters."""
    identifier = window(aws)
    target = registered(aws, identifier)
    task(aws, identifier, target, "AWS-RunPatchBaseline", {"Operation": ["Scan"], "SnapshotId": ["{{WINDOW_EXECUTION_ID}}"]})
    assert runs(aws, identifier) == []
    aws.advance(HOUR + 1)
    (run,) = runs(aws, identifier)
    assert (run["Status"], run["StartTime"].isoformat()) == ("IN_PROGRESS", "2026-01-05T09:00:00+00:00")
    aws.advance(300)
    (run,) = runs(aws, identifier)
    assert run["Status"] == "SUCCESS"
    execution = run["WindowExecutionId"]
    whole = aws.ssm.get_maintenance_window_execution(WindowExecutionId=execution)
    (row,) = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=execution)["WindowExecutionTaskIdentities"]
    assert whole["TaskIds"] == [row["TaskExecutionId"]]
    where = {"WindowExecutionId": execution, "TaskId": row["TaskExecutionId"]}
    one = aws.ssm.get_maintenance_window_execution_task(**where)
    assert sorted(one["TaskParameters"][0]["aws:InstanceId"]["Values"]) == sorted(aws.hosts("web"))
    (invocation,) = aws.ssm.describe_maintenance_window_execution_task_invocations(**where)[
        "WindowExecutionTaskInvocationIdentities"
    ]
    assert (invocation["OwnerInformation"], invocation["WindowTargetId"]) == ("shop", target)
    again = aws.ssm.get_maintenance_window_execution_task_invocation(**where, InvocationId=invocation["InvocationId"])
    assert again["ExecutionId"] == invocation["ExecutionId"]
    assert set(aws.details(again["ExecutionId"]).values()) == {"Success"}
    assert {aws.patch_state(host)["SnapshotId"] for host in aws.hosts("web")} == {execution}


def test_tasks_run_by_priority(aws):
    """Those of the next one wait until the first are done."""
    identifier = window(aws)
    target = registered(aws, identifier)
    task(aws, identifier, target, Priority=2)
    task(aws, identifier, target, Priority=1)
    aws.advance(HOUR + 300)
    (run,) = runs(aws, identifier)
    rows = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run["WindowExecutionId"])[
        "WindowExecutionTaskIdentities"
    ]
    first, second = rows
    assert first["EndTime"] <= second["StartTime"]


def test_a_failed_task_fails_the_execution(aws):
    """With AWS's own sentence."""
    identifier = window(aws)
    task(aws, identifier, registered(aws, identifier), parameters={"commands": ["exit 4"]})
    aws.advance(HOUR + 300)
    (run,) = runs(aws, identifier)
    assert (run["Status"], run["StatusDetails"]) == ("FAILED", "One or more tasks in the orchestration failed.")


def test_a_window_that_is_still_open_skips_the_next_opening(aws):
    """A host that cannot be reached keeps its command open for hours."""
    identifier = window(aws, "rate(1 hour)")
    task(aws, identifier, registered(aws, identifier, "InstanceIds", aws.hosts("odd")[0]))
    aws.advance(2 * HOUR + 10)
    newest, oldest = runs(aws, identifier)
    assert (newest["Status"], oldest["Status"]) == ("SKIPPED_OVERLAPPING", "IN_PROGRESS")
    assert newest["StartTime"] == newest["EndTime"]


def test_at_the_cutoff_nothing_starts_and_commands_are_cancelled_where_the_task_says_so(aws):
    """Tasks that are not done are TIMED_OUT."""
    identifier = window(aws)
    silent = registered(aws, identifier, "InstanceIds", aws.hosts("odd")[0])
    task(aws, identifier, silent, Priority=1, CutoffBehavior="CANCEL_TASK")
    task(aws, identifier, registered(aws, identifier), Priority=2)
    aws.advance(2 * HOUR + 60)
    (run,) = runs(aws, identifier)
    assert run["Status"] == "TIMED_OUT"
    rows = aws.ssm.describe_maintenance_window_execution_tasks(
        WindowExecutionId=run["WindowExecutionId"], Filters=[{"Key": "STATUS", "Values": ["TIMED_OUT"]}]
    )["WindowExecutionTaskIdentities"]
    assert len(rows) == 2
    assert aws.journal() == []


def test_a_cancelled_execution_lets_run_what_runs(aws):
    """And starts nothing more."""
    identifier = window(aws)
    target = registered(aws, identifier)
    task(aws, identifier, target, "AWS-RunPatchBaseline", {"Operation": ["Scan"]}, Priority=1)
    task(aws, identifier, target, Priority=2)
    aws.advance(HOUR + 10)
    (run,) = runs(aws, identifier)
    aws.ssm.cancel_maintenance_window_execution(WindowExecutionId=run["WindowExecutionId"])
    assert runs(aws, identifier)[0]["Status"] == "CANCELLING"
    aws.advance(300)
    assert runs(aws, identifier)[0]["Status"] == "CANCELLED"
    rows = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run["WindowExecutionId"])
    assert [row["Status"] for row in rows["WindowExecutionTaskIdentities"]] == ["SUCCESS", "CANCELLED"]
    with pytest.raises(ClientError) as refused:
        aws.ssm.cancel_maintenance_window_execution(WindowExecutionId="0" * 8 + "-0000-0000-0000-" + "0" * 12)
    assert code(refused) == "DoesNotExistException"


def test_a_task_runs_only_on_registered_hosts_unless_the_window_allows_others(aws):
    """The task's own ids do not suffice."""
    strict, open_ = window(aws), window(aws, AllowUnassociatedTargets=True)
    for identifier in (strict, open_):
        aws.ssm.register_task_with_maintenance_window(
            WindowId=identifier,
            TaskArn="AWS-RunShellScript",
            TaskType="RUN_COMMAND",
            Targets=[{"Key": "InstanceIds", "Values": aws.hosts("web")[:1]}],
            MaxConcurrency="1",
            MaxErrors="0",
            TaskInvocationParameters={"RunCommand": {"Parameters": {"commands": ["echo me"]}}},
        )
    aws.advance(HOUR + 60)
    rows = {}
    for identifier in (strict, open_):
        (run,) = runs(aws, identifier)
        (rows[identifier],) = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run["WindowExecutionId"])[
            "WindowExecutionTaskIdentities"
        ]
    assert rows[strict]["StatusDetails"] == "No invocations to execute."
    assert "StatusDetails" not in rows[open_]
    assert len([line for line in aws.journal() if line["event"] == "command_begun"]) == 1


def test_a_disabled_window_does_not_open(aws):
    """It has no next moment; changed, it opens at its new one."""
    identifier = window(aws)
    assert aws.ssm.get_maintenance_window(WindowId=identifier)["NextExecutionTime"] == "2026-01-05T09:00Z"
    aws.ssm.update_maintenance_window(WindowId=identifier, Enabled=False)
    assert "NextExecutionTime" not in aws.ssm.get_maintenance_window(WindowId=identifier)
    aws.advance(2 * HOUR)
    assert runs(aws, identifier) == []
    changed = aws.ssm.update_maintenance_window(WindowId=identifier, Enabled=True, Schedule="cron(30 10 * * ? *)")
    assert (changed["Enabled"], changed["Schedule"]) == (True, "cron(30 10 * * ? *)")
    aws.advance(HOUR)
    assert [run["Status"] for run in runs(aws, identifier)] == ["SUCCESS"]
    aws.ssm.delete_maintenance_window(WindowId=identifier)
    aws.advance(48 * HOUR)
    assert len(runs(aws, identifier)) == 1


def test_the_coming_openings_are_told(aws):
    """Of one window, or of those that concern a host; in the window's time zone."""
    identifier = window(aws, "cron(0 16 ? * TUE *)", ScheduleTimezone="Europe/Berlin", EndDate="2026-01-31T00:00:00")
    registered(aws, identifier)
    other = window(aws, "rate(1 day)", Name="other")
    answer = aws.ssm.describe_maintenance_window_schedule(WindowId=identifier)["ScheduledWindowExecutions"]
    assert [row["ExecutionTime"] for row in answer] == [
        "2026-01-06T16:00+01:00",
        "2026-01-13T16:00+01:00",
        "2026-01-20T16:00+01:00",
        "2026-01-27T16:00+01:00",
    ]
    host = {"Targets": [{"Key": "InstanceIds", "Values": aws.hosts("web")[:1]}], "ResourceType": "INSTANCE"}
    concerned = aws.ssm.describe_maintenance_windows_for_target(**host)["WindowIdentities"]
    assert concerned == [{"WindowId": identifier, "Name": "nightly"}]
    assert len(aws.ssm.describe_maintenance_window_schedule(**host)["ScheduledWindowExecutions"]) == 4
    everything = aws.ssm.get_paginator("describe_maintenance_window_schedule").paginate(PaginationConfig={"MaxItems": 60})
    assert {row["WindowId"] for page in everything for row in page["ScheduledWindowExecutions"]} == {identifier, other}


def test_executions_are_filtered_by_time(aws):
    """Newest first."""
    identifier = window(aws, "rate(1 hour)")
    aws.advance(5 * HOUR + 60)
    assert len(runs(aws, identifier)) == 5
    after = [{"Key": "ExecutedAfter", "Values": ["2026-01-05T11:30:00Z"]}]
    assert len(runs(aws, identifier, Filters=after)) == 2
    assert runs(aws, "mw-0123456789abcdef0") == []
    with pytest.raises(ClientError) as refused:
        runs(aws, identifier, Filters=[{"Key": "Colour", "Values": ["red"]}])
    assert code(refused) == "ValidationException"


def test_an_automation_task_starts_an_execution(aws):
    """Its status is the invocation's."""
    identifier = window(aws)
    host = aws.hosts("web")[0]
    target = registered(aws, identifier, "InstanceIds", host)
    aws.ssm.register_task_with_maintenance_window(
        WindowId=identifier,
        TaskArn="AWS-RestartEC2Instance",
        TaskType="AUTOMATION",
        Targets=[{"Key": "WindowTargetIds", "Values": [target]}],
        MaxConcurrency="1",
        MaxErrors="0",
        TaskInvocationParameters={"Automation": {"Parameters": {"InstanceId": ["{{RESOURCE_ID}}"]}}},
    )
    aws.advance(HOUR + 1800)
    (run,) = runs(aws, identifier)
    (row,) = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run["WindowExecutionId"])[
        "WindowExecutionTaskIdentities"
    ]
    (invocation,) = aws.ssm.describe_maintenance_window_execution_task_invocations(
        WindowExecutionId=run["WindowExecutionId"], TaskId=row["TaskExecutionId"]
    )["WindowExecutionTaskInvocationIdentities"]
    found = aws.ssm.get_automation_execution(AutomationExecutionId=invocation["ExecutionId"])["AutomationExecution"]
    assert (found["AutomationExecutionStatus"], invocation["Status"]) == ("Success", "SUCCESS")


def test_targets_and_tasks_are_changed_in_place(aws):
    """What is not given stays, unless Replace says otherwise."""
    identifier = window(aws)
    target = registered(aws, identifier)
    found = task(aws, identifier, target, Priority=3)
    changed = aws.ssm.update_maintenance_window_target(
        WindowId=identifier, WindowTargetId=target, Targets=[{"Key": "InstanceIds", "Values": aws.hosts("web")[:1]}]
    )
    assert changed["OwnerInformation"] == "shop"
    changed = aws.ssm.update_maintenance_window_task(WindowId=identifier, WindowTaskId=found, MaxErrors="5")
    assert (changed["MaxErrors"], changed["Priority"], changed["TaskArn"]) == ("5", 3, "AWS-RunShellScript")
    aws.advance(HOUR + 60)
    assert {line["host"] for line in aws.journal()} == set(aws.hosts("web")[:1])
    with pytest.raises(ClientError) as refused:
        aws.ssm.update_maintenance_window_task(WindowId=identifier, WindowTaskId=found, Replace=True)
    assert code(refused) == "ValidationException"
