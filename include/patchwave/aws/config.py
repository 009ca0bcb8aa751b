"""What do AWS Config and Systems Manager's compliance say of each host, and how does Config's remediation stand?

`verify` asks Config to evaluate and waits until it has, `judge` reads the results. Config names a host under a patch rule as
``AWS::SSM::ManagedInstanceInventory/i-...``: the host is cut out here, and Config's own id is kept beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.campaign.compliance import Compliance, Evaluation, PatchCompliance, RuleResult, RuleStatus
from patchwave.campaign.errors import InvalidRequest, PatchwaveError
from patchwave.campaign.remediation import RemedyState, RuleRemedy
from patchwave.campaign.values import Cell, HostId

LARGEST_RULES = 25
"""botocore model of config, DescribeConfigRuleEvaluationStatus.ConfigRuleNames."""
LARGEST_PAGE = 100
"""botocore model of config: Limit of GetComplianceDetailsByConfigRule and DescribeRemediationExecutionStatus (0 means 10)."""
LARGEST_KEYS = 100
"""botocore model of config: ResourceKeys of StartRemediationExecution and DescribeRemediationExecutionStatus."""
LARGEST_SUMMARIES_PAGE = 50
"""botocore model of ssm, ListResourceComplianceSummaries.MaxResults."""

INVENTORY = "AWS::SSM::ManagedInstanceInventory"
PATCH_COMPLIANCE = "AWS::SSM::PatchCompliance"
"""Resource type of the patch rule; the ids of its resources begin with `INVENTORY`."""

_LATER = frozenset({"LimitExceededException", "ResourceInUseException"})
_NO_RULE = "NoSuchConfigRuleException"
_STATES = {
    "QUEUED": RemedyState.RUNNING,
    "IN_PROGRESS": RemedyState.RUNNING,
    "SUCCEEDED": RemedyState.SUCCEEDED,
    "FAILED": RemedyState.FAILED,
}


class ComplianceReads(Calls):
    """Config rules and Systems Manager's compliance."""

    def evaluate(self, cell: Cell, rules: Iterable[str]) -> dict[str, Evaluation]:
        """Ask Config to evaluate these rules now, each for itself: one that is busy would refuse them all.

        It judges what Config has recorded already; a patch report of the last minutes may not be in it.
        """
        return {rule: self._evaluate(cell, rule) for rule in dict.fromkeys(rules)}

    def _evaluate(self, cell: Cell, rule: str) -> Evaluation:
        try:
            self.call(cell, "config:StartConfigRulesEvaluation", ConfigRuleNames=[rule])
        except PatchwaveError as error:
            code = code_of(error)
            if code in _LATER:
                return Evaluation.LATER
            if code == _NO_RULE:
                return Evaluation.NO_RULE
            raise
        return Evaluation.STARTED

    def rule_status(self, cell: Cell, rules: Iterable[str]) -> dict[str, RuleStatus]:
        """When each rule was evaluated last; a rule that the cell does not have is absent."""
        found: dict[str, RuleStatus] = {}
        for some in chunks(rules, LARGEST_RULES):
            try:
                found.update(self._rule_statuses(cell, list(some)))
            except InvalidRequest as error:
                if code_of(error) != _NO_RULE:
                    raise
                if len(some) > 1:  # the answer does not say which of them is missing
                    for rule in some:
                        found.update(self.rule_status(cell, [rule]))
        return found

    def _rule_statuses(self, cell: Cell, rules: list[str]) -> dict[str, RuleStatus]:
        return {
            row["ConfigRuleName"]: RuleStatus(
                cell=cell,
                rule=row["ConfigRuleName"],
                succeeded_at=_utc(row.get("LastSuccessfulEvaluationTime")),
                failed_at=_utc(row.get("LastFailedEvaluationTime") or row.get("LastFailedInvocationTime")),
                error=": ".join(part for part in (row.get("LastErrorCode"), row.get("LastErrorMessage")) if part),
            )
            for page in self.pages(cell, "config:DescribeConfigRuleEvaluationStatus", ConfigRuleNames=rules)
            for row in page.get("ConfigRulesEvaluationStatus", ())
        }

    def rule_compliance(self, cell: Cell, rule: str) -> tuple[RuleResult, ...] | None:
        """What the rule says of each resource; None if the cell has no such rule, which proves nothing of any host."""
        try:
            return tuple(
                _result(cell, rule, row)
                for page in self.pages(cell, "config:GetComplianceDetailsByConfigRule", ConfigRuleName=rule, Limit=LARGEST_PAGE)
                for row in page.get("EvaluationResults", ())
            )
        except InvalidRequest as error:
            if code_of(error) == _NO_RULE:
                return None
            raise

    def resource_compliance(self, cell: Cell, ids: Iterable[HostId]) -> dict[HostId, PatchCompliance]:
        """Systems Manager's patch compliance of these hosts; one without is absent. All summaries are read: no filter
        takes ids."""
        wanted = set(ids)
        return {
            HostId(row["ResourceId"]): _summary(cell, row)
            for page in self.pages(
                cell,
                "ssm:ListResourceComplianceSummaries",
                Filters=[{"Key": "ComplianceType", "Values": ["Patch"], "Type": "EQUAL"}],
                MaxResults=LARGEST_SUMMARIES_PAGE,
            )
            for row in page.get("ResourceComplianceSummaryItems", ())
            if row.get("ComplianceType") == "Patch" and row["ResourceId"] in wanted
        }

    def start_config_remediation(self, cell: Cell, rule: str, ids: Iterable[HostId]) -> dict[HostId, str]:
        """Have Config remediate these hosts under a rule whose remediation is configured.

        Returns:
            Why Config did not begin, by host; empty if it began with all. A partial failure is HTTP 200.

        Raises:
            OutcomeUnknown: the answer was lost; `config_remediation_status` tells what runs.
        """
        refused: dict[HostId, str] = {}
        for some in chunks(ids, LARGEST_KEYS):
            answer = self.call(
                cell,
                "config:StartRemediationExecution",
                ConfigRuleName=rule,
                ResourceKeys=[_key(host) for host in some],
            )
            for row in answer.get("FailedItems", ()):
                refused[host_in(row["resourceId"])] = answer.get("FailureMessage") or "Config did not begin"
        return refused

    def config_remediation_status(self, cell: Cell, rule: str, ids: Iterable[HostId]) -> dict[HostId, RuleRemedy]:
        """How Config's remediation of these hosts stands; one that was never begun is absent."""
        return {
            remedy.host: remedy
            for some in chunks(ids, LARGEST_KEYS)
            for page in self.pages(
                cell,
                "config:DescribeRemediationExecutionStatus",
                ConfigRuleName=rule,
                ResourceKeys=[_key(host) for host in some],
                Limit=LARGEST_PAGE,
            )
            for remedy in (_remedy(cell, rule, row) for row in page.get("RemediationExecutionStatuses", ()))
        }


def host_in(resource: str) -> HostId:
    """The instance id in Config's id of a resource: what stands behind the last slash."""
    return HostId(resource.rpartition("/")[2])


def _key(host: HostId) -> dict[str, str]:
    return {"resourceType": PATCH_COMPLIANCE, "resourceId": f"{INVENTORY}/{host}"}


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _result(cell: Cell, rule: str, row: Mapping[str, Any]) -> RuleResult:
    qualifier = row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]
    recorded = row["ResultRecordedTime"].astimezone(UTC)
    return RuleResult(
        cell=cell,
        rule=rule,
        host=host_in(qualifier["ResourceId"]),
        resource=qualifier["ResourceId"],
        resource_type=qualifier.get("ResourceType", ""),
        compliance=_compliance(row.get("ComplianceType", "")),
        recorded_at=recorded,
        judged_at=_utc(row["EvaluationResultIdentifier"].get("OrderingTimestamp")) or recorded,
        # Without the moment of the evaluation its result is as old as what it judged.
        invoked_at=_utc(row.get("ConfigRuleInvokedTime") or row["EvaluationResultIdentifier"].get("OrderingTimestamp"))
        or recorded,
        annotation=row.get("Annotation", ""),
    )


def _compliance(word: str) -> Compliance:
    """Config's word; one that we do not know is no answer."""
    try:
        return Compliance(word)
    except ValueError:
        return Compliance.INSUFFICIENT_DATA


def _summary(cell: Cell, row: Mapping[str, Any]) -> PatchCompliance:
    execution = row.get("ExecutionSummary", {})
    return PatchCompliance(
        cell=cell,
        host=HostId(row["ResourceId"]),
        compliant=row.get("Status") == "COMPLIANT",
        severity=row.get("OverallSeverity", "UNSPECIFIED"),
        executed_at=_utc(execution.get("ExecutionTime")),
        execution=execution.get("ExecutionId", ""),
        non_compliant=row.get("NonCompliantSummary", {}).get("NonCompliantCount", 0),
    )


def _remedy(cell: Cell, rule: str, row: Mapping[str, Any]) -> RuleRemedy:
    failures = [
        f"{step.get('Name', 'step')}: {step['ErrorMessage']}" for step in row.get("StepDetails", ()) if step.get("ErrorMessage")
    ]
    return RuleRemedy(
        cell=cell,
        rule=rule,
        host=host_in(row["ResourceKey"]["resourceId"]),
        state=_STATES.get(row.get("State", ""), RemedyState.UNKNOWN),
        failure="; ".join(failures),
        invoked_at=_utc(row.get("InvocationTime")),
        updated_at=_utc(row.get("LastUpdatedTime")),
    )
