"""What may be done about hosts that are still not compliant."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import remediation
from patchwave.campaign.compliance import HostCompliance, Judgement, Verdict
from patchwave.campaign.remediation import AutomationStatus, RemedyState
from patchwave.campaign.values import RunId
from tests.domain.builders import CELL, NOW, RUN, host_id


def a_judgement(*hosts: tuple[Verdict, str]) -> Judgement:
    return Judgement(at=NOW, hosts=tuple(
        HostCompliance(host=host_id(n), cell=CELL, stage=stage, verdict=verdict, reason=f"it is {verdict.value}")
        for n, (verdict, stage) in enumerate(hosts)
    ))  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(Verdict), st.sampled_from(["dev", "staging", "prod", ""])), max_size=20),
    st.sets(st.sampled_from(["dev", "staging", "prod"])),
    st.sets(st.sampled_from(["dev", "staging", "prod"])),
)
def test_a_remedy_is_started_only_where_the_campaign_allows_it_and_the_run_has_patched(
    hosts: list[tuple[Verdict, str]], allowed: set[str], untouched: set[str]
) -> None:
    """Every host that is not compliant is named, with what is done or why nothing is; all others are left alone."""
    chosen = remediation.choose(RUN, a_judgement(*hosts), allowed=allowed, untouched=untouched)
    wrong = [host_id(n) for n, (verdict, _) in enumerate(hosts) if verdict is Verdict.NOT_COMPLIANT]
    assert [one.host for one in chosen] == wrong
    for one in chosen:
        assert (one.action == "automation") is (one.stage in allowed and one.stage not in untouched)
        assert one.reason
        assert bool(one.token) is (one.action == "automation")


def test_a_host_of_no_stage_is_never_remedied() -> None:
    """It was excluded from the plan, so nobody has agreed to anything about it."""
    (one,) = remediation.choose(RUN, a_judgement((Verdict.NOT_COMPLIANT, "")), allowed={"dev"}, untouched=())
    assert one.action == "none"


def test_nothing_is_remedied_while_a_stages_window_is_shut() -> None:
    """A remedy disrupts a host as a patch does; the other stage's hosts are remedied all the same."""
    judgement = a_judgement((Verdict.NOT_COMPLIANT, "dev"), (Verdict.NOT_COMPLIANT, "staging"))
    shut, open_ = remediation.choose(RUN, judgement, allowed={"dev", "staging"}, untouched=(), shut={"dev"})
    assert (shut.action, open_.action) == ("none", "automation")
    assert "window of stage dev is shut" in shut.reason


def test_a_token_is_a_uuid_of_the_run_and_the_host() -> None:
    """A replay starts nothing new; the next run, or the next host, does."""
    judgement = a_judgement((Verdict.NOT_COMPLIANT, "dev"), (Verdict.NOT_COMPLIANT, "dev"))
    first = remediation.choose(RUN, judgement, allowed={"dev"}, untouched=())
    again = remediation.choose(RUN, judgement, allowed={"dev"}, untouched=())
    other = remediation.choose(RunId("weekly-linux/next"), judgement, allowed={"dev"}, untouched=())
    assert first == again
    assert len({one.token for one in (*first, *other)}) == 4
    assert all(str(uuid.UUID(one.token)) == one.token for one in first)


def test_only_ended_states_end_an_automation() -> None:
    """What AWS does not say is not over."""
    over = {state for state in RemedyState if AutomationStatus(cell=CELL, id="a", state=state, status="").ended}
    assert over == {RemedyState.SUCCEEDED, RemedyState.FAILED, RemedyState.TIMED_OUT, RemedyState.CANCELLED}
