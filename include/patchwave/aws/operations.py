"""Which calls does the gateway make, and what do they need? The one table.

`calls.Calls` refuses an operation that is not in it, takes from it how a failed call is to be judged, and the IAM policies
under ``docs/iam`` are tested against it. What a call is for stands in the module that makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Effect(Enum):
    """What happens if a call is made twice; decides whether botocore may repeat it by itself."""

    NONE = "reads only"
    GUARDED = "the second call changes nothing, or is refused"
    IDEMPOTENT = "a client token of ours makes the second call the same as the first"
    UNGUARDED = "the second call does it twice: never repeated, and a lost answer is an unknown outcome"


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One API operation.

    Attributes:
        service: name of the boto3 client.
        name: the operation as AWS spells it.
        actions: IAM actions that the caller needs for it. Inspector's prefix is ``inspector2``, and an operation is not
            always an action of the same name.
    """

    service: str
    name: str
    effect: Effect = Effect.NONE
    actions: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``ssm:SendCommand``: how it is counted, and named in errors."""
        return f"{self.service}:{self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """IAM actions; the one of the same name unless the table says otherwise."""
        return self.actions or (self.id,)


_TABLE = (
    # identity: needs no permission, and cannot be denied (STS API reference); listed so that a policy can be read alone
    Operation(service="sts", name="GetCallerIdentity"),
    # fleet and health
    Operation(service="ec2", name="DescribeInstances"),
    Operation(service="ec2", name="DescribeInstanceStatus"),
    Operation(service="ssm", name="DescribeInstanceInformation"),
    Operation(service="autoscaling", name="DescribeAutoScalingInstances"),
    # so that a group does not replace a host that only reboots
    Operation(service="autoscaling", name="SuspendProcesses", effect=Effect.GUARDED),
    Operation(service="autoscaling", name="ResumeProcesses", effect=Effect.GUARDED),
    # groups whose availability a stage protects; ELBv2's client and its IAM prefix are called differently
    Operation(service="autoscaling", name="DescribeAutoScalingGroups"),
    Operation(service="elbv2", name="DescribeTargetGroups", actions=("elasticloadbalancing:DescribeTargetGroups",)),
    Operation(service="elbv2", name="DescribeTargetHealth", actions=("elasticloadbalancing:DescribeTargetHealth",)),
    # from what a group makes its instances
    Operation(service="ec2", name="DescribeLaunchTemplateVersions"),
    Operation(service="ec2", name="DescribeImages"),
    Operation(service="autoscaling", name="DescribeLaunchConfigurations"),
    # who can be reached from the internet, where a policy's deadlines want to know
    Operation(service="elbv2", name="DescribeLoadBalancers", actions=("elasticloadbalancing:DescribeLoadBalancers",)),
    # findings
    Operation(service="inspector2", name="ListFindings"),
    Operation(service="inspector2", name="ListCoverage"),
    # change calendars and maintenance windows
    Operation(service="ssm", name="GetCalendarState"),
    Operation(service="ssm", name="DescribeMaintenanceWindows"),
    Operation(service="ssm", name="GetMaintenanceWindow"),
    Operation(service="ssm", name="DescribeMaintenanceWindowSchedule"),
    Operation(service="ssm", name="DescribeMaintenanceWindowExecutions"),
    Operation(service="ssm", name="CreateMaintenanceWindow", effect=Effect.IDEMPOTENT),
    Operation(service="ssm", name="UpdateMaintenanceWindow", effect=Effect.GUARDED),  # to what is declared
    # patch baselines, where a policy says what they should say
    Operation(service="ssm", name="DescribePatchBaselines"),
    Operation(service="ssm", name="DescribePatchGroups"),
    Operation(service="ssm", name="GetPatchBaseline"),
    Operation(service="ssm", name="GetPatchBaselineForPatchGroup"),
    Operation(service="ssm", name="CreatePatchBaseline", effect=Effect.IDEMPOTENT),
    Operation(service="ssm", name="UpdatePatchBaseline", effect=Effect.GUARDED),  # to what is declared
    Operation(service="ssm", name="RegisterPatchBaselineForPatchGroup", effect=Effect.GUARDED),  # AlreadyExistsException
    # of one pair of group and baseline, which is not there the second time
    Operation(service="ssm", name="DeregisterPatchBaselineForPatchGroup", effect=Effect.GUARDED),
    # patch state and compliance
    Operation(service="ssm", name="DescribeInstancePatchStates"),
    Operation(service="ssm", name="DescribeInstancePatches"),
    Operation(service="ssm", name="ListInventoryEntries"),
    Operation(service="ssm", name="ListResourceComplianceSummaries"),
    Operation(service="config", name="DescribeConfigRuleEvaluationStatus"),
    Operation(service="config", name="GetComplianceDetailsByConfigRule"),
    # refused with LimitExceeded while one runs or shortly after (reference: StartConfigRulesEvaluation)
    Operation(service="config", name="StartConfigRulesEvaluation", effect=Effect.GUARDED),
    # commands; SendCommand needs the document's and the instances' ARNs as resources
    Operation(service="ssm", name="SendCommand", effect=Effect.UNGUARDED),
    Operation(service="ssm", name="ListCommands"),
    Operation(service="ssm", name="ListCommandInvocations"),
    Operation(service="ssm", name="CancelCommand", effect=Effect.GUARDED),
    # lists of what is to be installed; an object is named by its content, so the second call changes nothing
    Operation(service="s3", name="PutObject", effect=Effect.GUARDED),
    # command events, where a queue is named; what is deleted twice is gone once
    Operation(service="sqs", name="ReceiveMessage"),
    Operation(service="sqs", name="DeleteMessageBatch", effect=Effect.GUARDED, actions=("sqs:DeleteMessage",)),
    # ways back: snapshots before patching, and root volumes from them; a snapshot takes no token and is found by its tag
    Operation(service="ec2", name="DescribeVolumes"),
    Operation(service="ec2", name="DescribeSnapshots"),
    Operation(
        service="ec2", name="CreateSnapshot", effect=Effect.UNGUARDED, actions=("ec2:CreateSnapshot", "ec2:CreateTags")
    ),
    Operation(service="ec2", name="DeleteSnapshot", effect=Effect.GUARDED),  # InvalidSnapshot.NotFound
    Operation(
        service="ec2",
        name="CreateReplaceRootVolumeTask",
        effect=Effect.IDEMPOTENT,
        actions=("ec2:CreateReplaceRootVolumeTask", "ec2:CreateTags"),
    ),
    Operation(service="ec2", name="DescribeReplaceRootVolumeTasks"),
    # databases: an action that is pending no more, a version that is there, a snapshot's name make the second call nothing
    Operation(service="rds", name="DescribeDBInstances"),
    Operation(service="rds", name="DescribeDBClusters"),
    Operation(service="rds", name="DescribeDBEngineVersions"),
    Operation(service="rds", name="DescribePendingMaintenanceActions"),
    Operation(service="rds", name="DescribeDBSnapshots"),
    Operation(service="rds", name="DescribeDBClusterSnapshots"),
    Operation(
        service="rds", name="CreateDBSnapshot", effect=Effect.GUARDED, actions=("rds:CreateDBSnapshot", "rds:AddTagsToResource")
    ),
    Operation(
        service="rds",
        name="CreateDBClusterSnapshot",
        effect=Effect.GUARDED,
        actions=("rds:CreateDBClusterSnapshot", "rds:AddTagsToResource"),
    ),
    Operation(service="rds", name="ApplyPendingMaintenanceAction", effect=Effect.GUARDED),
    Operation(service="rds", name="ModifyDBInstance", effect=Effect.GUARDED),
    Operation(service="rds", name="ModifyDBCluster", effect=Effect.GUARDED),
    # functions: the configuration that is there is given again
    Operation(service="lambda", name="ListFunctions"),
    Operation(service="lambda", name="ListTags"),
    Operation(service="lambda", name="GetFunctionConfiguration"),
    Operation(service="lambda", name="GetRuntimeManagementConfig"),
    Operation(service="lambda", name="PutRuntimeManagementConfig", effect=Effect.GUARDED),
    Operation(service="lambda", name="UpdateFunctionConfiguration", effect=Effect.GUARDED),
    # replacing: a version of a launch template is made once for a token; a second refresh is refused while one is active, but
    # not when the first has ended, so a lost answer is an unknown outcome
    Operation(service="autoscaling", name="DescribeInstanceRefreshes"),
    Operation(service="ec2", name="CreateLaunchTemplateVersion", effect=Effect.IDEMPOTENT),
    Operation(
        service="autoscaling",
        name="StartInstanceRefresh",
        effect=Effect.UNGUARDED,
        # a caller that brings a version of a launch template must be allowed to launch from it, with its role (EC2 Auto Scaling
        # user guide, "Control Amazon EC2 launch template usage")
        actions=("autoscaling:StartInstanceRefresh", "ec2:RunInstances", "iam:PassRole"),
    ),
    Operation(service="autoscaling", name="CancelInstanceRefresh", effect=Effect.GUARDED),  # ActiveInstanceRefreshNotFound
    Operation(service="autoscaling", name="RollbackInstanceRefresh", effect=Effect.GUARDED),  # ActiveInstanceRefreshNotFound
    # remediation
    Operation(service="ssm", name="DescribeDocument"),
    Operation(service="ssm", name="CreateDocument", effect=Effect.GUARDED),  # a name exists once
    Operation(service="ssm", name="UpdateDocument", effect=Effect.GUARDED),  # DuplicateDocumentContent
    Operation(service="ssm", name="UpdateDocumentDefaultVersion", effect=Effect.GUARDED),
    # tags at the start are authorised as AddTagsToResource on the execution
    Operation(
        service="ssm",
        name="StartAutomationExecution",
        effect=Effect.IDEMPOTENT,
        actions=("ssm:StartAutomationExecution", "ssm:AddTagsToResource"),
    ),
    Operation(service="ssm", name="StopAutomationExecution", effect=Effect.GUARDED),  # InvalidAutomationStatusUpdate
    Operation(service="ssm", name="GetAutomationExecution"),
    Operation(service="ssm", name="DescribeAutomationExecutions"),
    Operation(service="config", name="StartRemediationExecution", effect=Effect.UNGUARDED),
    Operation(service="config", name="DescribeRemediationExecutionStatus"),
)
OPERATIONS = {operation.id: operation for operation in _TABLE}
