"""Pages of every ssm operation that has them: the limits of the model hold on the server, and a token belongs to one question."""

from typing import Any

import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import get_session

from awsim import registry
from tests.simulator.conftest import REGION, SESSION, Aws
from tests.simulator.test_run_command import code

registry.load()
MODEL = get_session().get_service_model("ssm")
PAGED = [
    name
    for service, name in registry.registered()
    if service == "ssm" and "NextToken" in (getattr(MODEL.operation_model(name).input_shape, "members", None) or {})
]
AMAZON = [{"Key": "Owner", "Values": ["Amazon"]}]


def unchecked(aws: Aws, region: str = REGION) -> Any:
    """A client that lets everything pass, so that the server has to say no."""
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret"}
    return SESSION.client("ssm", region_name=region, endpoint_url=aws.url, config=config, **keys)


@pytest.fixture
def asked(aws) -> dict[str, dict[str, Any]]:
    """What an operation needs to be asked at all."""
    host = aws.hosts("web")[0]
    window = aws.ssm.create_maintenance_window(
        Name="night", Schedule="rate(5 minutes)", Duration=1, Cutoff=0, AllowUnassociatedTargets=True
    )["WindowId"]
    aws.ssm.register_task_with_maintenance_window(
        WindowId=window,
        TaskArn="AWS-RunShellScript",
        TaskType="RUN_COMMAND",
        Targets=[{"Key": "InstanceIds", "Values": [host]}],
        MaxConcurrency="1",
        MaxErrors="0",
        TaskInvocationParameters={"RunCommand": {"Parameters": {"commands": ["echo"]}}},
    )
    automation = aws.ssm.start_automation_execution(DocumentName="AWS-StartEC2Instance", Parameters={"InstanceId": [host]})
    aws.advance(400)
    run = aws.ssm.describe_maintenance_window_executions(WindowId=window)["WindowExecutions"][0]["WindowExecutionId"]
    (task,) = aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run)["WindowExecutionTaskIdentities"]
    (baseline,) = aws.ssm.describe_patch_baselines(Filters=[{"Key": "OWNER", "Values": ["Self"]}])["BaselineIdentities"]
    windows = aws.ssm.get_default_patch_baseline(OperatingSystem="WINDOWS")["BaselineId"]
    assert baseline["OperatingSystem"] == "AMAZON_LINUX_2023"
    execution = {"WindowExecutionId": run, "TaskId": task["TaskExecutionId"]}
    kinds = ("Executions", "Schedule", "Targets", "Tasks")
    of_window = {f"DescribeMaintenanceWindow{kind}": {"WindowId": window} for kind in kinds}
    return {
        **of_window,
        "DescribeAutomationStepExecutions": {"AutomationExecutionId": automation["AutomationExecutionId"]},
        "DescribeEffectivePatchesForPatchBaseline": {"BaselineId": windows},
        "DescribeInstancePatchStates": {"InstanceIds": aws.hosts("web")},
        "DescribeInstancePatchStatesForPatchGroup": {"PatchGroup": "web"},
        "DescribeInstancePatches": {"InstanceId": host},
        "DescribeMaintenanceWindowExecutionTasks": {"WindowExecutionId": run},
        "DescribeMaintenanceWindowExecutionTaskInvocations": execution,
        "DescribeMaintenanceWindowsForTarget": {
            "Targets": [{"Key": "InstanceIds", "Values": [host]}],
            "ResourceType": "INSTANCE",
        },
        "DescribePatchProperties": {"OperatingSystem": "AMAZON_LINUX_2023", "Property": "PRODUCT"},
        "ListDocuments": {"Filters": AMAZON},
        "ListInventoryEntries": {"InstanceId": host, "TypeName": "AWS:Application"},
    }


def test_every_operation_with_pages_keeps_its_limits_and_refuses_other_tokens(aws, asked):
    """One below the least page, one above the largest, a token that nobody made, and a token of another operation."""
    client = unchecked(aws)
    foreign = aws.ssm.describe_available_patches(MaxResults=1)["NextToken"]
    found: dict[str, list[str]] = {}
    for name in PAGED:
        ask, request = getattr(client, xform_name(name)), asked.get(name, {})
        assert ask(**request)
        limits = MODEL.operation_model(name).input_shape.members["MaxResults"].metadata
        tried = [("MaxResults", limits["min"] - 1, "ValidationException"), ("NextToken", "rubbish", "InvalidNextToken")]
        if "max" in limits:
            tried.append(("MaxResults", limits["max"] + 1, "ValidationException"))
        if name != "DescribeAvailablePatches":
            tried.append(("NextToken", foreign, "InvalidNextToken"))
        for member, value, expected in tried:
            try:
                ask(**request, **{member: value})
                found.setdefault(name, []).append(f"{member}={value} is accepted")
            except ClientError as refused:
                if refused.response["Error"]["Code"] != expected:
                    found.setdefault(name, []).append(f"{member}={value}: {refused}")
    assert found == {}
    assert len(PAGED) > 25


def test_a_token_of_another_region_is_refused(aws):
    token = aws.ssm.describe_available_patches(MaxResults=1)["NextToken"]
    assert aws.ssm.describe_available_patches(MaxResults=1, NextToken=token)["Patches"]
    with pytest.raises(ClientError) as refused:
        aws.client("ssm", "us-east-1").describe_available_patches(MaxResults=1, NextToken=token)
    assert code(refused) == "InvalidNextToken"


def test_a_token_of_other_filters_is_refused_and_the_size_may_change(aws):
    first = aws.ssm.list_documents(Filters=AMAZON, MaxResults=2)
    rest = aws.ssm.list_documents(Filters=AMAZON, MaxResults=50, NextToken=first["NextToken"])
    names = [row["Name"] for row in [*first["DocumentIdentifiers"], *rest["DocumentIdentifiers"]]]
    assert names == sorted(set(names))
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_documents(Filters=[*AMAZON, {"Key": "DocumentType", "Values": ["Command"]}], NextToken=first["NextToken"])
    assert code(refused) == "InvalidNextToken"
