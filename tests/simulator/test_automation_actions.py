"""The actions of runbooks, signals, and AWS's own runbooks as the executor carries them out."""

import json

import pytest
from botocore.exceptions import ClientError

from awsim.services.automation.documents import shipped
from awsim.services.automation.selectors import select
from tests.simulator.conftest import AMAZON, Aws
from tests.simulator.test_automation import begin, code, command, execution, sleep, steps, write


def status(aws: Aws, identifier: str) -> str:
    return str(execution(aws, identifier)["AutomationExecutionStatus"])


def signal(aws: Aws, identifier: str, kind: str, **payload: list[str]) -> None:
    given = {"Payload": payload} if payload else {}
    aws.ssm.send_automation_signal(AutomationExecutionId=identifier, SignalType=kind, **given)


def api(name: str, service: str, operation: str, outputs: list | None = None, **inputs) -> dict:
    step = {"name": name, "action": "aws:executeAwsApi", "inputs": {"Service": service, "Api": operation, **inputs}}
    return {**step, "outputs": outputs} if outputs else step


def outputs(aws: Aws, identifier: str, step: str) -> dict:
    rows = execution(aws, identifier)["StepExecutions"]
    return next(row["Outputs"] for row in rows if row["StepName"] == step)


def test_any_operation_can_be_called_and_its_answer_selected_from(aws):
    """Values of one step are inputs of the next, as strings; the API converts them."""
    host = aws.hosts("web")[0]
    picked = [
        {"Name": "State", "Selector": "$.Reservations[0].Instances[0].State.Name", "Type": "String"},
        {"Name": "Volumes", "Selector": "$.Reservations..Ebs.VolumeId", "Type": "StringList"},
    ]
    document = write(
        aws,
        "Ask",
        api("Look", "ec2", "DescribeInstances", picked, InstanceIds=["{{ Id }}"]),
        api("Tag", "ec2", "CreateTags", Resources=["{{ Look.Volumes }}"], Tags=[{"Key": "Was", "Value": "{{ Look.State }}"}]),
        parameters={"Id": {"type": "String"}},
    )
    identifier = begin(aws, document, Parameters={"Id": [host]})
    aws.advance(30)
    assert status(aws, identifier) == "Success"
    found = outputs(aws, identifier, "Look")
    assert found["State"] == ["running"]
    (volume,) = aws.ec2.describe_volumes(VolumeIds=found["Volumes"])["Volumes"]
    assert {"Key": "Was", "Value": "running"} in volume["Tags"]


def test_an_operation_that_awsim_answers_itself_can_be_called_too(aws):
    host = aws.hosts("web")[0]
    picked = [{"Name": "Missing", "Selector": "$.InstancePatchStates[0].MissingCount", "Type": "Integer"}]
    document = write(aws, "States", api("Look", "ssm", "DescribeInstancePatchStates", picked, InstanceIds=[host]))
    identifier = begin(aws, document)
    aws.advance(10)
    assert outputs(aws, identifier, "Look")["Missing"] == [str(aws.patch_state(host)["MissingCount"])]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (api("Call", "ec2", "StartInstances", InstanceIds=["i-0123456789abcdef0"]), "InvalidInstanceID.NotFound"),
        (api("Call", "ec2", "Teleport"), "no operation 'Teleport'"),
        (api("Call", "starship", "Describe"), "'starship' is unknown"),
        (api("Call", "ec2", "CreateTags", Resources=["a"]), "Missing required parameter"),
    ],
)
def test_a_call_that_is_refused_fails_the_step_with_the_reason(aws, step, told):
    identifier = begin(aws, write(aws, "Bad", step))
    aws.advance(10)
    assert status(aws, identifier) == "Failed"
    assert told in execution(aws, identifier)["FailureMessage"]


def test_a_command_sent_through_the_api_names_the_execution_as_its_cause(aws):
    host = aws.hosts("web")[0]
    send = api(
        "Send", "ssm", "SendCommand", DocumentName="AWS-RunPatchBaseline", InstanceIds=[host], Parameters={"Operation": ["Scan"]}
    )
    identifier = begin(aws, write(aws, "Send", send))
    aws.advance(60)
    assert {line["cause"]["automation_id"] for line in aws.journal()} == {identifier}


def test_a_property_is_waited_for_and_asserted(aws):
    """The wait looks again and again; the assertion looks once."""
    host = aws.hosts("web")[0]
    online = {
        "Service": "ssm",
        "Api": "DescribeInstanceInformation",
        "Filters": [{"Key": "InstanceIds", "Values": [host]}],
        "PropertySelector": "$.InstanceInformationList[0].PingStatus",
        "DesiredValues": ["Online"],
    }
    state = {
        "Service": "ec2",
        "Api": "DescribeInstances",
        "InstanceIds": [host],
        "PropertySelector": "$.Reservations[0].Instances[0].State.Name",
        "DesiredValues": ["stopped"],
    }
    document = write(
        aws,
        "Wait",
        {"name": "Wait", "action": "aws:waitForAwsResourceProperty", "timeoutSeconds": 600, "inputs": state},
        {"name": "Assert", "action": "aws:assertAwsResourceProperty", "inputs": online},
    )
    identifier = begin(aws, document)
    aws.advance(100)
    assert steps(aws, identifier) == {"Wait": "InProgress", "Assert": "Pending"}
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(10)
    assert steps(aws, identifier) == {"Wait": "Success", "Assert": "Failed"}
    timed = begin(aws, write(aws, "Never", {**json.loads(json.dumps(state_step(state))), "timeoutSeconds": 30}))
    aws.ec2.start_instances(InstanceIds=[host])
    aws.advance(60)
    assert status(aws, timed) == "TimedOut"


def state_step(inputs: dict) -> dict:
    return {"name": "Wait", "action": "aws:waitForAwsResourceProperty", "inputs": {**inputs, "DesiredValues": ["terminated"]}}


def test_an_image_of_an_instance_reboots_it(aws):
    """EC2 does so for the sake of the file systems, unless NoReboot is given."""
    first, second = aws.hosts("web")[:2]
    image = {"name": "Image", "action": "aws:createImage"}
    quiet = write(aws, "Quiet", {**image, "inputs": {"InstanceId": first, "ImageName": "first", "NoReboot": True}})
    loud = write(aws, "Loud", {**image, "inputs": {"InstanceId": second, "ImageName": "second"}})
    one, other = begin(aws, quiet), begin(aws, loud)
    aws.advance(300)
    assert status(aws, one) == status(aws, other) == "Success"
    assert aws.events(first) == []
    assert aws.events(second) == ["out_of_service", "reboot_begun", "reboot_ended", "in_service"]
    (identifier,) = outputs(aws, other, "Image")["ImageId"]
    assert aws.ec2.describe_images(ImageIds=[identifier])["Images"][0]["Name"] == "second"


def test_another_runbook_is_executed_as_a_child(aws):
    inner = write(aws, "Inner", sleep("Rest"), parameters={"Word": {"type": "String"}})
    outer = write(
        aws,
        "Outer",
        {
            "name": "Child",
            "action": "aws:executeAutomation",
            "inputs": {"DocumentName": inner, "RuntimeParameters": {"Word": ["x"]}},
        },
    )
    identifier = begin(aws, outer)
    aws.advance(5)
    (child,) = outputs(aws, identifier, "Child")["ExecutionId"]
    assert execution(aws, child)["ParentAutomationExecutionId"] == identifier
    aws.advance(20)
    assert (status(aws, child), status(aws, identifier)) == ("Success", "Success")
    second = begin(aws, outer)
    aws.advance(5)
    aws.ssm.stop_automation_execution(AutomationExecutionId=second)
    aws.advance(5)
    assert status(aws, outputs(aws, second, "Child")["ExecutionId"][0]) == "Cancelled"
    assert status(aws, second) == "Cancelled"


def approval(**inputs) -> dict:
    given = {"Approvers": ["arn:aws:iam::111111111111:user/anna", "bert"], **inputs}
    return {"name": "Ask", "action": "aws:approve", "inputs": given}


def test_an_approval_waits_for_its_signal(aws):
    identifier = begin(aws, write(aws, "Approve", approval(), sleep("Rest")))
    aws.advance(5)
    assert status(aws, identifier) == "Waiting"
    assert steps(aws, identifier)["Ask"] == "Waiting"
    signal(aws, identifier, "Approve", Comment=["go"])
    aws.advance(20)
    assert status(aws, identifier) == "Success"
    found = outputs(aws, identifier, "Ask")
    assert found["ApprovalStatus"] == ["Approved"]
    assert json.loads(found["ApproverDecisions"][0])[0]["Comment"] == "go"
    with pytest.raises(ClientError) as refused:
        signal(aws, identifier, "Approve")
    assert code(refused) == "InvalidAutomationSignalException"


def test_a_rejection_fails_the_execution(aws):
    identifier = begin(aws, write(aws, "Approve", approval(), sleep("Rest")))
    aws.advance(5)
    signal(aws, identifier, "Reject")
    assert steps(aws, identifier) == {"Ask": "Failed", "Rest": "Pending"}
    assert status(aws, identifier) == "Failed"


def test_one_person_does_not_approve_twice_and_strangers_not_at_all(aws):
    iam = aws.client("iam")
    keys = {}
    for name in ("anna", "bert", "carl"):
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        keys[name] = {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
    identifier = begin(aws, write(aws, "Approve", approval(MinRequiredApprovals=2)))
    aws.advance(5)

    def approves(name: str) -> None:
        aws.client("ssm", **keys[name]).send_automation_signal(AutomationExecutionId=identifier, SignalType="Approve")

    approves("anna")
    approves("anna")
    assert status(aws, identifier) == "Waiting"
    with pytest.raises(ClientError) as refused:
        approves("carl")
    assert code(refused) == "AccessDeniedException"
    approves("bert")
    assert status(aws, identifier) == "Success"


def test_nobody_approves_for_a_week_and_the_step_times_out(aws):
    identifier = begin(aws, write(aws, "Approve", approval()))
    aws.advance(7 * 86_400 - 60)
    assert status(aws, identifier) == "Waiting"
    aws.advance(120)
    assert status(aws, identifier) == "TimedOut"


def test_a_pause_lasts_until_it_is_resumed(aws):
    identifier = begin(aws, write(aws, "Pause", {"name": "Hold", "action": "aws:pause", "inputs": {}}, sleep("Rest")))
    aws.advance(3600)
    assert status(aws, identifier) == "Waiting"
    with pytest.raises(ClientError) as refused:
        signal(aws, identifier, "Approve")
    assert code(refused) == "InvalidAutomationSignalException"
    with pytest.raises(ClientError) as refused:
        signal(aws, identifier, "Resume", StepName=["Nowhere"])
    assert code(refused) == "AutomationStepNotFoundException"
    signal(aws, identifier, "Resume", StepName=["Hold"])
    aws.advance(20)
    assert status(aws, identifier) == "Success"


def test_an_interactive_execution_begins_no_step_by_itself(aws):
    identifier = begin(aws, write(aws, "Two", sleep("First"), sleep("Second", "PT1H")), Mode="Interactive")
    aws.advance(600)
    assert (status(aws, identifier), set(steps(aws, identifier).values())) == ("Waiting", {"Pending"})
    signal(aws, identifier, "StartStep", StepName=["First"])
    aws.advance(30)
    assert steps(aws, identifier) == {"First": "Success", "Second": "Pending"}
    assert status(aws, identifier) == "Waiting"
    signal(aws, identifier, "StartStep", StepName=["Second"])
    aws.advance(30)
    signal(aws, identifier, "StopStep")
    assert steps(aws, identifier)["Second"] == "Cancelled"


def test_a_cancelled_step_cleans_up_before_the_end(aws):
    host = aws.hosts("web")[0]
    document = write(aws, "Clean", sleep("Long", "PT1H", onCancel="step:Tidy"), command("Tidy", host, "echo tidy"))
    identifier = begin(aws, document)
    aws.advance(5)
    aws.ssm.stop_automation_execution(AutomationExecutionId=identifier)
    assert status(aws, identifier) == "Cancelling"
    aws.advance(30)
    assert steps(aws, identifier) == {"Long": "Cancelled", "Tidy": "Success"}
    assert status(aws, identifier) == "Cancelled"


def test_outputs_are_those_that_the_document_declares(aws):
    content = {
        "schemaVersion": "0.3",
        "outputs": ["Look.Account"],
        "mainSteps": [
            api("Look", "sts", "GetCallerIdentity", [{"Name": "Account", "Selector": "$.Account", "Type": "String"}]),
            sleep("Rest", "PT1S"),
        ],
    }
    aws.ssm.create_document(Name="Out", Content=json.dumps(content), DocumentType="Automation", DocumentFormat="JSON")
    identifier = begin(aws, "Out")
    aws.advance(20)
    assert execution(aws, identifier)["Outputs"] == {"Look.Account": ["111111111111"]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.a.b", [1, 2]),
        ("$.rows[0].name", ["x"]),
        ("$.rows[*].name", ["x", "y"]),
        ("$.rows[-1]['name']", ["y"]),
        ("$..name", ["x", "y"]),
        ("$.rows[?(@.name == 'y')].n", [2]),
        ("$.absent.name", []),
    ],
)
def test_selectors_pick_what_they_say(path, found):
    document = {"a": {"b": [1, 2]}, "rows": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]}
    got = select(document, path)
    assert (got[0] if path == "$.a.b" else got) == found


# --- AWS's own ---


def test_the_runbooks_that_campaigns_call_are_there():
    assert set(shipped()) == {
        "AWS-CreateSnapshot",
        "AWS-PatchAsgInstance",
        "AWS-PatchInstanceWithRollback",
        "AWS-RestartEC2Instance",
        "AWS-StartEC2Instance",
        "AWS-StopEC2Instance",
        "AWS-UpdateLinuxAmi",
        "AWS-UpdateWindowsAmi",
        "AWSEC2-PatchLoadBalancerInstance",
    }


def test_an_instance_is_stopped_started_and_restarted(aws):
    host = aws.hosts("web")[0]
    for name, state in (("Stop", "stopped"), ("Start", "running"), ("Restart", "running")):
        identifier = begin(aws, f"AWS-{name}EC2Instance", Parameters={"InstanceId": [host]})
        aws.advance(60)
        assert status(aws, identifier) == "Success"
        answer = aws.ec2.describe_instances(InstanceIds=[host])
        assert answer["Reservations"][0]["Instances"][0]["State"]["Name"] == state
    assert outputs(aws, identifier, "startInstances")["InstanceStates"] == ["running"]
    assert next(row for row in aws.control("hosts")["hosts"] if row["host"] == host)["boots"] >= 3


def test_a_snapshot_is_created(aws):
    (volume,) = aws.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [aws.hosts("web")[0]]}])["Volumes"]
    identifier = begin(aws, "AWS-CreateSnapshot", Parameters={"VolumeId": [volume["VolumeId"]]})
    aws.advance(1800)
    assert status(aws, identifier) == "Success"
    (snapshot,) = execution(aws, identifier)["Outputs"]["createSnapshot.SnapshotId"]
    assert aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["VolumeId"] == volume["VolumeId"]


def test_patching_with_rollback_keeps_what_is_compliant(aws):
    host = aws.hosts("web")[0]
    identifier = begin(aws, "AWS-PatchInstanceWithRollback", Parameters={"InstanceId": [host]})
    aws.advance(1200)
    assert status(aws, identifier) == "Success"
    assert steps(aws, identifier)["restoreFromSnapshot"] == "Pending"
    assert aws.patch_state(host)["MissingCount"] == 0


def test_patching_with_rollback_restores_what_is_not(start):
    """The packages are again those of the snapshot, after a stop and a start."""
    aws = start()
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "install_fails", "host": host, "exit_code": 1})
    before = dict(aws.simulator.world.host("111111111111", "eu-central-1", host).levels)
    identifier = begin(aws, "AWS-PatchInstanceWithRollback", Parameters={"InstanceId": [host]})
    aws.advance(1500)
    assert status(aws, identifier) == "Success"
    assert steps(aws, identifier)["restoreFromSnapshot"] == "Success"
    assert aws.simulator.world.host("111111111111", "eu-central-1", host).levels == before
    (volume,) = aws.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [host]}])["Volumes"]
    assert volume["VolumeId"] == outputs(aws, identifier, "restoreFromSnapshot")["VolumeId"][0]


GROUPED = (
    f"name: grouped{AMAZON}"
    + """\
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: 3
    template: amazon
    tags: {Environment: prod}
    auto_scaling_group: {name: web, min: 1, max: 6}
"""
)


def test_an_instance_of_a_group_is_patched_in_standby(start):
    aws = start(GROUPED)
    host = aws.hosts("web")[0]
    identifier = begin(aws, "AWS-PatchAsgInstance", Parameters={"InstanceId": [host]})
    aws.advance(60)
    (row,) = aws.client("autoscaling").describe_auto_scaling_instances(InstanceIds=[host])["AutoScalingInstances"]
    assert row["LifecycleState"] == "Standby"
    aws.advance(1500)
    assert status(aws, identifier) == "Success", execution(aws, identifier)["FailureMessage"]
    (row,) = aws.client("autoscaling").describe_auto_scaling_instances(InstanceIds=[host])["AutoScalingInstances"]
    assert row["LifecycleState"] == "InService"
    assert "reboot_ended" in aws.events(host)


def test_a_failed_patch_does_not_leave_the_instance_in_standby(start):
    aws = start(GROUPED)
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "install_fails", "host": host, "exit_code": 1})
    identifier = begin(aws, "AWS-PatchAsgInstance", Parameters={"InstanceId": [host]})
    aws.advance(1800)
    assert status(aws, identifier) == "Failed"
    (row,) = aws.client("autoscaling").describe_auto_scaling_instances(InstanceIds=[host])["AutoScalingInstances"]
    assert row["LifecycleState"] == "InService"


def test_an_instance_behind_a_load_balancer_is_drained_and_registered_again(start):
    aws = start(GROUPED)
    host = aws.hosts("web")[0]
    elb = aws.client("elbv2")
    vpc = aws.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    (group,) = elb.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"]
    arn = group["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": host}])
    aws.advance(120)

    def registered() -> list[str]:
        rows = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return [row["Target"]["Id"] for row in rows if row["TargetHealth"]["State"] != "draining"]

    parameters = {"InstanceId": [host], "ConnectionDrainTime": ["2"]}
    identifier = begin(aws, "AWSEC2-PatchLoadBalancerInstance", Parameters=parameters)
    aws.advance(60)
    assert registered() == [], execution(aws, identifier)["FailureMessage"]
    aws.advance(1200)
    assert status(aws, identifier) == "Success", execution(aws, identifier)["FailureMessage"]
    assert registered() == [host]
    assert "package_installed" in aws.events(host)


def test_a_new_image_is_made_of_an_updated_instance(aws):
    source = aws.ec2.describe_instances(InstanceIds=[aws.hosts("web")[0]])["Reservations"][0]["Instances"][0]["ImageId"]
    parameters = {"SourceAmiId": [source], "IamInstanceProfileName": ["awsim-managed-instance"], "TargetAmiName": ["fresh"]}
    identifier = begin(aws, "AWS-UpdateLinuxAmi", Parameters=parameters)
    aws.advance(2400)
    assert status(aws, identifier) == "Success", execution(aws, identifier)["FailureMessage"]
    (image,) = execution(aws, identifier)["Outputs"]["createImage.ImageId"]
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["Name"] == "fresh"
    (instance,) = outputs(aws, identifier, "launchInstance")["InstanceIds"]
    states = aws.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert states == "terminated"


@pytest.mark.parametrize(
    "step",
    [
        {"name": "Bad", "action": "aws:branch", "inputs": {"Choices": [{"Variable": "a", "StringEquals": "a"}]}},
        {"name": "Bad", "action": "aws:runCommand", "inputs": ["a"]},
        {"name": "Bad", "action": "aws:approve", "inputs": {"Approvers": ["a"], "MinRequiredApprovals": "many"}},
        {"name": "Bad", "action": "aws:sleep", "timeoutSeconds": "soon", "maxAttempts": "often", "inputs": {"Timestamp": "x"}},
        api("Bad", "ec2", "DescribeInstances", [{"Name": "A", "Selector": "$[[", "Type": "String"}]),
    ],
)
def test_a_step_that_is_not_written_well_fails_and_nothing_else(aws, step):
    """Other requests are answered as ever."""
    identifier = begin(aws, write(aws, "Bad", step))
    aws.advance(30)
    assert status(aws, identifier) == "Failed"
    assert steps(aws, identifier) == {"Bad": "Failed"}


def test_throttling_delays_a_step_that_waits(aws):
    host = aws.hosts("web")[0]
    identifier = begin(aws, "AWS-StartEC2Instance", Parameters={"InstanceId": [host]})
    fault = {"kind": "throttle", "service": "ec2", "operation": "DescribeInstances", "times": 3}
    aws.control("faults", fault)
    aws.advance(8)
    assert status(aws, identifier) == "InProgress"
    aws.advance(30)
    assert status(aws, identifier) == "Success"
