"""What has happened in the AWS that is vouched for? One world, and a day in it: every operation has something to tell."""

import json
from typing import Any

from tests.simulator.conftest import FEW

STAGE = (
    FEW.replace(
        'accounts: [{id: "111111111111"}]',
        'accounts: [{id: "111111111111", name: hub}, {id: "222222222222", name: shop}, {id: "333333333333", name: lab}]',
    )
    .replace(
        "fleets:",
        """fleets:
  - name: app
    account: "111111111111"
    region: eu-central-1
    count: 6
    template: amazon
    tags: {Environment: prod, PatchGroup: web}
    auto_scaling_group: {name: app, min: 4, max: 9}
    target_group: {name: app}
  - name: desk
    account: "111111111111"
    region: eu-central-1
    count: 2
    template: windows
    tags: {Environment: dev, PatchGroup: desk}""",
    )
    .replace("count: 4\n", "count: 11\n")
    .replace("templates:", "templates:\n  windows: {os: windows-server-2022, missing: {count: [2, 3]}}")
    + "\nconfig_rules: [{name: patched}, {name: managed, source_identifier: EC2_INSTANCE_MANAGED_BY_SSM}]\nalarms: [errors]\n"
    + """
functions:
  - {name: resize, account: "111111111111", region: eu-central-1, count: 2, mode: FunctionUpdate, behind: 1, code: [pip-jinja2]}
  - {name: bill, account: "111111111111", region: eu-central-1}
databases:
  - {name: orders, account: "111111111111", region: eu-central-1, engine: postgres, version: "16.3", pending: [{forced: 900000}]}
  - {name: stock, account: "111111111111", region: eu-central-1, count: 22, engine: mysql, version: 8.0.36}
clusters:
  - name: ledger
    account: "111111111111"
    region: eu-central-1
    engine: aurora-postgresql
    version: "16.2"
    auto_minor_upgrade: false
    pending: [{description: Upgrade to Aurora PostgreSQL 2.4.2}]
"""
)
ORDERS = "arn:aws:rds:eu-central-1:111111111111:db:orders"
LEDGER = "arn:aws:rds:eu-central-1:111111111111:cluster:ledger"
RULE = "patched"
RUNBOOK = {
    "schemaVersion": "0.3",
    "description": "Waits",
    "parameters": {"InstanceId": {"type": "String", "default": "", "description": "which"}},
    "mainSteps": [
        {"name": "Wait", "action": "aws:sleep", "inputs": {"Duration": "PT10S"}},
        {"name": "Again", "action": "aws:sleep", "inputs": {"Duration": "PT10S"}},
    ],
}
CALENDAR = """BEGIN:VCALENDAR
PRODID:-//AWS//Change Calendar 1.0//EN
VERSION:2.0
X-CALENDAR-TYPE:DEFAULT_OPEN
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
DTSTART:20260106T090000Z
DTEND:20260106T120000Z
SUMMARY:freeze
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")
PACK = json.dumps(
    {
        "Resources": {
            "Managed": {
                "Type": "AWS::Config::ConfigRule",
                "Properties": {
                    "ConfigRuleName": "ec2-managed",
                    "Source": {"Owner": "AWS", "SourceIdentifier": "EC2_INSTANCE_MANAGED_BY_SSM"},
                },
            },
            "Patched": {
                "Type": "AWS::Config::ConfigRule",
                "Properties": {
                    "ConfigRuleName": "ec2-patched",
                    "Source": {"Owner": "AWS", "SourceIdentifier": "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"},
                },
            },
        }
    }
)


class Facts(dict[str, Any]):
    """Names of what was made, by a short word."""

    __getattr__ = dict.__getitem__


def play(aws: Any) -> Facts:
    """Let the day happen; `aws` has `client(service)` and `simulator`."""
    facts = Facts()
    _hosts(aws, facts)
    _images(aws, facts)
    _commands(aws, facts)
    _baselines(aws, facts)
    _windows(aws, facts)
    _automation(aws, facts)
    _records(aws, facts)
    _inspector(aws, facts)
    _config(aws, facts)
    _groups(aws, facts)
    builder = aws.client("imagebuilder")
    facts["image"] = builder.start_image_pipeline_execution(imagePipelineArn=facts.pipeline)["imageBuildVersionArn"]
    facts["workflow"] = builder.list_workflow_executions(imageBuildVersionArn=facts.stale)["workflowExecutions"][0][
        "workflowExecutionId"
    ]
    aws.simulator.advance(2400)
    for number in range(2):
        aws.client("ssm").start_automation_execution(DocumentName="Waits", Parameters={"InstanceId": [facts.host]})
        aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="app", DesiredCapacity=6 + number)
    return facts


def _hosts(aws: Any, facts: Facts) -> None:
    hosts = aws.simulator.world.hosts_in("111111111111", "eu-central-1")
    facts["web"] = [host.id for host in hosts if host.name.startswith("web/")]
    facts["app"] = [host.id for host in hosts if host.name.startswith("app/")]
    facts["desk"] = [host.id for host in hosts if host.name.startswith("desk/")]
    facts["hosts"] = [host.id for host in hosts]
    facts["host"] = facts.web[0]


COMPONENT = """name: HelloWorldTestingDocument
schemaVersion: 1.0
phases:
  - name: test
    steps:
      - name: HelloWorldStep
        action: ExecuteBash
        inputs: {commands: [echo "Hello World! Test."]}
"""


def _images(aws: Any, facts: Facts) -> None:
    """Two of everything that images are made of, one pipeline that updates and one that does not, and an image of each."""
    builder = aws.client("imagebuilder")
    tags = {"KeyName": "KeyValue"}
    parent = next(
        row["ImageId"]
        for row in aws.client("ec2").describe_images(Owners=["self"])["Images"]
        if row.get("Description") == "awsim amazon-linux-2023"
    )
    facts["ami"] = parent
    for name in ("stale", "fresh"):
        facts["component"] = builder.create_component(
            name=f"{name}-test", semanticVersion="1.0.0", platform="Linux", data=COMPONENT
        )["componentBuildVersionArn"]
        update = [{"componentArn": "arn:aws:imagebuilder:eu-central-1:aws:component/update-linux/x.x.x"}]
        facts["recipe"] = builder.create_image_recipe(
            name=name,
            semanticVersion="1.0.0",
            description="an image",
            components=[{"componentArn": facts.component}, *(update if name == "fresh" else [])],
            parentImage=parent,
            tags=tags,
        )["imageRecipeArn"]
        facts["infrastructure"] = builder.create_infrastructure_configuration(
            name=name,
            description="keeps what failed",
            instanceTypes=["m6i.large"],
            instanceProfileName="awsim-managed-instance",
            securityGroupIds=["sg-a1b2c3d4"],
            subnetId="subnet-a1b2c3d4",
            logging={"s3Logs": {"s3BucketName": "bucket-name", "s3KeyPrefix": "bucket-path"}},
            keyPair="Sam",
            terminateInstanceOnFailure=False,
            snsTopicArn="arn:aws:sns:eu-central-1:111111111111:ops",
            tags=tags,
        )["infrastructureConfigurationArn"]
        facts["distribution"] = builder.create_distribution_configuration(
            name=name,
            description="to two regions",
            distributions=[
                {
                    "region": region,
                    "amiDistributionConfiguration": {
                        "name": f"{name} {{{{imagebuilder:buildDate}}}}",
                        "description": "an image",
                        "amiTags": tags,
                        "launchPermission": {"userIds": ["222222222222"]},
                    },
                }
                for region in ("eu-central-1", "us-east-1")
            ],
            tags=tags,
        )["distributionConfigurationArn"]
        facts["pipeline"] = builder.create_image_pipeline(
            name=name,
            description="builds images",
            imageRecipeArn=facts.recipe,
            infrastructureConfigurationArn=facts.infrastructure,
            distributionConfigurationArn=facts.distribution,
            imageScanningConfiguration={"imageScanningEnabled": True},
            schedule={
                "scheduleExpression": "cron(0 0 * * SUN)",
                "pipelineExecutionStartCondition": "EXPRESSION_MATCH_AND_DEPENDENCY_UPDATES_AVAILABLE",
            },
            tags=tags,
        )["imagePipelineArn"]
        built = builder.start_image_pipeline_execution(imagePipelineArn=facts.pipeline)["imageBuildVersionArn"]
        facts.setdefault("stale", built)


def _commands(aws: Any, facts: Facts) -> None:
    ssm = aws.client("ssm")
    sent = ssm.send_command(
        DocumentName="AWS-RunShellScript", InstanceIds=facts.web, Parameters={"commands": ["echo HelloWorld"]}
    )
    facts["command"] = sent["Command"]["CommandId"]
    ssm.send_command(
        DocumentName="AWS-RunPatchBaseline",
        Targets=[{"Key": "tag:PatchGroup", "Values": ["web", "desk"]}],
        Parameters={"Operation": ["Install"], "RebootOption": ["NoReboot"]},
    )
    aws.simulator.advance(600)
    scan = ssm.send_command(DocumentName="AWS-RunPatchBaseline", InstanceIds=facts.web[:2], Parameters={"Operation": ["Scan"]})
    facts["scan"] = scan["Command"]["CommandId"]
    aws.simulator.advance(120)


def _baselines(aws: Any, facts: Facts) -> None:
    ssm = aws.client("ssm")
    rule = {
        "PatchFilterGroup": {"PatchFilters": [{"Key": "CLASSIFICATION", "Values": ["SecurityUpdates"]}]},
        "ApproveAfterDays": 0,
    }
    facts["baseline"] = ssm.create_patch_baseline(
        Name="WindowsPatching",
        OperatingSystem="WINDOWS",
        Description="Patches for Windows Servers",
        ApprovalRules={"PatchRules": [{**rule, "ComplianceLevel": "CRITICAL"}]},
        Tags=[{"Key": "Environment", "Value": "Production"}],
    )["BaselineId"]
    for group in ("Production", "Development"):
        ssm.register_patch_baseline_for_patch_group(BaselineId=facts.baseline, PatchGroup=group)
    facts["spare"] = ssm.create_patch_baseline(Name="spare", OperatingSystem="WINDOWS", ApprovalRules={"PatchRules": [rule]})[
        "BaselineId"
    ]


def _windows(aws: Any, facts: Facts) -> None:
    ssm = aws.client("ssm")
    for number in range(12):
        made = ssm.create_maintenance_window(
            Name=f"window-{number}", Schedule="cron(0/10 * * * ? *)", Duration=1, Cutoff=0, AllowUnassociatedTargets=True
        )["WindowId"]
        facts.setdefault("windows", []).append(made)
        facts["window_target"] = ssm.register_target_with_maintenance_window(
            WindowId=made, ResourceType="INSTANCE", Targets=[{"Key": "InstanceIds", "Values": facts.web}]
        )["WindowTargetId"]
        if number:
            ssm.update_maintenance_window(WindowId=made, Enabled=False)
    facts["window"] = facts.windows[0]
    for number in range(11):
        facts["task"] = ssm.register_task_with_maintenance_window(
            WindowId=facts.window,
            TaskArn="AWS-RunShellScript",
            TaskType="RUN_COMMAND",
            Priority=number,
            MaxConcurrency="50",
            MaxErrors="1",
            Name=f"task-{number}",
            Targets=[{"Key": "InstanceIds", "Values": facts.web[:1]}],
            ServiceRoleArn="arn:aws:iam::111111111111:role/windows",
            TaskInvocationParameters={"RunCommand": {"Parameters": {"commands": ["df"]}, "Comment": "", "TimeoutSeconds": 600}},
        )["WindowTaskId"]
    aws.simulator.advance(12 * 600)
    runs = ssm.describe_maintenance_window_executions(WindowId=facts.window)["WindowExecutions"]
    facts["run"] = runs[-1]["WindowExecutionId"]
    ran = ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=facts.run)["WindowExecutionTaskIdentities"]
    facts["ran"] = ran[0]["TaskExecutionId"]
    invoked = ssm.describe_maintenance_window_execution_task_invocations(WindowExecutionId=facts.run, TaskId=facts.ran)
    facts["invocation"] = invoked["WindowExecutionTaskInvocationIdentities"][0]["InvocationId"]
    ssm.update_maintenance_window(WindowId=facts.window, Enabled=False)


def _automation(aws: Any, facts: Facts) -> None:
    ssm = aws.client("ssm")
    ssm.create_document(Name="Waits", Content=json.dumps(RUNBOOK), DocumentType="Automation", DocumentFormat="JSON")
    ssm.create_document(Name="Freeze", Content=CALENDAR, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    started = [ssm.start_automation_execution(DocumentName="Waits", Parameters={"InstanceId": [host]}) for host in facts.web[:3]]
    facts["automation"] = started[0]["AutomationExecutionId"]
    aws.simulator.advance(60)


def _records(aws: Any, facts: Facts) -> None:
    ssm = aws.client("ssm")
    for number in range(3):
        facts["item"] = ssm.create_ops_item(
            Title=f"EC2 instance disk full {number}",
            Description="Log clean up may have failed",
            Source="EC2",
            Priority=2,
            Category="Availability",
            Severity="3",
            Notifications=[{"Arn": "arn:aws:sns:eu-central-1:111111111111:ops"}],
            OperationalData={"/aws/resources": {"Value": '[{"arn": "arn:aws:ec2:x"}]', "Type": "SearchableString"}},
        )["OpsItemId"]
    for number in range(2):
        facts["association"] = ssm.associate_ops_item_related_item(
            OpsItemId=facts.item,
            AssociationType="IsParentOf",
            ResourceType="AWS::SSMIncidents::IncidentRecord",
            ResourceUri=f"arn:aws:ssm-incidents::111111111111:incident-record/plan/{number}",
        )["AssociationId"]
    ssm.put_compliance_items(
        ResourceId=facts.host,
        ResourceType="ManagedInstance",
        ComplianceType="Custom:Agent",
        ExecutionSummary={"ExecutionTime": 1_767_600_000, "ExecutionId": "one", "ExecutionType": "Command"},
        Items=[{"Id": str(number), "Title": "agent", "Severity": "HIGH", "Status": "NON_COMPLIANT"} for number in range(3)],
    )
    ssm.put_inventory(
        InstanceId=facts.host,
        Items=[
            {
                "TypeName": "Custom:RackInfo",
                "SchemaVersion": "1.0",
                "CaptureTime": "2026-01-05T10:01:01Z",
                "Content": [{"RackLocation": "Bay B/Row C/Rack D/Shelf E"}],
            }
        ],
    )
    aws.client("s3").create_bucket(Bucket="sync", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for number in range(2):
        ssm.create_resource_data_sync(
            SyncName=f"sync-{number}",
            S3Destination={"BucketName": "sync", "SyncFormat": "JsonSerDe", "Region": "eu-central-1", "Prefix": f"p{number}"},
        )


def _inspector(aws: Any, facts: Facts) -> None:
    inspector = aws.client("inspector2")
    for name in ("first", "second"):
        criteria = {"resourceType": [{"comparison": "EQUALS", "value": "AWS_ECR_REPOSITORY"}]}
        made = inspector.create_filter(name=name, action="SUPPRESS", filterCriteria=criteria, description="images")
        facts["filter"] = made["arn"]
    for account in ("222222222222", "333333333333"):
        inspector.associate_member(accountId=account)


def _config(aws: Any, facts: Facts) -> None:
    config = aws.client("config")
    for name in ("first", "second"):
        config.put_conformance_pack(ConformancePackName=name, TemplateBody=PACK)
        config.put_organization_conformance_pack(OrganizationConformancePackName=f"org-{name}", TemplateBody=PACK)
    config.put_configuration_aggregator(
        ConfigurationAggregatorName="all",
        AccountAggregationSources=[{"AccountIds": ["111111111111", "222222222222"], "AllAwsRegions": True}],
    )
    config.put_remediation_configurations(
        RemediationConfigurations=[
            {
                "ConfigRuleName": RULE,
                "TargetType": "SSM_DOCUMENT",
                "TargetId": "Waits",
                "Parameters": {"InstanceId": {"ResourceValue": {"Value": "RESOURCE_ID"}}},
                "ResourceType": "AWS::SSM::PatchCompliance",
            }
        ]
    )
    aws.simulator.advance(900)
    found = config.get_compliance_details_by_config_rule(ConfigRuleName=RULE)["EvaluationResults"]
    facts["resources"] = [row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"] for row in found]
    keys = [{"resourceType": "AWS::SSM::PatchCompliance", "resourceId": one} for one in facts.resources[:3]]
    config.start_remediation_execution(ConfigRuleName=RULE, ResourceKeys=keys)


def _groups(aws: Any, facts: Facts) -> None:
    groups = aws.client("autoscaling")
    refresh = groups.start_instance_refresh(
        AutoScalingGroupName="app", Preferences={"MinHealthyPercentage": 50, "InstanceWarmup": 10}
    )
    facts["refresh"] = refresh["InstanceRefreshId"]
    groups.create_auto_scaling_group(
        AutoScalingGroupName="idle",
        MinSize=0,
        MaxSize=1,
        LaunchTemplate={"LaunchTemplateName": "app"},
        AvailabilityZones=["eu-central-1a"],
    )
    facts["target_group"] = aws.client("elbv2").describe_target_groups()["TargetGroups"][0]["TargetGroupArn"]


def known_names(facts: Facts) -> dict[str, list[str]]:
    """What exists, by the names that models give to members (lower case, singular)."""
    hosts = facts.web[:2] + facts.app[:1] + facts.desk[:1]
    return {
        "instanceid": hosts,
        "resourceid": [*hosts[:2], *facts.resources[:1], facts.baseline, facts.window],
        "target": hosts[:1],
        "value": [*hosts[:2], "web", "prod", "AMAZON_LINUX_2023", "Security", "Success", "Missing"],
        "key": ["InstanceIds", "tag:PatchGroup", "PatchGroup", "Status", "State", "PRODUCT", "InvokedAfter", "Name"],
        "commandid": [facts.command, facts.scan],
        "documentname": ["AWS-RunPatchBaseline", "AWS-RunShellScript", "Waits", "AWS-RestartEC2Instance"],
        "name": ["Waits", "Freeze", "errors"],
        "calendarname": ["Freeze"],
        "taskarn": ["AWS-RunShellScript", "Waits"],
        "windowid": facts.windows[:2],
        "windowtaskid": [facts.task],
        "windowexecutionid": [facts.run],
        "taskid": [facts.ran],
        "invocationid": [facts.invocation],
        "baselineid": [facts.baseline, facts.spare],
        "patchgroup": ["web", "Production"],
        "automationexecutionid": [facts.automation],
        "opsitemid": [facts.item],
        "associationid": [facts.association],
        "typename": ["AWS:InstanceInformation", "AWS:Application", "Custom:RackInfo"],
        "syncname": ["sync-0"],
        "configrulename": [RULE, "managed"],
        "conformancepackname": ["first", "second"],
        "organizationconformancepackname": ["org-first"],
        "configurationaggregatorname": ["all"],
        "resourcetype": [
            "AWS::SSM::PatchCompliance",
            "AWS::SSM::ManagedInstanceInventory",
            "ManagedInstance",
            "AWS::EC2::Instance",
        ],
        "expression": ["SELECT resourceId WHERE resourceType = 'AWS::EC2::Instance'", "SELECT *, COUNT(*) GROUP BY resourceType"],
        "autoscalinggroupname": ["app"],
        "instancerefreshid": [facts.refresh],
        "launchtemplatename": ["app"],
        "targetgrouparn": [facts.target_group],
        "id": hosts[:1],
        "rolearn": ["arn:aws:iam::222222222222:role/PatchwaveRole"],
        "accountid": ["111111111111", "222222222222"],
        "alarmname": ["errors"],
        "filterarn": [facts.filter],
        "functionname": ["resize-01", "bill", "arn:aws:lambda:eu-central-1:111111111111:function:bill"],
        "qualifier": ["$LATEST"],
        "runtime": ["python3.12"],
        "dbinstanceidentifier": ["orders", "stock-01"],
        "dbclusteridentifier": ["ledger"],
        "resourceidentifier": [ORDERS, LEDGER],
        "applyaction": ["system-update", "db-upgrade"],
        "optintype": ["immediate", "next-maintenance", "undo-opt-in"],
        "engine": ["postgres", "mysql"],
        "engineversion": ["16.8", "8.0.41"],
        "arn": [facts.filter],
        "imageid": [facts.ami],
        "parentimage": [facts.ami],
        "imagebuildversionarn": [facts.stale, facts.image],
        "imageversionarn": [facts.stale.rpartition("/")[0]],
        "imagepipelinearn": [facts.pipeline],
        "componentarn": [facts.component],
        "componentbuildversionarn": [facts.component],
        "imagerecipearn": [facts.recipe],
        "infrastructureconfigurationarn": [facts.infrastructure],
        "distributionconfigurationarn": [facts.distribution],
        "workflowexecutionid": [facts.workflow],
    }
