"""How is what is left over remedied? Our Automation runbook, its executions and how they stand.

`remediate` makes sure that the runbook is there and starts one execution a host. The client token is ours: a replay gives
the execution that was started before, and starts nothing. When a person ends the task, `execution.remedies` stops them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.remediation import AutomationStatus, RemedyState
from patchwave.campaign.values import Cell

LARGEST_PAGE = 50
"""botocore model of ssm, DescribeAutomationExecutions.MaxResults."""
TAG = "patchwave"
"""Tag of every execution of ours; a second one carries the client token in its key, for executions are found by key only."""

OVER = frozenset({"InvalidAutomationStatusUpdateException", "AutomationExecutionNotFoundException"})
"""Error codes for an execution that cannot be stopped: it has ended, or AWS has forgotten it."""

_STATES = {
    "Success": RemedyState.SUCCEEDED,
    "CompletedWithSuccess": RemedyState.SUCCEEDED,
    "TimedOut": RemedyState.TIMED_OUT,
    "Cancelled": RemedyState.CANCELLED,
    "Failed": RemedyState.FAILED,
    "CompletedWithFailure": RemedyState.FAILED,
    "Rejected": RemedyState.FAILED,
    "ChangeCalendarOverrideRejected": RemedyState.FAILED,
    "Exited": RemedyState.FAILED,
}


def runbook() -> str:
    """The text of the runbook that we ship."""
    return (resources.files("patchwave.aws") / "runbooks" / "patchwave-remediate.yaml").read_text("utf-8")


class Automation(Calls):
    """SSM Automation."""

    def ensure_runbook(self, cell: Cell, name: str, content: str) -> None:
        """Make `content` (YAML) the default version of the document; nothing if it is.

        May be called beside itself: the document exists once, and the same content is no second version.
        """
        default = self._document(cell, name)
        if default is None:
            if self._created(cell, name, content):
                return
            default = self._document(cell, name) or {}
        if default.get("Hash") == hashlib.sha256(content.encode()).hexdigest():
            return
        try:
            answer = self.call(
                cell,
                "ssm:UpdateDocument",
                Name=name,
                Content=content,
                DocumentFormat="YAML",
                DocumentVersion="$LATEST",
            )
            version = answer["DocumentDescription"]["DocumentVersion"]
        except InvalidRequest as error:
            if code_of(error) != "DuplicateDocumentContent":
                raise
            version = default.get("LatestVersion", "")
        if version and version != default.get("DefaultVersion"):
            self.call(cell, "ssm:UpdateDocumentDefaultVersion", Name=name, DocumentVersion=version)

    def _document(self, cell: Cell, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self.call(cell, "ssm:DescribeDocument", Name=name)["Document"]
            return found
        except InvalidRequest as error:
            if code_of(error) == "InvalidDocument":
                return None
            raise

    def _created(self, cell: Cell, name: str, content: str) -> bool:
        """False if somebody else was faster."""
        try:
            self.call(cell, "ssm:CreateDocument", Name=name, Content=content, DocumentType="Automation", DocumentFormat="YAML")
        except InvalidRequest as error:
            if code_of(error) == "DocumentAlreadyExists":
                return False
            raise
        return True

    def start_automation(self, cell: Cell, document: str, parameters: Mapping[str, Sequence[str]], client_token: str) -> str:
        """Start an execution, or name the one that this token has started before.

        Args:
            client_token: a UUID, with or without dashes.

        Returns:
            The execution's id.

        Raises:
            OutcomeUnknown: the answer was lost; the same call again is safe.
        """
        token = _uuid(client_token)
        try:
            answer = self.call(
                cell,
                "ssm:StartAutomationExecution",
                DocumentName=document,
                Parameters={name: list(values) for name, values in parameters.items()},
                ClientToken=token,
                Tags=[{"Key": TAG, "Value": "remediate"}, {"Key": _tag(token), "Value": ""}],
            )
        except InvalidRequest as error:
            # The guide says that a token cannot be used again, the model that it can: whichever holds, it has begun.
            known = self.find_automation(cell, token) if code_of(error) == "IdempotentParameterMismatch" else None
            if known is None:
                raise
            return known.id
        return str(answer["AutomationExecutionId"])

    def automation(self, cell: Cell, id: str) -> AutomationStatus:
        """How an execution stands; `RemedyState.UNKNOWN` if AWS does not know it (any more)."""
        try:
            row = self.call(cell, "ssm:GetAutomationExecution", AutomationExecutionId=id)["AutomationExecution"]
        except InvalidRequest as error:
            if code_of(error) != "AutomationExecutionNotFoundException":
                raise
            return AutomationStatus(cell=cell, id=id, state=RemedyState.UNKNOWN, status="AutomationExecutionNotFound")
        return _status(cell, row)

    def stop_automation(self, cell: Cell, id: str) -> None:
        """Cancel an execution, with the command that its step waits for; nothing if it is over."""
        try:
            self.call(cell, "ssm:StopAutomationExecution", AutomationExecutionId=id, Type="Cancel")
        except InvalidRequest as error:
            if code_of(error) not in OVER:
                raise

    def find_automation(self, cell: Cell, client_token: str) -> AutomationStatus | None:
        """The execution that was started with that token, if AWS lists it."""
        for page in self.pages(
            cell,
            "ssm:DescribeAutomationExecutions",
            Filters=[{"Key": "TagKey", "Values": [_tag(_uuid(client_token))]}],
            MaxResults=LARGEST_PAGE,
        ):
            for row in page.get("AutomationExecutionMetadataList", ()):
                return _status(cell, row)
        return None


def _uuid(token: str) -> str:
    try:
        return str(uuid.UUID(token))
    except ValueError as error:
        raise InvalidRequest(f"ClientToken is a UUID, not {token!r}") from error


def _tag(token: str) -> str:
    return f"{TAG}-{token}"


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _status(cell: Cell, row: Mapping[str, Any]) -> AutomationStatus:
    status = row.get("AutomationExecutionStatus", "")
    state = _STATES.get(status, RemedyState.RUNNING)
    steps = row.get("StepExecutions", ())
    failed = [step for step in steps if step.get("StepStatus") in {"Failed", "TimedOut", "Cancelled"}]
    failure = row.get("FailureMessage", "") or "; ".join(
        f"{step.get('StepName', 'step')}: {step.get('FailureMessage') or step['StepStatus']}" for step in failed
    )
    return AutomationStatus(
        cell=cell,
        id=row["AutomationExecutionId"],
        state=state,
        status=status,
        document=row.get("DocumentName", ""),
        failure="" if state in {RemedyState.RUNNING, RemedyState.SUCCEEDED} else failure,
        step=row.get("CurrentStepName", "") or (steps[-1].get("StepName", "") if steps else ""),
        began_at=_utc(row.get("ExecutionStartTime")),
        ended_at=_utc(row.get("ExecutionEndTime")),
    )
