"""AWS's own documents, as DescribeDocument, GetDocument and ListDocuments tell of them.

The Command documents that `command_documents` declares and the runbooks that Automation ships: metadata, parameters (those by
which SendCommand and StartAutomationExecution check a request) and content. Text documents are told here as well; every other
document that a caller made stays moto's.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import yaml

from awsim import command_documents, constraints, estate_ssm, wire
from awsim.registry import AwsError, Context, operation
from awsim.services.automation import documents
from awsim.wire import Answer

_VERSIONS = ("", "1", "$DEFAULT", "$LATEST")
_RUNBOOKS_CREATED = date(2018, 1, 9)
_EVERYWHERE = ("Windows", "Linux", "MacOS")
_RUNBOOK_PLATFORMS = {"AWS-UpdateLinuxAmi": ("Linux",), "AWS-UpdateWindowsAmi": ("Windows",)}
_TARGET_TYPES = {"InstanceId": "/AWS::EC2::Instance", "VolumeId": "/AWS::EC2::Volume", "SourceAmiId": "/AWS::EC2::Image"}
_DESCRIPTIONS = {
    "AutomationAssumeRole": (
        "(Optional) The ARN of the role that allows Automation to perform the actions on your behalf. If no role is specified, "
        "Systems Manager Automation uses your IAM permissions to run this runbook."
    ),
    "ConnectionDrainTime": "(Optional) The connection drain time of the load balancer, in minutes (1-59).",
    "Description": "(Optional) A description for the snapshot.",
    "ExcludePackages": "(Optional) The packages that are not updated. By default, no package is excluded.",
    "IamInstanceProfileName": "(Optional) The instance profile that enables Systems Manager to manage the instance.",
    "IncludePackages": "(Optional) The packages that are updated. By default, all available updates are applied.",
    "InstanceId": "(Required) The ID of the Amazon EC2 instance.",
    "InstanceType": "(Optional) The type of instance to launch as the workspace host.",
    "LambdaAssumeRole": "(Optional) The ARN of the role that allows the Lambda function to run on your behalf.",
    "LambdaRoleArn": "(Optional) The ARN of the role that allows the Lambda function to run on your behalf.",
    "PostUpdateScript": "(Optional) The URL of a script to run after the updates are applied.",
    "PreUpdateScript": "(Optional) The URL of a script to run before the updates are applied.",
    "ReportS3Bucket": "(Optional) The Amazon S3 bucket for the compliance report.",
    "S3BucketLog": "(Optional) The Amazon S3 bucket for the output of the command.",
    "SecurityGroupIds": "(Optional) The security groups of the workspace host.",
    "SourceAmiId": "(Required) The ID of the source Amazon Machine Image.",
    "SubnetId": "(Optional) The subnet of the workspace host.",
    "TargetAmiName": "(Optional) The name of the AMI that is created.",
    "VolumeId": "(Required) The ID of the volume.",
    "WaitForInstance": "(Optional) The duration of the sleep before the instance is patched, as ISO 8601.",
    "WaitForReboot": "(Optional) The duration of the sleep after the instance was patched, as ISO 8601.",
    "runCommandAssumeRole": "(Optional) The ARN of the role under which the command runs.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """A document whose owner is Amazon."""

    name: str
    type: str
    content: dict[str, Any]
    platforms: tuple[str, ...]
    created: date
    target_type: str | None = None

    @property
    def text(self) -> str:
        return json.dumps(self.content, indent=2)


@cache
def owned() -> dict[str, Owned]:
    """By name, in order."""
    found = {
        name: Owned(
            name=name,
            type="Command",
            content=command_documents.content(name),
            platforms=command_documents.platforms(name),
            created=command_documents.created(name),
        )
        for name in command_documents.owned()
    }
    for name, content in documents.shipped().items():
        declared = {
            key: {"type": entry["type"], "description": _DESCRIPTIONS.get(key, key), **entry}
            for key, entry in (content.get("parameters") or {}).items()
        }
        found[name] = Owned(
            name=name,
            type="Automation",
            content={**content, "parameters": declared},
            platforms=_RUNBOOK_PLATFORMS.get(name, _EVERYWHERE),
            created=_RUNBOOKS_CREATED,
            target_type=next((kind for key, kind in _TARGET_TYPES.items() if key in declared), None),
        )
    return dict(sorted(found.items()))


def _meant(params: dict[str, Any]) -> Owned | None:
    """The document of AWS's that is asked for by name or ARN.

    Raises:
        AwsError: it has no such version.
    """
    name = str(params.get("Name") or "")
    found = owned().get(name.rpartition("document/")[2] if name.startswith("arn:") else name)
    if found is not None and (str(params.get("DocumentVersion") or "") not in _VERSIONS or params.get("VersionName")):
        raise AwsError("InvalidDocumentVersion", "The document version is not valid or does not exist.")
    return found


def _created(document: Owned) -> datetime:
    return datetime(document.created.year, document.created.month, document.created.day, tzinfo=UTC)


def _parameter(name: str, declaration: dict[str, Any]) -> dict[str, Any]:
    default = declaration.get("default")
    spelled = default if default is None or isinstance(default, str) else json.dumps(default)
    kind = "StringList" if documents.is_list(declaration) else "String"
    return {"Name": name, "Type": kind, "Description": declaration.get("description", ""), "DefaultValue": spelled}


@operation("ssm", "DescribeDocument", check=False)
def describe_document(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    found = _meant(params)
    if found is None:
        return ctx.moto_answer()
    return {
        "Document": {
            "Hash": hashlib.sha256(found.text.encode()).hexdigest(),
            "HashType": "Sha256",
            "Name": found.name,
            "Owner": "Amazon",
            "CreatedDate": _created(found),
            "Status": "Active",
            "DocumentVersion": "1",
            "Description": found.content["description"],
            "Parameters": [_parameter(name, entry) for name, entry in (found.content.get("parameters") or {}).items()],
            "PlatformTypes": list(found.platforms),
            "DocumentType": found.type,
            "SchemaVersion": str(found.content["schemaVersion"]),
            "LatestVersion": "1",
            "DefaultVersion": "1",
            "DocumentFormat": "JSON",
            "TargetType": found.target_type,
            "Tags": [],
        }
    }


@operation("ssm", "GetDocument", check=False)
def get_document(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    found = _meant(params)
    if found is not None:
        wanted = params.get("DocumentFormat") or "JSON"
        if wanted not in ("JSON", "YAML"):
            raise AwsError("ValidationException", f"DocumentFormat: {wanted} is not JSON or YAML.")
        return {
            "Name": found.name,
            "CreatedDate": _created(found),
            "DocumentVersion": "1",
            "Status": "Active",
            "Content": found.text if wanted == "JSON" else yaml.safe_dump(found.content, sort_keys=False),
            "DocumentType": found.type,
            "DocumentFormat": wanted,
        }
    written = estate_ssm.text_document(ctx.account, ctx.region, params.get("Name") or "", params.get("DocumentVersion"))
    if written is None:
        return ctx.moto_answer()
    return {
        "Name": written.name,
        "VersionName": written.version_name or None,
        "DocumentVersion": written.document_version,
        "Status": written.status,
        "Content": written.content,
        "DocumentType": written.document_type,
        "DocumentFormat": "TEXT",
    }


@operation("ssm", "ListDocuments", check=False)
def list_documents(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """AWS's own when a filter asks for Owner Amazon (or Public), or for names that begin as theirs; else moto's."""
    filters = {str(entry.get("Key")): list(entry.get("Values") or []) for entry in params.get("Filters") or []}
    filters |= {str(entry.get("key")): [entry.get("value")] for entry in params.get("DocumentFilterList") or []}
    names = filters.get("Name") or []
    theirs = bool(names) and all(str(name).upper().startswith("AWS") for name in names)
    if not ({"Amazon", "Public"} & set(filters.get("Owner") or [])) and not ("Owner" not in filters and theirs):
        return ctx.moto_answer()
    wrong = constraints.violations("ssm", params, wire.operation_model("ssm", "ListDocuments").input_shape)
    if wrong:
        raise AwsError("ValidationException", constraints.sentence(wrong))
    rows = [
        {
            "Name": found.name,
            "Owner": "Amazon",
            "PlatformTypes": list(found.platforms),
            "DocumentVersion": "1",
            "DocumentType": found.type,
            "SchemaVersion": str(found.content["schemaVersion"]),
            "DocumentFormat": "JSON",
            "TargetType": found.target_type,
            "Tags": [],
        }
        for found in owned().values()
        if all(_held(found, key, values) for key, values in filters.items())
    ]
    page, token = ctx.page(rows, params, default=50)
    return {"DocumentIdentifiers": page, "NextToken": token}


def _held(found: Owned, key: str, values: list[str]) -> bool:
    if key == "Owner":
        return True
    if key == "Name":
        return found.name.startswith(tuple(values))
    if key == "PlatformTypes":
        return bool(set(values) & set(found.platforms))
    if key == "DocumentType":
        return found.type in values
    if key == "TargetType":
        return found.target_type in values
    if key == "SearchKeyword":
        return any(value.lower() in found.name.lower() for value in values)
    if key.startswith("tag:"):
        return False
    raise AwsError("InvalidFilterKey", f"The specified key {key} is not valid.")
