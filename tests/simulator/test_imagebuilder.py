"""EC2 Image Builder: images through their states, what is on them, what the scan finds, where AMIs go, and what can go wrong."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, FEW, REGION, Aws
from tests.simulator.test_ec2_machines import missing, own_image, refused, run

PIPELINES = (
    FEW.replace('accounts: [{id: "111111111111"}]', 'accounts: [{id: "111111111111"}, {id: "222222222222"}]')
    + """
image_pipelines:
  - {name: web-al2023, account: "111111111111", region: eu-central-1, os: amazon-linux-2023, regions: [eu-central-1, us-east-1]}
  - {name: stale, account: "111111111111", region: eu-central-1, os: amazon-linux-2023, updates: false}
"""
)
GROUPED = PIPELINES.replace(
    "    tags: {Environment: dev, PatchGroup: web}\n  - name: odd",
    "    tags: {Environment: dev, PatchGroup: web}\n    auto_scaling_group: {name: web, min: 1, max: 9}\n  - name: odd",
)
"""The same with an Auto Scaling group of four."""
LIFE = ["PENDING", "CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING", "AVAILABLE"]
UPDATE = "name: update\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - {name: Update, action: UpdateOS}\n"


@pytest.fixture
def built(start: Any) -> Aws:
    """A world with two pipelines."""
    return start(PIPELINES)


def pipeline(name: str = "web-al2023") -> str:
    return f"arn:aws:imagebuilder:{REGION}:{ACCOUNT}:image-pipeline/{name}"


def begin(aws: Aws, name: str = "web-al2023", **more: Any) -> str:
    begun = aws.client("imagebuilder").start_image_pipeline_execution(imagePipelineArn=pipeline(name), **more)
    return str(begun["imageBuildVersionArn"])


def image(aws: Aws, arn: str) -> dict[str, Any]:
    return dict(aws.client("imagebuilder").get_image(imageBuildVersionArn=arn)["image"])


def ready(aws: Aws, name: str = "web-al2023") -> dict[str, Any]:
    """An image of the pipeline, some hours later whatever became of it."""
    arn = begin(aws, name)
    aws.advance(7200)
    return image(aws, arn)


def amis(told: dict[str, Any]) -> dict[str, str]:
    return {row["region"]: row["image"] for row in told["outputResources"]["amis"]}


def test_an_image_goes_through_its_states_and_ends_in_an_ami_a_region(built):
    """Nothing is in outputResources before it is available; the journal has each state once."""
    arn = begin(built)
    seen = []
    for _ in range(200):
        told = image(built, arn)
        if not seen or seen[-1] != told["state"]["status"]:
            seen.append(told["state"]["status"])
        assert bool(told["outputResources"]["amis"]) is (told["state"]["status"] == "AVAILABLE")
        built.advance(15)
    assert seen == LIFE
    found = amis(image(built, arn))
    assert set(found) == {"eu-central-1", "us-east-1"}
    for region, ami in found.items():
        (row,) = built.client("ec2", region).describe_images(ImageIds=[ami], Owners=["self"])["Images"]
        assert row["State"] == "available"
        assert {"Key": "Ec2ImageBuilderArn", "Value": arn} in row["Tags"]
        assert row["CreationDate"].startswith("2026-01-05")
    lines = [line for line in built.journal() if line["event"] == "image_state"]
    assert [line["status"] for line in lines] == LIFE
    assert lines[-1]["amis"] == {f"{ACCOUNT} {region}": ami for region, ami in found.items()}
    assert image(built, arn)["sourcePipelineArn"] == pipeline()
    row = built.client("imagebuilder").get_image_pipeline(imagePipelineArn=pipeline())["imagePipeline"]
    assert (row["lastRunStatus"], row["consecutiveFailures"]) == ("AVAILABLE", 0)


def test_an_instance_of_the_image_has_what_was_released_at_the_build(built):
    """The world's own image lacks updates, the golden one lacks none."""
    ami = amis(ready(built))["eu-central-1"]
    old, new = run(built, own_image(built)), run(built, ami)
    built.advance(300)
    counts = missing(built, old, new)
    assert counts[0] > 0
    assert counts[1] == 0


def test_without_an_update_component_the_parents_packages_stay(built):
    """The scan finds the same as on its parent."""
    told = ready(built, "stale")
    hosts = [run(built, own_image(built)), run(built, amis(told)["eu-central-1"])]
    built.advance(300)
    counts = missing(built, *hosts)
    assert counts[0] == counts[1] > 0


def test_an_image_is_of_the_moment_of_its_build(start):
    """What appears afterwards is missing on its instances."""
    aws = start(PIPELINES + "catalogue: {appears: {ALAS2023-2025-813: 86400}}\n")
    ami = amis(ready(aws))["eu-central-1"]
    aws.advance(86_400)
    group = [{"ResourceType": "instance", "Tags": [{"Key": "PatchGroup", "Value": "web"}]}]
    old, new = (run(aws, one, TagSpecifications=group) for one in (ami, amis(ready(aws))["eu-central-1"]))
    aws.advance(300)
    counts = missing(aws, old, new)
    assert counts[0] > counts[1] == 0


def test_a_token_gets_its_first_answer_again(built):
    """The same token starts nothing more; with other input it is refused."""
    client = built.client("imagebuilder")
    first = begin(built, clientToken="tuesday")
    assert begin(built, clientToken="tuesday") == first
    assert refused(client.start_image_pipeline_execution, imagePipelineArn=pipeline("stale"), clientToken="tuesday") == (
        "IdempotentParameterMismatchException"
    )
    assert refused(client.start_image_pipeline_execution, imagePipelineArn=pipeline(), clientToken="other") == (
        "ResourceInUseException"
    )
    built.advance(7200)
    assert begin(built, clientToken="tuesday") == first
    assert begin(built, clientToken="other") == first[:-1] + "2"


def test_what_is_not_there_is_not_found(built):
    """404, although the model does not list it for GetImage."""
    client = built.client("imagebuilder")
    arn = f"arn:aws:imagebuilder:{REGION}:{ACCOUNT}:image/web-al2023/1.0.0/9"
    with pytest.raises(ClientError) as caught:
        client.get_image(imageBuildVersionArn=arn)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert refused(client.start_image_pipeline_execution, imagePipelineArn=pipeline("none")) == "ResourceNotFoundException"
    assert refused(client.get_image_pipeline, imagePipelineArn=pipeline("none")) == "ResourceNotFoundException"


def test_a_cancelled_build_ends_cancelled_a_little_later(built):
    """AMIs that there are by then stay; what has ended cannot be cancelled."""
    client = built.client("imagebuilder")
    arn = begin(built)
    built.advance(1600)
    assert image(built, arn)["state"]["status"] == "DISTRIBUTING"
    client.cancel_image_creation(imageBuildVersionArn=arn, clientToken="stop")
    assert image(built, arn)["state"]["status"] == "DISTRIBUTING"
    built.advance(30)
    assert image(built, arn)["state"]["status"] == "CANCELLED"
    assert set(amis(image(built, arn))) == {"eu-central-1"}
    built.advance(7200)
    assert image(built, arn)["state"]["status"] == "CANCELLED"
    assert client.cancel_image_creation(imageBuildVersionArn=arn, clientToken="stop")["imageBuildVersionArn"] == arn
    assert refused(client.cancel_image_creation, imageBuildVersionArn=arn, clientToken="again") == "InvalidRequestException"


def test_deleting_an_image_leaves_its_amis(built):
    """Only the record goes."""
    told = ready(built)
    client = built.client("imagebuilder")
    assert client.delete_image(imageBuildVersionArn=told["arn"])["imageBuildVersionArn"] == told["arn"]
    assert refused(client.get_image, imageBuildVersionArn=told["arn"]) == "ResourceNotFoundException"
    assert built.ec2.describe_images(ImageIds=[amis(told)["eu-central-1"]])["Images"]


# --- the scan ---


def findings(aws: Aws, arn: str) -> list[dict[str, Any]]:
    pages = aws.client("imagebuilder").get_paginator("list_image_scan_findings")
    asked = [{"name": "imageBuildVersionArn", "values": [arn]}]
    return [row for page in pages.paginate(filters=asked) for row in page["findings"]]


def test_the_scan_finds_what_the_image_still_misses(built):
    """An image of today has no finding that an update closes, a stale one has."""
    fresh, stale = ready(built), ready(built, "stale")
    assert fresh["scanState"] == stale["scanState"] == {"status": "COMPLETED"}
    assert {row["fixAvailable"] for row in findings(built, stale["arn"])} >= {"YES"}
    fixable = [row for row in findings(built, fresh["arn"]) if row["packageVulnerabilityDetails"]["source"] != "NVD"]
    assert fixable == []
    (counted,) = built.client("imagebuilder").list_image_scan_finding_aggregations(
        filter={"name": "imageBuildVersionArn", "values": [stale["arn"]]}
    )["responses"]
    assert counted["imageAggregation"]["severityCounts"]["all"] == len(findings(built, stale["arn"]))


def test_findings_are_a_snapshot_of_the_build(start):
    """What is published afterwards does not appear."""
    aws = start(PIPELINES + "catalogue: {appears: {ALAS2023-2025-813: 86400}}\n")
    told = ready(aws)
    before = findings(aws, told["arn"])
    aws.advance(2 * 86_400)
    assert findings(aws, told["arn"]) == before


def test_a_scan_can_find_a_critical(built):
    """By fault, whatever the catalogue says."""
    built.control("faults", {"kind": "image_scan_finds", "pipeline": "web-al2023", "times": 1})
    told = ready(built)
    assert ("CVE-2024-3094", "CRITICAL") in {
        (row["packageVulnerabilityDetails"]["vulnerabilityId"], row["severity"]) for row in findings(built, told["arn"])
    }


def test_a_scan_that_ends_in_nothing_says_so(built):
    """Without Inspector, and when it times out: the image is available all the same, and nobody has looked at it."""
    built.control("faults", {"kind": "image_scan_fails", "times": 1})
    assert ready(built)["scanState"]["status"] == "TIMED_OUT"
    built.client("inspector2").disable(resourceTypes=["EC2"])
    built.advance(120)
    told = ready(built)
    assert (told["state"]["status"], told["scanState"]["status"]) == ("AVAILABLE", "FAILED")


def test_packages_of_an_image_are_listed(built):
    """With their versions, in pages, once the build has taken stock."""
    arn = begin(built)
    client = built.client("imagebuilder")
    assert client.list_image_packages(imageBuildVersionArn=arn)["imagePackageList"] == []
    built.advance(7200)
    pages = client.get_paginator("list_image_packages").paginate(imageBuildVersionArn=arn, PaginationConfig={"PageSize": 2})
    rows = {row["packageName"]: row["packageVersion"] for page in pages for row in page["imagePackageList"]}
    assert rows["kernel"].startswith("0:6.1")


# --- faults ---


@pytest.mark.parametrize("state", LIFE[:-1])
def test_a_build_can_fail_in_each_state(built, state):
    """With a reason and the state that failed; the next one works."""
    built.control("faults", {"kind": "image_build_fails", "image_state": state, "times": 1})
    told = ready(built)
    assert told["state"]["status"] == "FAILED"
    assert told["state"]["reason"]
    assert told["state"]["failureContext"]["imageStatus"] == state
    assert [line["status"] for line in built.journal() if line["event"] == "image_state"][-2:] == [state, "FAILED"]
    assert ready(built)["state"]["status"] == "AVAILABLE"


def test_a_distribution_can_fail_in_one_region(built):
    """The image has failed, says where, and the AMI of the other region is there."""
    built.control("faults", {"kind": "image_distribution_fails", "to_region": "us-east-1", "times": 1})
    told = ready(built)
    assert told["state"]["status"] == "FAILED"
    assert "us-east-1" in told["state"]["reason"]
    failed = told["state"]["failureContext"]["distributionFailure"]["regionFailures"]
    assert [row["region"] for row in failed] == ["us-east-1"]
    assert set(amis(told)) == {"eu-central-1"}


def test_instances_of_a_bad_image_never_come_up(built):
    """EC2 calls them running and impaired; SSM never hears of them; a good image is not touched."""
    bad = amis(ready(built))["eu-central-1"]
    built.control("faults", {"kind": "image_unhealthy", "image": bad})
    hosts = [run(built, bad), run(built, own_image(built))]
    built.advance(3600)
    status = built.ec2.describe_instance_status(InstanceIds=hosts)["InstanceStatuses"]
    assert {row["InstanceId"]: row["InstanceStatus"]["Status"] for row in status} == dict(
        zip(hosts, ["impaired", "ok"], strict=True)
    )
    assert built.events(hosts[0]) == []
    known = {row["InstanceId"] for row in built.ssm.describe_instance_information()["InstanceInformationList"]}
    assert hosts[0] not in known
    built.ec2.stop_instances(InstanceIds=hosts[:1])
    built.ec2.start_instances(InstanceIds=hosts[:1])
    built.advance(3600)
    assert "in_service" not in built.events(hosts[0])


def test_a_pipeline_can_make_only_bad_images(built):
    """Before there is an AMI to name."""
    built.control("faults", {"kind": "image_unhealthy", "pipeline": "web-al2023"})
    good, bad = amis(ready(built, "stale"))["eu-central-1"], amis(ready(built))["eu-central-1"]
    hosts = [run(built, good), run(built, bad)]
    built.advance(3600)
    assert [built.events(host) for host in hosts] == [["in_service"], []]


def test_a_refresh_to_a_bad_image_never_succeeds(start):
    """Its first batch does not come into service; what the group replaces it by afterwards is of the old image."""
    aws = start(GROUPED)
    aws.control("faults", {"kind": "image_unhealthy", "pipeline": "web-al2023"})
    aws.ec2.create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", LaunchTemplateData={"ImageId": amis(ready(aws))["eu-central-1"]}
    )
    old = set(aws.hosts("web"))
    groups = aws.client("autoscaling")
    groups.start_instance_refresh(
        AutoScalingGroupName="web",
        Preferences={"MinHealthyPercentage": 50, "InstanceWarmup": 60},
        DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateName": "web", "Version": "2"}},
    )
    aws.advance(7200)
    (row,) = groups.describe_instance_refreshes(AutoScalingGroupName="web")["InstanceRefreshes"]
    assert row["Status"] == "Failed"
    assert row["PercentageComplete"] < 100
    gone = {line["host"] for line in aws.journal() if line["event"] == "out_of_service"}
    assert len(old & gone) <= 2
    came = {line["host"] for line in aws.journal() if line["event"] == "in_service"} - old
    rows = aws.ec2.describe_instances(InstanceIds=sorted(came))["Reservations"] if came else []
    assert {one["ImageId"] for row in rows for one in row["Instances"]} <= {own_image(aws)}


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"kind": "image_build_fails"}, "image_state"),
        ({"kind": "image_distribution_fails"}, "to_region"),
        ({"kind": "image_unhealthy"}, "pipeline"),
        ({"kind": "throttle", "pipeline": "web"}, "pipeline"),
    ],
)
def test_a_fault_of_an_image_says_what_it_lacks(built, fault, field):
    """400 with the field."""
    with pytest.raises(Exception, match="400") as caught:
        built.control("faults", fault)
    assert field in caught.value.read().decode()


# --- what callers make ---


def made(aws: Aws, parent: str, **more: Any) -> dict[str, Any]:
    """A pipeline of the caller's own; its image, when it is there."""
    client = aws.client("imagebuilder")
    component = client.create_component(name="update all", semanticVersion="1.0.0", platform="Linux", data=UPDATE)
    recipe = client.create_image_recipe(
        name="Own Recipe",
        semanticVersion="1.2.3",
        components=[{"componentArn": component["componentBuildVersionArn"]}],
        parentImage=parent,
    )
    infrastructure = client.create_infrastructure_configuration(name="own", instanceProfileName="awsim-managed-instance")
    distribution = client.create_distribution_configuration(name="own", distributions=[{"region": REGION, **more}])
    client.create_image_pipeline(
        name="own",
        imageRecipeArn=recipe["imageRecipeArn"],
        infrastructureConfigurationArn=infrastructure["infrastructureConfigurationArn"],
        distributionConfigurationArn=distribution["distributionConfigurationArn"],
    )
    return ready(aws, "own")


def test_a_recipe_may_name_its_parent_in_three_ways(start):
    """An AMI, a parameter that holds one, an image of Image Builder (Amazon's or an own one)."""
    aws = start(PIPELINES)
    own = own_image(aws)
    assert made(aws, own)["state"]["status"] == "AVAILABLE"
    aws = start(PIPELINES)
    aws.ssm.put_parameter(Name="/golden/parent", Value=own_image(aws), Type="String", DataType="aws:ec2:image")
    assert made(aws, "ssm:/golden/parent")["state"]["status"] == "AVAILABLE"
    aws = start(PIPELINES)
    amazons = f"arn:aws:imagebuilder:{REGION}:aws:image/amazon-linux-2023-x86/x.x.x"
    assert made(aws, amazons)["state"]["status"] == "AVAILABLE"
    aws = start(PIPELINES)
    mine = ready(aws, "stale")["arn"].rpartition("/")[0]
    assert made(aws, mine)["state"]["status"] == "AVAILABLE"
    aws = start(PIPELINES)
    gone = made(aws, "ami-00000000000000000")["state"]
    assert (gone["status"], "ami-00000000000000000" in gone["reason"]) == ("FAILED", True)


def test_a_distribution_names_tags_shares_and_hands_out(built):
    """Launch template version and parameter are written with the AMI; `{{ imagebuilder:... }}` is filled in."""
    template = built.ec2.create_launch_template(
        LaunchTemplateName="shop", LaunchTemplateData={"ImageId": own_image(built), "InstanceType": "m6i.large"}
    )["LaunchTemplate"]["LaunchTemplateId"]
    told = made(
        built,
        own_image(built),
        amiDistributionConfiguration={
            "name": "golden {{imagebuilder:buildVersion}} {{imagebuilder:buildDate}}",
            "amiTags": {"Level": "candidate"},
            "launchPermission": {"userIds": ["222222222222"]},
            "targetAccountIds": ["222222222222"],
        },
        launchTemplateConfigurations=[{"launchTemplateId": template, "setDefaultVersion": True}],
        ssmParameterConfigurations=[{"parameterName": "/golden/web", "dataType": "aws:ec2:image"}],
    )
    rows = {row["accountId"]: row for row in told["outputResources"]["amis"]}
    assert set(rows) == {ACCOUNT, "222222222222"}
    ami = rows[ACCOUNT]["image"]
    assert rows[ACCOUNT]["name"].startswith("golden 1 2026-01-05T08-")
    (row,) = built.ec2.describe_images(ImageIds=[ami])["Images"]
    assert {"Key": "Level", "Value": "candidate"} in row["Tags"]
    shared = built.ec2.describe_image_attribute(ImageId=ami, Attribute="launchPermission")["LaunchPermissions"]
    assert shared == [{"UserId": "222222222222"}]
    assert built.ssm.get_parameter(Name="/golden/web")["Parameter"]["Value"] == ami
    version = built.ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=["$Default"])
    data = version["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert (data["ImageId"], data["InstanceType"]) == (ami, "m6i.large")


def test_everything_that_was_made_is_listed_and_read(built):
    """Names that exist are refused, unknown parts too."""
    client = built.client("imagebuilder")
    told = made(built, own_image(built))
    for listing, member, count in (
        ("list_components", "componentVersionList", 1),
        ("list_image_recipes", "imageRecipeSummaryList", 3),
        ("list_infrastructure_configurations", "infrastructureConfigurationSummaryList", 3),
        ("list_distribution_configurations", "distributionConfigurationSummaryList", 3),
        ("list_image_pipelines", "imagePipelineList", 3),
        ("list_images", "imageVersionList", 1),
        ("list_image_build_versions", "imageSummaryList", 1),
    ):
        assert len(getattr(client, listing)()[member]) == count, listing
    assert len(client.list_components(owner="Amazon")["componentVersionList"]) > 3
    recipe = client.get_image_recipe(imageRecipeArn=told["imageRecipe"]["arn"])["imageRecipe"]
    component = client.get_component(componentBuildVersionArn=recipe["components"][0]["componentArn"])["component"]
    assert (component["type"], component["data"]) == ("BUILD", UPDATE)
    again = {"name": "Own Recipe", "semanticVersion": "1.2.3", "parentImage": own_image(built)}
    assert refused(client.create_image_recipe, **again) == "ResourceAlreadyExistsException"
    assert client.create_image_recipe(**{**again, "semanticVersion": "1.2.x"})["imageRecipeArn"].endswith("/1.2.4")
    assert refused(client.create_infrastructure_configuration, name="own", instanceProfileName="x") == (
        "ResourceAlreadyExistsException"
    )
    assert refused(client.create_component, name="bad", semanticVersion="1.0.0", platform="Linux", data="x: 1") == (
        "InvalidRequestException"
    )
    images = client.list_image_pipeline_images(imagePipelineArn=pipeline("own"))["imageSummaryList"]
    assert [row["arn"] for row in images] == [told["arn"]]
    newest = client.get_image(imageBuildVersionArn=told["arn"].replace("1.2.3/1", "x.x.x"))["image"]
    assert newest["arn"] == told["arn"]


def test_an_image_without_a_pipeline(built):
    """CreateImage: the same states, no pipeline, no scan unless asked for."""
    client = built.client("imagebuilder")
    stem = f"arn:aws:imagebuilder:{REGION}:{ACCOUNT}"
    arn = client.create_image(
        imageRecipeArn=f"{stem}:image-recipe/web-al2023/1.0.0",
        infrastructureConfigurationArn=f"{stem}:infrastructure-configuration/web-al2023",
        imageTestsConfiguration={"imageTestsEnabled": False},
    )["imageBuildVersionArn"]
    built.advance(1200)
    told = image(built, arn)
    assert told["state"]["status"] == "AVAILABLE"
    assert "scanState" not in told
    assert set(amis(told)) == {REGION}


def test_workflows_tell_how_far_a_build_is(built):
    """Build, test, distribution: one runs, those before it are complete."""
    client = built.client("imagebuilder")
    arn = begin(built)
    built.advance(1200)
    rows = client.list_workflow_executions(imageBuildVersionArn=arn)["workflowExecutions"]
    assert [(row["type"], row["status"]) for row in rows] == [("BUILD", "COMPLETED"), ("TEST", "RUNNING")]
    steps = client.list_workflow_step_executions(workflowExecutionId=rows[1]["workflowExecutionId"])["steps"]
    assert [step["status"] for step in steps] == ["RUNNING", "PENDING", "PENDING"]
    built.advance(7200)
    rows = client.list_workflow_executions(imageBuildVersionArn=arn)["workflowExecutions"]
    assert [row["status"] for row in rows] == ["COMPLETED"] * 3


def test_each_state_is_an_event(built):
    """To whoever has a rule for it."""
    queue = built.client("sqs").create_queue(QueueName="images")["QueueUrl"]
    events = built.client("events")
    events.put_rule(Name="images", EventPattern=json.dumps({"source": ["aws.imagebuilder"]}))
    events.put_targets(Rule="images", Targets=[{"Id": "1", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:images"}])
    arn = begin(built)
    built.advance(7200)
    found = []
    while messages := built.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            built.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert {event["detail-type"] for event in found} == {"EC2 Image Builder Image State Change"}
    assert sorted(event["detail"]["state"]["status"] for event in found) == sorted(LIFE)
    assert all(event["resources"] == [arn] for event in found)


# --- EC2 ---


def test_a_deregistered_image_launches_nothing(built):
    """Its snapshot is in use before; it stays, or goes with it."""
    first, second = (amis(ready(built, name))["eu-central-1"] for name in ("web-al2023", "stale"))
    snapshots = {
        row["ImageId"]: row["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        for row in built.ec2.describe_images(ImageIds=[first, second])["Images"]
    }
    assert refused(built.ec2.delete_snapshot, SnapshotId=snapshots[first]) == "InvalidSnapshot.InUse"
    gone = built.ec2.deregister_image(ImageId=first, DeleteAssociatedSnapshots=True)
    assert gone["DeleteSnapshotResults"] == [{"SnapshotId": snapshots[first], "ReturnCode": "success"}]
    built.ec2.deregister_image(ImageId=second)
    left = {row["SnapshotId"] for row in built.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert left & set(snapshots.values()) == {snapshots[second]}
    built.ec2.delete_snapshot(SnapshotId=snapshots[second])
    assert refused(built.ec2.run_instances, ImageId=first, MinCount=1, MaxCount=1) == "InvalidAMIID.NotFound"


def test_an_image_is_deprecated_at_a_moment(built):
    """The time is told, can be taken back, and must not be in the past."""
    ami = amis(ready(built))["eu-central-1"]
    built.ec2.enable_image_deprecation(ImageId=ami, DeprecateAt="2026-02-01T10:00:29Z")
    (row,) = built.ec2.describe_images(ImageIds=[ami])["Images"]
    assert row["DeprecationTime"] == "2026-02-01T10:00:00.000Z"
    assert len(built.ec2.describe_images(Owners=["self"], IncludeDeprecated=True)["Images"]) > 1
    built.ec2.disable_image_deprecation(ImageId=ami)
    assert "DeprecationTime" not in built.ec2.describe_images(ImageIds=[ami])["Images"][0]
    for call, request, code in (
        (built.ec2.enable_image_deprecation, {"ImageId": ami, "DeprecateAt": "2025-01-01T00:00:00Z"}, "InvalidParameterValue"),
        (built.ec2.disable_image_deprecation, {"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
    ):
        assert refused(call, **request) == code


def test_a_group_of_a_deregistered_image_cannot_grow(start):
    """Its activity says why."""
    aws = start(GROUPED)
    aws.ec2.deregister_image(ImageId=own_image(aws))
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=5)
    aws.advance(300)
    rows = aws.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="web")["Activities"]
    assert rows[0]["StatusCode"] == "Failed"
    assert "does not exist" in rows[0]["StatusMessage"]
