"""What would PowerShell on a Windows host print, and with which code would it exit? Nothing is executed for real.

A small interpreter for the scripts that operators send by AWS-RunPowerShellScript: `$x = ...`, `$env:NAME`, quotes with `$x` and
`$(...)`, `if`/`elseif`/`else`, `try`/`catch`, the comparison operators, `> file`, `| Out-File`, and the commands `echo`,
`Write-Output`, `Write-Host`, `Write-Error`, `Write-Warning`, `exit N`, `throw`, `return`, `Test-Path`, `Get-Content`,
`Set-Content`, `Add-Content`, `Remove-Item`, `Start-Sleep`, `Restart-Computer` and `shutdown /r`. Every other command is an error
on stderr that does not end the script, as PowerShell has it, unless `$ErrorActionPreference` is `Stop`. Files are the host's.
"""

import operator
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str
    restart: bool = False
    """The script asked Windows to restart, and went on to its end."""


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class _Thrown(Exception):
    """A terminating error."""


class _Unclosed(_Thrown):
    """The parser finds no end: nothing of the script is run."""


def run(script: str, files: MutableMapping[str, str], *, facts: Mapping[str, str] | None = None) -> Result:
    """Interpret `script`; `files` is changed by it. `facts`: outputs of read-only commands (`hostname`) and `$env:` variables."""
    machine = _Machine(files=files, facts=dict(facts or {}))
    code = 0
    try:
        machine.block(script)
    except _Exit as left:
        code = left.code
    except _Thrown as thrown:
        machine.err.append(f"{thrown}\n")
        code = 1
    except (IndexError, ValueError, TypeError, RecursionError, re.error) as broken:  # a script that PowerShell could not parse
        machine.err.append(f"ParserError: {broken}\n")
        code = 1
    return Result(exit_code=code, stdout="".join(machine.out), stderr="".join(machine.err), restart=machine.restart)


# --- cutting ---

_PAIRS = {"(": ")", "{": "}"}


def _skip(text: str, at: int) -> int:
    """The position behind what begins at `at`: a quoted text, a bracketed one, a comment, or one character."""
    char = text[at]
    if char == "'":
        end = at + 1
        while end < len(text) and (text[end] != "'" or text.startswith("''", end)):
            end += 2 if text.startswith("''", end) else 1
        return _closed(text, end)
    if char == '"':
        end = at + 1
        while end < len(text) and text[end] != '"':
            end = end + 2 if text[end] == "`" else _skip(text, end + 1) if text.startswith("$(", end) else end + 1
        return _closed(text, end)
    if text.startswith("<#", at):
        end = text.find("#>", at)
        return len(text) if end < 0 else end + 2
    if char == "#" and (at == 0 or text[at - 1] in " \t\r\n;{}"):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    if char in _PAIRS:
        end = at + 1
        while end < len(text) and text[end] != _PAIRS[char]:
            end = _skip(text, end)
        return _closed(text, end)
    return at + 2 if char == "`" else at + 1


def _closed(text: str, end: int) -> int:
    if end >= len(text):
        raise _Unclosed("The string or block is missing its terminator.")
    return end + 1


def _cut(text: str, marks: str) -> list[str]:
    """The text between marks that stand outside quotes, brackets and comments; comments are left out."""
    parts, start, at = [""], 0, 0
    while at < len(text):
        end = _skip(text, at)
        comment = text.startswith("<#", at) or (text[at] == "#" and end > at + 1)
        if comment or text[at] in marks:
            parts[-1] += text[start:at]
            start = end
            if not comment:
                parts.append("")
        at = end
    parts[-1] += text[start:]
    return [part.strip() for part in parts]


def _statements(text: str) -> list[str]:
    """Statements in order; `else` and its kin belong to what stands before them."""
    found: list[str] = []
    for part in _cut(text.replace("\r", "").replace("`\n", " "), "\n;"):
        if found and re.match(r"(else|elseif|catch|finally)\b", part, re.IGNORECASE):
            found[-1] += " " + part
        elif part:
            found.append(part)
    return found


_TOKEN = re.compile(r"\$\(|\$(?:env:)?[\w?]+|-[A-Za-z]+|\d+(?![\w.])|!|\+|,|[^\s'\"(){},]+", re.IGNORECASE)


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] in "'\"({":
            end = _skip(text, at)
            found.append(text[at:end])
            at = end
        else:
            match = _TOKEN.match(text, at)
            if match is None:
                raise _Thrown(f"Unexpected token '{text[at]}' in expression or statement.")
            end = _skip(text, at + 1) if match.group(0) == "$(" else match.end()
            found.append(text[at:end])
            at = end
    return found


# --- execution ---

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-gt": operator.gt,
    "-ge": operator.ge,
    "-lt": operator.lt,
    "-le": operator.le,
    "-like": lambda left, right: fnmatch(str(left), str(right)),
    "-match": lambda left, right: re.search(str(right), str(left)) is not None,
}


@dataclass(slots=True)
class _Machine:
    files: MutableMapping[str, str]
    facts: dict[str, str]
    variables: dict[str, Any] = field(default_factory=dict)
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    restart: bool = False

    def block(self, text: str) -> None:
        for statement in _statements(text):
            self._statement(statement)

    def _statement(self, text: str) -> None:
        word = (re.match(r"\w+", text) or re.match("", text)).group(0).lower()  # type: ignore[union-attr]
        assigned = re.match(r"\$(env:)?(\w+)\s*=(?!=)\s*(.+)", text, re.DOTALL | re.IGNORECASE)
        rest = text[len(word) :].strip()
        if assigned:
            self.variables[((assigned.group(1) or "") + assigned.group(2)).lower()] = self._captured(assigned.group(3))
        elif word == "if":
            self._if(text)
        elif word == "try":
            self._try(text)
        elif word == "exit":
            code = self._captured(rest) if rest else 0
            raise _Exit(int(code) if re.fullmatch(r"-?\d+", str(code)) else 0)
        elif word == "return":
            if rest:
                self._pipeline(rest)
            raise _Exit(0)
        elif word == "throw":
            raise _Thrown(_text(self._captured(rest)) if rest else "ScriptHalted")
        else:
            self._pipeline(text)

    def _if(self, text: str) -> None:
        parts = _tokens(text)
        while parts:
            word = parts.pop(0).lower()
            if word == "else":
                self.block(parts.pop(0)[1:-1])
                return
            condition, body = parts.pop(0), parts.pop(0)
            if _true(self._captured(condition[1:-1])):
                self.block(body[1:-1])
                return

    def _try(self, text: str) -> None:
        parts = _tokens(text)
        blocks = {name.lower(): body[1:-1] for name, body in zip(parts[::2], parts[1::2], strict=False)}
        try:
            self.block(blocks.get("try", ""))
        except _Thrown as thrown:
            self.variables["_"] = str(thrown)
            self.block(blocks.get("catch", ""))
        finally:
            self.block(blocks.get("finally", ""))

    def _captured(self, text: str) -> Any:
        """The value of an expression, or what a command prints."""
        parts = _tokens(text)
        if not parts:
            return ""
        if parts[0][0] in "'\"($!0123456789" or parts[0].lower() in ("-not", "-1"):
            return self._expression(parts)
        outer, self.out = self.out, []
        try:
            self._pipeline(text)
            written = "".join(self.out).rstrip("\n")
        finally:
            self.out = outer
        return {"True": True, "False": False}.get(written, written)

    def _expression(self, parts: list[str]) -> Any:
        left = self._conjunct(parts)
        while parts and parts[0].lower() in ("-and", "-or"):
            both = parts.pop(0).lower() == "-and"
            right = self._conjunct(parts)
            left = (_true(left) and _true(right)) if both else (_true(left) or _true(right))
        if parts:
            raise _Thrown(f"Unexpected token '{parts[0]}' in expression or statement.")
        return left

    def _conjunct(self, parts: list[str]) -> Any:
        if parts and parts[0].lower() in ("-not", "!"):
            parts.pop(0)
            return not _true(self._conjunct(parts))
        left = self._sum(parts)
        if parts and parts[0].lower() in _COMPARE:
            compare, right = _COMPARE[parts.pop(0).lower()], self._sum(parts)
            if isinstance(left, str) or isinstance(right, str):
                left, right = _text(left).lower(), _text(right).lower()
            return compare(left, right)
        return left

    def _sum(self, parts: list[str]) -> Any:
        total = self._value(parts.pop(0)) if parts else ""
        while parts and parts[0] == "+":
            parts.pop(0)
            more = self._value(parts.pop(0)) if parts else ""
            total = total + more if isinstance(total, int) and isinstance(more, int) else _text(total) + _text(more)
        return total

    def _value(self, token: str) -> Any:
        if token[0] == "'":
            return token[1:-1].replace("''", "'")
        if token[0] == '"':
            return self._filled(token[1:-1])
        if token[0] == "(" or token.startswith("$("):
            return self._captured(token[token.index("(") + 1 : -1])
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        return self._variable(token[1:]) if token[0] == "$" and len(token) > 1 else token

    def _variable(self, name: str) -> Any:
        known = {"true": True, "false": False, "null": "", "?": True, **self.variables}
        return known.get(name.lower(), self.facts.get(f"${name.lower()}", ""))

    def _filled(self, text: str) -> str:
        found, at = "", 0
        while at < len(text):
            variable = re.compile(r"\$(?:env:)?\w+|\$\?", re.IGNORECASE).match(text, at)
            if text[at] == "`":
                found += {"n": "\n", "t": "\t", "r": ""}.get(text[at + 1 : at + 2], text[at + 1 : at + 2])
                at += 2
            elif text.startswith("$(", at):
                end = _skip(text, at + 1)
                found += _text(self._captured(text[at + 2 : end - 1]))
                at = end
            elif variable:
                found += _text(self._variable(variable.group(0)[1:]))
                at = variable.end()
            else:
                found += text[at]
                at += 1
        return found

    def _pipeline(self, text: str) -> None:
        """A command or an expression, and where its output goes."""
        redirected = re.search(r"\s(\d?>{1,2})\s*(\S+|'[^']*'|\"[^\"]*\")$", text)
        stages = _cut(text[: redirected.start()] if redirected else text, "|")
        outer, self.out = self.out, []
        try:
            self._stage(_tokens(stages[0]))
            for stage in stages[1:]:
                self._into(_tokens(stage))
            if redirected:
                self._write(_text(self._value(redirected.group(2))), "".join(self.out), more=">>" in redirected.group(1))
                self.out = []
        finally:
            written, self.out = self.out, outer
            self.out += written

    def _stage(self, parts: list[str]) -> None:
        if not parts:
            return
        if parts[0][0] in "'\"($!0123456789":
            value = self._expression(parts)
            self._say(value) if value != "" else None
            return
        self._command(parts[0], [self._value(part) for part in parts[1:] if part != ","])

    def _into(self, parts: list[str]) -> None:
        name, arguments = parts[0].lower() if parts else "", [self._value(part) for part in parts[1:]]
        text = "".join(self.out)
        if name in ("out-file", "set-content", "add-content"):
            paths = [_text(item) for item in arguments if not _text(item).startswith("-")]
            more = name == "add-content" or any(_text(item).lower() == "-append" for item in arguments)
            self._write(paths[0] if paths else "", text, more=more)
            self.out = []
        elif name == "out-null":
            self.out = []
        elif name not in ("out-string", "write-output", "write-host", "out-host", "out-default"):
            self._unknown(parts[0] if parts else "")

    def _say(self, value: Any) -> None:
        self.out.append(f"{_text(value)}\n")

    def _write(self, path: str, text: str, *, more: bool) -> None:
        if path.lower() not in ("$null", "nul", ""):
            self.files[path] = (self.files.get(path, "") if more else "") + text

    def _error(self, sentence: str) -> None:
        if _text(self.variables.get("erroractionpreference", "")).lower() == "stop":
            raise _Thrown(sentence)
        self.err.append(sentence + "\n")

    def _unknown(self, name: str) -> None:
        self._error(
            f"{name} : The term '{name}' is not recognized as the name of a cmdlet, function, script file, or operable program."
        )

    def _command(self, given: str, arguments: list[Any]) -> None:
        name, plain = given.lower(), [item for item in arguments if not (isinstance(item, str) and item.startswith("-"))]
        paths = [_text(item) for item in plain]
        if name in ("echo", "write-output", "write"):
            for item in plain:
                self._say(item)
        elif name in ("write-host", "write-warning"):
            self._say(("WARNING: " if name == "write-warning" else "") + " ".join(paths))
        elif name == "write-error":
            self._error(" ".join(paths))
        elif name == "restart-computer" or (name in ("shutdown", "shutdown.exe") and "/r" in paths):
            self.restart = True
        elif name == "test-path":
            self._say(any(path.lower().startswith(paths[0].lower()) for path in self.files) if paths else False)
        elif name in ("get-content", "type", "cat"):
            for path in paths:
                if path in self.files:
                    self.out.append(self.files[path])
                else:
                    self._error(f"{given} : Cannot find path '{path}' because it does not exist.")
        elif name in ("set-content", "add-content"):
            self._write(paths[0] if paths else "", "".join(f"{text}\n" for text in paths[1:]), more=name == "add-content")
        elif name == "remove-item":
            for path in paths:
                self.files.pop(path, None)
        elif f"{name} {' '.join(paths)}".strip() in self.facts:
            self._say(self.facts[f"{name} {' '.join(paths)}".strip()])
        elif name not in ("start-sleep", "new-item", "set-executionpolicy", "write-verbose", "write-debug"):
            self._unknown(given)


def _true(value: Any) -> bool:
    return value not in (False, 0, "")


def _text(value: Any) -> str:
    return str(value)
