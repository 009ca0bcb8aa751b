"""What has been built, in which state is it, and what is on it? GetImage and everything that lists images and their workflows."""

import uuid
from typing import Any

from awsim.clock import iso
from awsim.registry import Context, operation
from awsim.services.imagebuilder import resources
from awsim.services.imagebuilder.builds import STATES, Build, Builds, need

_WORKFLOWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "BUILD": (
        ("CREATING", "BUILDING"),
        ("LaunchBuildInstance", "ApplyBuildComponents", "InventoryCollection", "RunSanitizeScript", "CreateOutputAMI"),
    ),
    "TEST": (("TESTING",), ("LaunchTestInstance", "ApplyTestComponents", "TerminateTestInstance")),
    "DISTRIBUTION": (("DISTRIBUTING",), ("DistributeAMI",)),
}
"""Which states of an image a workflow covers, and its steps."""


def _state(build: Build) -> dict[str, Any]:
    return {"status": build.status, "reason": build.reason, "failureContext": build.failure}


def _outputs(build: Build) -> dict[str, Any]:
    """Nothing before the image has come to an end."""
    rows = build.outputs if build.over else []
    wanted = {row["region"] for row in (build.distribution or {}).get("distributions") or []}
    return {
        "amis": [
            {
                "region": output.region,
                "image": output.ami,
                "name": output.name,
                "description": output.description,
                "accountId": output.account,
                "state": {"status": "AVAILABLE"},
            }
            for output in rows
            if not wanted or output.region in wanted
        ]
    }


def _os(build: Build) -> str | None:
    return f"{build.disk.platform.name} {build.disk.platform.version}" if build.disk is not None else None


@operation("imagebuilder", "GetImage")
def get_image(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    build = need(ctx, params["imageBuildVersionArn"])
    scan = {"status": build.scan, "reason": build.scan_reason} if build.scan is not None else None
    return {
        "requestId": ctx.request_id,
        "image": {
            "arn": build.arn,
            "type": "AMI",
            "name": build.name,
            "version": f"{build.version}/{build.number}",
            "platform": build.recipe["platform"],
            "enhancedImageMetadataEnabled": build.enhanced,
            "osVersion": _os(build),
            "state": _state(build),
            "imageRecipe": build.recipe,
            "sourcePipelineName": build.pipeline["name"] if build.pipeline else None,
            "sourcePipelineArn": build.pipeline["arn"] if build.pipeline else None,
            "infrastructureConfiguration": build.infrastructure,
            "distributionConfiguration": build.distribution,
            "imageTestsConfiguration": build.tests,
            "dateCreated": iso(build.created),
            "outputResources": _outputs(build),
            "tags": build.tags,
            "buildType": "USER_INITIATED",
            "imageSource": "CUSTOM",
            "scanState": scan,
            "imageScanningConfiguration": build.scanning or None,
        },
    }


def _summary(build: Build) -> dict[str, Any]:
    return {
        "arn": build.arn,
        "name": build.name,
        "type": "AMI",
        "version": f"{build.version}/{build.number}",
        "platform": build.recipe["platform"],
        "osVersion": _os(build),
        "state": _state(build),
        "owner": build.account,
        "dateCreated": iso(build.created),
        "outputResources": _outputs(build),
        "tags": build.tags,
        "buildType": "USER_INITIATED",
        "imageSource": "CUSTOM",
    }


def _of_the_cell(ctx: Context) -> list[Build]:
    """Newest first."""
    return list(reversed(ctx.state(Builds).of.values()))


@operation("imagebuilder", "ListImages")
def list_images(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A row a version, whatever the number of its builds."""
    rows: dict[str, dict[str, Any]] = {}
    for build in _of_the_cell(ctx) if params.get("owner") in (None, "Self") else []:
        version_arn = build.arn.rpartition("/")[0]
        shown = {key: value for key, value in _summary(build).items() if key not in ("state", "outputResources", "tags")}
        rows.setdefault(version_arn, {**shown, "arn": version_arn, "version": build.version})
    found = resources.filtered(list(rows.values()), params)
    if params.get("byName"):
        found = list({row["name"]: row for row in reversed(found)}.values())
    page, token = ctx.page(found, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imageVersionList": page, "nextToken": token}


@operation("imagebuilder", "ListImageBuildVersions")
def list_image_build_versions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """All builds of a version, or of every one."""
    wanted = params.get("imageVersionArn")
    rows = [_summary(build) for build in _of_the_cell(ctx) if wanted in (None, build.arn.rpartition("/")[0])]
    page, token = ctx.page(resources.filtered(rows, params), params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imageSummaryList": page, "nextToken": token}


@operation("imagebuilder", "ListImagePipelineImages")
def list_image_pipeline_images(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params["imagePipelineArn"]
    if wanted not in ctx.state(resources.Resources).pipelines:
        raise resources.missing(wanted)
    rows = [_summary(build) for build in _of_the_cell(ctx) if build.pipeline is not None and build.pipeline["arn"] == wanted]
    page, token = ctx.page(resources.filtered(rows, params), params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imageSummaryList": page, "nextToken": token}


@operation("imagebuilder", "ListImagePackages")
def list_image_packages(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What the build found installed; nothing before, and nothing of an image without enhanced metadata."""
    build = need(ctx, params["imageBuildVersionArn"])
    rows = []
    if build.disk is not None and build.content is not None and build.enhanced and "TESTING" in build.began:
        packages = build.disk.platform.packages
        rows = [
            {"packageName": name, "packageVersion": packages[name].evr(level)}
            for name, level in sorted(build.content.levels.items())
            if level or build.disk.platform.type != "Windows"
        ]
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imagePackageList": page, "nextToken": token}


# --- workflows ---


def _id(kind: str, *of: str) -> str:
    return f"{kind}-{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join(of))}"


def _workflow(build: Build, kind: str) -> dict[str, Any] | None:
    """None before its turn."""
    states, steps = _WORKFLOWS[kind]
    began = build.began.get(states[0])
    if began is None:
        return None
    after = [moment for status, moment in build.began.items() if status not in states and moment >= began]
    ended = min((moment for moment in after if moment > began or build.over), default=None)
    failed = build.failure is not None and build.failure["imageStatus"] in states
    going = build.status in states
    skipped = kind == "TEST" and not build.tests.get("imageTestsEnabled")
    stopped = build.status == "CANCELLED" and not any(status in build.began for status in STATES[STATES.index(states[-1]) + 1 :])
    status = "RUNNING" if going else "FAILED" if failed else "CANCELLED" if stopped else "SKIPPED" if skipped else "COMPLETED"
    done = len(steps) if status == "COMPLETED" else 0
    return {
        "workflowBuildVersionArn": (
            f"arn:aws:imagebuilder:{build.region}:aws:workflow/{kind.lower()}/{kind.lower()}-image/1.0.0/1"
        ),
        "workflowExecutionId": _id("wf", build.arn, kind),
        "type": kind,
        "status": status,
        "message": build.reason if failed else None,
        "totalStepCount": len(steps),
        "totalStepsSucceeded": done,
        "totalStepsFailed": int(failed),
        "totalStepsSkipped": len(steps) if skipped and not going else 0,
        "startTime": iso(began),
        "endTime": None if going or ended is None else iso(ended),
    }


@operation("imagebuilder", "ListWorkflowExecutions")
def list_workflow_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    build = need(ctx, params["imageBuildVersionArn"])
    rows = [row for kind in _WORKFLOWS if (row := _workflow(build, kind)) is not None]
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {
        "requestId": ctx.request_id,
        "workflowExecutions": page,
        "imageBuildVersionArn": build.arn,
        "message": build.reason,
        "nextToken": token,
    }


@operation("imagebuilder", "ListWorkflowStepExecutions")
def list_workflow_step_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Steps have no times of their own: the first one runs, or failed, for all."""
    wanted = params["workflowExecutionId"]
    for build in _of_the_cell(ctx):
        for kind, (_, steps) in _WORKFLOWS.items():
            workflow = _workflow(build, kind)
            if workflow is None or workflow["workflowExecutionId"] != wanted:
                continue
            rows = [_step(workflow, name, number) for number, name in enumerate(steps)]
            page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
            return {
                "requestId": ctx.request_id,
                "steps": page,
                "workflowBuildVersionArn": workflow["workflowBuildVersionArn"],
                "workflowExecutionId": wanted,
                "imageBuildVersionArn": build.arn,
                "nextToken": token,
            }
    raise resources.missing(wanted)


def _step(workflow: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    status = str(workflow["status"])
    later = number > 0 and status in ("RUNNING", "FAILED", "CANCELLED")
    return {
        "stepExecutionId": _id("step", workflow["workflowExecutionId"], name),
        "name": name,
        "action": name,
        "status": ("PENDING" if status == "RUNNING" else "SKIPPED") if later else status,
        "message": None if later else workflow["message"],
        "startTime": None if later else workflow["startTime"],
        "endTime": None if later else workflow["endTime"],
    }
