"""What resources does a conformance pack's template describe, once its parameters and conditions are put in?

The part of CloudFormation that such templates use: Ref, Fn::If, Fn::Equals, Fn::Not, Fn::And, Fn::Or, Fn::Sub, Fn::Join,
Fn::Select, Fn::Split, in both spellings, and AWS::NoValue.
"""

import re
from typing import Any

import yaml


class BadTemplate(ValueError):
    """The template cannot be used."""


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms (`!Ref x` is `{Ref: x}`)."""


def _short(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise BadTemplate(f"The tag !{suffix} cannot be read.")
    return {"Ref" if suffix == "Ref" else "Condition" if suffix == "Condition" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short)


class _NoValue:
    """AWS::NoValue: the property is left out."""


_NOTHING = _NoValue()


def expanded(text: str, given: dict[str, str], *, account: str, region: str) -> dict[str, dict[str, Any]]:
    """Logical name -> resource, conditions applied.

    Raises:
        BadTemplate: it is no template, lacks a parameter, or uses what this simulator does not know.
    """
    try:
        template = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with constructors that make dicts
    except yaml.YAMLError as broken:
        raise BadTemplate(f"The template is not YAML: {str(broken).splitlines()[0]}") from broken
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise BadTemplate("The template has no Resources.")
    declared = template.get("Parameters") or {}
    if not isinstance(declared, dict) or not isinstance(template.get("Conditions") or {}, dict):
        raise BadTemplate("Parameters and Conditions must be mappings.")
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise BadTemplate(f"The template does not declare the parameters {', '.join(unknown)}.")
    values: dict[str, Any] = {"AWS::AccountId": account, "AWS::Region": region, "AWS::Partition": "aws", "AWS::NoValue": _NOTHING}
    for name, declaration in declared.items():
        if name not in given and "Default" not in (declaration or {}):
            raise BadTemplate(f"The parameter {name} has no value and no default.")
        values[name] = given.get(name, (declaration or {}).get("Default"))
    reader = _Reader(values, template.get("Conditions") or {}, template["Resources"])
    try:
        return _read_all(template["Resources"], reader)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as wrong:
        if isinstance(wrong, BadTemplate):
            raise
        raise BadTemplate(f"The template cannot be read: {wrong}") from wrong


def _read_all(resources: dict[str, Any], reader: "_Reader") -> dict[str, dict[str, Any]]:
    found = {}
    for logical, resource in resources.items():
        if "Condition" in resource and not reader.holds({"Condition": resource["Condition"]}):
            continue
        found[logical] = reader.read(resource)
    return found


class _Reader:
    def __init__(self, values: dict[str, Any], conditions: dict[str, Any], resources: dict[str, Any]) -> None:
        self._values, self._conditions, self._resources = values, conditions, resources

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item for item in (self.read(entry) for entry in value) if item is not _NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), *_ = value.items()
            if name == "Ref":
                return self._ref(str(argument))
            if isinstance(name, str) and name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        read = {key: self.read(item) for key, item in value.items()}
        return {key: item for key, item in read.items() if item is not _NOTHING}

    def _ref(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name in self._resources:
            properties = self._resources[name].get("Properties") or {}
            return self.read(properties.get("ConfigRuleName", name))
        raise BadTemplate(f"Ref to {name}, which the template does not have.")

    def _function(self, name: str, argument: Any) -> Any:
        if name == "If":
            condition, yes, no = argument
            return self.read(yes if self.holds({"Condition": condition}) else no)
        if name in ("Equals", "Not", "And", "Or"):
            return self.holds({f"Fn::{name}": argument})
        if name == "Join":
            return str(argument[0]).join(str(item) for item in self.read(argument[1]))
        if name == "Select":
            return self.read(argument[1])[int(self.read(argument[0]))]
        if name == "Split":
            return str(self.read(argument[1])).split(str(argument[0]))
        if name == "Sub":
            text, more = (argument[0], self.read(argument[1])) if isinstance(argument, list) else (argument, {})
            return re.sub(
                r"\$\{([\w:]+)\}",
                lambda found: str(more[found.group(1)] if found.group(1) in more else self._ref(found.group(1))),
                text,
            )
        raise BadTemplate(f"The function Fn::{name} is not known here.")

    def holds(self, condition: Any) -> bool:
        if not isinstance(condition, dict) or len(condition) != 1:
            raise BadTemplate(f"{condition!r} is no condition.")
        (name, argument), *_ = condition.items()
        if name == "Condition":
            if argument not in self._conditions:
                raise BadTemplate(f"The condition {argument} is not declared.")
            return self.holds(self._conditions[argument])
        if name == "Fn::Equals":
            left, right = self.read(argument[0]), self.read(argument[1])
            return str(left) == str(right)
        if name == "Fn::Not":
            return not self.holds(argument[0])
        if name == "Fn::And":
            return all(self.holds(part) for part in argument)
        if name == "Fn::Or":
            return any(self.holds(part) for part in argument)
        raise BadTemplate(f"The condition {name} is not known here.")
