"""Samples of the AWS CLI's documentation against awsim's answers: windows, baselines, calendars, inventory and OpsItems."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.test_ssm_baselines import as_windows, made
from tests.simulator.test_ssm_calendars import FREEZE, calendar
from tests.simulator.test_ssm_windows import HOUR, registered, runs, task, window

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "aws-cli-examples" / "ssm"
NOT_ANSWERED: dict[str, set[str]] = {
    "get-inventory-schema": {"NextToken"},  # the sample is cut off in its middle
    "describe-effective-patches-for-patch-baseline": {"NextToken"},
    "describe-maintenance-window-executions": {"WindowExecutions.StatusDetails"},  # of one that failed; asked of others
    "get-maintenance-window-execution-task": {"TaskParameters.BaselineOverride", "TaskParameters.InstallOverrideList"},
    "describe-ops-items": {"OpsItemSummaries.OperationalData./aws/automations"},
    "get-ops-item": {"OpsItem.OperationalData.event-time", "OpsItem.OperationalData.instance-state"},
    "get-maintenance-window-execution-task-invocation": {"StatusDetails"},
}
"""Paths of a sample that the state of this test does not have."""


class State:
    """A cell in the state that the samples show."""

    def __init__(self, aws: Any) -> None:
        self.aws, self.ssm = aws, aws.ssm
        self.host = aws.hosts("web")[0]

    def ran(self) -> dict[str, str]:
        identifier = window(self.aws)
        parameters = {"Operation": ["Scan"], "RebootOption": ["NoReboot"], "SnapshotId": ["{{ aws:ORCHESTRATION_ID }}"]}
        task(self.aws, identifier, registered(self.aws, identifier), "AWS-RunPatchBaseline", parameters, Priority=1)
        self.aws.advance(HOUR + 600)
        execution = runs(self.aws, identifier)[0]["WindowExecutionId"]
        found = self.ssm.get_maintenance_window_execution(WindowExecutionId=execution)["TaskIds"][0]
        (row,) = self.ssm.describe_maintenance_window_execution_task_invocations(WindowExecutionId=execution, TaskId=found)[
            "WindowExecutionTaskInvocationIdentities"
        ]
        return {"window": identifier, "execution": execution, "task": found, "invocation": row["InvocationId"]}

    def item(self) -> str:
        data = {
            "/aws/dedup": {"Value": '{"dedupString":"x"}', "Type": "SearchableString"},
            "/aws/resources": {
                "Value": '[{"arn":"arn:aws:ec2:eu-central-1:111111111111:instance/i-1"}]',
                "Type": "SearchableString",
            },
            "/aws/automations": {"Value": "[]", "Type": "SearchableString"},
        }
        return str(
            self.ssm.create_ops_item(
                Title="EC2 instance stopped",
                Source="EC2",
                Description="seen",
                Category="Availability",
                Severity="3",
                OperationalData=data,
            )["OpsItemId"]
        )

    def windows_baseline(self) -> str:
        as_windows(self.aws)
        return made(self.aws, name="windows", system="WINDOWS")


def _window_task(state: State) -> Any:
    identifier = window(state.aws)
    parameters = {"commands": ["echo Hello"], "executionTimeout": ["3600"], "workingDirectory": [""]}
    found = state.ssm.register_task_with_maintenance_window(
        WindowId=identifier,
        Name="ExampleTask",
        TaskArn="AWS-RunShellScript",
        TaskType="RUN_COMMAND",
        ServiceRoleArn="arn:aws:iam::111111111111:role/windows",
        Targets=[{"Key": "WindowTargetIds", "Values": [registered(state.aws, identifier)]}],
        Priority=1,
        TaskInvocationParameters={"RunCommand": {"Comment": "", "TimeoutSeconds": 600, "Parameters": parameters}},
    )["WindowTaskId"]
    return state.ssm.get_maintenance_window_task(WindowId=identifier, WindowTaskId=found)


def _execution(state: State) -> Any:
    ran = state.ran()
    return state.ssm.get_maintenance_window_execution(WindowExecutionId=ran["execution"])


def _execution_task(state: State) -> Any:
    ran = state.ran()
    return state.ssm.get_maintenance_window_execution_task(WindowExecutionId=ran["execution"], TaskId=ran["task"])


def _invocation(state: State) -> Any:
    ran = state.ran()
    return state.ssm.get_maintenance_window_execution_task_invocation(
        WindowExecutionId=ran["execution"], TaskId=ran["task"], InvocationId=ran["invocation"]
    )


def _sync(state: State) -> Any:
    state.aws.client("s3").create_bucket(Bucket="synced", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    state.ssm.create_resource_data_sync(
        SyncName="all", S3Destination={"BucketName": "synced", "SyncFormat": "JsonSerDe", "Region": "eu-central-1"}
    )
    state.aws.advance(61)
    return state.ssm.list_resource_data_sync()


def _hosts_window(state: State) -> list[dict[str, Any]]:
    registered(state.aws, window(state.aws), "InstanceIds", state.host)
    return [{"Key": "InstanceIds", "Values": [state.host]}]


ASKED: dict[str, Callable[[State], Any]] = {
    "create-ops-item": lambda state: {"OpsItemId": state.item()},
    "describe-ops-items": lambda state: (state.item(), state.ssm.describe_ops_items())[1],
    "get-ops-item": lambda state: state.ssm.get_ops_item(OpsItemId=state.item()),
    "get-calendar-state": lambda state: state.ssm.get_calendar_state(
        CalendarNames=[calendar(state.aws, "MyCalendar", "DEFAULT_OPEN", FREEZE)]
    ),
    "get-inventory": lambda state: state.ssm.get_inventory(),
    "get-inventory-schema": lambda state: state.ssm.get_inventory_schema(),
    "list-inventory-entries": lambda state: state.ssm.list_inventory_entries(InstanceId=state.host, TypeName="AWS:Application"),
    "list-resource-data-sync": _sync,
    "get-default-patch-baseline": lambda state: state.ssm.get_default_patch_baseline(),
    "describe-patch-baselines": lambda state: state.ssm.describe_patch_baselines(),
    "update-patch-baseline": lambda state: state.ssm.update_patch_baseline(BaselineId=made(state.aws), RejectedPatches=["curl"]),
    "get-patch-baseline": lambda state: state.ssm.get_patch_baseline(BaselineId=made(state.aws)),
    "register-default-patch-baseline": lambda state: state.ssm.register_default_patch_baseline(BaselineId=made(state.aws)),
    "delete-patch-baseline": lambda state: state.ssm.delete_patch_baseline(BaselineId=made(state.aws)),
    "describe-patch-properties": lambda state: state.ssm.describe_patch_properties(
        OperatingSystem="AMAZON_LINUX", Property="PRODUCT"
    ),
    "describe-available-patches": lambda state: (as_windows(state.aws), state.ssm.describe_available_patches())[1],
    "describe-effective-patches-for-patch-baseline": lambda state: state.ssm.describe_effective_patches_for_patch_baseline(
        BaselineId=state.windows_baseline()
    ),
    "get-deployable-patch-snapshot-for-instance": lambda state: state.ssm.get_deployable_patch_snapshot_for_instance(
        InstanceId=state.host, SnapshotId="521c3536-930c-4aa9-950e-01234567abcd"
    ),
    "describe-maintenance-windows": lambda state: (window(state.aws), state.ssm.describe_maintenance_windows())[1],
    "update-maintenance-window": lambda state: state.ssm.update_maintenance_window(WindowId=window(state.aws), Name="other"),
    "delete-maintenance-window": lambda state: state.ssm.delete_maintenance_window(WindowId=window(state.aws)),
    "get-maintenance-window-task": _window_task,
    "describe-maintenance-window-schedule": lambda state: state.ssm.describe_maintenance_window_schedule(
        WindowId=window(state.aws)
    ),
    "describe-maintenance-windows-for-target": lambda state: state.ssm.describe_maintenance_windows_for_target(
        Targets=_hosts_window(state), ResourceType="INSTANCE"
    ),
    "describe-maintenance-window-executions": lambda state: state.ssm.describe_maintenance_window_executions(
        WindowId=state.ran()["window"]
    ),
    "describe-maintenance-window-execution-tasks": lambda state: state.ssm.describe_maintenance_window_execution_tasks(
        WindowExecutionId=state.ran()["execution"]
    ),
    "describe-maintenance-window-execution-task-invocations": lambda state: (
        lambda ran: state.ssm.describe_maintenance_window_execution_task_invocations(
            WindowExecutionId=ran["execution"], TaskId=ran["task"]
        )
    )(state.ran()),
    "get-maintenance-window-execution": _execution,
    "get-maintenance-window-execution-task": _execution_task,
    "get-maintenance-window-execution-task-invocation": _invocation,
    "cancel-maintenance-window-execution": lambda state: state.ssm.cancel_maintenance_window_execution(
        WindowExecutionId=state.ran()["execution"]
    ),
    "associate-ops-item-related-item": lambda state: state.ssm.associate_ops_item_related_item(
        OpsItemId=state.item(), AssociationType="RelatesTo", ResourceType="AWS::SSMIncidents::IncidentRecord", ResourceUri="arn:x"
    ),
}


def missing(sample: Any, answer: Any, path: str = "") -> set[str]:
    """Paths that the sample has and the answer lacks, or has with a value of another type."""
    if isinstance(sample, dict):
        if not isinstance(answer, dict):
            return {path}
        return {
            wrong
            for key, value in sample.items()
            for wrong in (missing(value, answer[key], f"{path}.{key}") if key in answer else {f"{path}.{key}"})
        }
    if isinstance(sample, list):
        if not isinstance(answer, list):
            return {path}
        if not sample or not isinstance(sample[0], (dict, list)):
            return set()
        if not answer:
            return {path}
        return {wrong for entry in sample for wrong in set.intersection(*(missing(entry, other, path) for other in answer))}
    if isinstance(answer, datetime):
        return set() if isinstance(sample, (int, float, str)) else {path}
    return set() if type(sample) is type(answer) or (isinstance(sample, float) and isinstance(answer, int)) else {path}


@pytest.mark.parametrize("operation", sorted(ASKED))
def test_an_answer_has_the_keys_and_types_of_the_sample(aws, operation):
    """Whatever the documentation shows, awsim says, too."""
    if not SAMPLES.is_dir():
        pytest.skip(f"the samples are not at {SAMPLES}")
    answer = ASKED[operation](State(aws))
    files = sorted((SAMPLES / operation).glob("*.output*.json"))
    assert files, f"{SAMPLES / operation} holds no sample"
    sample = json.loads(files[0].read_text(encoding="utf-8"))
    found = {path.removeprefix(".") for path in missing(sample, answer)}
    assert found - NOT_ANSWERED.get(operation, set()) == set()
