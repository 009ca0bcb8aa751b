"""Which pages below docs/ are made from the code, and how? `make docs` runs this file; a test runs it and compares.

``campaign-files.md`` comes from the pydantic models of campaign and policy, ``dag-reference.md`` from the DAG that
`dags/campaigns.py` builds for ``weekly-linux``, ``awsim-reference.md`` from awsim's registry, faults and control routes, the
JSON schemas from the models. All other pages are written by hand.

    python docs/generate.py [FOLDER]    # default: the folder of this file
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, PlainValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "include"))

from awsim import control, faults  # noqa: E402 (the path above comes first)
from patchwave.campaign import baselines, deadlines, definition, policy, tables  # noqa: E402
from patchwave.campaign.document import Part, is_hidden  # noqa: E402
from patchwave.campaign.values import Count, Share  # noqa: E402

NOTICE = "<!-- Made by `make docs` from {source}. Do not edit: change the code and run it again. -->\n"
CAMPAIGN = "weekly-linux"


# --- Files of campaigns and policies ----------------------------------------------------------------------------------------

WRITTEN: Mapping[Callable[..., Any], str] = {
    definition.duration: "a whole number with its unit s, m, h or d, at most 366d: `30m`, `24h`, `2d`",
    definition.concurrency: "a percentage above 0% and at most 100% (`10%`), or a number of hosts, at least 1 (`5`)",
    definition.clock_time: "a time of day in quotes, from `'00:00'` to `'23:59'`",
    definition.moment: "a day (`2026-12-19`), a local time (`2026-12-19T18:00`) or a moment (`2026-12-19T18:00+01:00`)",
    definition.local_time: "a local time without an offset (`2026-11-10T22:00`)",
    definition.day: "a day (`2026-12-31`)",
    deadlines.probability: "a number above 0 and at most 1 (`0.1`)",
    definition.error_budget: "a number of hosts, 0 or more (`2`), or a percentage above 0% and at most 100% (`5%`)",
}
"""Values with a way of writing of their own, by the function that reads them."""


def models(root: type[Part]) -> list[type[Part]]:
    """The model and every model inside it, in the order of their first appearance."""
    found: list[type[Part]] = [root]
    for info in root.model_fields.values():
        if is_hidden(info):
            continue
        for inner in _parts_in(info.annotation):
            found += [one for one in models(inner) if one not in found]
    return found


def _parts_in(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)


def allowed(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What may stand in a field, in words.

    Raises:
        TypeError: this page has no words for it yet.
    """
    if hasattr(annotation, "__metadata__"):  # Annotated[...]
        return allowed(annotation.__origin__, (*metadata, *annotation.__metadata__))
    metadata = tuple(inner for one in metadata for inner in (one.metadata if isinstance(one, FieldInfo) else [one]))
    if (special := _by_validator(metadata)) is not None:
        return special
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(one, metadata) for one in inside if one is not type(None))
    if origin is Literal:
        return _choice(inside)
    if origin is tuple:
        known = {"_named": "at least one", "_unique": "each once"}
        rules = [words for name, words in known.items() if _has(metadata, name)]
        return f"a list of: {allowed(inside[0])}" + (f" ({', '.join(rules)})" if rules else "")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "names, each with a value or a list of values"
    if isinstance(annotation, type):
        if issubclass(annotation, Part):
            return f"[{_title(annotation)}](#{_anchor(annotation)})"
        if issubclass(annotation, Enum):
            return _choice(tuple(one.value for one in annotation))
        if issubclass(annotation, bool):
            return "`true` or `false`"
        if issubclass(annotation, int):
            bounds = {name: getattr(one, name) for one in metadata for name in ("ge", "le") if hasattr(one, name)}
            return f"a whole number from {bounds['ge']} to {bounds['le']}" if len(bounds) == 2 else "a whole number"
        if issubclass(annotation, float):
            least = next((one.ge for one in metadata if hasattr(one, "ge")), None)
            return "a number" if least is None else f"a number, {least:g} or more"
        if issubclass(annotation, date):
            return "a day (`2026-12-31`)"
        if issubclass(annotation, str):
            return "text"
    raise TypeError(f"docs/generate.py has no words for {annotation} with {metadata}")


def _by_validator(metadata: tuple[Any, ...]) -> str | None:
    for one in metadata:
        if isinstance(one, PlainValidator) and one.func in WRITTEN:
            return WRITTEN[one.func] + (", more than zero" if _has(metadata, "_lasting") else "")
        if isinstance(one, AfterValidator) and one.func.__qualname__.startswith("matching."):
            return str(inspect.getclosurevars(one.func).nonlocals["allowed"])
        if isinstance(one, AfterValidator) and one.func is policy._package_pattern:
            return "a package name in which * stands for any characters"
    return None


def _has(metadata: tuple[Any, ...], name: str) -> bool:
    return any(isinstance(one, AfterValidator) and one.func.__name__ == name for one in metadata)


def _choice(values: tuple[Any, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def default(info: FieldInfo) -> str:
    """What holds where the file says nothing."""
    value = info.default
    if "for the first stage" in (info.description or ""):
        return "see the description"  # it depends on the place in the list, which no default can say
    if info.is_required():
        return "must be given"
    if value is PydanticUndefined:
        return "none" if info.default_factory is dict else "its own defaults"
    return "none" if value is None or value == () else _written(value)


def _written(value: Any) -> str:
    match value:
        case timedelta():
            return f"`{definition.written_duration(value)}`"
        case Share():
            return f"`{definition.written_share(value)}`"
        case Count():
            return f"`{value.value}`"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return ", ".join(_written(one) for one in value)
        case Enum():
            return f"`{value.value}`"
        case _:
            return f"`{value}`"


def _title(model: type[Part]) -> str:
    return " ".join(re.findall("[A-Z][a-z]*", model.__name__)).lower()


def _anchor(model: type[Part]) -> str:
    return _title(model).replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def fields(model: type[Part]) -> str:
    """One model as a section with a table."""
    lines = [f"### {_title(model)}", "", inspect.cleandoc(model.__doc__ or ""), "",
             "| field | allowed | default | meaning |", "|---|---|---|---|"]  # fmt: skip
    for name, info in model.model_fields.items():
        if is_hidden(info):
            continue
        about = _cell(info.description or "")
        examples = ", ".join(_example(one) for one in info.examples or ())
        lines.append(
            f"| `{info.alias or name}` | {_cell(allowed(info.annotation, tuple(info.metadata)))} | {default(info)} "
            f"| {about}{f' Example: {examples}.' if examples else ''} |"
        )
    return "\n".join([*lines, ""])


def _example(value: Any) -> str:
    match value:
        case None:
            return "`null`"
        case list():
            return f"`[{', '.join(map(str, value))}]`"
        case dict():
            inside = ", ".join(f"{key}: {_example(one).strip('`')}" for key, one in value.items())
            return f"`{{{inside}}}`"
        case _:
            return f"`{value}`"


def campaign_files() -> str:
    """The page ``campaign-files.md``."""
    campaign = (REPOSITORY / "include" / "campaigns" / f"{CAMPAIGN}.yaml").read_text(encoding="utf-8")
    emergency = (REPOSITORY / "include" / "campaigns" / "emergency.yaml").read_text(encoding="utf-8")
    rules = (REPOSITORY / "include" / "policies" / "standard.yaml").read_text(encoding="utf-8")
    of_campaign = models(definition.Campaign)
    of_policy = [model for model in models(policy.Policy) if model not in of_campaign]
    return f"""# Campaign files and policies

{NOTICE.format(source="include/patchwave/campaign/definition.py and policy.py")}
A campaign is one YAML file in `include/campaigns/`; it becomes one DAG with the campaign's `name` as its id. A policy is
one YAML file in `include/policies/`, and its file name is its `name`. Check files before Airflow sees them:

```
.venv/bin/python -m patchwave validate include/campaigns/{CAMPAIGN}.yaml include/policies/standard.yaml
```

- Every message names file, line and field, and says what is allowed. A field that nobody knows is an error.
- A broken file is shown in Airflow as an import error; the other campaigns keep their DAGs.
- A run works with the file as it was when the run began. If you change the file during a run, the gates of that run
  say that a newer version exists.
- For completion in an editor there are JSON schemas: [campaign.schema.json](campaign.schema.json) and
  [policy.schema.json](policy.schema.json), and [table.schema.json](table.schema.json) for decision tables. The first line
  of the files below tells editors with a YAML language server.
- A duration is written with its unit: `s` seconds, `m` minutes, `h` hours, `d` days. A share is written with `%`.
- Account ids are written in quotes: YAML reads `012345678901` without them as a number.

## A campaign file

`include/campaigns/{CAMPAIGN}.yaml`:

```yaml
{campaign.strip()}
```

## Fields of a campaign file

{chr(10).join(fields(model) for model in of_campaign)}
### Rules that concern several fields

- Two stages must not select the same host. What can be seen in the file is refused there; what shows only on a live
  host (selectors with different tags) makes the task `plan` fail, with the host and both stages named.
- A stage selects by `patch_groups`, by `tags`, or by both; then a host must match both.
- `remediate.stages` may name a stage that is called or tagged prod only with `allow_prod: true`.
- An approval that is required names at least one approver.
- A cron expression must not restrict day-of-month and day-of-week at once: cron reads that as "either".

### Schedules, windows, freezes

A whole file with them; its windows show the ways of writing one:

```yaml
name: patch-tuesday
description: Windows servers, three days after Microsoft's release
owner: platform-operations
schedule:
  patch_tuesday: {{plus_days: 3, at: "20:00", timezone: Europe/Berlin}}
scope:
  cells:
    - account: "111111111111"
      regions: [eu-central-1]
policy: standard
freezes:
  - {{from: 2026-12-19, to: 2027-01-06, reason: year-end trading, timezone: Europe/Berlin, stages: [prod]}}
calendars: [change-freeze]
stages:
  - name: dev
    select: {{patch_groups: [windows-dev]}}
    window: {{cron: "0 22 * * 5", duration: 6h, timezone: Europe/Berlin}}
  - name: staging
    select: {{patch_groups: [windows-staging]}}
    window: {{rrule: FREQ=WEEKLY;BYDAY=SA, starts: 2026-11-14T22:00, duration: 6h, timezone: Europe/Berlin}}
    approval: {{approvers: [olga]}}
  - name: prod
    select: {{patch_groups: [windows-prod]}}
    window: {{maintenance_window: prod-nights}}
    approval: {{approvers: [olga, ana]}}
```

- A schedule is a `cron`, `patch_tuesday` or `weekly`, exactly one of them
  (`weekly: {{on: [tuesday, thursday], at: "22:00", timezone: Europe/Berlin}}`). Moments that were missed stay missed.
- A window is a `cron`, an `rrule` or a `maintenance_window`, exactly one of them. A maintenance window that is named is read, as
  AWS has it when the stage begins, in every cell where the stage has hosts; its cutoff counts as its end. One that is
  declared with `schedule`, `timezone`, `duration` and `cutoff` is created, and kept as it is declared.
- Local time is kept when clocks change: 22:00 stays 22:00. A time that clocks skip is taken behind the jump, one that they
  show twice is taken the first time; a window is as long as it says in time that passes.
- Freezes and change calendars close what a window would open. Of an opening that one of them cuts, the rest is used if a
  host fits into it. A calendar that cannot be read is closed. A freeze of days ends with the last minute of its last day.

### Emergencies

`include/campaigns/emergency.yaml`:

```yaml
{emergency.strip()}
```

- `emergency` makes the trigger form ask for CVE ids, compulsorily: only hosts with one of these findings are patched.
- The first stage is the canary. No run leaves it out: it cannot be taken off the form, a run for which it has no host that can be
  reached is refused, and the stages behind it stay shut until one of its hosts runs with the patches.
- Every later stage must be approved. Who let the watcher start the run, or started it by hand, does not count.
- A stage soaks as long as the policy's `emergency: {{soak: ...}}` says, if that is shorter than its own. The plan says so.
- Hosts get what their baselines approve at that time. Break-glass is `lockfile_of: weekly-linux` beside
  `promotion: {{by: lockfile}}`: every stage, the canary too, gets only the packages that mend these CVE ids, in the versions that
  the named campaign carried through all its stages last. Packages that they depend on are known where the same advisory or
  source package brings them; what else the package manager pulls in shows as drift and halts the stage. Whatever else is
  missing stays missing, so such hosts are not compliant by their baselines.
- It has no `schedule`. The DAG `NAME_watch` looks every hour ([operating guide](operating.md#emergencies)): findings to which the
  policy gives no more time than its `emergency: {{due_within: ...}}` are urgent.

## A policy file

`include/policies/standard.yaml`:

```yaml
{rules.strip()}
```

A host is rebooted when its patch report says that a reboot is pending, unless the policy says `reboot: never`. Which
patches are approved, and after how many days, is decided by the patch baseline in Systems Manager. With
`kernel: {{window: required}}`, as in every shipped policy, a kernel is installed, and rebooted into, in a stage's window only.

- A host with a finding on the track `kernel` is left out of a stage without a `window`; the plan says so among *Excluded*.
- A host without such a finding may lack a kernel all the same, and an Install takes all that the baseline approves. In a stage
  without a window each host is therefore asked, after its Scan, whether a kernel is missing, or installed and waiting for the
  reboot: then nothing is installed there, and it ends as `excepted` with the packages named. That is a call a host.
- A kernel that is published after that Scan comes with the Install all the same, for AWS takes no list of what is not to be
  installed. Whoever got one in a stage without a window is not rebooted, and ends as `pending_reboot` with the packages named.
- Give the stage a `window`, or patch such hosts in a campaign whose stage has one. With `window: not_required`, or in a policy
  without that line, kernels are installed wherever a stage patches.

{_deadlines_by_table()}
### Patch baselines

What the patch baselines of the accounts should say, one for each operating system, in its own words:

```yaml
baselines:
  - operating_system: AMAZON_LINUX_2023
    rules:
      - track: critical  # approved at once
        filters: {{CLASSIFICATION: [Security], SEVERITY: [Critical, Important]}}
      - track: standard  # approved seven days after release
        filters: {{CLASSIFICATION: [Bugfix]}}
    rejected_patches: ["docker*"]
  - operating_system: UBUNTU
    rules:
      - track: critical
        filters: {{PRIORITY: [Required, Important]}}
```

| operating system | filters and what they take; `*` matches everything |
|---|---|
{_baseline_words()}

- The plan says, for each cell and the patch groups of its hosts, where the accounts' baselines say something else, and which
  hosts none of these reaches. Without the section nobody looks. It needs the statement `ReadPatchBaselines` of
  `docs/iam/patchwave-plan.json`.
- With `apply_baselines: none`, the default, a run changes no baseline and registers none: hosts get what theirs approve.
- With `create_and_update` each stage, when its gate is open and before its first Scan, creates the policy's baselines that its
  hosts need, puts back what somebody changed in them, and registers them for those of its patch groups that have none
  registered. With `take_over_groups` it does so, too, for groups that another baseline is registered for, if that is still the
  one that the plan names. The plan lists all of it by stage, a dry run the calls, and the ledger's journal what was done
  (`baseline.keeping`, `baseline.kept`). A baseline of that name that was not made for this policy is never changed. It needs
  the statements `CreateDeclaredPatchBaselines` and `KeepDeclaredPatchBaselines` of `docs/iam/patchwave-execute.json`.
- **The first stage asks nobody** unless its `approval` is `required: true`, and a baseline is one for all its patch groups: put
  an approval before the first stage if baselines are kept for hosts beyond it.
- With `override` nothing is changed in any account, and Installs go by the policy's baselines all the same: the run lays them
  down in the bucket of the connection's `patchwave_lists_bucket` and names them as `BaselineOverride`. The plan says so by stage,
  with the digest of the file. Hosts of an operating system for which the policy has no baseline get what their account's
  approves, and stages that are patched by a lockfile get that alone: what the first stage's hosts received, and what they have
  already by their account's baseline.
- **What is proven under `override` is less than otherwise**, for AWS keeps no patch report of such an Install, and a Scan goes by
  the account's baseline. A host that this calls compliant gets its Install all the same. It is `patched` when AWS says that the
  Install succeeded on it (it looks again at its end, and fails if anything is left), it has been rebooted into what came, and a
  Scan after it misses nothing that a rule without a waiting time approves by classification and severity, or the list by name.
  It is `already_compliant` when the Install found nothing to do. What is missing by the
  account's baseline only is named in its reason, stays not compliant in the report, and is not remedied. Where kernel updates
  wait for a window, stages without one reject the packages of `kernel.packages`, `kernel.exceptions` among them.
- A rule of the track critical never waits. For Debian, Raspbian and Ubuntu no rule does: AWS does not support it, for their
  packages tell no release date.

## Fields of a policy file

{chr(10).join(fields(model) for model in of_policy)}"""


def _baseline_words() -> str:
    """Operating systems that have the same words share a row."""
    rows: dict[str, list[str]] = {}
    for system, filters in baselines.FILTERS.items():
        told = "; ".join(f"`{name}`: {words.told.removesuffix(', *').removesuffix(', or *')}" for name, words in filters.items())
        rows.setdefault(told, []).append(f"`{system}`")
    return "\n".join(f"| {', '.join(systems)} | {told} |" for told, systems in rows.items()) + f"\n\nSource: {baselines.SOURCE}."


def _deadlines_by_table() -> str:
    """The section on tables, with the shipped policy that uses one."""
    by_table = (REPOSITORY / "include" / "policies" / "bod-26-04.yaml").read_text(encoding="utf-8")
    return f"""### Deadlines by a decision table

Days by severity stand under `deadlines:`, or the name of a table and where the answer of each of its columns comes from.
`include/policies/bod-26-04.yaml`:

```yaml
{by_table.strip()}
```

| table | rows | source | what the policy adds |
|---|---|---|---|
{_tables()}

- The tables are data in `include/policies/tables/`. A file of the same name in a folder `tables` beside other policies comes
  first. A row for each combination of answers is checked when a file is read; a run keeps the table as it was when it began.
- Every finding says in triage and report which row it met and where each answer came from. Where nobody knows an answer, it is
  the one that the policy states as `if_unknown`, and the sentence says so: not knowing never gives more time than that.
- Time counts from the moment when Inspector first saw the finding; where the row is owed to an entry in CISA's catalogue, from
  the day of the entry, but never so that it gives more time than without it.
- `known_exploited` needs CISA's catalogue. If its address cannot be read, the last copy in the ledger stands in for it, up to
  the age `oldest`, and triage and report name it. Without one `scan_findings` is tried again and then fails: a finding that is
  exploited must not get months because a proxy was down. A file is never replaced: one that is broken fails the task at once.
- While a stage soaks, the catalogue is read again every hour. What has become more urgent changes the triage, is a record of
  the journal (`finding.reprioritised`), and is named in the reason of the wait. The plan stays what was approved.
- A catalogue of your own: `catalogue: kev.json`, a file beside the policies. CISA's SSVC answers come from CVE records
  (`vulnrichment:`, a file or a copy of github.com/cisagov/vulnrichment), EPSS from FIRST's CSV file. Check all of them:
  `python -m patchwave validate include/policies/bod-26-04.yaml`.
- A host is exposed if EC2 shows a public address on one of its interfaces, if it is a target of an internet-facing
  application, network or gateway load balancer, or if it carries one of the tags. Classic load balancers and CloudFront are
  not seen: give hosts behind them the tag.
"""


def _tables() -> str:
    """The tables that are shipped, a line each."""
    lines = []
    for name, kind in deadlines.TABLES.items():
        table = tables.find(name)
        added = [f"`{field}`" for field in kind.model_fields if field not in {*kind.COLUMNS, "table", "decision_table"}]
        lines.append(f"| `{name}` | {len(table.rows)} | {_cell(table.source)} | {', '.join(added) or 'nothing'} |")
    return "\n".join(lines)


# --- The DAG ----------------------------------------------------------------------------------------------------------------


def built_dags(home: Path) -> tuple[Any, list[Any]]:
    """The DAG of `CAMPAIGN`, and those that are not made of a campaign file, built as Airflow's DAG processor does.

    Args:
        home: a folder for Airflow's own files, so that nothing is written into anybody's home.
    """
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "PATCHWAVE_"))]:
        del os.environ[name]
    os.environ.update(AIRFLOW_HOME=str(home), AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__CORE__UNIT_TEST_MODE="False")
    fixed = _file_of_dags("rollback")
    return getattr(_file_of_dags("campaigns"), f"campaign_{CAMPAIGN}"), [fixed.rollback, fixed.retention]


def _file_of_dags(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "dags" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _value(text: object) -> str:
    return str(getattr(text, "value", text))


TASKS = ["| task id | operator | trigger rule | retries | after |", "|---|---|---|---|---|"]


def _tasks(dag: Any) -> list[str]:
    """Rows of a table below `TASKS`."""
    return [
        f"| `{task.task_id}` | [{task.task_type}](#{task.task_type.lower()}) | {_value(task.trigger_rule)} | {task.retries} "
        f"| {', '.join(f'`{one}`' for one in sorted(task.upstream_task_ids)) or '-'} |"
        for task in dag.tasks
    ]


def _fixed(dag: Any) -> list[str]:
    """A section on a DAG that every installation has."""
    starts = f"starts by itself: `{dag.schedule.summary}`" if dag.schedule else "started by hand"
    form = ["", _params(dag)] if len(dag.params) else []
    return ["", f"### `{dag.dag_id}`", "", f"{dag.description}; {starts}.", "", *TASKS, *_tasks(dag), *form]


def dag_reference(dag: Any, fixed: Sequence[Any]) -> str:
    """The page ``dag-reference.md``.

    Args:
        dag: of a campaign.
        fixed: those that are not made of a campaign file.
    """
    from patchwave.operators.managed_services import PatchManagedServicesOperator  # Airflow's home must be known before

    order = list(dag.tasks)
    edges = [f"    {_node(task.task_id)} --> {_node(other)}" for task in order for other in sorted(task.downstream_task_ids)]
    everything = [*order, *(task for one in fixed for task in one.tasks)]
    classes = list({kind.__name__: kind for kind in (*map(type, everything), PatchManagedServicesOperator)}.values())
    schedule, again = dag.schedule, dag.default_args
    timetable = f"{type(schedule).__module__}.{type(schedule).__name__}"
    between = f"{again['retry_delay'].total_seconds():g} s"
    return f"""# DAG reference

{NOTICE.format(source="the DAG that dags/campaigns.py builds for " + CAMPAIGN)}
Every campaign file becomes one DAG of this shape; this page shows `{CAMPAIGN}`. A stage is a task group with the stage's
name. What each wait means is in [operating.md](operating.md); why a stage is one task is in
[architecture.md](architecture.md).

## The DAG

| setting | value |
|---|---|
| DAG id | `{dag.dag_id}` |
| schedule | `{schedule.summary}`; a moment that has passed is never made up for (`{timetable}`) |
| runs at the same time | {dag.max_active_runs} |
| catch-up | {"yes" if dag.catchup else "no"} |
| owner | {dag.default_args["owner"]} |
| tags | {", ".join(f"`{tag}`" for tag in sorted(dag.tags))} |
| retries of a task | {again["retries"]}, {between} apart; an error that will not pass (`Permanent`) fails the task at once |

```mermaid
flowchart TD
{chr(10).join(edges)}
```

## Tasks

{chr(10).join([*TASKS, *_tasks(dag)])}

A stage with `managed_services` has a task `managed_services`
([PatchManagedServicesOperator](#patchmanagedservicesoperator)) between `patch` and `health`. A stage that
needs no approval has no task `approve`. With other stages in the campaign file the groups are named after
them, in the file's order; everything else is the same.

## Params: the trigger form

{_params(dag)}

A run that the schedule starts uses none of these defaults: it is never a dry run, and it takes all stages and all findings.

## DAGs that are not made of a campaign file
{chr(10).join(line for one in fixed for line in _fixed(one))}

What they do is in [operating.md](operating.md).

## Operators

All of them are in `include/patchwave/operators/`. Each takes `ledger_conn_id` (default `patchwave_ledger`), and those
that speak to AWS take `aws_conn_id` (default `aws_default`).

{chr(10).join(_operator(one) for one in classes)}"""


def _node(task_id: str) -> str:
    return f"{task_id.replace('.', '_')}[{task_id}]"


def _params(dag: Any) -> str:
    lines = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name in dag.params:
        param = dag.params.get_param(name)
        kinds = param.schema.get("type")
        kind = ", ".join(kinds if isinstance(kinds, list) else [str(kinds)])
        items = param.schema.get("items", {})
        if "enum" in items:
            kind += f" of {_choice(tuple(items['enum']))}"
        elif "pattern" in items:
            kind += f" of text like `{items['pattern']}`"
        value = param.value
        shown = f"`{str(value).lower() if isinstance(value, bool) else 'null' if value is None else value}`"
        shown = shown if param.has_value else "must be given"
        lines.append(f"| `{name}` | {_cell(kind)} | {shown} | {_cell(str(param.schema.get('description_md', '')))} |")
    return "\n".join(lines)


def _operator(kind: type[Any]) -> str:
    fields_ = ", ".join(f"`{name}`" for name in kind.template_fields) or "none"
    links = ", ".join(f"*{link.name}*" for link in kind.operator_extra_links) or "none"
    about = inspect.cleandoc(kind.__doc__ or "")
    head, _, arguments = about.partition("\nArgs:\n")
    lines = [f"### {kind.__name__}", "", f"`{kind.__module__}`", "", head.strip(), ""]
    if arguments:
        lines += [f"- `{name}`: {text}" for name, text in _arguments(arguments)] + [""]
    return "\n".join([*lines, f"Template fields: {fields_}. Links: {links}.", ""])


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """Name and description of each argument of a docstring's Args."""
    for match in re.finditer(r"^    (\w+): (.*(?:\n {6,}.*)*)", text, re.MULTILINE):
        yield match[1], " ".join(match[2].split())


# --- awsim ------------------------------------------------------------------------------------------------------------------


def awsim_reference() -> str:
    """The page ``awsim-reference.md``."""
    operations: dict[str, set[str]] = {}
    for module in (REPOSITORY / "include" / "awsim" / "services").rglob("*.py"):
        for service, name in re.findall(r'^@operation\(\s*"(\w+)",\s*"(\w+)"', module.read_text(encoding="utf-8"), re.MULTILINE):
            operations.setdefault(service, set()).add(name)
    families = {
        "call": set(faults.CALL_KINDS),
        "host": set(faults.HOST_KINDS),
        "group": set(faults.GROUP_KINDS),
        "database": set(faults.DATABASE_KINDS),
        "image": set(faults.IMAGE_KINDS),
        "event": set(faults.EVENT_KINDS),
    }
    kinds = [
        f"| `{kind.value}` | {', '.join(name for name, members in families.items() if kind in members) or 'call'} |"
        for kind in faults.Kind
    ]
    of_fault = [
        f"| `{name}` | {'must be given' if info.is_required() else _fault_default(info)} | {_cell(info.description or '')} |"
        for name, info in faults.Fault.model_fields.items()
    ]
    routes = [f"- `{verb} {control.PREFIX}{name}`" for verb, name in sorted(control._ROUTES, key=lambda one: one[::-1])]
    return f"""# awsim reference

{NOTICE.format(source="include/awsim")}
What awsim is and how to use it is in [awsim.md](awsim.md).

## Control routes

{chr(10).join(routes)}

A single fault is removed by `DELETE /_awsim/faults/N`. What each route takes and gives, in the words of
`include/awsim/control.py`:

```
{inspect.cleandoc(control.__doc__ or "")}
```

## Faults

From `include/awsim/faults.py`:

```
{inspect.cleandoc(faults.__doc__ or "")}
```

A fault of the family *call* strikes a call to AWS, one of the family *host* strikes a host, and an *event* happens at its
moment and is over.

| kind | family |
|---|---|
{chr(10).join(kinds)}

| field | default | meaning |
|---|---|---|
{chr(10).join(of_fault)}

## Operations that awsim answers itself

All others are moto's.

| service | operations |
|---|---|
{chr(10).join(f"| `{service}` | {_choice(tuple(sorted(operations[service])))} |" for service in sorted(operations))}
"""


def _fault_default(info: FieldInfo) -> str:
    return "none" if info.default is None else _written(info.default)


# --- Writing ----------------------------------------------------------------------------------------------------------------


def pages() -> Mapping[str, str]:
    """Every generated file by its name below docs/."""
    with tempfile.TemporaryDirectory(prefix="patchwave-docs-") as home:
        dag, fixed = built_dags(Path(home))
        return {
            "campaign-files.md": campaign_files(),
            "dag-reference.md": dag_reference(dag, fixed),
            "awsim-reference.md": awsim_reference(),
            "campaign.schema.json": definition.schema_text(),
            "policy.schema.json": policy.schema_text(),
            "table.schema.json": tables.schema_text(),
        }


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    for name, text in pages().items():
        (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
