"""Requests that hypothesis makes from the models: valid ones, ones with a single violation, and ones that are hardly requests.

Runs are the same each time. `PATCHWAVE_TEST_FUZZ=200` makes 200 examples of each operation instead of the default;
`PATCHWAVE_TEST_FUZZ_SEED=7` makes other ones, the same each time for one seed.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from awsim import constraints, registry, wire
from awsim.server import Simulator
from tests.simulator.conftest import BASE
from tests.simulator.vouched import models
from tests.simulator.vouched.direct import Direct
from tests.simulator.vouched.stage import STAGE, Facts, known_names, play
from tests.simulator.vouched.test_samples import ASKED

EXAMPLES = int(os.environ.get("PATCHWAVE_TEST_FUZZ", "3"))
SEED = os.environ.get("PATCHWAVE_TEST_FUZZ_SEED")
SLOW = 20.0
"""Real seconds after which a request counts as one that hangs."""

registry.load()


def _turn(pair: tuple[str, str]) -> tuple[int, str, str]:
    """Reads first, what destroys last, so that the others find something."""
    service, name = pair
    ends = name.startswith(("Delete", "Deregister", "Terminate", "Remove", "Stop"))
    reads = name.startswith(("Describe", "List", "Get", "Select"))
    return 0 if reads else 2 if ends else 1, service, name


OPERATIONS = sorted(registry.registered(), key=_turn)
CHECKED = [pair for pair in OPERATIONS if registry.find(*pair).check]
BY_JSON = [pair for pair in OPERATIONS if models.model(pair[0]).metadata["protocol"] in ("json", "rest-json")]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    path = tmp_path_factory.mktemp("fuzz") / "world.yaml"
    path.write_text(STAGE, encoding="utf-8")
    return Simulator(world=Path(path), speed=0, seed=1, base=BASE, sleep=lambda _: None)


class Target:
    """A simulator in which something has happened, played again for each law."""

    def __init__(self, simulator: Simulator) -> None:
        self.direct = Direct(simulator)
        self.played = ""
        self.known: dict[str, list[str]] = {}
        self.facts = Facts()
        self.answered: dict[tuple[str, str], list[bool]] = {}
        """Whether each valid request was answered and not refused, by operation."""

    def of(self, law: str) -> "Target":
        if self.played != law:
            self.direct.simulator.restart()
            self.facts = play(self.direct)
            self.known = known_names(self.facts)
            self.played = law
        return self

    def requests(self, service: str, name: str) -> st.SearchStrategy[dict[str, Any]]:
        """Valid ones by the model; every other one is near to a request of which the samples show the answer."""
        made = models.requests(service, name, self.known)
        near = []
        for key, request in ASKED.items():
            if key.partition("/")[0] in (name, f"{service}:{name}"):
                with contextlib.suppress(KeyError):  # of something that is not played here
                    near.append(models.around(service, name, request(self.facts), self.known))
        return st.one_of(st.one_of(near), made) if near else made

    def ask(self, service: str, name: str, request: dict[str, Any]) -> tuple[int, str, str, dict[str, Any]]:
        """Status, error code, message, parsed answer."""
        client = self.direct.client(service)
        began = time.monotonic()
        try:
            answer = client._make_api_call(name, request)
        except ClientError as refused:
            error, answer = refused.response.get("Error", {}), refused.response
            return answer["ResponseMetadata"]["HTTPStatusCode"], error.get("Code") or "", error.get("Message") or "", {}
        finally:
            assert time.monotonic() - began < SLOW, f"{service} {name} hangs with {request}"
        status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
        return status, "", "", answer


@pytest.fixture(scope="module")
def target(simulator: Simulator) -> Target:
    return Target(simulator)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What handlers returned, before the serialiser drops members that no model knows."""
    returned: list[Any] = []
    real = wire.serialize

    def watch(call: Any, result: dict[str, Any], request_id: str) -> Any:
        returned.append(result)
        return real(call, result, request_id)

    monkeypatch.setattr(wire, "serialize", watch)
    return returned


def examples(number: int) -> Callable[[Any], Any]:
    """Without shrinking: the state of the world is part of an example, and it has moved on."""
    chosen = settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=SEED is None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    return chosen if SEED is None else lambda law: seed(SEED)(chosen(law))


@pytest.mark.parametrize(("service", "name"), OPERATIONS, ids=lambda word: word)
def test_a_valid_request_is_answered_in_the_models_shape_or_refused(service, name, target, results):
    """Never a 500, never a hang; no member that the model does not know, none missing that it requires."""
    aim = target.of("valid")
    shape = models.model(service).operation_model(name).output_shape

    @examples(EXAMPLES)
    @given(request=aim.requests(service, name), later=st.sampled_from([0, 0, 0, 0, 0, 45, 400]))
    def law(request: dict[str, Any], later: float) -> None:
        results.clear()
        status, code, message, answer = aim.ask(service, name, request)
        assert status < 500, f"{service} {name} answers {status} {code} {message} to {request}"
        assert status < 300 or code, f"{service} {name} refuses without a code: {request}"
        aim.answered.setdefault((service, name), []).append(status < 300)
        assert "detected" not in message or "maxRecords" in message, f"{service} {name} refuses a valid request: {message}"
        if shape is not None and status < 300:
            assert _unlike(shape, answer) == []
            for result in results[-1:] if name not in MOTOS_ROWS else []:
                assert _unlike(shape, _dated(result)) == []
        aim.direct.simulator.advance(later)

    law()


def test_a_fuzz_that_only_collects_refusals_would_vouch_for_nothing(target):
    """Of the valid requests a good part is answered, for most operations at least one: identifiers exist, the state is there."""
    asked = target.answered
    if set(asked) != set(OPERATIONS):
        pytest.skip("only a part of the operations was asked")
    never = sorted(name for (_, name), rows in asked.items() if not any(rows))
    share = sum(sum(rows) for rows in asked.values()) / sum(len(rows) for rows in asked.values())
    print(f"{share:.0%} answered; never answered: {', '.join(never)}")
    assert share > 0.4
    assert len(never) < len(asked) / 3, never


@pytest.mark.parametrize(("service", "name"), CHECKED, ids=lambda word: word)
def test_every_single_violation_is_refused_with_the_code_of_the_protocol(service, name, target):
    """Required, minimum, maximum, enum and pattern: AWS says which member and which constraint."""
    code = constraints.CODE_OF_PROTOCOL.get(models.model(service).metadata["protocol"], "ValidationException")
    wrong = []
    for case in models.broken(service, name, frozenset(constraints.LOOSER_THAN_MODEL)):
        status, told, message, _ = target.ask(service, name, case.request)
        if (status, told) != (400, code) or case.sentence not in message:
            wrong.append(f"{case.where}: {case.sentence}: {status} {told} {message[:150]}")
    assert wrong == []


MOTOS_ROWS = {"DescribeConfigRules"}
"""Their handlers return moto's rows with members of moto's own, which the serialiser drops."""

NOT_SAID = {"errorCode is required and absent", "errorMessage is required and absent"}
"""inspector2's State requires both, and Inspector leaves them out where nothing is wrong."""


def _unlike(shape: Any, answer: dict[str, Any]) -> list[str]:
    return [told for told in models.unlike(shape, answer) if not told.endswith(tuple(NOT_SAID))]


SPOILT = st.sampled_from([None, [], {}, "", "x" * 300, -1, 1.5, True, 10**30, [[]], {"a": {}}, ["é\x00"]])


@pytest.mark.parametrize(("service", "name"), OPERATIONS, ids=lambda word: word)
def test_what_is_hardly_a_request_is_refused_and_not_tripped_over(service, name, target):
    """Members of a wrong type, unknown members, half a body: a client's mistake, hence 4xx or an answer."""
    aim = target.of("spoilt")
    by_json = (service, name) in BY_JSON

    @examples(EXAMPLES)
    @given(request=aim.requests(service, name), data=st.data())
    def law(request: dict[str, Any], data: st.DataObject) -> None:
        aim.direct.mangle = (lambda body: _spoil_json(body, data)) if by_json else (lambda body: _spoil_form(body, data))
        try:
            status, code, message, _ = aim.ask(service, name, request)
        except ResponseParserError as unreadable:
            raise AssertionError(f"{service} {name}: an answer that no client reads: {unreadable}") from unreadable
        finally:
            aim.direct.mangle = None
        assert status < 500, f"{service} {name} answers {status} {code} {message}"

    law()


def _dated(value: Any) -> Any:
    """Handlers of mostly-moto operations return moto's own parsed answers; both have datetimes."""
    if isinstance(value, dict):
        return {key: _dated(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dated(inner) for inner in value]
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


def _spoil_json(body: bytes, data: st.DataObject) -> bytes:
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(st.sampled_from([b"", b"[]", b"null", b"{", b"\xff\xfe", b'"text"', b"{}}", body[: len(body) // 2]]))
    tree = json.loads(body or b"{}")
    places = list(_places(tree))
    if not places or data.draw(st.integers(0, 5)) == 0:
        tree["NoSuchMember"] = data.draw(SPOILT)
        return json.dumps(tree).encode()
    *way, last = data.draw(st.sampled_from(places))
    inner = tree
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(SPOILT)
    return json.dumps(tree).encode()


def _spoil_form(body: bytes, data: st.DataObject) -> bytes:
    fields = body.decode().split("&")
    where = data.draw(st.integers(0, len(fields) - 1))
    key = fields[where].partition("=")[0]
    if key in ("Action", "Version"):
        return body + b"&NoSuchMember.1.x=%ff"
    garbled = data.draw(st.sampled_from(["=", "=-1", "=x", "=%00", ".1=x", ".member.1=x", ".member.x=1", "=" + "9" * 40, ""]))
    fields[where] = key + garbled
    return "&".join(fields).encode()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"InstanceIds": "i-0123456789abcdef0"}', "STRING_VALUE can not be converted to List"),
        (b'{"InstanceIds": [{}]}', "Start of structure or map found where not expected."),
        (b'{"InstanceIds": ["i-0123456789abcdef0"], "MaxResults": "ten"}', "STRING_VALUE can not be converted to Integer"),
    ],
)
def test_a_value_of_a_wrong_type_is_a_serialization_exception(body, sentence, target):
    """Before any other check, as AWS's deserialiser comes first."""
    target.direct.mangle = lambda _: body
    try:
        told = target.ask("ssm", "DescribeInstancePatchStates", {"InstanceIds": ["i-0123456789abcdef0"]})
    finally:
        target.direct.mangle = None
    assert told[:3] == (400, "SerializationException", sentence)
