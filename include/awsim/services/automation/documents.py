"""Which runbook is meant, and do the parameters fit it?

`find` looks among the documents that callers created, then among AWS's own, which are shipped in `runbooks/`: with their public
parameters, outputs and order of things, in steps that this simulator can carry out.
"""

import json
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from awsim import estate
from awsim.registry import AwsError

RUNBOOKS = Path(__file__).with_name("runbooks")


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """AWS's own runbooks by name."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RUNBOOKS.glob("*.yaml"))}


def name_of(document: str) -> str:
    return document.rpartition("/")[2] if document.startswith("arn:") else document


def find(account: str, region: str, document: str, version: str | None = None) -> dict[str, Any]:
    """`Name`, `Version` and `Content` of an Automation document.

    Raises:
        AwsError: there is none of that name, type or version.
    """
    name = name_of(document)
    if name in shipped():
        if version not in (None, "", "1", "$DEFAULT", "$LATEST"):
            raise _no_version(name, str(version))
        return {"Name": name, "Version": "1", "Content": shipped()[name]}
    found = estate.document(account, region, name, version)
    if found is None and estate.document(account, region, name) is not None:
        raise _no_version(name, str(version))
    if found is None or found["DocumentType"] != "Automation":
        raise AwsError(
            "AutomationDefinitionNotFoundException", f"An Automation document with the name {name} could not be found."
        )
    _check_shape(name, found["Content"])
    wrong = _misled(found["Content"]["mainSteps"])
    if wrong:
        raise AwsError(
            "InvalidAutomationExecutionParametersException",
            f"The Automation document {name} is not a valid runbook of schema 0.3: {wrong}",
        )
    return found


def _misled(steps: list[dict[str, Any]]) -> str:
    """The first step that leads nowhere; empty: all are in order."""
    names = [step.get("name") for step in steps]
    for step in steps:
        name = step.get("name")
        if not name or not step.get("action"):
            return "every step needs a name and an action."
        if names.count(name) > 1:
            return f"two steps are named {name}."
        reactions = {"onFailure": ("Abort", "Continue"), "onCancel": ("Abort",)}
        for key, words in reactions.items():
            value = str(step.get(key, "Abort"))
            if value not in words and value.removeprefix("step:") not in (names if value.startswith("step:") else ()):
                return f"{key} of the step {name} is {value}; allowed are {', '.join(words)} and step:NAME of another step."
        if step.get("nextStep") and step["nextStep"] not in names:
            return f"nextStep of the step {name} is {step['nextStep']}, which is no step."
        if step.get("nextStep") and str(step.get("isEnd")).lower() == "true":
            return f"the step {name} has both nextStep and isEnd."
    return ""


def _check_shape(name: str, content: Any) -> None:
    """moto stores whatever it is given."""
    steps = content.get("mainSteps") if isinstance(content, dict) else None
    declared = (content.get("parameters") or {}) if isinstance(content, dict) else None
    if (
        not isinstance(steps, list)
        or not all(isinstance(step, dict) for step in steps)
        or not isinstance(declared, dict)
        or not all(isinstance(entry, dict) for entry in declared.values())
    ):
        raise AwsError(
            "InvalidAutomationExecutionParametersException",
            f"The Automation document {name} is not a valid runbook of schema 0.3.",
        )


def _no_version(name: str, version: str) -> AwsError:
    return AwsError(
        "AutomationDefinitionVersionNotFoundException", f"Version {version} of the Automation document {name} does not exist."
    )


def parameters(
    name: str, content: dict[str, Any], given: dict[str, list[str]], later: Collection[str] = ()
) -> dict[str, list[str]]:
    """The parameters with their defaults; those in `later` may be absent, for each target brings its own.

    Raises:
        AwsError: one is unknown, missing, or not allowed.
    """
    declared: dict[str, dict[str, Any]] = content.get("parameters") or {}

    def refuse(sentence: str) -> AwsError:
        return AwsError("InvalidAutomationExecutionParametersException", sentence)

    unknown = sorted({*given, *later} - set(declared))
    if unknown:
        raise refuse(f"Parameters [{', '.join(unknown)}] provided to the Automation document {name} are not declared by it.")
    complete: dict[str, list[str]] = {}
    for key, declaration in declared.items():
        values = given.get(key)
        if values is None:
            if key in later:
                continue
            if "default" not in declaration:
                raise refuse(f"Parameter {key} of the Automation document {name} is required and has no value.")
            default = declaration["default"]
            complete[key] = [text(item) for item in default] if isinstance(default, list) else [text(default)]
            continue
        if not is_list(declaration) and len(values) != 1:
            raise refuse(f"Parameter {key} takes exactly one value, not {len(values)}.")
        allowed, pattern = declaration.get("allowedValues"), declaration.get("allowedPattern")
        for value in values:
            if allowed and value not in [text(item) for item in allowed]:
                raise refuse(f"Value {value!r} of parameter {key} is not one of {', '.join(map(str, allowed))}.")
            if pattern and re.search(pattern, value) is None:
                raise refuse(f"Value {value!r} of parameter {key} does not match the pattern {pattern}.")
        complete[key] = list(values)
    return complete


def is_list(declaration: dict[str, Any]) -> bool:
    return str(declaration.get("type", "String")).startswith(("StringList", "List<"))


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
