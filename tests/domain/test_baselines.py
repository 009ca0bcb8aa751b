"""Patch baselines: what a policy may say of them, what an account has otherwise, and what an override is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchwave.campaign import baselines, policy
from patchwave.campaign.baselines import Apply, Approval, Baseline, Found, OperatingSystem, PatchBaseline
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.policy import Policy
from tests.domain.builders import CELL

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STANDARD = (ROOT / "include" / "policies" / "standard.yaml").read_text(encoding="utf-8")
SECTION = """baselines:
  - operating_system: AMAZON_LINUX_2023
    rules:
      - track: critical
        filters: {CLASSIFICATION: [Security], SEVERITY: [Critical, Important]}
      - track: standard
        filters: {CLASSIFICATION: [Bugfix]}
        compliance_level: LOW
      - track: standard
        filters: {PRODUCT: ["*"]}
        approve_until_date: 2026-12-31
        enable_non_security: true
    rejected_patches: ["docker*"]
    rejected_patches_action: BLOCK
  - operating_system: UBUNTU
    rules:
      - track: critical
        filters: {PRIORITY: [Required, Important], SECTION: [libs]}
    approved_patches: ["openssl*"]
    approved_patches_compliance_level: HIGH
"""
WITH_SECTION = STANDARD + SECTION


def read(text: str = WITH_SECTION) -> Policy:
    return policy.parse(text, file="standard.yaml")


@pytest.fixture
def amazon() -> Baseline:
    return baselines.wanted(read().baselines, policy="standard")[0]


def refused(old: str, new: str) -> str:
    assert old in WITH_SECTION
    with pytest.raises(InvalidFile) as error:
        read(WITH_SECTION.replace(old, new, 1))
    return "\n".join(error.value.problems)


# --- The policy file --------------------------------------------------------------------------------------------------------


def test_a_critical_rule_approves_at_once_and_a_standard_one_after_a_week():
    """The patch decision matrix: baseline with 0 days for what is critical, 7 days for the rest; or a day instead."""
    its, ubuntu = read().baselines
    assert [rule.days for rule in its.rules] == [0, 7, None]
    assert [rule.days for rule in ubuntu.rules] == [0]


def test_what_is_critical_to_the_matrix_is_critical_to_systems_manager(amazon: Baseline):
    """With AWS's own level, UNSPECIFIED, CriticalNonCompliantCount is always 0, and a gate on it always open."""
    assert [rule.level for rule in amazon.rules] == ["CRITICAL", "LOW", "UNSPECIFIED"]


def test_a_policy_with_baselines_is_read_back_as_it_was():
    """A run works from the copy."""
    assert Policy.from_json(read().to_json()) == read()


def test_a_policy_without_baselines_is_the_same_as_ever():
    """Its digest tells a gate whether it has changed since an approval: a new section that is not used must not."""
    without = read(STANDARD)
    assert without.baselines == ()
    assert "baselines" not in without.to_json()
    assert without.digest != read().digest


REFUSED = [
    pytest.param("Critical, Important", "Critical, Moderate", "baselines[0].rules[0].filters.SEVERITY[1]: found 'Moderate'; "
                 "allowed as SEVERITY of AMAZON_LINUX_2023 is Critical, Important, Medium, Low, *", id="Red Hat's word"),
    pytest.param("{CLASSIFICATION: [Bugfix]}", "{MSRC_SEVERITY: [Critical]}", "rules[1].filters.MSRC_SEVERITY: is no "
                 "filter of AMAZON_LINUX_2023; allowed are PRODUCT, CLASSIFICATION, SEVERITY", id="Microsoft's filter"),
    pytest.param('["*"]', "[AmazonLinux2]", "filters.PRODUCT[0]: found 'AmazonLinux2'; allowed as PRODUCT of AMAZON_LINUX_2023 "
                 "is a name such as AmazonLinux2023, or *", id="another product"),
    pytest.param("[Bugfix]", "[]", "filters.CLASSIFICATION: found an empty list; allowed is a list with at least one entry",
                 id="no value"),
    pytest.param("system: UBUNTU", "system: AMAZON_LINUX_2023", "baselines[1].rules[0].filters.PRIORITY: is no filter of AMAZON",
                 id="Debian's filters on RPM"),
    pytest.param("system: UBUNTU", "system: ubuntu", "baselines[1].operating_system: found 'ubuntu'; allowed is 'ALMA_LINUX', ",
                 id="not AWS's spelling"),
    pytest.param("track: critical\n        filters: {PRIORITY", "track: standard\n        filters: {PRIORITY",
                 "baselines[1].rules[0].approve_after_days: is not supported by AWS for UBUNTU, whose packages have no release "
                 "date, so no wait would hold; allowed is approve_after_days: 0", id="Ubuntu does not wait"),
    pytest.param("SEVERITY: [Critical, Important]}", "SEVERITY: [Critical]}\n        approve_after_days: 3",
                 "rules[0].approve_after_days: makes a rule of the track critical wait; allowed is nothing", id="slow critical"),
    pytest.param("        compliance_level: LOW", "        approve_after_days: 361", "approve_after_days: found the number 361; "
                 "allowed is less than or equal to 360", id="too long"),
    pytest.param("date: 2026-12-31", "date: 2026-12-31\n        approve_after_days: 3", "approve_until_date: is given beside "
                 "approve_after_days; allowed is one", id="both"),
    pytest.param("date: 2026-12-31", "date: 31.12.2026", "approve_until_date: found '31.12.2026'; allowed is a day such as "
                 "2026-12-31", id="another day"),
    pytest.param("level: LOW", "level: low", "compliance_level: found 'low'; allowed is 'CRITICAL', 'HIGH'", id="level"),
    pytest.param("action: BLOCK", "action: REFUSE", "rejected_patches_action: found 'REFUSE'; allowed is "
                 "'ALLOW_AS_DEPENDENCY' or 'BLOCK'", id="action"),
    pytest.param('approved_patches: ["openssl*"]', 'approved_patches: [a]\n    rejected_patches: [a]', "rejected_patches: "
                 "holds a, which is approved as well; allowed is one of both", id="yes and no"),
    pytest.param('["openssl*"]', f"{['x' + str(number) for number in range(51)]}", "at most 50 items", id="51 packages"),
    pytest.param("track: critical\n        filters: {CLASS", "track: kernel\n        filters: {CLASS",
                 "rules[0].track: found 'kernel'; allowed is 'critical' or 'standard'", id="track"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_a_mistake_in_a_baseline_is_refused_with_line_field_and_what_is_allowed(old: str, new: str, message: str):
    """AWS takes some of these and approves nothing then, which nobody would see."""
    told = refused(old, new)
    assert message in told
    assert all(one.startswith("standard.yaml:") for one in told.splitlines())


def test_the_message_names_the_line():
    """Of the word itself, not of the section."""
    line = WITH_SECTION[: WITH_SECTION.index("filters: {CLASSIFICATION: [Security]")].count("\n") + 1
    assert refused("Critical, Important", "Critical, Moderate").startswith(f"standard.yaml:{line}: ")


@pytest.mark.parametrize("system", ["WINDOWS", "MACOS"])
def test_packages_without_an_advisory_are_a_matter_of_linux(system: str):
    """API reference, PatchRule: EnableNonSecurity applies to Linux managed nodes only."""
    rule = {"track": "critical", "filters": {"PRODUCT": ["*"]}, "enable_non_security": True}
    with pytest.raises(ValueError, match=f"is for Linux only; allowed for {system} is false"):
        PatchBaseline.model_validate({"operating_system": system, "rules": [rule]})


def test_an_operating_system_has_one_baseline():
    """AWS registers one for a group, and reads one of an override."""
    again = SECTION.partition("  - operating_system: UBUNTU")[2]
    told = WITH_SECTION + f"  - operating_system: UBUNTU{again}"
    with pytest.raises(InvalidFile, match=r"baselines\[2\].operating_system: found UBUNTU again, first at baselines\[1\]"):
        read(told)


# --- The tables of words ----------------------------------------------------------------------------------------------------


def test_every_operating_system_of_systems_manager_has_its_filters():
    """botocore's model of ssm: the enum of OperatingSystem, and PatchFilterKey for the filters."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("ssm")
    assert {one.value for one in OperatingSystem} == {*model.shape_for("OperatingSystem").enum} == {*baselines.FILTERS}
    assert {name for its in baselines.FILTERS.values() for name in its} <= {*model.shape_for("PatchFilterKey").enum}


@pytest.mark.parametrize(("systems", "names"), [
    # API reference, DescribePatchProperties: "Valid properties"; PatchFilter adds SECTION and PATCH_SET
    (["AMAZON_LINUX", "AMAZON_LINUX_2", "AMAZON_LINUX_2023", "CENTOS", "ORACLE_LINUX", "REDHAT_ENTERPRISE_LINUX", "SUSE"],
     {"PRODUCT", "CLASSIFICATION", "SEVERITY"}),
    (["DEBIAN", "UBUNTU"], {"PRODUCT", "PRIORITY", "SECTION"}),
    (["MACOS"], {"PRODUCT", "CLASSIFICATION"}),
    (["WINDOWS"], {"PRODUCT", "PRODUCT_FAMILY", "CLASSIFICATION", "MSRC_SEVERITY", "PATCH_SET"}),
])  # fmt: skip
def test_filters_are_those_of_aws_s_page(systems: list[str], names: set[str]):
    """Another one is refused by AWS, or matches nothing."""
    for system in systems:
        assert {*baselines.FILTERS[OperatingSystem(system)]} == names


@pytest.mark.skipif(not DATA.exists(), reason="the samples of AWS's documentation are not here")
def test_the_baselines_that_aws_s_pages_print_speak_our_words():
    """A word of theirs that we refuse would be our mistake."""
    seen = 0
    for path in sorted([*DATA.glob("awsdocs-ssm/patch-manager-*/*.json"), *DATA.glob("aws-cli-examples/ssm/*baseline*/*.json")]):
        found = json.loads(path.read_text(encoding="utf-8"))
        for one in found if isinstance(found, list) else [found]:
            if not isinstance(one, dict) or not one.get("ApprovalRules"):
                continue
            words = baselines.FILTERS[OperatingSystem(one.get("OperatingSystem", "WINDOWS"))]
            for rule in one["ApprovalRules"]["PatchRules"]:
                for written in rule["PatchFilterGroup"]["PatchFilters"]:
                    seen += 1
                    assert all(words[written["Key"]].allow(value) for value in written["Values"]), (path, written)
    assert seen >= 10
    products = json.loads((DATA / "aws-cli-examples/ssm/describe-patch-properties/01.output.json").read_text())["Properties"]
    words = baselines.FILTERS[OperatingSystem.AMAZON_LINUX]
    assert all(words["PRODUCT"].allow(one["Name"]) for one in products)


@pytest.mark.parametrize(("platform", "system"), [
    ("Amazon Linux 2023", "AMAZON_LINUX_2023"), ("Amazon Linux 2", "AMAZON_LINUX_2"),
    ("Amazon Linux AMI 2018.03", "AMAZON_LINUX"),
    ("Ubuntu 22.04", "UBUNTU"), ("Debian GNU/Linux 12", "DEBIAN"), ("Red Hat Enterprise Linux 9.4", "REDHAT_ENTERPRISE_LINUX"),
    ("SLES 15.5", "SUSE"), ("Microsoft Windows Server 2022 Datacenter 10.0.20348", "WINDOWS"), ("Rocky Linux 9.3", "ROCKY_LINUX"),
    ("CentOS Linux 7", "CENTOS"), ("Oracle Linux Server 8.9", "ORACLE_LINUX"), ("AlmaLinux 9.3", "ALMA_LINUX"),
    ("macOS 14", "MACOS"), ("unknown", None), ("Bottlerocket OS 1.19", None),
])  # fmt: skip
def test_a_platform_is_told_by_the_name_that_systems_manager_reports(platform: str, system: str | None):
    """`PlatformName` and `PlatformVersion` of DescribeInstanceInformation."""
    assert baselines.operating_system(platform) == system


# --- Drift ------------------------------------------------------------------------------------------------------------------


def found(baseline: Baseline, **changed: Any) -> Found:
    own = replace(baseline, id="pb-0123456789abcdef0", **changed)
    return Found(own=own, used={"linux-prod": own}, registered=frozenset({"linux-prod"}))


def test_nothing_is_said_of_a_baseline_as_it_should_be(amazon: Baseline):
    """The order of rules and of values means nothing to AWS."""
    assert baselines.drift(amazon, found(amazon)) == ()
    assert baselines.drift(amazon, found(amazon, rules=amazon.rules[::-1])) == ()


def test_a_baseline_that_is_not_there_is_told_with_what_it_would_approve(amazon: Baseline):
    """Who reads the plan sees the difference between nothing and something."""
    (one,) = baselines.drift(amazon, Found(own=None))
    assert one.what == "baseline"
    assert one.sentence.startswith(
        "baseline patchwave-standard-amazon-linux-2023 does not exist; it would approve CLASSIFICATION Security and "
        "SEVERITY Critical, Important: 0 days after release, level CRITICAL; "
    )
    assert "PRODUCT *: if released by 2026-12-31, level UNSPECIFIED, also without an advisory" in one.sentence


def test_every_part_that_is_otherwise_is_one_sentence(amazon: Baseline):
    """With what is there and what is wanted."""
    first, *others = amazon.rules
    odd = Approval(filters=baselines.filters_of({"SEVERITY": ["Low"]}), after_days=1)
    there = found(
        amazon, rules=(replace(first, after_days=30), odd, *others[1:]), rejected=(), rejected_action="ALLOW_AS_DEPENDENCY",
        global_filters=baselines.filters_of({"PRODUCT": ["AmazonLinux2023"]}), sources=("mine",), approved=("a", "b"),
        approved_level="HIGH", approved_non_security=True,
    )  # fmt: skip
    name = "baseline patchwave-standard-amazon-linux-2023"
    assert [one.sentence for one in baselines.drift(amazon, there)] == [
        f"{name} approves CLASSIFICATION Security and SEVERITY Critical, Important: 30 days after release, level CRITICAL; "
        "wanted is: 0 days after release, level CRITICAL",
        f"{name} has no rule for CLASSIFICATION Bugfix; wanted is: 7 days after release, level LOW",
        f"{name} approves SEVERITY Low: 1 days after release, level UNSPECIFIED; the policy wants no such rule",
        f"{name} approves by name a, b; wanted is nothing",
        f"{name} gives those the level HIGH; wanted is UNSPECIFIED",
        f"{name} takes those without an advisory: yes; wanted is no",
        f"{name} rejects nothing; wanted is docker*",
        f"{name} treats those as ALLOW_AS_DEPENDENCY; wanted is BLOCK",
        f"{name} looks only at PRODUCT AmazonLinux2023; wanted is nothing",
        f"{name} has other repositories: mine; wanted is nothing",
    ]


def test_hosts_that_another_baseline_patches_are_named_by_group_with_what_it_does(amazon: Baseline):
    """A wanted baseline that nobody is patched by is worth nothing."""
    other = replace(amazon, id="pb-00000000000000001", name="linux-al2023", rules=amazon.rules[:2])
    default = replace(amazon, id="arn:aws:ssm:x:1:patchbaseline/pb-2", name="AWS-AmazonLinux2023DefaultPatchBaseline")
    there = replace(
        found(amazon),
        used={**found(amazon).used, "linux-dev": other, "linux-test": other, "late": default},
        registered=frozenset({"linux-prod", "linux-dev", "linux-test"}),
    )
    said = [one.sentence for one in baselines.drift(amazon, there)]
    assert said == [
        "hosts of patch group late are patched by baseline AWS-AmazonLinux2023DefaultPatchBaseline (pb-2), by the account's "
        "default, not by patchwave-standard-amazon-linux-2023",
        "hosts of patch group linux-dev, linux-test are patched by baseline linux-al2023 (pb-00000000000000001), not by "
        "patchwave-standard-amazon-linux-2023",
        "baseline linux-al2023 has no rule for PRODUCT *; wanted is: if released by 2026-12-31, level UNSPECIFIED, also without "
        "an advisory",
    ]


def test_a_baseline_of_somebody_else_under_our_name_is_never_changed(amazon: Baseline):
    """And not compared: it is not ours to put right."""
    (one,) = baselines.drift(amazon, found(amazon, description="made by hand", rules=()))
    assert "was not made for this policy, so it is never changed" in one.sentence


def test_names_are_as_aws_takes_them_and_tell_policies_apart():
    """botocore: 3 to 128 letters, digits, dots, dashes."""
    assert baselines.name_of("standard", OperatingSystem.UBUNTU) == "patchwave-standard-ubuntu"
    long = [baselines.name_of("x" * 99 + last, OperatingSystem.REDHAT_ENTERPRISE_LINUX) for last in "ab"]
    assert all(len(name) <= 128 for name in long)
    assert long[0] != long[1]


# --- What a run does about it -------------------------------------------------------------------------------------------------


def test_a_run_changes_no_baseline_unless_the_policy_says_so():
    """The default is what policies of before meant, and their digest is that of before."""
    assert read().apply_baselines is Apply.NONE
    assert "apply_baselines" not in read().model_dump(mode="json")
    said = read(f"{WITH_SECTION}apply_baselines: create_and_update\n")
    assert said.apply_baselines is Apply.CREATE_AND_UPDATE
    assert Policy.model_validate(json.loads(said.to_json())) == said
    assert said.digest != read().digest == read(f"{WITH_SECTION}apply_baselines: none\n").digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{STANDARD}apply_baselines: create_and_update\n", "there is no section `baselines` to apply; allowed is none"),
        (f"{WITH_SECTION}apply_baselines: replace\n", "'none', 'create_and_update', 'take_over_groups' or 'override'"),
    ],
)
def test_what_cannot_be_applied_is_refused(text: str, told: str):
    """With what is allowed instead."""
    with pytest.raises(InvalidFile) as error:
        read(text)
    assert told in "\n".join(error.value.problems)


@pytest.mark.parametrize(
    ("apply", "groups", "takes"),
    [(Apply.NONE, (), {}), (Apply.CREATE_AND_UPDATE, ("free",), {}), (Apply.TAKE_OVER_GROUPS, ("free",), {"taken": "pb-1"})],
)
def test_only_a_free_group_is_registered_unless_groups_are_taken_over(
    amazon: Baseline, apply: Apply, groups: tuple[str, ...], takes: dict[str, str]
):
    """A group that has a baseline registered is somebody's decision; one that gets the account's default is nobody's."""
    theirs, default = replace(amazon, id="pb-1", name="theirs"), replace(amazon, id="pb-0", name="AWS-Default")
    found = Found(own=None, used={"taken": theirs, "free": default}, registered=frozenset({"taken"}))
    made = baselines.keeping(amazon, found, cell=CELL, apply=apply)
    assert (made.creates, made.groups, dict(made.takes)) == (apply is not Apply.NONE, groups, takes)
    assert bool(made) is (apply is not Apply.NONE)


def test_nothing_is_done_about_a_baseline_of_somebody_else_or_one_that_is_as_wanted(amazon: Baseline):
    """Its mark tells whose it is."""
    ours = replace(amazon, id="pb-2")
    for own in (replace(ours, description="by hand", rules=()), ours):
        found = Found(own=own, used={"dev": own}, registered=frozenset({"dev"}))
        assert not baselines.keeping(amazon, found, cell=CELL, apply=Apply.TAKE_OVER_GROUPS)
    drifted = Found(own=replace(ours, rejected=()), used={}, registered=frozenset())
    assert baselines.keeping(amazon, drifted, cell=CELL, apply=Apply.CREATE_AND_UPDATE).changes


# --- Override ---------------------------------------------------------------------------------------------------------------


def test_an_override_has_the_shape_that_aws_s_page_prints(amazon: Baseline):
    """Using the BaselineOverride parameter: a list of baselines as GetPatchBaseline tells them."""
    text = baselines.override(baselines.wanted(read().baselines, policy="standard"))
    first, ubuntu = json.loads(text)
    assert (first["OperatingSystem"], ubuntu["OperatingSystem"]) == ("AMAZON_LINUX_2023", "UBUNTU")
    assert first["ApprovalRules"]["PatchRules"][0] == {
        "ApproveAfterDays": 0, "ComplianceLevel": "CRITICAL", "EnableNonSecurity": False, "PatchFilterGroup": {"PatchFilters": [
            {"Key": "CLASSIFICATION", "Values": ["Security"]}, {"Key": "SEVERITY", "Values": ["Critical", "Important"]},
        ]},
    }  # fmt: skip
    assert first["ApprovalRules"]["PatchRules"][2]["ApproveUntilDate"] == "2026-12-31"
    assert "ApproveAfterDays" not in first["ApprovalRules"]["PatchRules"][2]
    assert (first["RejectedPatches"], first["RejectedPatchesAction"]) == (["docker*"], "BLOCK")
    assert (ubuntu["ApprovedPatches"], ubuntu["ApprovedPatchesComplianceLevel"]) == (["openssl*"], "HIGH")
    sample = DATA / "awsdocs-ssm/patch-manager-baselineoverride-parameter/01.json"
    if sample.exists():
        for printed, ours in zip(json.loads(sample.read_text()), (first, first), strict=True):
            assert printed.keys() == ours.keys()
            assert printed["ApprovalRules"]["PatchRules"][0].keys() <= {
                *first["ApprovalRules"]["PatchRules"][0],
                "ApproveUntilDate",
            }


def test_an_override_with_two_baselines_of_one_system_is_refused(amazon: Baseline):
    """AWS would take one of them."""
    with pytest.raises(ValueError, match="two baselines of one operating system"):
        baselines.override([amazon, amazon])
