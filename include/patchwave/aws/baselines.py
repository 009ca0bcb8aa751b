"""Which patch baselines does a cell have, whom do they patch, and are those that a policy declares there?

`baselines_found` reads what `campaign.baselines.drift` compares. `ensure_baseline` creates a declared one, puts back what is
otherwise and registers it for patch groups; a baseline that somebody else made, and a patch group that somebody registered with
another one, are never changed, unless the caller names them with that one. Whether anything may be changed at all, its caller
decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.campaign import baselines
from patchwave.campaign.baselines import Approval, Baseline, Filters, Found
from patchwave.campaign.errors import InvalidRequest, Permanent
from patchwave.campaign.values import Cell

TAKEN = "AlreadyExistsException"


class BaselineOfOthers(Permanent):
    """A patch baseline of that name exists and was not made for this policy, so it is not changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptBaseline:
    """A declared baseline as `ensure_baseline` found it and left it.

    Attributes:
        id: AWS's.
        created: it was not there.
        drift: what was otherwise than declared, a sentence each; it was put back.
        registered: patch groups that it was registered for now.
        left: patch groups that another baseline keeps, each with that one's id.
    """

    id: str
    created: bool
    drift: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()


class Baselines(Calls):
    """SSM patch baselines and the patch groups that they are registered for."""

    def baselines_found(self, cell: Cell, wanted: Baseline, groups: Iterable[str]) -> Found:
        """What a cell has of an operating system.

        Args:
            wanted: its name is looked for.
            groups: patch groups of the hosts of that operating system.

        Raises:
            InvalidRequest: several baselines have that name, which AWS allows.
        """
        registrations = self._registrations(cell, wanted.operating_system)
        names = sorted(set(groups))
        used = {group: registrations[group] for group in names if group in registrations}
        others = [group for group in names if group not in registrations]
        if others:  # one answer for all of them: the default of the operating system
            default = self.call(
                cell, "ssm:GetPatchBaselineForPatchGroup", PatchGroup=others[0], OperatingSystem=wanted.operating_system
            )
            used |= dict.fromkeys(others, default["BaselineId"])
        own = self._named(cell, wanted)
        read = {} if own is None else {own.id: own}
        for identifier in sorted(set(used.values()) - set(read)):
            read[identifier] = self._baseline(cell, identifier)
        return Found(
            own=own,
            used={group: read[identifier] for group, identifier in sorted(used.items())},
            registered=frozenset(names) & frozenset(registrations),
        )

    def ensure_baseline(
        self, cell: Cell, wanted: Baseline, groups: Iterable[str], *, run: str, takes: Mapping[str, str] | None = None
    ) -> KeptBaseline:
        """Create a declared baseline, or put back what is otherwise, then register it for patch groups.

        Also hosts beyond the campaign are patched by it, where they carry one of those patch groups. May be called again at any
        time, and beside itself: the client token is made of the run, the cell and what is declared.

        Args:
            takes: those of the groups in which another baseline is replaced, with its id; if it is a third one, it is left.

        Raises:
            BaselineOfOthers: a baseline of that name was not made for this policy.
            InvalidRequest: several have that name, or AWS refuses what is declared.
            OutcomeUnknown: the answer was lost; calling again is safe.
        """
        own = self._named(cell, wanted)
        drift: tuple[str, ...] = ()
        content = {"Name": wanted.name, "Description": wanted.description, **baselines.body(wanted)}
        if own is None:
            said = json.dumps(content, sort_keys=True)
            token = hashlib.sha256(f"{run}|{cell}|{wanted.operating_system}|{said}".encode()).hexdigest()
            made = self.call(
                cell, "ssm:CreatePatchBaseline", OperatingSystem=wanted.operating_system, **content, ClientToken=token
            )
            identifier = str(made["BaselineId"])
        else:
            identifier = own.id
            if own.description != wanted.description:
                raise BaselineOfOthers(
                    f"patch baseline {wanted.name} of {cell} ({own.id}) exists and was not made for this policy, so it is not "
                    "changed; rename it, or the policy"
                )
            drift = tuple(one.sentence for one in baselines.differences(wanted, own))
            if drift:
                # Replace: what is not given becomes empty again, such as repositories that somebody added.
                self.call(cell, "ssm:UpdatePatchBaseline", BaselineId=identifier, **content, Replace=True)
        registered, left = self._register(cell, identifier, wanted.operating_system, sorted(set(groups)), takes or {})
        return KeptBaseline(id=identifier, created=own is None, drift=drift, registered=registered, left=left)

    def _register(
        self, cell: Cell, identifier: str, system: str, groups: list[str], takes: Mapping[str, str]
    ) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Register for groups that no baseline has, or one that is replaced; of the others, which one has them."""
        before = self._registrations(cell, system)
        for group in [one for one in groups if one in before and before[one] == takes.get(one)]:
            # Killed behind this, the group has no baseline, and whoever comes next registers ours.
            other = before.pop(group)
            self.call(cell, "ssm:DeregisterPatchBaselineForPatchGroup", BaselineId=other, PatchGroup=group)
        registered: list[str] = []
        lost: list[str] = []
        for group in (one for one in groups if one not in before):
            try:
                self.call(cell, "ssm:RegisterPatchBaselineForPatchGroup", BaselineId=identifier, PatchGroup=group)
                registered.append(group)
            except InvalidRequest as error:
                if code_of(error) != TAKEN:  # somebody was faster
                    raise
                lost.append(group)
        now = self._registrations(cell, system) if lost else before
        left = {group: now.get(group, "") for group in groups if group not in registered and now.get(group) != identifier}
        return tuple(registered), tuple(sorted(left.items()))

    def _registrations(self, cell: Cell, system: str) -> dict[str, str]:
        """Patch group -> id of the baseline that is registered for it and that operating system."""
        filters = [{"Key": "OPERATING_SYSTEM", "Values": [system]}]
        return {
            row["PatchGroup"]: row["BaselineIdentity"]["BaselineId"]
            for page in self.pages(cell, "ssm:DescribePatchGroups", Filters=filters, MaxResults=100)
            for row in page.get("Mappings", ())
            if row["BaselineIdentity"].get("OperatingSystem", system) == system
        }

    def _named(self, cell: Cell, wanted: Baseline) -> Baseline | None:
        filters = [
            {"Key": "OWNER", "Values": ["Self"]},
            {"Key": "NAME_PREFIX", "Values": [wanted.name]},
            {"Key": "OPERATING_SYSTEM", "Values": [wanted.operating_system]},
        ]
        ids = [
            row["BaselineId"]
            for page in self.pages(cell, "ssm:DescribePatchBaselines", Filters=filters, MaxResults=100)
            for row in page.get("BaselineIdentities", ())
            if row.get("BaselineName") == wanted.name
        ]
        if len(ids) > 1:
            raise InvalidRequest(
                f"{len(ids)} patch baselines of {cell} are called {wanted.name} ({', '.join(sorted(ids))}); delete all but one"
            )
        return self._baseline(cell, ids[0]) if ids else None

    def _baseline(self, cell: Cell, identifier: str) -> Baseline:
        return _told(self.call(cell, "ssm:GetPatchBaseline", BaselineId=identifier))


def _told(answer: Mapping[str, Any]) -> Baseline:
    """What GetPatchBaseline says."""
    return Baseline(
        id=answer["BaselineId"],
        name=answer.get("Name", ""),
        operating_system=answer.get("OperatingSystem", "WINDOWS"),
        description=answer.get("Description", ""),
        rules=tuple(
            Approval(
                filters=_filters(rule.get("PatchFilterGroup")),
                level=rule.get("ComplianceLevel", "UNSPECIFIED"),
                after_days=rule.get("ApproveAfterDays"),
                until=rule.get("ApproveUntilDate"),
                non_security=rule.get("EnableNonSecurity", False),
            )
            for rule in (answer.get("ApprovalRules") or {}).get("PatchRules", ())
        ),
        approved=tuple(sorted(answer.get("ApprovedPatches", ()))),
        approved_level=answer.get("ApprovedPatchesComplianceLevel", "UNSPECIFIED"),
        approved_non_security=answer.get("ApprovedPatchesEnableNonSecurity", False),
        rejected=tuple(sorted(answer.get("RejectedPatches", ()))),
        rejected_action=answer.get("RejectedPatchesAction", "ALLOW_AS_DEPENDENCY"),
        global_filters=_filters(answer.get("GlobalFilters")),
        sources=tuple(sorted(one.get("Name", "") for one in answer.get("Sources", ()))),
    )


def _filters(group: Mapping[str, Any] | None) -> Filters:
    return baselines.filters_of({one["Key"]: one["Values"] for one in (group or {}).get("PatchFilters", ())})
