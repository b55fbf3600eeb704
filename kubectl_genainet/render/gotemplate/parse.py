"""From the text of a template to its nodes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kubectl_genainet.errors import InputError

_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][-+]?\d+)?))
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.)')
    |(?P<field>\.[A-Za-z_]\w*)
    |(?P<dot>\.)
    |(?P<variable>\$\w*)
    |(?P<assign>:=|=)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>[(),|])""",
    re.VERBOSE,
)
_BAD_ESCAPE = re.compile(
    r"""(?<!\\)(?:\\\\)*\\(?![abfnrtv\\'"]|x[0-9a-fA-F]{2}|[0-7]{3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
)
_UNSUPPORTED = ("define", "template", "block", "call", "js")
_CONSTANTS = {"true": True, "false": False, "nil": None}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Constant:
    value: Any


@dataclass(frozen=True, slots=True)
class TemplatePath:
    """Fields of what stands before them: the dot (None), a variable, or a pipeline in parentheses."""

    of: str | Pipeline | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    name: str


Operand = Constant | TemplatePath | Function


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each of which gets what the one before it gave; and the variables that take the result."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


@dataclass(slots=True)
class Branch:
    """`if`, `with` or `range`: what is done where the pipeline has something, and where it has not."""

    kind: Literal["if", "with", "range"]
    pipeline: Pipeline
    body: list[TemplateNode] = field(default_factory=list)
    otherwise: list[TemplateNode] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leave:
    """{{break}} or {{continue}}."""

    ends_loop: bool


TemplateNode = str | Pipeline | Branch | Leave


def parse_template(text: str, functions: frozenset[str]) -> list[TemplateNode]:
    """Raises InputError for a template that can't be read, or has a part that is not evaluated here."""
    nesting = _Nesting()
    for literal, action in _pieces(text):
        if literal:
            nesting.add(literal)
        if action is not None:
            tokens = _Tokens(action, functions)
            _take(tokens, nesting)
            tokens.check_end()
    return nesting.closed()


def _take(tokens: _Tokens, nesting: _Nesting) -> None:
    """One action: a word of control, or a pipeline whose result is printed."""
    match tokens.keyword():
        case "if" | "with" | "range" as kind:
            nesting.open(Branch(kind, tokens.pipeline(in_range=kind == "range")))
        case "else":
            nesting.otherwise()
            chained = tokens.keyword()
            if chained in ("if", "with"):
                nesting.chain(Branch(chained, tokens.pipeline()))  # type: ignore[arg-type]
        case "end":
            nesting.end()
        case "break" | "continue" as leave:
            nesting.leave(leave)
        case _:
            nesting.add(tokens.pipeline())


class _Nesting:
    """The branches that are open, and the list of nodes that takes the next one."""

    def __init__(self) -> None:
        self._lists: list[list[TemplateNode]] = [[]]  # the innermost open one last
        self._branches: list[Branch] = []
        self._depths: list[int] = []  # how many lists each {{end}} closes: an {{else if}} has opened one more

    def add(self, node: TemplateNode) -> None:
        self._lists[-1].append(node)

    def open(self, branch: Branch) -> None:
        self.add(branch)
        self._lists.append(branch.body)
        self._branches.append(branch)
        self._depths.append(1)

    def otherwise(self) -> None:
        if not self._branches or self._lists[-1] is self._branches[-1].otherwise:
            raise InputError("{{else}} without {{if}}, {{range}} or {{with}} in the template")
        self._lists[-1] = self._branches[-1].otherwise

    def chain(self, branch: Branch) -> None:
        """{{else if}}: a branch in the other one, closed by the same {{end}}."""
        depth = self._depths.pop()
        self.open(branch)
        self._depths[-1] = depth + 1

    def end(self) -> None:
        if not self._branches:
            raise InputError("{{end}} without {{if}}, {{range}} or {{with}} in the template")
        depth = self._depths.pop()
        del self._lists[-depth:], self._branches[-depth:]

    def leave(self, word: str) -> None:
        if not any(branch.kind == "range" for branch in self._branches):
            raise InputError(f"{{{{{word}}}}} outside {{{{range}}}} in the template")
        self.add(Leave(word == "break"))

    def closed(self) -> list[TemplateNode]:
        """All nodes. Raises InputError where a branch is still open."""
        if self._branches:
            raise InputError(f"{{{{{self._branches[-1].kind}}}}} without {{{{end}}}} in the template")
        return self._lists[0]


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """(text, the action behind it), with the blanks trimmed that {{- and -}} take away. No action: a comment, or the end."""
    position, trim = 0, False
    while (opening := text.find("{{", position)) >= 0:
        literal = text[position:opening].lstrip() if trim else text[position:opening]
        start = opening + 2
        if text[start : start + 1] == "-" and text[start + 1 : start + 2].isspace():
            literal, start = literal.rstrip(), start + 1
        closing = _closing(text, start)
        action = text[start:closing]
        trim = action.endswith("-") and action[-2:-1].isspace()
        action = action[:-1] if trim else action
        yield literal, None if action.strip().startswith("/*") else action
        position = closing + 2
    tail = text[position:]
    yield (tail.lstrip() if trim else tail), None


def _closing(text: str, start: int) -> int:
    """Where the }} of an action is; one in a string or a comment does not count."""
    comment = re.compile(r"\s*/\*.*?\*/", re.DOTALL).match(text, start)
    quoted = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|`[^`]*`|\'(?:[^\'\\\n]|\\.)\'|\}\}').finditer(
        text, comment.end() if comment else start
    )
    for piece in quoted:
        if piece.group() == "}}":
            return piece.start()
    raise InputError(
        f"an action of the template does not end: {text[start - 2 : start + 30]!r}", hint="It ends with }}."
    )


class _Tokens:
    """The tokens of one action, read from the left."""

    def __init__(self, action: str, functions: frozenset[str]) -> None:
        self._action, self._functions = action, functions
        self._tokens: list[Token] = []
        self._next = 0
        position = 0
        while position < len(action):
            token = _TOKEN.match(action, position)
            if token is None:
                raise self._error(f"{action[position : position + 10]!r} can't be read")
            self._tokens.append(Token(token.lastgroup or "", token.group()))
            position = token.end()

    def _error(self, why: str) -> InputError:
        return InputError(f"{{{{{self._action.strip()}}}}} in the template: {why}")

    def _skip_blank(self) -> None:
        while self._next < len(self._tokens) and self._tokens[self._next].kind == "blank":
            self._next += 1

    @property
    def at_end(self) -> bool:
        self._skip_blank()
        return self._next == len(self._tokens)

    def check_end(self) -> None:
        if not self.at_end:
            raise self._error(f"unexpected {self._tokens[self._next].text!r}")

    def _peek(self) -> Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else Token("end", "")

    def keyword(self) -> str:
        """A word of control that stands next; "" for anything else, which is left there."""
        self._skip_blank()
        token = self._peek()
        if token.kind == "word" and token.text in _UNSUPPORTED:
            raise self._error(f"{token.text} is not evaluated here: use -o jsonpath=TEMPLATE, or -o json and jq")
        if token.text in ("if", "with", "range", "else", "end", "break", "continue"):
            self._next += 1
            return token.text
        return ""

    def pipeline(self, *, in_range: bool = False) -> Pipeline:
        variables, declares = self._variables(2 if in_range else 1)
        commands = [self._command()]
        while self._peek().text == "|":
            self._next += 1
            commands.append(self._command())
            if not isinstance(commands[-1][0], Function):
                raise self._error("only a function can follow |")
        return Pipeline(tuple(commands), variables, declares)

    def _variables(self, most: int) -> tuple[tuple[str, ...], bool]:
        """The variables that take the result, and whether they are new ones; () where none do."""
        self._skip_blank()
        start = self._next
        names: list[str] = []
        while self._peek().kind == "variable" and len(names) < most:
            names.append(self._peek().text)
            self._next += 1
            self._skip_blank()
            if self._peek().text == ",":
                self._next += 1
                self._skip_blank()
                continue
            if self._peek().kind == "assign":
                self._next += 1
                return tuple(names), self._tokens[self._next - 1].text == ":="
            break
        self._next = start
        return (), False

    def _command(self) -> tuple[Operand, ...]:
        operands = []
        while not self.at_end and self._peek().text not in ("|", ")"):
            operands.append(self._operand())
            if self._peek().kind not in ("blank", "end") and self._peek().text not in ("|", ")"):
                raise self._error(f"unexpected {self._peek().text!r}")
        if not operands:
            raise self._error("a value is missing")
        if operands[0] == Constant(None):
            raise self._error("nil is no value by itself")
        if len(operands) > 1 and not isinstance(operands[0], Function):
            raise self._error("only a function takes arguments")
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._peek()
        self._next += 1
        match token.kind:
            case "number":
                return Constant(_number(token.text))
            case "string" | "char":
                if _BAD_ESCAPE.search(token.text):
                    raise self._error(f"{token.text} has an escape that Go does not know")
                try:
                    text = ast.literal_eval(token.text)
                    text.encode()  # half of a surrogate pair is no character
                except (ValueError, SyntaxError):
                    raise self._error(f"{token.text} can't be read") from None
                return Constant(ord(text) if token.kind == "char" else text)
            case "raw":
                return Constant(token.text[1:-1])
            case "field":
                return TemplatePath(None, (token.text[1:], *self._fields()))
            case "dot":
                return TemplatePath(None)
            case "variable":
                return TemplatePath(token.text, self._fields())
            case "word" if token.text in _CONSTANTS:
                return Constant(_CONSTANTS[token.text])
            case "word" if token.text in self._functions:
                return Function(token.text)
            case "word" if token.text in _UNSUPPORTED:
                raise self._error(f"{token.text} is not evaluated here")
            case "word":
                raise self._error(f"there is no function {token.text!r}")
            case "sign" if token.text == "(":
                inner = self.pipeline()
                self._skip_blank()
                if self._peek().text != ")":
                    raise self._error("a ) is missing")
                self._next += 1
                return TemplatePath(inner, self._fields())
        raise self._error(f"unexpected {token.text!r}")

    def _fields(self) -> tuple[str, ...]:
        names = []
        while self._peek().kind == "field":
            names.append(self._peek().text[1:])
            self._next += 1
        return tuple(names)


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        return float(text)
