"""What stands where a runbook's input says `{{ name }}`?"""

import json
import re
from collections.abc import Callable
from typing import Any

from awsim import inside
from awsim.clock import iso
from awsim.registry import AwsError
from awsim.services.automation.documents import is_list
from awsim.services.automation.executions import Execution
from awsim.world import World

_VARIABLE = re.compile(r"\{\{\s*([\w.:/-]+)\s*\}\}")
_KINDS: dict[str, Callable[[str], Any]] = {
    "Integer": int,
    "Boolean": lambda text: text.lower() == "true",
    "StringMap": json.loads,
    "MapList": json.loads,
}


def filled(execution: Execution, world: World, value: Any) -> Any:
    """Variables in inputs; one that is the whole value of a list item or of a list parameter keeps its kind."""
    if isinstance(value, dict):
        return {key: filled(execution, world, item) for key, item in value.items()}
    if isinstance(value, list):
        whole: list[Any] = []
        for item in value:
            put = filled(execution, world, item)
            spread = isinstance(item, str) and _VARIABLE.fullmatch(item.strip()) and isinstance(put, list)
            whole.extend(put) if spread else whole.append(put)
        return whole
    if not isinstance(value, str):
        return value
    only = _VARIABLE.fullmatch(value.strip())
    if only:
        found = variable(execution, world, only.group(1))
        if found is None:
            return value
        return found[0] if len(found) == 1 and not _listed(execution, only.group(1)) else found
    return _VARIABLE.sub(lambda match: ",".join(variable(execution, world, match.group(1)) or [match.group(0)]), value)


def _listed(execution: Execution, name: str) -> bool:
    declared = (execution.content.get("parameters") or {}).get(name)
    if name.startswith("variable:"):
        declared = (execution.content.get("variables") or {}).get(name.removeprefix("variable:"))
    if declared:
        return is_list(declared)
    step = execution.step(name.partition(".")[0])
    outputs = step.definition.get("outputs") if step is not None else None
    return any(
        isinstance(entry, dict) and entry.get("Name") == name.partition(".")[2] and entry.get("Type") in ("StringList", "MapList")
        for entry in outputs or []
    )


def variable(execution: Execution, world: World, name: str) -> list[str] | None:
    known = {
        "automation:EXECUTION_ID": execution.id,
        "global:ACCOUNT_ID": execution.account,
        "global:REGION": execution.region,
        "global:AWS_PARTITION": "aws",
        "global:DATE": iso(world.now)[:10],
        "global:DATE_TIME": iso(world.now)[:19].replace("T", "_").replace(":", "."),
    }
    if name in known:
        return [known[name]]
    if name.startswith("variable:"):
        return execution.variables.get(name.removeprefix("variable:"))
    if name.startswith("ssm:"):
        return _from_store(execution, world, name.removeprefix("ssm:"))
    if name in execution.parameters:
        return [_default(execution, world, name, value) for value in execution.parameters[name]]
    step_name, _, output = name.partition(".")
    step = execution.step(step_name)
    return step.outputs.get(output) if step is not None and output else None


def unresolved(value: Any) -> list[str]:
    """Names that still stand in braces in a value that has been filled."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in unresolved(item)]
    if isinstance(value, list):
        return [name for item in value for name in unresolved(item)]
    return _VARIABLE.findall(value) if isinstance(value, str) else []


def begun(content: dict[str, Any]) -> dict[str, list[str]]:
    """The variables that a runbook declares, with their defaults."""
    declared = content.get("variables")
    found: dict[str, list[str]] = {}
    for name, entry in declared.items() if isinstance(declared, dict) else ():
        if isinstance(entry, dict) and "default" in entry:
            found[str(name)] = spelled(entry["default"])
    return found


def spelled(value: Any) -> list[str]:
    """A value as outputs and variables keep it."""
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def mistyped(content: dict[str, Any], name: str, value: list[str]) -> str:
    """Why a declared variable does not take a value; empty: it does."""
    declared = (content.get("variables") or {}).get(name)
    if not isinstance(declared, dict):
        return f"The variable {name} is not declared."
    kind = str(declared.get("type", "String"))
    if kind not in ("StringList", "MapList") and len(value) != 1:
        return f"The variable {name} is of type {kind} and takes one value."
    try:
        for item in value if kind in _KINDS else ():
            _KINDS[kind](item)
    except ValueError:
        return f"The variable {name} is of type {kind}, which {value} is not."
    return ""


def _from_store(execution: Execution, world: World, name: str) -> list[str] | None:
    """A parameter of Parameter Store; secure ones are not given to runbooks."""
    try:
        answer = inside.ask(world, execution.account, execution.region, "ssm", "GetParameter", {"Name": name})
    except (AwsError, inside.Unaskable):
        return None
    found = answer["Parameter"]
    kind, value = found.get("Type"), str(found.get("Value", ""))
    return None if kind == "SecureString" else value.split(",") if kind == "StringList" else [value]


def _default(execution: Execution, world: World, name: str, value: str) -> str:
    """A default may name other parameters and the system's variables."""
    if "{{" not in value or name in _VARIABLE.findall(value):
        return value
    return str(filled(execution, world, value))
