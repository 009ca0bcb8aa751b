"""Which Lambda functions are there, with which version of their runtime, and how do they get another? One cell at a time.

Listing tells neither tags nor runtime versions: both are asked for function by function, tags first, so that nothing more is
asked about functions that no stage selects. There is no call that lists runtime versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.functions import Function, Mode, SetMode, Step, Update
from patchwave.campaign.values import Cell

LARGEST_PAGE = 50
"""Lambda API reference: ListFunctions answers at most 50."""
BUSY = frozenset({"ResourceConflictException", "PreconditionFailedException"})
"""Codes of a refusal that time mends: the function is being updated."""
GONE = "ResourceNotFoundException"


class ManagedFunctions(Calls):
    """Lambda."""

    def functions(self, cell: Cell, chosen: Callable[[Mapping[str, str]], bool]) -> tuple[Function, ...]:
        """The functions of the cell whose tags are chosen, by name."""
        found = []
        for page in self.pages(cell, "lambda:ListFunctions", cursor="Marker", following="NextMarker", MaxItems=LARGEST_PAGE):
            for row in page.get("Functions", ()):
                tags = dict(self.call(cell, "lambda:ListTags", Resource=row["FunctionArn"]).get("Tags") or {})
                if chosen(tags):
                    found.append(self._function(cell, row["FunctionName"], tags))
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.name))

    def functions_now(self, cell: Cell, names: Iterable[str]) -> tuple[Function, ...]:
        """These functions as they are now, without their tags; one that is gone is absent."""
        found = [self._function(cell, name, {}) for name in names]
        return tuple(one for one in found if one is not None)

    def _function(self, cell: Cell, name: str, tags: Mapping[str, str]) -> Function | None:
        try:
            row = self.call(cell, "lambda:GetFunctionConfiguration", FunctionName=name)
            image = row.get("PackageType") == "Image"
            managed = {} if image else self.call(cell, "lambda:GetRuntimeManagementConfig", FunctionName=name)
        except InvalidRequest as error:
            if code_of(error) == GONE:
                return None
            raise
        failed = row.get("LastUpdateStatus") == "Failed"
        mode = str(managed.get("UpdateRuntimeOn") or "")
        return Function(
            arn=row["FunctionArn"], cell=cell, name=name, runtime=row.get("Runtime", ""), tags=tags, image=image, mode=mode,
            pinned=str(managed.get("RuntimeVersionArn") or "") if mode == Mode.MANUAL else "",
            version=str((row.get("RuntimeVersionConfig") or {}).get("RuntimeVersionArn") or ""),
            state=row.get("State") or "Active", update=row.get("LastUpdateStatus") or "Successful",
            why=str(row.get("LastUpdateStatusReason" if failed else "StateReason") or ""),
            description=row.get("Description", ""), modified=str(row.get("LastModified") or ""),
        )  # fmt: skip

    def change_function(self, cell: Cell, step: Step) -> None:
        """Carry out one step.

        Raises:
            InvalidRequest: Lambda refuses it; `errors.code_of` in `BUSY` if time mends that.
            AwsUnavailable: the answer was lost; what came of it `functions_now` tells.
        """
        match step:
            case SetMode(function=one, mode=mode, version=version):
                pinned: dict[str, Any] = {"RuntimeVersionArn": version} if mode is Mode.MANUAL else {}
                self.call(cell, "lambda:PutRuntimeManagementConfig", FunctionName=one.name, UpdateRuntimeOn=mode.value, **pinned)
            case Update(function=one, description=description):
                self.call(cell, "lambda:UpdateFunctionConfiguration", FunctionName=one.name, Description=description)
