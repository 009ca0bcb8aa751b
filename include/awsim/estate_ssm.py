"""What do moto's ssm, s3, cloudwatch and resource-groups hold that awsim's Systems Manager acts on, and how is it changed?

Beside `estate.py` the only module that knows moto's models: patch baselines, maintenance windows, documents, objects, alarms and
resource groups of a cell. Called by `baselines.py`, `runcommand.py` and the ssm services.
"""

import json
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.resourcegroups.models import resourcegroups_backends
from moto.s3.models import s3_backends
from moto.ssm.models import Document, Documents, ssm_backends

_BASELINE_FIELDS = {
    "Name": "name",
    "GlobalFilters": "global_filters",
    "ApprovalRules": "approval_rules",
    "ApprovedPatches": "approved_patches",
    "ApprovedPatchesComplianceLevel": "approved_patches_compliance_level",
    "ApprovedPatchesEnableNonSecurity": "approved_patches_enable_non_security",
    "RejectedPatches": "rejected_patches",
    "RejectedPatchesAction": "rejected_patches_action",
    "Description": "description",
    "Sources": "sources",
}

# --- patch baselines ---


def own_baselines(account: str, region: str) -> list[dict[str, Any]]:
    """The baselines that callers created, oldest first."""
    return [found.to_json() for found in ssm_backends[account][region].baselines.values()]


def baselines_tagged(account: str, region: str, key: str, value: str) -> list[str]:
    """Ids of the created baselines that carry a tag."""
    ssm = ssm_backends[account][region]
    return [identifier for identifier in ssm.baselines if ssm._resource_tags["PatchBaseline"][identifier].get(key) == value]


def own_default(account: str, region: str, operating_system: str) -> str | None:
    """The created baseline that is registered as the operating system's default; None: AWS's own is."""
    for found in ssm_backends[account][region].baselines.values():
        if found.default_baseline and (found.operating_system or "WINDOWS") == operating_system:
            return str(found.id)
    return None


def set_default(account: str, region: str, operating_system: str, identifier: str | None) -> None:
    """`identifier` None makes AWS's own baseline the default again."""
    for found in ssm_backends[account][region].baselines.values():
        if (found.operating_system or "WINDOWS") == operating_system:
            found.default_baseline = found.id == identifier


def create_baseline(account: str, region: str, fields: dict[str, Any]) -> str:
    """A baseline from the fields of CreatePatchBaseline, with its tags; its id."""
    given = {moto: fields.get(name) for name, moto in _BASELINE_FIELDS.items()}
    empty: dict[str, Any] = {
        "global_filters": {},
        "approval_rules": {},
        "approved_patches": [],
        "rejected_patches": [],
        "sources": [],
    }
    given.update({name: value for name, value in empty.items() if given[name] is None})
    made = ssm_backends[account][region].create_patch_baseline(
        **given, operating_system=fields.get("OperatingSystem") or "WINDOWS", tags=[]
    )
    tags(account, region, "PatchBaseline", str(made)).update({tag["Key"]: tag["Value"] for tag in fields.get("Tags") or []})
    return str(made)


def change_baseline(account: str, region: str, identifier: str, fields: dict[str, Any]) -> None:
    """Fields by their names in UpdatePatchBaseline; what is not given stays."""
    found = ssm_backends[account][region].baselines[identifier]
    for name, value in fields.items():
        if name in _BASELINE_FIELDS:
            setattr(found, _BASELINE_FIELDS[name], value)


def delete_baseline(account: str, region: str, identifier: str) -> None:
    ssm_backends[account][region].baselines.pop(identifier, None)


def deregister_group(account: str, region: str, group: str, identifier: str) -> bool:
    """moto registers it once more; whether it had been registered."""
    found = ssm_backends[account][region].patch_groups.get(group)
    if found is None:
        return False
    systems = [system for system, registered in found.associations.items() if registered == identifier]
    for system in systems:
        del found.associations[system]
    return bool(systems)


# --- objects ---


def put_object(account: str, bucket: str, key: str, body: bytes) -> None:
    s3 = s3_backends[account]["aws"]
    if bucket not in s3_backends.bucket_accounts:
        s3.create_bucket(bucket, "us-east-1")
    s3.put_object(bucket, key, body)


def delete_object(account: str, bucket: str, key: str) -> None:
    if bucket in s3_backends[account]["aws"].buckets:
        s3_backends[account]["aws"].delete_object(bucket, key)


def has_bucket(bucket: str) -> bool:
    return bucket in s3_backends.bucket_accounts


# --- documents ---


def raw_document(account: str, region: str, name: str) -> tuple[str, str] | None:
    """(DocumentType, content as text) of a document's default version."""
    found = ssm_backends[account][region]._documents.get(name)
    if found is None:
        return None
    stored = found.get_default_version()
    return str(stored.document_type), str(stored.content)


# --- alarms ---


def alarm_state(account: str, region: str, name: str) -> str | None:
    """OK, ALARM or INSUFFICIENT_DATA; None: there is no such alarm."""
    found = cloudwatch_backends[account][region].alarms.get(name)
    return str(found.state_value) if found is not None else None


# --- resource groups ---


def resource_group(account: str, region: str, name: str) -> dict[str, Any] | None:
    """The query of a resource group of type TAG_FILTERS_1_0: `ResourceTypeFilters`, `TagFilters`."""
    groups = resourcegroups_backends[account][region].groups
    if name not in groups:
        return None
    query = groups[name].resource_query or {}
    return dict(json.loads(query.get("Query") or "{}")) if query.get("Type") == "TAG_FILTERS_1_0" else {}


# --- maintenance windows ---


def windows(account: str, region: str) -> dict[str, Any]:
    """moto's maintenance windows by id; each has `targets` and `tasks` by id."""
    return dict(ssm_backends[account][region].windows)


# --- tags of what moto refuses to tag ---


def tags(account: str, region: str, kind: str, identifier: str) -> dict[str, str]:
    """The tags of an ssm resource, live: changes to the answer are changes to the tags."""
    found: dict[str, str] = ssm_backends[account][region]._resource_tags[kind][identifier]
    return found


# --- documents in plain text, which moto does not know ---


class TextDocument(Document):
    """A document of format TEXT (a change calendar); moto lists, describes, shares and deletes it as any other."""

    def __init__(self, *, account: str, name: str, content: str, kind: str, version: str, version_name: str) -> None:
        super().__init__(
            account_id=account,
            name=name,
            version_name=version_name,
            content='{"schemaVersion": "1.0"}',
            document_type=kind,
            document_format="JSON",
            requires=[],
            attachments=[],
            target_type="",
            document_version=version,
        )
        self.content, self.document_format = content, "TEXT"
        self.content_json: dict[str, Any] = {}
        self.platform_types = ["Windows", "Linux", "MacOS"]


def create_text_document(
    account: str, region: str, *, name: str, content: str, kind: str, version_name: str, tags_given: dict[str, str]
) -> dict[str, Any] | None:
    """The description of the new document; None: there is one of that name."""
    ssm = ssm_backends[account][region]
    if name in ssm._documents:
        return None
    made = TextDocument(account=account, name=name, content=content, kind=kind, version="1", version_name=version_name)
    ssm._documents[name] = Documents(made)
    ssm._resource_tags["Document"][name].update(tags_given)
    told: dict[str, Any] = ssm._documents[name].describe(tags=[])
    return told


def update_text_document(account: str, region: str, *, name: str, content: str, version_name: str) -> dict[str, Any] | None:
    """A new version; None: the content is that of the newest one."""
    documents = ssm_backends[account][region]._documents[name]
    newest = documents.get_latest_version()
    if newest.content == content:
        return None
    version = str(int(newest.document_version) + 1)
    made = TextDocument(
        account=account, name=name, content=content, kind=newest.document_type, version=version, version_name=version_name
    )
    documents.add_new_version(made)
    told: dict[str, Any] = documents.describe(document_version=version)
    return told


def text_document(account: str, region: str, name: str, version: str | None = None) -> TextDocument | None:
    """A version of a text document (None: the default one); None: no such document, or not one of text."""
    documents = ssm_backends[account][region]._documents.get(name)
    if documents is None:
        return None
    found = documents.get_default_version() if version in (None, "", "$DEFAULT") else documents.find(version, strict=False)
    return found if isinstance(found, TextDocument) else None


def shared_with(owner: str, region: str, name: str, account: str) -> bool:
    documents = ssm_backends[owner][region]._documents.get(name)
    return documents is not None and bool({account, "all", "All"} & set(documents.permissions))
