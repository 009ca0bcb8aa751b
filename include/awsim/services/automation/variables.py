"""What stands where a runbook's input says `{{ name }}`?"""

import re
from typing import Any

from awsim.clock import iso
from awsim.services.automation.documents import is_list
from awsim.services.automation.executions import Execution
from awsim.world import World

_VARIABLE = re.compile(r"\{\{\s*([\w.:-]+)\s*\}\}")


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
        "global:DATE": iso(world.now)[:10],
        "global:DATE_TIME": iso(world.now)[:19].replace("T", "_").replace(":", "."),
    }
    if name in known:
        return [known[name]]
    if name in execution.parameters:
        return [_default(execution, world, name, value) for value in execution.parameters[name]]
    step_name, _, output = name.partition(".")
    step = execution.step(step_name)
    return step.outputs.get(output) if step is not None and output else None


def _default(execution: Execution, world: World, name: str, value: str) -> str:
    """A default may name other parameters and the system's variables."""
    if "{{" not in value or name in _VARIABLE.findall(value):
        return value
    return str(filled(execution, world, value))
