"""botocore's paginators and waiters of every operation that awsim answers: small pages hold what one big page holds.

A few operations have tokens, but no paginator in botocore: they are paged by the same rules.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError
from botocore.paginate import Paginator
from botocore.session import get_session

from awsim import registry
from tests.simulator.conftest import Aws
from tests.simulator.vouched import models
from tests.simulator.vouched.stage import RULE, STAGE, Facts, play

registry.load()
SERVICES = sorted({service for service, _ in registry.registered()})


@cache
def _described(service: str, kind: str) -> dict[str, Any]:
    try:
        return dict(get_session().get_component("data_loader").load_service_model(service, f"{kind}"))
    except Exception:  # noqa: BLE001 - botocore has no such file for the service
        return {}


def _rules(service: str, name: str) -> dict[str, Any] | None:
    """How an operation is paged: what botocore says, or what follows from its members; None when it has no tokens."""
    known = _described(service, "paginators-1").get("pagination", {})
    if name in known:
        return dict(known[name])
    model = models.model(service).operation_model(name)
    asked, told = (shape.members if shape is not None else {} for shape in (model.input_shape, model.output_shape))
    token = next((member for member in told if member.lower() == "nexttoken" and member in asked), None)
    rows = [member for member, shape in told.items() if shape.type_name == "list"]
    if token is None or len(rows) != 1:
        return None
    size = next(member for member in asked if member in ("MaxResults", "maxResults", "Limit", "MaxRecords"))
    return {"input_token": token, "output_token": token, "limit_key": size, "result_key": rows[0]}


def paged() -> list[tuple[str, str]]:
    """Operations that are paged and that awsim answers itself."""
    return [(service, name) for service, name in registry.registered() if _rules(service, name) is not None]


def waits() -> list[tuple[str, str]]:
    ours = set(registry.registered())
    return [
        (service, name)
        for service in SERVICES
        for name, rules in sorted(_described(service, "waiters-2").get("waiters", {}).items())
        if (service, rules["operation"]) in ours
    ]


ASKED: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "DescribeAutomationStepExecutions": lambda facts: {"AutomationExecutionId": facts.automation},
    "DescribeEffectivePatchesForPatchBaseline": lambda facts: {"BaselineId": facts.baseline},
    "DescribeInstancePatchStates": lambda facts: {"InstanceIds": facts.hosts},
    "DescribeInstancePatchStatesForPatchGroup": lambda facts: {"PatchGroup": "web"},
    "DescribeInstancePatches": lambda facts: {"InstanceId": facts.host},
    "DescribeMaintenanceWindowExecutions": lambda facts: {"WindowId": facts.window},
    "DescribeMaintenanceWindowExecutionTasks": lambda facts: {"WindowExecutionId": facts.run},
    "DescribeMaintenanceWindowExecutionTaskInvocations": lambda facts: {"WindowExecutionId": facts.run, "TaskId": facts.ran},
    "DescribeMaintenanceWindowSchedule": lambda facts: {"WindowId": facts.open},
    "DescribeMaintenanceWindowTargets": lambda facts: {"WindowId": facts.windows[1]},
    "DescribeMaintenanceWindowTasks": lambda facts: {"WindowId": facts.window},
    "DescribeMaintenanceWindowsForTarget": lambda facts: {
        "Targets": [{"Key": "InstanceIds", "Values": [facts.host]}],
        "ResourceType": "INSTANCE",
    },
    "DescribePatchProperties": lambda facts: {"OperatingSystem": "AMAZON_LINUX_2023", "Property": "CLASSIFICATION"},
    "ListDocuments": lambda facts: {"Filters": [{"Key": "Owner", "Values": ["Amazon"]}]},
    "ListComplianceItems": lambda facts: {"ResourceIds": [facts.host], "ResourceTypes": ["ManagedInstance"]},
    "ListCoverageStatistics": lambda facts: {"groupBy": "ACCOUNT_ID"},
    "ListFindingAggregations": lambda facts: {"aggregationType": "AWS_EC2_INSTANCE"},
    "GetComplianceDetailsByConfigRule": lambda facts: {"ConfigRuleName": RULE},
    "GetComplianceDetailsByResource": lambda facts: {
        "ResourceType": "AWS::SSM::PatchCompliance",
        "ResourceId": f"AWS::SSM::ManagedInstanceInventory/{facts.host}",
    },
    "DescribeAggregateComplianceByConfigRules": lambda facts: {"ConfigurationAggregatorName": "all"},
    "DescribeAggregateComplianceByConformancePacks": lambda facts: {"ConfigurationAggregatorName": "all"},
    "DescribeConfigurationAggregatorSourcesStatus": lambda facts: {"ConfigurationAggregatorName": "all"},
    "GetAggregateComplianceDetailsByConfigRule": lambda facts: {
        "ConfigurationAggregatorName": "all",
        "ConfigRuleName": RULE,
        "AccountId": "111111111111",
        "AwsRegion": "eu-central-1",
    },
    "DescribeRemediationExecutionStatus": lambda facts: {"ConfigRuleName": RULE},
    "DescribeRemediationExceptions": lambda facts: {"ConfigRuleName": RULE},
    "DescribeInstanceRefreshes": lambda facts: {"AutoScalingGroupName": "app"},
    "GetAggregateConfigRuleComplianceSummary": lambda facts: {
        "ConfigurationAggregatorName": "all",
        "GroupByKey": "AWS_REGION",
    },
    "GetAggregateDiscoveredResourceCounts": lambda facts: {
        "ConfigurationAggregatorName": "all",
        "GroupByKey": "RESOURCE_TYPE",
    },
    "ListInventoryEntries": lambda facts: {"InstanceId": facts.host, "TypeName": "AWS:Application"},
    "GetConformancePackComplianceSummary": lambda facts: {"ConformancePackNames": ["first", "second"]},
    "DescribeConformancePackCompliance": lambda facts: {"ConformancePackName": "first"},
    "GetConformancePackComplianceDetails": lambda facts: {"ConformancePackName": "first"},
    "GetOrganizationConformancePackDetailedStatus": lambda facts: {"OrganizationConformancePackName": "org-first"},
    "SelectAggregateResourceConfig": lambda facts: {
        "ConfigurationAggregatorName": "all",
        "Expression": "SELECT resourceId WHERE resourceType = 'AWS::EC2::Instance'",
    },
    "DescribeWarmPool": lambda facts: {"AutoScalingGroupName": "app"},
    "DescribeSnapshots": lambda facts: {"Filters": [{"Name": "snapshot-id", "Values": facts.snapshots[:8]}]},
    "DescribeImages": lambda facts: {"Owners": ["self"]},
    "ListImagePackages": lambda facts: {"imageBuildVersionArn": facts.stale},
    "ListImagePipelineImages": lambda facts: {"imagePipelineArn": facts.pipeline},
    "ListWorkflowExecutions": lambda facts: {"imageBuildVersionArn": facts.stale},
    "ListWorkflowStepExecutions": lambda facts: {"workflowExecutionId": facts.workflow},
}

ONE_PAGE: dict[str, str] = {
    "DescribeMaintenanceWindowExecutionTaskInvocations": "a task on one host has one invocation, and a page holds ten at least",
    "GetInventorySchema": "awsim knows fewer types than the smallest page holds (50)",
    "GetComplianceDetailsByResource": "no page size can be asked for, and few rules judge one resource",
    "DescribeComplianceByConfigRule": "no page size can be asked for; AWS pages after 100 rules",
    "DescribeConfigRules": "no page size can be asked for; AWS pages after 25 rules",
    "ListRoots": "an organization has one root",
    "ListCoverageStatistics": "no page size can be asked for, and there are few groups",
    "ListImageScanFindingAggregations": "no page size can be asked for, and without a filter there is one account",
}
"""Paginators that cannot be brought to a second page here."""


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Aws, Facts]]:
    from awsim.server import Server, Simulator
    from tests.simulator.conftest import BASE

    path = tmp_path_factory.mktemp("stage") / "world.yaml"
    path.write_text(STAGE, encoding="utf-8")
    server = Server(Simulator(world=path, speed=0, seed=1, base=BASE)).start()
    aws = Aws(server)
    facts = play(aws)
    ssm = aws.client("ssm")
    facts["open"] = ssm.create_maintenance_window(
        Name="open", Schedule="rate(1 day)", Duration=1, Cutoff=0, AllowUnassociatedTargets=True
    )["WindowId"]
    groups = aws.client("autoscaling")
    groups.start_instance_refresh(AutoScalingGroupName="app", Preferences={"MinHealthyPercentage": 50, "InstanceWarmup": 10})
    config = aws.client("config")
    bad = config.get_compliance_details_by_config_rule(ConfigRuleName=RULE, ComplianceTypes=["NON_COMPLIANT"])[
        "EvaluationResults"
    ]
    named = [row["EvaluationResultIdentifier"]["EvaluationResultQualifier"] for row in bad[:2]]
    keys = [{member: row[member] for member in ("ResourceType", "ResourceId")} for row in named]
    config.put_remediation_exceptions(ConfigRuleName=RULE, ResourceKeys=keys, Message="frozen")
    for host in facts.hosts[:11]:
        ssm.register_target_with_maintenance_window(
            WindowId=facts.windows[1], ResourceType="INSTANCE", Targets=[{"Key": "InstanceIds", "Values": [host]}]
        )
    groups.put_warm_pool(AutoScalingGroupName="app", MinSize=2, PoolState="Stopped")
    for number in range(2):
        image = aws.ec2.create_image(InstanceId=facts.web[number], Name=f"image-{number}", NoReboot=True)
        facts.setdefault("images", []).append(image["ImageId"])
    for host in facts.web[4:10]:
        aws.ec2.create_replace_root_volume_task(InstanceId=host)
    facts["snapshots"] = [row["SnapshotId"] for row in aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]]
    aws.advance(900)
    yield aws, facts
    server.stop()


@pytest.mark.parametrize(("service", "name"), paged(), ids=lambda word: word)
def test_small_pages_hold_what_one_big_page_holds(service, name, cast):
    """Through botocore's Paginator, with the smallest page that the model allows; nothing twice, nothing lost."""
    aws, facts = cast
    client = aws.client(service)
    rules = _rules(service, name)
    request = ASKED.get(name, lambda _: {})(facts)
    size = rules.get("limit_key")
    paginator = Paginator(getattr(client, _snake(name)), rules, client.meta.service_model.operation_model(name))
    if size is None:
        pages = list(paginator.paginate(**request))
        assert _rows(pages, rules), f"{name} tells nothing: the paginator was not tried"
        assert (len(pages) == 1) is (name in ONE_PAGE), f"{name}: {len(pages)} pages"
        return
    limits = client.meta.service_model.operation_model(name).input_shape.members[size].metadata
    least = max(limits.get("min", 1), {"ec2": 5, "rds": 20}.get(service, 1))
    few = list(paginator.paginate(**request, PaginationConfig={"PageSize": least}))
    big = list(paginator.paginate(**request))
    assert _rows(big, rules), f"{name} tells nothing: the paginator was not tried"
    assert _rows(few, rules) == _rows(big, rules)
    if name in ONE_PAGE:
        assert len(few) == 1, f"{name} has a second page now: it is none of ONE_PAGE"
        return
    assert len(few) > 1, f"{name}: {len(_rows(big, rules))} rows on one page of {least}"
    assert all(len(_rows([page], rules)) <= least for page in few)


def _snake(name: str) -> str:
    from botocore import xform_name

    return str(xform_name(name))


def _rows(pages: list[Any], rules: dict[str, Any]) -> list[Any]:
    """What the paginator collects over all pages, of every key that it names."""
    keys = rules["result_key"] if isinstance(rules["result_key"], list) else [rules["result_key"]]
    found = []
    for key in keys:
        for page in pages:
            value: Any = page
            for part in key.split("."):
                value = value.get(part, []) if isinstance(value, dict) else []
            found += value
    return found


def test_what_has_one_page_here_is_a_paginator():
    """A table that outlives what it excuses excuses anything."""
    assert set(ONE_PAGE) | set(ASKED) <= {name for _, name in paged()}


def _settings(service: str, name: str, aws: Aws, facts: Facts) -> tuple[dict[str, Any], Callable[[], Any]]:
    """What the waiter waits for, and what is done before."""
    ec2, host = aws.ec2, facts.web[3]
    if service == "imagebuilder":
        begun = aws.client(service).start_image_pipeline_execution(imagePipelineArn=facts.pipeline)
        return {"imageBuildVersionArn": begun["imageBuildVersionArn"]}, None
    target = {"TargetGroupArn": facts.target_group, "Targets": [{"Id": facts.web[2]}]}
    instance, function = {"InstanceIds": [host]}, {"FunctionName": "bill"}
    return {
        "CommandExecuted": lambda: ({"CommandId": aws.script(facts.host, lines=["true"]), "InstanceId": facts.host}, None),
        "TargetInService": lambda: (target, lambda: aws.client("elbv2").register_targets(**target)),
        "TargetDeregistered": lambda: (target, lambda: aws.client("elbv2").deregister_targets(**target)),
        "InstanceExists": lambda: (instance, None),
        "InstanceRunning": lambda: (instance, lambda: ec2.start_instances(**instance)),
        "InstanceStatusOk": lambda: (instance, lambda: ec2.reboot_instances(**instance)),
        "SystemStatusOk": lambda: (instance, None),
        "InstanceStopped": lambda: (instance, lambda: ec2.stop_instances(**instance)),
        "InstanceTerminated": lambda: (instance, lambda: ec2.terminate_instances(**instance)),
        "ImageExists": lambda: ({"ImageIds": facts.images[:1]}, None),
        "ImageAvailable": lambda: (
            {"ImageIds": [ec2.create_image(InstanceId=facts.web[1], Name="late", NoReboot=True)["ImageId"]]},
            None,
        ),
        **dict.fromkeys(
            ("FunctionActive", "FunctionActiveV2", "FunctionExists", "PublishedVersionActive"), lambda: (function, None)
        ),
        **dict.fromkeys(
            ("FunctionUpdated", "FunctionUpdatedV2"),
            lambda: (function, lambda: aws.client("lambda").update_function_configuration(**function, Description="new")),
        ),
        "SnapshotCompleted": lambda: ({"SnapshotIds": facts.snapshots[:1]}, None),
    }[name]()


ORDER = ("TargetInService", "TargetDeregistered", "InstanceStatusOk", "InstanceStopped", "InstanceRunning", "InstanceTerminated")


@pytest.mark.parametrize(
    ("service", "name"),
    sorted(waits(), key=lambda pair: (pair[1] in ORDER and ORDER.index(pair[1]) + 1, pair)),
    ids=lambda word: word,
)
def test_a_waiter_reaches_its_end_when_the_clock_moves(service, name, cast, monkeypatch):
    """It sleeps on the virtual clock, as often as botocore would sleep on the real one."""
    aws, facts = cast
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        aws.advance(seconds)

    monkeypatch.setattr("botocore.waiter.time.sleep", sleep)
    request, before = _settings(service, name, aws, facts)
    if before is not None:
        before()
    aws.advance(1)
    aws.client(service).get_waiter(_snake(name)).wait(**request)
    assert len(slept) < 40


def test_a_waiter_tells_a_failure_apart(cast, monkeypatch):
    """A command that fails ends the wait with an error, at once."""
    aws, facts = cast
    monkeypatch.setattr("botocore.waiter.time.sleep", aws.advance)
    command = aws.script(facts.host, lines=["exit 1"])
    aws.advance(1)
    with pytest.raises(WaiterError, match="terminal failure state"):
        aws.ssm.get_waiter("command_executed").wait(CommandId=command, InstanceId=facts.host)


def test_a_token_of_another_question_is_refused(cast):
    """Tokens belong to an operation and its filters."""
    aws, _ = cast
    token = aws.ssm.describe_available_patches(MaxResults=1)["NextToken"]
    for call in (aws.ssm.list_commands, aws.ssm.describe_patch_baselines):
        with pytest.raises(ClientError) as refused:
            call(NextToken=token)
        assert "Token" in refused.value.response["Error"]["Code"]
