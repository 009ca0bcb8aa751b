"""What would a POSIX shell on the host print, and with which status would it exit? Nothing is executed for real.

A small interpreter for the scripts that operators send: assignments, `$x`, `$(...)`, quotes, `&&`, `||`, `;`, `{ ...; }`, `if`,
`!`, `> file`, `>> file`, and the commands `echo`, `printf` (plain text), `cat`, `[`/`test`, `true`, `false`, `:`, `exit`, `rm`,
`touch`, `mkdir`, `sync`, `sleep`, `uptime -s`, `uname -r`, `hostname`, `whoami`, `date`. Everything else is `command not
found`, status 127. Files are a dict (the host's).
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

Word = list[tuple[str, bool]]
"""Pieces of a word: (text, quoted literally). Unquoted or double-quoted pieces with `$` are marked by False and expanded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


class SyntaxProblem(Exception):
    """The script uses grammar that the interpreter does not know."""


class _Exit(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def run(script: str, files: MutableMapping[str, str], *, facts: Mapping[str, str] | None = None) -> Result:
    """Interpret `script`; `files` is changed by it. `facts` are the outputs of read-only commands such as `uptime -s`."""
    machine = _Machine(files=files, facts=dict(facts or {}))
    try:
        status = machine.sequence(_Parser(script).program())
    except _Exit as left:
        status = left.status
    except SyntaxProblem as problem:
        machine.error(f"sh: syntax error: {problem}")
        status = 2
    return Result(exit_code=status, stdout="".join(machine.out), stderr="".join(machine.err))


# --- grammar ---


@dataclass(slots=True)
class _Token:
    kind: str  # "word", "op"
    text: str = ""
    pieces: list[tuple[str, str]] = field(default_factory=list)  # ("text" | "var" | "sub", value)
    quoted: bool = False


@dataclass(slots=True)
class _Command:
    words: list[_Token]
    redirects: list[tuple[str, _Token]]


@dataclass(slots=True)
class _Group:
    body: "list[_AndOr]"
    redirects: list[tuple[str, _Token]]


@dataclass(slots=True)
class _If:
    branches: "list[tuple[list[_AndOr], list[_AndOr]]]"
    otherwise: "list[_AndOr] | None"


@dataclass(slots=True)
class _Part:
    node: "_Command | _Group | _If"
    negated: bool
    operator: str  # how it is joined with what came before: "", "&&", "||"


_AndOr = list[_Part]


class _Parser:
    def __init__(self, script: str) -> None:
        self._tokens = _tokens(script)
        self._at = 0

    def program(self) -> list[_AndOr]:
        body = self._list(ends=())
        if self._at < len(self._tokens):
            raise SyntaxProblem(f"unexpected {self._tokens[self._at].text!r}")
        return body

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _is(self, text: str) -> bool:
        token = self._peek()
        return token is not None and not token.quoted and token.text == text

    def _take(self, text: str) -> None:
        if not self._is(text):
            found = self._peek()
            raise SyntaxProblem(f"expected {text!r}, found {found.text if found else 'the end'!r}")
        self._at += 1

    def _list(self, *, ends: tuple[str, ...]) -> list[_AndOr]:
        body: list[_AndOr] = []
        while True:
            while self._is(";") or self._is("\n"):
                self._at += 1
            if self._peek() is None or any(self._is(end) for end in ends):
                return body
            body.append(self._and_or())
            if not (self._is(";") or self._is("\n") or self._peek() is None or any(self._is(end) for end in ends)):
                found = self._peek()
                raise SyntaxProblem(f"unexpected {found.text if found else ''!r}")

    def _and_or(self) -> _AndOr:
        parts = [self._part("")]
        while self._is("&&") or self._is("||"):
            operator = self._tokens[self._at].text
            self._at += 1
            while self._is("\n"):
                self._at += 1
            parts.append(self._part(operator))
        return parts

    def _part(self, operator: str) -> _Part:
        negated = self._is("!")
        if negated:
            self._at += 1
        return _Part(self._node(), negated, operator)

    def _node(self) -> _Command | _Group | _If:
        if self._is("{"):
            self._at += 1
            body = self._list(ends=("}",))
            self._take("}")
            return _Group(body, self._redirects())
        if self._is("if"):
            return self._if()
        words: list[_Token] = []
        redirects: list[tuple[str, _Token]] = []
        while (token := self._peek()) is not None:
            if token.kind == "op" and token.text in (">", ">>"):
                redirects.extend(self._redirects())
            elif token.kind == "op":
                break
            else:
                words.append(token)
                self._at += 1
        if not words and not redirects:
            raise SyntaxProblem(f"unexpected {token.text if token else 'end'!r}")
        return _Command(words, redirects)

    def _redirects(self) -> list[tuple[str, _Token]]:
        found = []
        while self._is(">") or self._is(">>"):
            operator = self._tokens[self._at].text
            self._at += 1
            target = self._peek()
            if target is None or target.kind != "word":
                raise SyntaxProblem("a file name is missing after >")
            self._at += 1
            found.append((operator, target))
        return found

    def _if(self) -> _If:
        branches = []
        self._take("if")
        while True:
            condition = self._list(ends=("then",))
            self._take("then")
            branches.append((condition, self._list(ends=("elif", "else", "fi"))))
            if not self._is("elif"):
                break
            self._at += 1
        otherwise = None
        if self._is("else"):
            self._at += 1
            otherwise = self._list(ends=("fi",))
        self._take("fi")
        return _If(branches, otherwise)


def _tokens(script: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(script):
        char = script[at]
        if char in " \t\r":
            at += 1
        elif char == "#":
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        elif script.startswith("\\\n", at):
            at += 2
        elif script[at : at + 2] in ("&&", "||", ">>"):
            tokens.append(_Token("op", script[at : at + 2]))
            at += 2
        elif char in ";>\n":
            tokens.append(_Token("op", char))
            at += 1
        elif char in "&|<()":
            raise SyntaxProblem(f"{char!r} is not supported")
        else:
            token, at = _word(script, at)
            tokens.append(token)
    return tokens


def _word(script: str, at: int) -> tuple[_Token, int]:
    token = _Token("word")
    start = at
    while at < len(script) and script[at] not in " \t\r\n;&|<>()":
        char = script[at]
        if char == "'":
            end = _closing(script, at + 1, "'")
            token.pieces.append(("text", script[at + 1 : end]))
            token.quoted, at = True, end + 1
        elif char == '"':
            at = _double_quoted(script, at + 1, token)
            token.quoted = True
        elif char == "\\" and at + 1 < len(script):
            token.pieces.append(("text", script[at + 1]))
            at += 2
        elif char == "$":
            at = _dollar(script, at, token)
        else:
            token.pieces.append(("text", char))
            at += 1
    token.text = script[start:at]
    return token, at


def _double_quoted(script: str, at: int, token: _Token) -> int:
    token.pieces.append(("text", ""))
    while at < len(script) and script[at] != '"':
        if script[at] == "\\" and at + 1 < len(script) and script[at + 1] in '"\\$`':
            token.pieces.append(("text", script[at + 1]))
            at += 2
        elif script[at] == "$":
            at = _dollar(script, at, token)
        else:
            token.pieces.append(("text", script[at]))
            at += 1
    if at >= len(script):
        raise SyntaxProblem('a closing " is missing')
    return at + 1


def _dollar(script: str, at: int, token: _Token) -> int:
    if script.startswith("$(", at):
        depth, end = 1, at + 2
        while end < len(script) and depth:
            depth += {"(": 1, ")": -1}.get(script[end], 0)
            end += 1
        if depth:
            raise SyntaxProblem("a closing ) is missing")
        token.pieces.append(("sub", script[at + 2 : end - 1]))
        return end
    if script.startswith("${", at):
        end = _closing(script, at + 2, "}")
        token.pieces.append(("var", script[at + 2 : end]))
        return end + 1
    end = at + 1
    if end < len(script) and script[end] in "?$#":
        end += 1
    else:
        while end < len(script) and (script[end].isalnum() or script[end] == "_"):
            end += 1
    token.pieces.append(("var", script[at + 1 : end]) if end > at + 1 else ("text", "$"))
    return end


def _closing(script: str, at: int, mark: str) -> int:
    end = script.find(mark, at)
    if end < 0:
        raise SyntaxProblem(f"a closing {mark} is missing")
    return end


# --- execution ---


@dataclass(slots=True)
class _Machine:
    files: MutableMapping[str, str]
    facts: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    status: int = 0

    def error(self, line: str) -> None:
        self.err.append(line + "\n")

    def sequence(self, body: list[_AndOr]) -> int:
        for and_or in body:
            for part in and_or:
                if (part.operator == "&&" and self.status) or (part.operator == "||" and not self.status):
                    continue
                status = self._node(part.node)
                self.status = int(not status) if part.negated else status
        return self.status

    def _node(self, node: _Command | _Group | _If) -> int:
        if isinstance(node, _If):
            return self._if(node)
        if isinstance(node, _Group):
            return self._redirected(node.redirects, lambda: self.sequence(node.body))
        return self._redirected(node.redirects, lambda: self._command(node.words))

    def _if(self, node: _If) -> int:
        for condition, body in node.branches:
            self.sequence(condition)
            if self.status == 0:
                return self.sequence(body)
        self.status = 0
        return self.sequence(node.otherwise) if node.otherwise is not None else 0

    def _redirected(self, redirects: list[tuple[str, _Token]], action: Callable[[], int]) -> int:
        if not redirects:
            return action()
        outer, self.out = self.out, []
        try:
            return action()
        finally:
            written, self.out = "".join(self.out), outer
            for operator, target in redirects:
                path = self._expand(target)
                if path != "/dev/null":
                    self.files[path] = (self.files.get(path, "") if operator == ">>" else "") + written

    def _expand(self, token: _Token) -> str:
        return "".join(self._piece(kind, value) for kind, value in token.pieces)

    def _piece(self, kind: str, value: str) -> str:
        if kind == "text":
            return value
        if kind == "var":
            return str(self.status) if value == "?" else self.variables.get(value, "")
        inner = _Machine(files=self.files, facts=self.facts, variables=dict(self.variables))
        try:
            self.status = inner.sequence(_Parser(value).program())
        except _Exit as left:
            self.status = left.status
        self.err.extend(inner.err)
        return "".join(inner.out).rstrip("\n")

    def _command(self, words: list[_Token]) -> int:
        rest = list(words)
        while rest and _assigns(rest[0]):
            name, _, _ = rest[0].text.partition("=")
            self.status = 0
            value = self._expand(rest.pop(0))[len(name) + 1 :]
            self.variables[name] = value
        if not rest:
            return self.status if words else 0
        expanded: list[str] = []
        for token in rest:
            text = self._expand(token)
            expanded.extend([text] if token.quoted or not any(kind != "text" for kind, _ in token.pieces) else text.split())
        return self._call(expanded) if expanded else 0

    def _call(self, argv: list[str]) -> int:
        name, arguments = argv[0], argv[1:]
        handler = getattr(self, f"_do_{_NAMES.get(name, '')}", None)
        if handler is not None:
            return int(handler(arguments))
        fact = self.facts.get(" ".join(argv))
        if fact is not None:
            self.out.append(fact + "\n")
            return 0
        self.error(f"sh: {name}: command not found")
        return 127

    def _do_true(self, arguments: list[str]) -> int:
        return 0

    def _do_false(self, arguments: list[str]) -> int:
        return 1

    def _do_echo(self, arguments: list[str]) -> int:
        newline = "" if arguments[:1] == ["-n"] else "\n"
        self.out.append(" ".join(arguments[1:] if arguments[:1] == ["-n"] else arguments) + newline)
        return 0

    def _do_printf(self, arguments: list[str]) -> int:
        text = arguments[0].replace("\\n", "\n") if arguments else ""
        for value in arguments[1:]:
            text = text.replace("%s", value, 1)
        self.out.append(text)
        return 0

    def _do_exit(self, arguments: list[str]) -> int:
        raise _Exit(int(arguments[0]) % 256 if arguments and arguments[0].isdigit() else self.status if not arguments else 2)

    def _do_cat(self, arguments: list[str]) -> int:
        status = 0
        for path in arguments:
            if path in self.files:
                self.out.append(self.files[path])
            else:
                self.error(f"cat: {path}: No such file or directory")
                status = 1
        return status

    def _do_rm(self, arguments: list[str]) -> int:
        for path in arguments:
            if not path.startswith("-"):
                self.files.pop(path, None)
        return 0

    def _do_touch(self, arguments: list[str]) -> int:
        for path in arguments:
            self.files.setdefault(path, "")
        return 0

    def _do_bracket(self, arguments: list[str]) -> int:
        if arguments[-1:] != ["]"]:
            self.error("sh: [: missing `]'")
            return 2
        return self._do_test(arguments[:-1])

    def _do_test(self, arguments: list[str]) -> int:
        if arguments[:1] == ["!"]:
            status = self._do_test(arguments[1:])
            return status if status > 1 else 1 - status
        match arguments:
            case []:
                return 1
            case [text]:
                return int(not text)
            case ["-n", text]:
                return int(not text)
            case ["-z", text]:
                return int(bool(text))
            case ["-e" | "-f" | "-r", path]:
                return int(path not in self.files)
            case ["-s", path]:
                return int(not self.files.get(path))
            case ["-d", path]:
                return int(not any(name.startswith(path.rstrip("/") + "/") for name in self.files))
            case [left, "=" | "==", right]:
                return int(left != right)
            case [left, "!=", right]:
                return int(left == right)
            case [left, ("-eq" | "-ne" | "-gt" | "-ge" | "-lt" | "-le") as operator, right] if _number(left) and _number(right):
                return int(not _COMPARE[operator](int(left), int(right)))
        self.error(f"sh: test: {' '.join(arguments)}: unexpected operator")
        return 2


_NAMES = {
    "true": "true",
    ":": "true",
    "false": "false",
    "echo": "echo",
    "printf": "printf",
    "exit": "exit",
    "cat": "cat",
    "rm": "rm",
    "touch": "touch",
    "[": "bracket",
    "test": "test",
    "mkdir": "true",
    "sync": "true",
    "sleep": "true",
    "set": "true",
    "export": "true",
}

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "-eq": lambda left, right: left == right,
    "-ne": lambda left, right: left != right,
    "-gt": lambda left, right: left > right,
    "-ge": lambda left, right: left >= right,
    "-lt": lambda left, right: left < right,
    "-le": lambda left, right: left <= right,
}


def _number(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _assigns(token: _Token) -> bool:
    name, sign, _ = token.text.partition("=")
    return bool(sign) and name.isidentifier()
