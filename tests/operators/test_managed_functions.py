"""Functions of a stage on a simulated Lambda: judged by the runtime version that it says they have."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.campaign import functions
from patchwave.campaign.functions import Function, Functions, Wanted
from patchwave.campaign.managed_services import Done, ManagedPlan, Rules
from patchwave.campaign.settling import Service, State
from tests.domain.builders import CELL
from tests.operators.test_managed_services import Managed
from tests.simulator.conftest import AMAZON, Aws

WORLD = f"name: functions{AMAZON}" + """\
fleets: []
functions:
  - {name: old, account: "111111111111", region: eu-central-1, runtime: python3.12, mode: FunctionUpdate, behind: 2, owner: shop}
  - {name: new, account: "111111111111", region: eu-central-1, runtime: python3.13, mode: FunctionUpdate, owner: shop}
  - {name: pinned, account: "111111111111", region: eu-central-1, runtime: python3.12, mode: Manual, behind: 2, owner: shop}
functions_timings: {update: [30, 30]}
"""


class ManagedFunctionsStage(Managed):
    """A stage of functions."""

    def __init__(self, aws: Aws, rule: Functions | None = None) -> None:
        super().__init__(aws)
        rule = rule or Functions()
        self.managed_rules = Rules.model_validate({"functions": rule})
        self.found = {one.name: one for one in self.gateway.functions(CELL, lambda tags: tags.get("Owner") == "shop")}
        planned = functions.planned(self.found.values(), rule, [], deadlines={}, now=self.now)
        self.plan = ManagedPlan(services=(Service.LAMBDA,), functions=planned)

    def of(self, name: str) -> Function:
        (one,) = self.gateway.functions_now(CELL, [name])
        return one


@pytest.fixture
def aws(start: Any) -> Aws:
    made: Aws = start(WORLD)
    return made


def test_a_function_gets_the_newest_version_of_its_runtime_and_a_pinned_one_is_left_alone(aws: Aws) -> None:
    """Proven by Lambda's own word before and after; its mode stays as it was."""
    stage = ManagedFunctionsStage(aws)
    assert stage.through(stage.managed("try-1")) == Done(classes={"already_compliant": 1, "excepted": 1, "patched": 1})
    old = stage.row("old")
    assert old.before == stage.found["old"].version != old.after == stage.of("old").version
    assert stage.of("old").mode == "FunctionUpdate"
    assert stage.row("new").state is State.ALREADY_COMPLIANT
    assert "pinned to arn:aws:lambda" in stage.row("pinned").reason
    assert stage.of("pinned").version == stage.found["pinned"].version


def test_a_policy_that_manages_modes_takes_a_function_off_its_pin(aws: Aws) -> None:
    """Mode first, then the update that brings the version."""
    stage = ManagedFunctionsStage(aws, Functions(update_on=Wanted.AUTO))
    assert isinstance(stage.through(stage.managed("try-1")), Done)
    assert {name: stage.of(name).mode for name in stage.found} == dict.fromkeys(stage.found, "Auto")
    assert stage.row("pinned").state is State.PATCHED
    assert stage.of("pinned").version == stage.of("old").version


@pytest.mark.parametrize("operation", ["UpdateFunctionConfiguration", "PutRuntimeManagementConfig"])
def test_a_lost_answer_is_adopted(aws: Aws, operation: str) -> None:
    """By the mode, and by when the function was changed last."""
    stage = ManagedFunctionsStage(aws, Functions(update_on=Wanted.AUTO))
    aws.control("faults", {"kind": "lost_answer", "service": "lambda", "operation": operation, "times": 1})
    done = stage.through(stage.managed("try-1"))
    assert done == Done(classes={"already_compliant": 1, "patched": 2})


def test_a_function_is_pinned_to_the_version_before(aws: Aws) -> None:
    """The way back that the plan names."""
    stage = ManagedFunctionsStage(aws)
    stage.through(stage.managed("try-1"))
    before = stage.found["old"].version
    one = next(one for one in stage.plan.functions if one.name == "old")
    stage.gateway.change_function(CELL, functions.SetMode(function=one, mode=functions.Mode.MANUAL, version=before))
    aws.advance(60.0)
    assert (stage.of("old").mode, stage.of("old").pinned) == ("Manual", before)
