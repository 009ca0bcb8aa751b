"""By whose patch baseline does an Install go, where the accounts' own must stay as they are?

A policy with ``apply_baselines: override`` has its Installs made by its own baselines (AWS-RunPatchBaseline's parameter
BaselineOverride), and nothing is changed in any account. `of` makes the file that hosts read. AWS uploads no patch report for
such a run, so the plain Scans before and after it judge by the accounts' baselines, which is another question; `judged` says
what they prove all the same. `execution.overriding` lays the file down and asks AWS; `rollout` decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from patchwave.campaign import baselines
from patchwave.campaign.baselines import ANY, MOST_PATCHES, Apply, Baseline, RejectedAction

if TYPE_CHECKING:
    from patchwave.campaign.lockfile import PatchRow
    from patchwave.campaign.policy import Policy
    from patchwave.campaign.rollout import PatchState

MOST_NAMED = 5
"""Patches that a reason spells out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """The baselines that hold for a stage's Installs in place of the accounts' own.

    Attributes:
        baselines: one of each operating system that the policy names; hosts of others get what their account's approves.
        locked: platforms that the stage patches by a lockfile: AWS takes no override beside it.
    """

    baselines: tuple[Baseline, ...]
    locked: frozenset[str] = frozenset()

    def on(self, platform: str) -> Baseline | None:
        """The one that patches hosts of a platform (``Amazon Linux 2023``); None: their account's own does."""
        system = baselines.operating_system(platform)
        if platform in self.locked or system is None:
            return None
        return next((one for one in self.baselines if one.operating_system == system), None)

    @property
    def text(self) -> str:
        """The file that hosts read, JSON."""
        return baselines.override(self.baselines)

    @property
    def digest(self) -> str:
        """Of the file: sha256, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def sentence(self) -> str:
        """For the plan: what a person approves with it."""
        names = ", ".join(one.name for one in self.baselines)
        return (
            f"Installs go by the policy's own baselines ({names}; BaselineOverride {self.digest[:12]}), whatever the accounts' "
            "approve; those stay as they are. AWS keeps no report of such an Install: a host counts as patched when it "
            "succeeded, nothing waits for a reboot, and a Scan after it misses nothing that the policy is sure to approve."
        )


def of(policy: Policy, *, window: bool, locked: Iterable[str] = ()) -> Override | None:
    """What holds for a stage; None where the policy has its Installs made by the accounts' baselines.

    Args:
        window: whether the stage has one; where it has none and kernels wait for one, they are rejected, and refused as
            dependencies, too (RejectedPatchesAction BLOCK): one that is published between Scan and Install is not installed.
        locked: platforms that a lockfile holds for.
    """
    if policy.apply_baselines is not Apply.OVERRIDE:
        return None
    wanted = baselines.wanted(policy.baselines, policy=policy.name)
    if policy.kernel.waits and not window:
        patterns = sorted({pattern for its in policy.kernel.packages.values() for pattern in its})
        wanted = tuple(_rejecting(one, patterns) for one in wanted)
    return Override(baselines=wanted, locked=frozenset(locked))


def refusal(policy: Policy) -> str:
    """Why AWS would not take a policy's baselines as an override; empty if it would."""
    made = of(policy, window=False)
    for one in made.baselines if made is not None else ():
        if len(one.rejected) > MOST_PATCHES:
            return (
                f"with the patterns of `kernel.packages` baseline {one.name} rejects {len(one.rejected)} patches in stages "
                f"without a window; allowed are {MOST_PATCHES}"
            )
    return ""


def _rejecting(baseline: Baseline, patterns: Sequence[str]) -> Baseline:
    rejected = tuple(sorted({*baseline.rejected, *patterns}))
    return replace(baseline, rejected=rejected, rejected_action=RejectedAction.BLOCK.value)


def judged(
    baseline: Baseline, state: PatchState, lacking: Iterable[PatchRow], *, unproven: str, received: int | None = None
) -> PatchState:
    """The report of a Scan after an Install by `baseline`, though the Scan judged by the account's.

    What the account's baseline misses and ours is not sure to approve is no fault of the host. What the account's misses and ours
    approves at once should be there, whatever the Install said. What ours approves beyond that no Scan tells; the Install itself
    does, which looks again at its end and fails if anything is left (exit code 1).

    Args:
        lacking: rows that the Scan calls missing or failed.
        unproven: why the Install is not known to have succeeded; empty if it is.
        received: how many patches came with the Install, where the host has not been rebooted since: on Linux each of them waits
            for that (AWS: InstalledPendingReboot is whatever was installed with NoReboot since the last boot), whether the report
            of a Scan by another baseline knows of it or not. None: it has been rebooted, or nobody asked.
    """
    rows = list(lacking)
    sure = [row for row in rows if is_sure_to_approve(baseline, row)]
    named = ", ".join(row.id for row in sure[:MOST_NAMED])
    named += f" and {len(sure) - MOST_NAMED} more" if len(sure) > MOST_NAMED else ""
    beyond = len(rows) - len(sure)
    others = f"{beyond} are missing by the account's baseline only, which does not hold here" if beyond else ""
    note = "; ".join(part for part in (named, others) if part)
    waiting = state.pending_reboot
    if received and baseline.operating_system not in baselines.NOT_LINUX:
        waiting = max(waiting, received)
    return replace(
        state, missing=len(sure), failed=0, rejected=0, note=note, unproven=unproven, pending_reboot=waiting, received=received
    )


def is_sure_to_approve(baseline: Baseline, row: PatchRow) -> bool:
    """Whether a baseline approves a patch at once, as far as a row of a report tells: its name, classification and severity.

    Nobody knows from a row when a patch was released, to which product it belongs or which section it is of: a rule that asks for
    that is not sure. Neither is one for patches without a classification, which have no advisory.
    """
    names = (row.id, row.id.rpartition(".")[0] or row.id, row.title)
    if any(fnmatchcase(name, pattern) for pattern in baseline.rejected for name in names):
        return False
    facts = {"CLASSIFICATION": row.classification, "SEVERITY": row.severity, "MSRC_SEVERITY": row.severity}
    if not row.classification or not _matches(baseline.global_filters, facts):
        return False
    by_name = row.classification == "Security" or baseline.approved_non_security
    if by_name and any(fnmatchcase(name, pattern) for pattern in baseline.approved for name in names[:2]):
        return True
    return any(rule.after_days == 0 and rule.until is None and _matches(rule.filters, facts) for rule in baseline.rules)


def _matches(filters: baselines.Filters, facts: dict[str, str]) -> bool:
    return all(ANY in values or facts.get(name) in values for name, values in filters)
