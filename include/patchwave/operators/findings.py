"""The first two stations: what is wrong, and how urgent is it?"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from pydantic import TypeAdapter

from patchwave.campaign import deadlines, emergency, severity
from patchwave.campaign.catalogues import Catalogue, Known
from patchwave.campaign.deadlines import Wanted
from patchwave.campaign.deduplication import Newest, finding_of
from patchwave.campaign.definition import VULNERABILITY_ID, Campaign, written_duration
from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.findings import EC2_INSTANCE, Coverage, Finding, Severity
from patchwave.campaign.reachability import Reach
from patchwave.campaign.severity import Triage
from patchwave.campaign.values import Cell, HostId, StageName
from patchwave.hooks import catalogues as sources
from patchwave.hooks import clock
from patchwave.hooks.catalogues import CatalogueUnavailable
from patchwave.ledger.rows import Rows
from patchwave.ledger.store import Run
from patchwave.operators.base import TRIAGE, CampaignOperator, Work

FINDINGS = "findings.before"
COVERAGE = "coverage.before"
KNOWN = "known.before"
"""What deadlines are decided by beside the findings; absent where the policy wants nothing."""
CATALOGUE = "catalogue"
"""CISA's catalogue as the run read it; a later run may need it when the address cannot be read."""

REPRIORITISED = "finding.reprioritised"
"""Record of the journal: a newer catalogue has changed a finding's deadline or track; it carries the sentence."""

MOST_REASONS = 20
"""So many reasons of deadlines are written into the task's log; all of them are in the triage."""
LOOK_BACK = 200
"""So many runs of the ledger are looked through for a copy of the catalogue."""

TOO_LATE = timedelta(minutes=30)
"""A scheduled run that begins later than this after its moment is not carried out: its window may be over."""

_COVERAGE: TypeAdapter[Coverage] = TypeAdapter(Coverage)
_KNOWN: TypeAdapter[Known] = TypeAdapter(Known)
_CATALOGUE: TypeAdapter[Catalogue] = TypeAdapter(Catalogue)


@dataclass(kw_only=True, slots=True)
class Concerned:
    """Whom findings are about, noted while they go by one at a time.

    Attributes:
        findings: so many went by.
    """

    findings: int = 0
    vulnerabilities: set[str] = field(default_factory=set)
    hosts: dict[Cell, set[HostId]] = field(default_factory=dict)

    def passing(self, finding: Finding) -> Finding:
        """The same finding, noted."""
        self.findings += 1
        self.vulnerabilities.update(deadlines.cve_ids(finding))
        if finding.resource_type == EC2_INSTANCE:
            self.hosts.setdefault(finding.cell, set()).add(finding.host)
        return finding


def _in_scope(finding: Finding, hosts: frozenset[HostId] | None) -> bool:
    """Whether a finding belongs to the campaign; what is no instance has no host's tags, so tags leave it out."""
    return hosts is None or (finding.resource_type == EC2_INSTANCE and finding.host in hosts)


def is_scheduled(dag_run: Any) -> bool:
    """Whether the schedule began this run, and no person did."""
    return _run_type(dag_run) == "scheduled"


def _run_type(dag_run: Any) -> str:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def requester(dag_run: Any) -> str | None:
    """Whose run it is, who therefore may not approve it: who triggered it by hand, or let the watcher trigger it."""
    if is_scheduled(dag_run):
        return None
    asked = (getattr(dag_run, "conf", None) or {}).get("requested_by")
    # From a person's hand this would be a way to look like somebody else.
    if asked and _run_type(dag_run) == "operator_triggered":
        return str(asked)
    return getattr(dag_run, "triggering_user_name", None)


def resolved(params: Mapping[str, Any], *, scheduled: bool) -> dict[str, Any]:
    """The trigger form's values as the run uses them: a scheduled run is never a dry run, a hand-triggered one is unless
    it says otherwise."""
    return {
        "dry_run": False if scheduled else bool(params.get("dry_run", True)),
        "stages": sorted(params.get("stages") or ()),
        "severities": [str(word).lower() for word in params.get("severities") or ()],
        "vulnerabilities": sorted(str(word).upper() for word in params.get("vulnerabilities") or ()),
    }


class ScanFindingsOperator(CampaignOperator):
    """Freezes the run, then reads Inspector's findings and coverage of every cell of the scope.

    Args:
        campaign_json: the campaign as the DAG file read it.
        policy_json: its policy.
    """

    template_fields: Sequence[str] = CampaignOperator.template_fields

    def __init__(self, *, campaign_json: str, policy_json: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_json = campaign_json
        self.policy_json = policy_json

    def work(self, work: Work) -> str:
        """Returns the digest of the findings' document."""
        self._refuse_late(work)
        self._freeze(work)
        coverage: list[Coverage] = []
        concerned = Concerned()
        found = Newest(map(concerned.passing, self._found(work, coverage)))
        self._look_up(work, concerned)
        covered = (_COVERAGE.dump_python(one, mode="json") for one in coverage)
        work.ledger.put_rows(work.run_id, COVERAGE, covered, at=work.now)
        return work.ledger.put_rows(work.run_id, FINDINGS, found.rows(), at=work.now)

    def _found(self, work: Work, coverage: list[Coverage]) -> Iterator[Finding]:
        """The scope's findings page by page, so that those of others and those that come twice are never kept.

        Args:
            coverage: takes the coverage of each cell whose findings are through.
        """
        for cell in work.campaign.cells:
            hosts = self._scope(work, cell)
            seen = mine = 0
            for finding in work.gateway.findings(cell):
                seen += 1
                if _in_scope(finding, hosts):
                    mine += 1
                    yield finding
            coverage.extend(one for one in work.gateway.coverage(cell) if hosts is None or one.host in hosts)
            self.log.info("%s: %d active findings, %d of them in the scope", cell, seen, mine)

    def _look_up(self, work: Work, concerned: Concerned) -> None:
        """Write down what the policy's deadlines want to know, for `classify` to judge by."""
        wanted = work.policy.deadlines.wanted
        if wanted == Wanted():
            return
        known = known_of(work, concerned, wanted)
        if known.catalogue is not None:
            self.log.info("Deadlines go by %s from %s", known.catalogue, known.catalogue.source)
            if known.catalogue.note:
                self.log.warning("%s", known.catalogue.note)
            kept = _CATALOGUE.dump_python(known.catalogue, mode="json")
            work.ledger.put_document(work.run_id, CATALOGUE, kept, at=work.now)
        kept = _KNOWN.dump_python(replace(known, catalogue=None), mode="json")
        work.ledger.put_document(work.run_id, KNOWN, kept, at=work.now)

    def _scope(self, work: Work, cell: Cell) -> frozenset[HostId] | None:
        """Hosts that carry the scope's tags, by EC2's word: Inspector learns of tags late. None: the scope names no tags."""
        tags = {key: tuple(values) for key, values in work.campaign.scope.tags.items()}
        return frozenset(host.id for host in work.gateway.fleet(cell, tags)) if tags else None

    def _refuse_late(self, work: Work) -> None:
        """Airflow may start a run for a moment that passed while it was down; for patching that is an outage."""
        if _run_type(work.dag_run) == "backfill":
            raise AirflowSkipException("A campaign is about hosts as they are now: there is nothing to fill back.")
        due = work.dag_run.run_after or work.dag_run.logical_date
        if not is_scheduled(work.dag_run) or due is None:
            return
        late = datetime.now(UTC) - due  # real time, not a rehearsal's
        if late > TOO_LATE:
            raise AirflowSkipException(
                f"This run was due at {due:%Y-%m-%d %H:%M} UTC, {late} ago. A campaign never starts for a moment that has "
                "passed; trigger it by hand if it is wanted now."
            )

    def _freeze(self, work: Work) -> None:
        campaign = Campaign.from_json(self.campaign_json)
        params = resolved(work.context["params"], scheduled=is_scheduled(work.dag_run))
        _check(campaign, params)
        stored = work.ledger.open_run(
            Run(
                id=work.run_id,
                campaign=campaign.name,
                dag_id=work.dag_run.dag_id,
                dag_run_id=work.dag_run.run_id,
                began_at=work.now,
                definition=json.loads(self.campaign_json),
                definition_digest=campaign.digest,
                policy=json.loads(self.policy_json),
                params=params,
                requested_by=requester(work.dag_run),
                speed=clock.speed(),
            ),
            [StageName(stage.name) for stage in campaign.stages],
        )
        if stored.definition_digest != campaign.digest:
            self.log.info("The campaign file has changed since this run began; the run goes on with what it began with")


def _check(campaign: Campaign, params: Mapping[str, Any]) -> None:
    known = [stage.name for stage in campaign.stages]
    wrong = [name for name in params["stages"] if name not in known]
    if wrong:
        raise Permanent(f"stages: {', '.join(wrong)} is no stage of {campaign.name}; allowed are {', '.join(known)}")
    words = [severity_.value for severity_ in Severity]
    odd = [word for word in params["severities"] if word not in words]
    if odd:
        raise Permanent(f"severities: {', '.join(odd)} is no severity; allowed are {', '.join(words)}")
    strange = [name for name in params["vulnerabilities"] if not re.fullmatch(VULNERABILITY_ID, name)]
    if strange:
        raise Permanent(f"vulnerabilities: {', '.join(strange)} is no id of a vulnerability; allowed are such as CVE-2026-12345")
    canary = campaign.canary
    if canary is None:
        return
    if not params["vulnerabilities"]:
        raise Permanent("vulnerabilities: found none; an emergency names at least one CVE id, such as CVE-2026-12345")
    if params["stages"] and canary.name not in params["stages"]:
        chosen = ", ".join(params["stages"])
        raise Permanent(f"stages: {chosen} leaves out {canary.name}, the canary; an emergency begins with it")


def known_of(work: Work, concerned: Concerned, wanted: Wanted) -> Known:
    """What is known now of findings and their hosts.

    Raises:
        Permanent: a file that the policy names is broken or missing.
        Transient: the catalogue's address cannot be read, and the ledger holds none that is young enough.
    """
    ids = concerned.vulnerabilities
    return Known(
        catalogue=_catalogue(work, wanted) if wanted.catalogue else None,
        ssvc=sources.ssvc(wanted.vulnrichment, wanted=ids) if wanted.vulnrichment else {},
        epss=sources.epss(wanted.epss, wanted=ids) if wanted.epss else {},
        reach=_reach(work, concerned, wanted) if wanted.reach else {},
    )


def _reach(work: Work, concerned: Concerned, wanted: Wanted) -> dict[HostId, Reach]:
    reached: dict[HostId, Reach] = {}
    for cell, its in concerned.hosts.items():
        reached |= work.gateway.reach(cell, sorted(its), balancers=wanted.balancers, tags=wanted.tags)
    return reached


def _catalogue(work: Work, wanted: Wanted) -> Catalogue:
    """CISA's catalogue as it is now, or the last one in the ledger where its address cannot be read.

    Without either nothing is judged: a finding that is not known to be exploited would get months instead of days.
    """
    source = str(wanted.catalogue)
    try:
        return sources.exploited(source, now=work.now)
    except CatalogueUnavailable as error:
        kept = _last_catalogue(work, source)
        if kept is None:
            raise CatalogueUnavailable(f"{error}; the ledger holds no copy of it, so no deadline can be decided") from error
        age = work.now - kept.read_at
        if age > wanted.oldest:
            raise CatalogueUnavailable(
                f"{error}; the last copy in the ledger is of {kept.read_at:%Y-%m-%d %H:%M} UTC, older than the policy's "
                f"{written_duration(wanted.oldest)} (deadlines: oldest), so no deadline can be decided"
            ) from error
        return replace(kept, note=f"{error}; the copy of {kept.read_at:%Y-%m-%d %H:%M} UTC in the ledger stands in for it")


def _last_catalogue(work: Work, source: str) -> Catalogue | None:
    """The youngest copy of that source in the ledger, of any campaign's run; also this run's own, of an earlier try."""
    found = [
        catalogue
        for run in work.ledger.runs(limit=LOOK_BACK)
        if CATALOGUE in work.ledger.documents(run.id)
        and (catalogue := _CATALOGUE.validate_python(work.ledger.document(run.id, CATALOGUE))).source == source
    ]
    return max(found, key=lambda one: one.read_at, default=None)


def findings_before(work: Work) -> Iterator[Finding]:
    """What `scan_findings` found, one at a time."""
    return map(finding_of, work.rows(FINDINGS))


def read_known(work: Work) -> Known:
    """What `scan_findings` wrote down for the deadlines; nothing where the policy wants nothing."""
    present = work.ledger.documents(work.run_id)
    known = _KNOWN.validate_python(work.document(KNOWN)) if KNOWN in present else Known()
    if CATALOGUE in present:
        known = replace(known, catalogue=_CATALOGUE.validate_python(work.document(CATALOGUE)))
    return known


def reprioritise(work: Work) -> tuple[severity.Change, ...]:
    """Judge the run's findings again if CISA's catalogue has a newer release; the changes, most urgent first.

    The new triage takes the place of the old one in the ledger, and each change is a record of the journal
    (`REPRIORITISED`). A plan that was made before stays what it is: it names hosts, and those are the same.

    Raises:
        Permanent, Transient: as `known_of`.
    """
    wanted = work.policy.deadlines.wanted
    if wanted.catalogue is None:
        return ()
    newest = _catalogue(work, wanted)
    stored = triage_rows(work)
    triage = Triage.from_rows(stored.head or {}, ())
    if not severity.is_news(newest, triage):
        return ()
    newer, changes = severity.reprioritised(
        triage, findings_before(work), work.policy, read_known(work), newest,
        now=work.now, assessments=severity.assessments_of(stored),
    )  # fmt: skip
    for one in changes:
        data = {"finding": one.after.finding, "sooner": one.sooner, "sentence": one.sentence, "catalogue": newest.version}
        work.ledger.record(work.run_id, REPRIORITISED, data, at=work.now)
    work.ledger.put_document(work.run_id, CATALOGUE, _CATALOGUE.dump_python(newest, mode="json"), at=work.now)
    _store_triage(work, newer)
    return changes


def news(work: Work, log: Logger, *, read: bool = True) -> str:
    """Read CISA's catalogue again and say what it has made more urgent since the run began, for the reason of a wait.

    Args:
        read: no: say what was found before.

    Returns:
        Empty if nothing has, or if the policy does not go by the catalogue. One that cannot be read is no news either: what
        waits goes on waiting, and the log says why.
    """
    if work.policy.deadlines.wanted.catalogue is None:
        return ""
    try:
        for one in reprioritise(work) if read else ():
            log.warning("Judged again by a newer catalogue: %s", one.sentence)
    except PatchwaveError as error:
        log.warning("CISA's catalogue was not read again: %s", error)
    urgent = [
        one.data["sentence"] for one in work.ledger.journal(work.run_id) if one.kind == REPRIORITISED and one.data["sooner"]
    ]
    if not urgent:
        return ""
    more = f", and {len(urgent) - 1} more" if len(urgent) > 1 else ""
    return f"more urgent since the run began: {urgent[0]}{more}"


class ClassifyOperator(CampaignOperator):
    """Gives every finding its track and deadline."""

    def work(self, work: Work) -> str:
        """Returns the digest of the triage."""
        triage = severity.classify(
            findings_before(work),
            work.policy,
            now=work.now,
            coverage=map(_COVERAGE.validate_python, work.rows(COVERAGE)),
            severities=[Severity(word) for word in work.run.params["severities"]],
            vulnerabilities=work.run.params["vulnerabilities"],
            known=read_known(work),
        )
        for reason, count in Counter(one.deadline_because for one in triage.selected()).most_common(MOST_REASONS):
            self.log.info("%d findings: %s", count, reason)
        self.log.info("By severity: %s", {word.value: count for word, count in triage.by_severity().items()})
        self.log.info("By track: %s", {word.value: count for word, count in triage.by_track().items()})
        for told in emergency.sentences(emergency.clocks(triage), work.now):
            self.log.info("Deadline clock: %s", told)
        return _store_triage(work, triage)


def _store_triage(work: Work, triage: Triage) -> str:
    """Returns its digest."""
    if clocks := emergency.clocks(triage):
        work.ledger.put_document(work.run_id, emergency.DOCUMENT, emergency.to_json(clocks), at=work.now)
    return work.ledger.put_rows(work.run_id, TRIAGE, triage.rows(), head=triage.head(), of=severity.ROWS, at=work.now)


def clocks_now(work: Work) -> tuple[str, ...]:
    """How long is left for the vulnerabilities that the run is about, in sentences."""
    if emergency.DOCUMENT not in work.ledger.documents(work.run_id):
        return ()
    return emergency.sentences(emergency.from_json(work.document(emergency.DOCUMENT)), work.now)


def triage_rows(work: Work) -> Rows:
    """The run's triage as it rests in the ledger: its assessments come one at a time."""
    return work.rows(TRIAGE, of=severity.ROWS)


def read_triage(work: Work) -> Triage:
    """The run's triage, with all its assessments."""
    stored = triage_rows(work)
    return Triage.from_rows(stored.head or {}, stored)
