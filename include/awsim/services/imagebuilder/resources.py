"""What is an image made of? Components, recipes, infrastructure, distribution, pipelines.

Each resource is kept as the row that its Get operation tells, by its ARN. `parent_of` and `updates` say what matters of a recipe
to a build: the image that it starts from, and whether one of its components installs updates.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from awsim import groups
from awsim.clock import iso
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import ec2
from awsim.world import World
from awsim.world_file import ImagePipeline

AMAZON: dict[str, tuple[str, str, str]] = {
    "update-linux": ("Linux", "BUILD", "UpdateOS"),
    "update-windows": ("Windows", "BUILD", "UpdateOS"),
    "reboot-linux": ("Linux", "BUILD", "Reboot"),
    "reboot-windows": ("Windows", "BUILD", "Reboot"),
    "stig-build-linux": ("Linux", "BUILD", "ExecuteBash"),
    "stig-build-windows": ("Windows", "BUILD", "ExecutePowerShell"),
    "amazon-cloudwatch-agent-linux": ("Linux", "BUILD", "ExecuteBash"),
    "amazon-cloudwatch-agent-windows": ("Windows", "BUILD", "ExecutePowerShell"),
    "simple-boot-test-linux": ("Linux", "TEST", "ExecuteBash"),
    "simple-boot-test-windows": ("Windows", "TEST", "ExecutePowerShell"),
}
"""Components that Amazon manages: platform, type and action; each in version 1.0.0, build 1."""

_UPDATES = re.compile(
    r"\bUpdateOS\b|\b(?:dnf|yum|zypper)\b[^\n]*\b(?:update|upgrade)\b(?!-minimal)|\bapt(?:-get)?\b[^\n]*\b(?:dist-|full-)?upgrade\b"
)
"""How a component says that it installs updates."""

DEFAULT_TESTS = {"imageTestsEnabled": True, "timeoutMinutes": 720}


@dataclass(slots=True, eq=False)
class Resources:
    """Rows of a cell, by ARN, and which answer each client token got."""

    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    infrastructures: dict[str, dict[str, Any]] = field(default_factory=dict)
    distributions: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)


def once(ctx: Context, params: dict[str, Any], act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same token asks for the same thing again and gets the first answer; with other parameters it is refused."""
    key = (ctx.operation, params["clientToken"])
    asked = json.dumps({name: value for name, value in params.items() if name != "clientToken"}, sort_keys=True, default=str)
    answers = ctx.state(Resources).answers
    if key in answers:
        before, answer = answers[key]
        if before != asked:
            raise AwsError(
                "IdempotentParameterMismatchException",
                f"The client token {params['clientToken']} was used before with other parameters.",
            )
        return {**answer, "requestId": ctx.request_id}
    if params.get("dryRun"):
        raise AwsError("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")
    answer = {"requestId": ctx.request_id, "clientToken": params["clientToken"], **act()}
    answers[key] = (asked, answer)
    return answer


def missing(arn: str) -> AwsError:
    kind = arn.split(":")[5].partition("/")[0] if arn.count(":") >= 5 else "resource"
    return AwsError("ResourceNotFoundException", f"The resource with ARN '{arn}' of type {kind} does not exist.")


def arn(account: str, region: str, kind: str, name: str, *version: str) -> str:
    return "/".join([f"arn:aws:imagebuilder:{region}:{account}:{kind}", name.lower().replace(" ", "-"), *version])


def versions_in_order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def fits(version: str, wanted: str) -> bool:
    """Whether a version is meant by one that may have `x` for a number."""
    return all(asked in ("x", had) for had, asked in zip(version.split("."), wanted.split("."), strict=True))


def newest(rows: dict[str, dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    """The newest row of an ARN whose version may leave numbers open, or that leaves the build number out."""
    if wanted in rows:
        return rows[wanted]
    stem, _, version = wanted.rpartition("/")
    if version.count(".") != 2:
        return None
    found = [row for key, row in rows.items() if key.startswith(f"{stem}/") and fits(row["version"], version)]
    return max(found, key=lambda row: (versions_in_order(row["version"]), row["arn"].split("/")[3:]), default=None)


def _exists(kind: str, arn: str) -> AwsError:
    return AwsError("ResourceAlreadyExistsException", f"Resource of type '{kind}' with identifier '{arn}' already exists.")


def _given(params: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names if params.get(name) is not None}


# --- components ---


def component(world: World, account: str, region: str, wanted: str) -> dict[str, Any] | None:
    """Amazon's own or the caller's."""
    owner, _, resource = wanted.partition(":imagebuilder:")[2].partition(":")[2].partition(":")
    if owner == "aws":
        _, name, version, *_ = [*resource.split("/"), "", ""]
        known = AMAZON.get(name)
        return amazons(region, name) if known is not None and fits("1.0.0", version) else None
    return newest(world.state(account, region, Resources).components, wanted)


def amazons(region: str, name: str) -> dict[str, Any]:
    platform, kind, action = AMAZON[name]
    document = {
        "name": name,
        "schemaVersion": 1.0,
        "phases": [{"name": kind.lower(), "steps": [{"name": "Main", "action": action}]}],
    }
    return {
        "arn": arn("aws", region, "component", name, "1.0.0", "1"),
        "name": name,
        "version": "1.0.0",
        "type": kind,
        "platform": platform,
        "state": {"status": "ACTIVE"},
        "owner": "Amazon",
        "data": yaml.safe_dump(document, sort_keys=False),
        "encrypted": True,
        "dateCreated": "2024-01-08T00:00:00.000Z",
        "tags": {},
    }


@operation("imagebuilder", "CreateComponent")
def create_component(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        if bool(params.get("data")) == bool(params.get("uri")):
            raise AwsError("InvalidParameterCombinationException", "Exactly one of data and uri must be specified.")
        kind = _type_of(params["data"]) if params.get("data") else "BUILD"
        kept = ctx.state(Resources).components
        stem = arn(ctx.account, ctx.region, "component", params["name"], params["semanticVersion"])
        build = 1 + sum(key.startswith(f"{stem}/") for key in kept)
        kept[f"{stem}/{build}"] = {
            "arn": f"{stem}/{build}",
            "name": params["name"],
            "version": params["semanticVersion"],
            **_given(params, "description", "changeDescription", "supportedOsVersions", "kmsKeyId"),
            "type": kind,
            "platform": params["platform"],
            "owner": ctx.account,
            "data": params.get("data") or "",
            "encrypted": True,
            "dateCreated": iso(ctx.at),
            "tags": params.get("tags") or {},
        }
        return {"componentBuildVersionArn": f"{stem}/{build}"}

    return once(ctx, params, make)


def _type_of(data: str) -> str:
    """TEST when it has test phases only.

    Raises:
        AwsError: the document is none.
    """
    try:
        document = yaml.safe_load(data)
    except yaml.YAMLError:
        document = None
    phases = document.get("phases") if isinstance(document, dict) else None
    if not isinstance(phases, list) or not all(isinstance(phase, dict) and phase.get("name") for phase in phases) or not phases:
        raise AwsError("InvalidRequestException", "The component document is not valid: it needs phases, each with a name.")
    return "TEST" if all(phase["name"] == "test" for phase in phases) else "BUILD"


@operation("imagebuilder", "GetComponent")
def get_component(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = component(ctx.world, ctx.account, ctx.region, params["componentBuildVersionArn"])
    if found is None:
        raise missing(params["componentBuildVersionArn"])
    return {"requestId": ctx.request_id, "component": found}


@operation("imagebuilder", "ListComponents")
def list_components(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A row a version, whatever the number of its builds."""
    rows: dict[str, dict[str, Any]] = {}
    own = params.get("owner") in (None, "Self")
    all_rows = list(ctx.state(Resources).components.values()) if own else []
    if params.get("owner") == "Amazon":
        all_rows = [amazons(ctx.region, name) for name in AMAZON]
    for row in all_rows:
        shown = _given(row, "name", "version", "description", "platform", "supportedOsVersions", "type", "owner", "dateCreated")
        version_arn = row["arn"].rpartition("/")[0]
        rows[version_arn] = {"arn": version_arn, **shown}
    found = filtered(list(rows.values()), params)
    if params.get("byName"):
        found = list({row["name"]: row for row in found}.values())
    page, token = ctx.page(found, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "componentVersionList": page, "nextToken": token}


def filtered(rows: list[dict[str, Any]], params: dict[str, Any]) -> list[dict[str, Any]]:
    """By members of the rows; a filter that no row could have matches nothing."""
    for entry in params.get("filters") or []:
        name, values = entry.get("name") or "", entry.get("values") or []
        rows = [row for row in rows if str(row.get(name)) in values]
    return rows


# --- recipes ---


def parent_of(world: World, account: str, region: str, parent: str) -> str | None:
    """The AMI that a recipe starts from at this moment: an id, a parameter with an id, or an image of Image Builder."""
    if parent.startswith("ssm:"):
        value = groups.parameter_value(account, region, parent.removeprefix("ssm:"))
        return value if value is not None and groups.image(account, region, value) is not None else None
    if not parent.startswith("arn:"):
        return parent if groups.image(account, region, parent) is not None else None
    if ":aws:image/" in parent:
        network = world.networks.get((account, region))
        key = ec2.platform_of_name(world, parent.split("/")[1])
        if network is not None:
            return network.images.get(key)
        return groups.image_named(account, region, _PUBLIC.get(key, "al2023-ami"))
    from awsim.services.imagebuilder import builds

    return builds.ami_of(world, account, region, parent)


_PUBLIC = {
    "amazon-linux-2": "amzn2-ami",
    "ubuntu-22.04": "ubuntu-jammy",
    "ubuntu-24.04": "ubuntu",
    "windows-server-2022": "Windows_Server",
    "rhel-9": "RHEL",
}
"""How names of public AMIs begin, in an AWS without a world."""


def updates(world: World, account: str, region: str, recipe: dict[str, Any]) -> bool:
    """Whether a component of the recipe installs what is missing."""
    found = (component(world, account, region, one["componentArn"]) for one in recipe.get("components") or [])
    return any(one is not None and _UPDATES.search(one["data"]) is not None for one in found)


def platform_of(world: World, account: str, region: str, parent: str) -> str:
    """`Windows` or `Linux`, by the parent image."""
    ami = parent_of(world, account, region, parent)
    content = ec2.content(world, account, region, ami) if ami is not None else None
    name = ec2.platform_of_name(world, parent) if content is None else content.template.os
    return world.catalogue.platforms[name].type


@operation("imagebuilder", "CreateImageRecipe")
def create_image_recipe(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Recipes never change: another one needs another version."""

    def make() -> dict[str, Any]:
        kept = ctx.state(Resources).recipes
        for one in params.get("components") or []:
            if component(ctx.world, ctx.account, ctx.region, one["componentArn"]) is None:
                raise AwsError("InvalidRequestException", f"The component {one['componentArn']} does not exist.")
        name, version = params["name"], _next(kept, arn(ctx.account, ctx.region, "image-recipe", params["name"]), params)
        identifier = arn(ctx.account, ctx.region, "image-recipe", name, version)
        if identifier in kept:
            raise _exists("ImageRecipe", identifier)
        kept[identifier] = {
            "arn": identifier,
            "name": name,
            **_given(params, "description", "components", "blockDeviceMappings", "workingDirectory", "amiTags"),
            **_given(params, "additionalInstanceConfiguration"),
            "platform": platform_of(ctx.world, ctx.account, ctx.region, params["parentImage"]),
            "owner": ctx.account,
            "version": version,
            "parentImage": params["parentImage"],
            "dateCreated": iso(ctx.at),
            "tags": params.get("tags") or {},
        }
        return {"imageRecipeArn": identifier}

    return once(ctx, params, make)


def _next(kept: dict[str, dict[str, Any]], stem: str, params: dict[str, Any]) -> str:
    """A version with `x` is one more than the newest one that it means."""
    wanted: str = params["semanticVersion"]
    if "x" not in wanted:
        return wanted
    known = newest(kept, f"{stem}/{wanted}")
    parts = [0 if part == "x" else int(part) for part in wanted.split(".")]
    if known is not None:
        parts = list(versions_in_order(known["version"]))
        parts[2] += 1
    return ".".join(str(part) for part in parts)


@operation("imagebuilder", "GetImageRecipe")
def get_image_recipe(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = newest(ctx.state(Resources).recipes, params["imageRecipeArn"])
    if found is None:
        raise missing(params["imageRecipeArn"])
    return {"requestId": ctx.request_id, "imageRecipe": {"type": "AMI", **found}}


@operation("imagebuilder", "ListImageRecipes")
def list_image_recipes(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    names = ("arn", "name", "platform", "owner", "parentImage", "dateCreated", "tags")
    own = ctx.state(Resources).recipes.values() if params.get("owner") in (None, "Self") else ()
    rows = filtered([_given(row, *names) for row in own], params)
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imageRecipeSummaryList": page, "nextToken": token}


# --- infrastructure, distribution ---

_INFRASTRUCTURE = (
    "description",
    "instanceTypes",
    "instanceProfileName",
    "securityGroupIds",
    "subnetId",
    "logging",
    "keyPair",
    "terminateInstanceOnFailure",
    "snsTopicArn",
    "resourceTags",
    "instanceMetadataOptions",
    "placement",
)


@operation("imagebuilder", "CreateInfrastructureConfiguration")
def create_infrastructure_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        kept, identifier = (
            ctx.state(Resources).infrastructures,
            arn(ctx.account, ctx.region, "infrastructure-configuration", params["name"]),
        )
        if identifier in kept:
            raise _exists("InfrastructureConfiguration", identifier)
        kept[identifier] = {
            "arn": identifier,
            "name": params["name"],
            **_given(params, *_INFRASTRUCTURE),
            "dateCreated": iso(ctx.at),
            "tags": params.get("tags") or {},
        }
        return {"infrastructureConfigurationArn": identifier}

    return once(ctx, params, make)


@operation("imagebuilder", "GetInfrastructureConfiguration")
def get_infrastructure_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = ctx.state(Resources).infrastructures.get(params["infrastructureConfigurationArn"])
    if found is None:
        raise missing(params["infrastructureConfigurationArn"])
    return {"requestId": ctx.request_id, "infrastructureConfiguration": found}


@operation("imagebuilder", "ListInfrastructureConfigurations")
def list_infrastructure_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    known = ("arn", "name", "description", "dateCreated", "dateUpdated", "resourceTags", "tags")
    names = (*known, "instanceTypes", "instanceProfileName", "placement")
    rows = filtered([_given(row, *names) for row in ctx.state(Resources).infrastructures.values()], params)
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "infrastructureConfigurationSummaryList": page, "nextToken": token}


@operation("imagebuilder", "CreateDistributionConfiguration")
def create_distribution_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        kept, identifier = (
            ctx.state(Resources).distributions,
            arn(ctx.account, ctx.region, "distribution-configuration", params["name"]),
        )
        if identifier in kept:
            raise _exists("DistributionConfiguration", identifier)
        kept[identifier] = {
            "arn": identifier,
            "name": params["name"],
            **_given(params, "description", "distributions"),
            "timeoutMinutes": 360,
            "dateCreated": iso(ctx.at),
            "tags": params.get("tags") or {},
        }
        return {"distributionConfigurationArn": identifier}

    return once(ctx, params, make)


@operation("imagebuilder", "GetDistributionConfiguration")
def get_distribution_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = ctx.state(Resources).distributions.get(params["distributionConfigurationArn"])
    if found is None:
        raise missing(params["distributionConfigurationArn"])
    return {"requestId": ctx.request_id, "distributionConfiguration": found}


@operation("imagebuilder", "UpdateDistributionConfiguration")
def update_distribution_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """All of it anew; a build that runs keeps what it began with."""

    def make() -> dict[str, Any]:
        kept, identifier = ctx.state(Resources).distributions, params["distributionConfigurationArn"]
        if identifier not in kept:
            raise missing(identifier)
        kept[identifier] = {**kept[identifier], **_given(params, "description", "distributions"), "dateUpdated": iso(ctx.at)}
        return {"distributionConfigurationArn": identifier}

    return once(ctx, params, make)


@operation("imagebuilder", "ListDistributionConfigurations")
def list_distribution_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    names = ("arn", "name", "description", "dateCreated", "dateUpdated", "tags")
    rows = [
        {**_given(row, *names), "regions": [one["region"] for one in row["distributions"]]}
        for row in ctx.state(Resources).distributions.values()
    ]
    page, token = ctx.page(filtered(rows, params), params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "distributionConfigurationSummaryList": page, "nextToken": token}


# --- pipelines ---

_PIPELINE = (
    "description",
    "enhancedImageMetadataEnabled",
    "imageRecipeArn",
    "containerRecipeArn",
    "infrastructureConfigurationArn",
    "distributionConfigurationArn",
    "imageTestsConfiguration",
    "schedule",
    "imageScanningConfiguration",
    "imageTags",
    "executionRole",
    "workflows",
    "loggingConfiguration",
)


def check_parts(ctx: Context, params: dict[str, Any]) -> None:
    """Everything that a pipeline or an image names is there."""
    if params.get("containerRecipeArn"):
        raise AwsError("InvalidRequestException", "awsim builds AMIs only: give imageRecipeArn, not containerRecipeArn.")
    if not params.get("imageRecipeArn"):
        raise AwsError("InvalidRequestException", "Exactly one of imageRecipeArn and containerRecipeArn must be specified.")
    kept = ctx.state(Resources)
    if newest(kept.recipes, params["imageRecipeArn"]) is None:
        raise AwsError("InvalidRequestException", f"The recipe {params['imageRecipeArn']} does not exist.")
    for name, rows in (
        ("infrastructureConfigurationArn", kept.infrastructures),
        ("distributionConfigurationArn", kept.distributions),
    ):
        if params.get(name) and params[name] not in rows:
            raise AwsError("InvalidRequestException", f"{name}: {params[name]} does not exist.")


def _pipeline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    recipe = newest(ctx.state(Resources).recipes, params["imageRecipeArn"]) or {}
    return {
        "platform": recipe["platform"],
        "imageTestsConfiguration": DEFAULT_TESTS,
        "enhancedImageMetadataEnabled": True,
        **_given(params, *_PIPELINE),
        "status": params.get("status") or "ENABLED",
        "dateUpdated": iso(ctx.at),
    }


@operation("imagebuilder", "CreateImagePipeline")
def create_image_pipeline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Schedules are kept and not acted upon: executions begin when somebody asks."""

    def make() -> dict[str, Any]:
        kept, identifier = ctx.state(Resources).pipelines, arn(ctx.account, ctx.region, "image-pipeline", params["name"])
        if identifier in kept:
            raise _exists("ImagePipeline", identifier)
        check_parts(ctx, params)
        kept[identifier] = {
            "arn": identifier,
            "name": params["name"],
            **_pipeline(ctx, params),
            "dateCreated": iso(ctx.at),
            "tags": params.get("tags") or {},
        }
        return {"imagePipelineArn": identifier}

    return once(ctx, params, make)


@operation("imagebuilder", "UpdateImagePipeline")
def update_image_pipeline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """All of it anew: what is not said is not kept."""

    def make() -> dict[str, Any]:
        kept, identifier = ctx.state(Resources).pipelines, params["imagePipelineArn"]
        if identifier not in kept:
            raise missing(identifier)
        check_parts(ctx, params)
        stays = ("arn", "name", "dateCreated", "tags", "dateLastRun", "lastRunStatus")
        kept[identifier] = {**_given(kept[identifier], *stays), **_pipeline(ctx, params)}
        return {"imagePipelineArn": identifier}

    return once(ctx, params, make)


@operation("imagebuilder", "GetImagePipeline")
def get_image_pipeline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = ctx.state(Resources).pipelines.get(params["imagePipelineArn"])
    if found is None:
        raise missing(params["imagePipelineArn"])
    return {"requestId": ctx.request_id, "imagePipeline": found}


@operation("imagebuilder", "ListImagePipelines")
def list_image_pipelines(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = filtered(list(ctx.state(Resources).pipelines.values()), params)
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "imagePipelineList": page, "nextToken": token}


# --- what the world file declares ---


@on_world
def attach(world: World) -> None:
    for declared in world.file.image_pipelines if world.file else []:
        _declare(world, declared)


def _declare(world: World, declared: ImagePipeline) -> None:
    """A pipeline with recipe, infrastructure and distribution of its name."""
    account, region, name = declared.account, declared.region, declared.name
    kept, created = world.state(account, region, Resources), iso(world.clock.base)
    kind = world.catalogue.platforms[declared.os].type
    parent = world.networks[account, region].images[declared.os]
    component_arns = [arn("aws", region, "component", f"update-{kind.lower()}", "x.x.x")] if declared.updates else []
    recipe = arn(account, region, "image-recipe", name, "1.0.0")
    infrastructure = arn(account, region, "infrastructure-configuration", name)
    distribution = arn(account, region, "distribution-configuration", name)
    pipeline = arn(account, region, "image-pipeline", name)
    common = {"name": name, "dateCreated": created, "tags": {}}
    kept.recipes[recipe] = {
        "arn": recipe,
        **common,
        "components": [{"componentArn": one} for one in component_arns],
        "platform": kind,
        "owner": account,
        "version": "1.0.0",
        "parentImage": parent,
    }
    kept.infrastructures[infrastructure] = {
        "arn": infrastructure,
        **common,
        "instanceProfileName": "awsim-managed-instance",
        "terminateInstanceOnFailure": True,
    }
    ami: dict[str, Any] = {"name": f"{name} {{{{ imagebuilder:buildDate }}}}"}
    if declared.accounts:
        ami["targetAccountIds"] = list(declared.accounts)
    kept.distributions[distribution] = {
        "arn": distribution,
        **common,
        "distributions": [{"region": one, "amiDistributionConfiguration": ami} for one in declared.regions or [region]],
        "timeoutMinutes": 360,
    }
    kept.pipelines[pipeline] = {
        "arn": pipeline,
        **common,
        "platform": kind,
        "enhancedImageMetadataEnabled": True,
        "imageRecipeArn": recipe,
        "infrastructureConfigurationArn": infrastructure,
        "distributionConfigurationArn": distribution,
        "imageTestsConfiguration": DEFAULT_TESTS,
        "imageScanningConfiguration": {"imageScanningEnabled": declared.scanning},
        "status": "ENABLED",
        "dateUpdated": created,
    }
