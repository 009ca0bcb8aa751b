"""Policy files: deadlines, the matrix and the kernel."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import policy
from patchwave.campaign.deadlines import SeverityDays
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import Severity
from patchwave.campaign.policy import Policy, Reboot, Track

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "include" / "policies"
STANDARD = (POLICIES / "standard.yaml").read_text()
SHIPPED = sorted(POLICIES.glob("*.yaml"))


def changed(old: str, new: str) -> str:
    """The standard policy with one thing changed; fails if the thing is not there."""
    assert old in STANDARD, f"the test changes {old!r}, which the standard policy does not hold"
    return STANDARD.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    """The line on which a part stands."""
    return text[: text.index(part)].count("\n") + 1


@pytest.fixture
def standard() -> Policy:
    return policy.read(POLICIES / "standard.yaml")


@pytest.fixture
def strict() -> Policy:
    return policy.read(POLICIES / "strict.yaml")


def test_the_standard_deadlines_are_those_of_their_source(standard: Policy):
    """CISA BOD 19-02: critical 15 and high 30 days from detection. FedRAMP ConMon: moderate 90 and low 180."""
    assert isinstance(standard.deadlines, SeverityDays)
    given_days = [
        standard.deadlines.of(severity) for severity in (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
    ]
    assert given_days == [timedelta(days=days) for days in (15, 30, 90, 180)]
    assert standard.deadlines.of(Severity.INFORMATIONAL) is None
    assert "BOD 19-02" in standard.source


@pytest.mark.parametrize("name", ["standard", "strict"])
def test_an_untriaged_finding_has_the_time_of_a_high_one(name: str):
    """Unknown is not harmless."""
    deadlines = policy.read(POLICIES / f"{name}.yaml").deadlines
    assert isinstance(deadlines, SeverityDays)
    assert deadlines.of(Severity.UNTRIAGED) == deadlines.of(Severity.HIGH)


def test_the_strict_policy_is_stricter_in_everything(standard: Policy, strict: Policy):
    """No severity has more time."""
    assert isinstance(standard.deadlines, SeverityDays)
    assert isinstance(strict.deadlines, SeverityDays)
    for severity in Severity:
        lax, hard = standard.deadlines.of(severity), strict.deadlines.of(severity)
        assert hard is not None
        assert lax is None or hard < lax


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_policies_reboot_who_needs_it(path: Path):
    """A patch that waits for a reboot protects nobody, and Systems Manager calls its host not compliant."""
    assert policy.read(path).reboot is Reboot.IF_NEEDED


@pytest.mark.parametrize(
    "package", ["kernel", "kernel-core", "kernel6.12", "linux-image-6.8.0-1015-aws", "linux-aws", "linux-modules-6.8.0-1015-aws"]
)
def test_a_kernel_is_a_kernel_on_every_platform(package: str, standard: Policy):
    """Amazon Linux, Red Hat, Ubuntu and Debian call it differently."""
    assert standard.kernel.includes(package)


@pytest.mark.parametrize(
    "package",
    [
        "openssl",
        "kernel-headers",
        "kernel-livepatch-6.1.119",
        "kernel6.12-headers",
        "linux-libc-dev",
        "python3-kernel",
        "kernelx",
    ],
)
def test_what_is_only_called_like_a_kernel_is_none(package: str, standard: Policy):
    """Headers and live patches need no reboot."""
    assert not standard.kernel.includes(package)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
@given(kernel=st.booleans(), exploit=st.booleans(), severity=st.sampled_from(list(Severity)))
def test_every_finding_of_a_host_has_a_row(path: Path, kernel: bool, exploit: bool, severity: Severity):
    """Nothing falls through the matrix."""
    rows = policy.read(path).matrix
    assert any(
        row.matches(resource_type="AWS_EC2_INSTANCE", kernel=kernel, severity=severity, exploit_known=exploit) for row in rows
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_stored_policy_is_read_back_as_it_was(path: Path):
    """A run works from the copy."""
    read = policy.read(path)
    again = Policy.from_json(read.to_json())
    assert again == read
    assert again.digest == read.digest


def test_a_matrix_without_due_within_is_stored_as_it_always_was():
    """A gate names two policies by their digests: a condition that no row has must not make them differ."""
    assert "due_within" not in policy.read(POLICIES / "standard.yaml").to_json()
    assert '"due_within":"14d"' in policy.read(POLICIES / "bod-26-04.yaml").to_json()


REFUSED = [
    pytest.param(
        "  critical: 15",
        "  critical: 15d",
        "  critical: 15d",
        "deadlines.critical",
        "found '15d'; allowed is a whole number of days",
        id="with unit",
    ),
    pytest.param("  critical: 15", "  critical: -1", "  critical: -1", "deadlines.critical", "from 0 to 3650", id="negative"),
    pytest.param("  critical: 15", "  critical: 1.5", "  critical: 1.5", "deadlines.critical", "whole number", id="half a day"),
    pytest.param("  critical: 15", "  critical: true", "  critical: true", "deadlines.critical", "found true", id="yes"),
    pytest.param(
        "  critical: 15", "  critical: 31", "  critical: 31", "deadlines.critical", "later than high", id="later than high"
    ),
    pytest.param("  critical: 15", "  critical: null", "  critical: null", "deadlines.critical", "later than high", id="never"),
    pytest.param(
        "  untriaged: 30", "  untriage: 30", "  untriage", "deadlines.untriage", "did you mean 'untriaged'", id="unknown severity"
    ),
    pytest.param("  untriaged: 30", "  ", "deadlines:", "deadlines.untriaged", "is missing", id="no untriaged"),
    pytest.param(
        "track: critical",
        "track: urgent",
        "track: urgent",
        "matrix[2].track",
        "'critical', 'standard', 'kernel'",
        id="unknown track",
    ),
    pytest.param(
        "track: standard",
        "track: not_patchable",
        "track: not_patchable",
        "matrix[4].track",
        "is a fact, not a row",
        id="fact as row",
    ),
    pytest.param(
        "severities: [critical]",
        "severities: [urgent]",
        "severities: [urgent]",
        "matrix[2].severities[0]",
        "'critical', 'high'",
        id="severity",
    ),
    pytest.param(
        "    kernel: true\n",
        "",
        "  - track: kernel",
        "matrix[1]",
        "matches everything.*allowed is last",
        id="open row in the middle",
    ),
    pytest.param("reboot: if_needed", "reboot: always", "reboot: always", "reboot", "'if_needed' or 'never'", id="reboot"),
    pytest.param("name: standard", "name: Standard", "name: Standard", "name", "lower-case letters", id="name"),
    pytest.param(
        "[kernel, ", "['kernel (x)', ", "amazon_linux", "kernel.packages.amazon_linux[0]", "a package name in which", id="pattern"
    ),
]


@pytest.mark.parametrize(("old", "new", "where", "field", "message"), REFUSED)
def test_a_mistake_is_refused_with_file_line_field_and_what_is_allowed(old: str, new: str, where: str, field: str, message: str):
    """As for campaign files: one sentence from which a person can mend the file."""
    text = changed(old, new)
    with pytest.raises(InvalidFile, match=message) as caught:
        policy.parse(text, file="standard.yaml")
    assert any(problem.startswith(f"standard.yaml:{line_of(text, where)}: {field}: ") for problem in caught.value.problems)


def test_a_matrix_whose_last_row_has_conditions_is_refused():
    """Or a finding could be left without a track."""
    text = STANDARD.replace("  - track: standard\n", "  - track: standard\n    severities: [low]\n")
    with pytest.raises(InvalidFile, match=r"matrix\[4\]: has conditions; allowed is a last row without any"):
        policy.parse(text, file="standard.yaml")


def test_a_policy_is_called_like_its_file(tmp_path: Path):
    """Campaigns name the file, records name the policy: they are one name."""
    path = tmp_path / "other.yaml"
    path.write_text(STANDARD)
    with pytest.raises(InvalidFile, match=r"other\.yaml:2: name: found 'standard'; allowed is the name of the file, 'other'"):
        policy.read(path)


def test_a_broken_policy_never_takes_the_others_away(tmp_path: Path):
    """Good policies are there, and each broken file is named with its problems."""
    (tmp_path / "standard.yaml").write_text(STANDARD)
    (tmp_path / "a-broken.yaml").write_text("name: [")
    policies, broken = policy.read_all(tmp_path)
    assert [one.name for one in policies] == ["standard"]
    assert [one.file.name for one in broken] == ["a-broken.yaml"]


def test_the_tracks_are_the_words_of_the_matrix():
    """One vocabulary in the policy, the ledger and the pages."""
    assert [track.value for track in Track] == [
        "critical",
        "standard",
        "kernel",
        "managed_service",
        "remediation",
        "not_patchable",
    ]


def test_the_schema_for_editors_is_that_of_the_model():
    """Made, not written: on a difference store `policy.schema_text()` as docs/policy.schema.json."""
    assert (ROOT / "docs" / "policy.schema.json").read_text() == policy.schema_text()


def test_every_field_has_a_description():
    """The schema is the manual that an editor shows."""
    schema = json.loads(policy.schema_text())
    lacking = [
        f"{name}.{field}"
        for name, part in {"Policy": schema, **schema["$defs"]}.items()
        for field, about in part.get("properties", {}).items()
        if not about.get("description")
    ]
    assert lacking == []


# --- where a kernel may be installed -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_policy_has_a_kernel_wait_for_a_window(file: Path):
    """The matrix of the architecture is the shipped default (rule 7 of a rollout)."""
    assert policy.read(file).kernel.waits


def test_a_policy_that_says_nothing_of_windows_means_and_is_what_it_was():
    """Kernels are installed wherever a stage patches, and its digest is that of before, by which gates tell what has changed."""
    old = policy.parse(STANDARD.replace("  window: required", "  #", 1), file="standard.yaml")
    said = policy.parse(changed("window: required", "window: not_required"), file="standard.yaml")
    assert not old.kernel.waits
    assert "window" not in old.model_dump(mode="json")["kernel"]
    assert old.digest == said.digest != policy.parse(STANDARD, file="standard.yaml").digest
    stored = json.loads(policy.parse(STANDARD, file="standard.yaml").model_dump_json(by_alias=True))
    assert Policy.model_validate(stored).kernel.waits


def test_a_kernels_window_is_required_or_not():
    """With the line, and the allowed words."""
    with pytest.raises(InvalidFile, match=r"kernel\.window: found 'nightly'.*'required' or 'not_required'"):
        policy.parse(changed("window: required", "window: nightly"), file="standard.yaml")
