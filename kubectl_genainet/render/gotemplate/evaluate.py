"""A template applied to a value: what Go's text/template makes of JSON data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.render.gotemplate.functions import FUNCTIONS, MISSING, TemplateError, has_value, sprint
from kubectl_genainet.render.gotemplate.parse import (
    Branch,
    Constant,
    Function,
    Leave,
    Operand,
    Pipeline,
    TemplateNode,
    TemplatePath,
    parse_template,
)
from kubectl_genainet.render.text import printable

PREFIX = "go-template="
MAX_TEMPLATE = 8192  # characters
_SHORT_CIRCUIT = ("and", "or")


class _LeavesLoop(Exception):
    def __init__(self, *, ends: bool) -> None:
        self.ends = ends


class GoTemplate:
    """Raises InputError for a template that can't be read."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEMPLATE:
            raise InputError(f"a Go template has at most {MAX_TEMPLATE} characters")
        try:
            self._nodes = parse_template(text, frozenset((*FUNCTIONS, *_SHORT_CIRCUIT)))
        except RecursionError:
            raise InputError("the Go template is nested too deeply") from None

    def text_of(self, record: object) -> str:
        """Raises InputError where the template asks something of the record that it does not have."""
        data = _printable(msgspec.to_builtins(record))
        try:
            return "".join(_Execution(data).texts(self._nodes, data))
        except (TemplateError, ArithmeticError, RecursionError) as error:
            raise InputError(f"the Go template can't be evaluated: {error}") from None


def _printable(value: Any) -> Any:
    """The value with every string made safe for a terminal: names come from pods and from DNS."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {_printable(key): _printable(each) for key, each in value.items()}
        case list() | tuple():
            return [_printable(each) for each in value]
    return value


class _Execution:
    def __init__(self, data: Any) -> None:
        self._scopes: list[dict[str, Any]] = [{"$": data}]

    def texts(self, nodes: list[TemplateNode], dot: Any) -> Iterator[str]:
        for node in nodes:
            match node:
                case str():
                    yield node
                case Pipeline():
                    value = self._value(node, dot)
                    self._assign(node, (value,))
                    if not node.variables:
                        yield "<no value>" if value is MISSING or value is None else sprint(value)
                case Branch(kind="range"):
                    yield from self._range(node, dot)
                case Branch():
                    yield from self._branch(node, dot)
                case Leave():
                    raise _LeavesLoop(ends=node.ends_loop)

    def _branch(self, branch: Branch, dot: Any) -> Iterator[str]:
        value = self._value(branch.pipeline, dot)
        self._scopes.append({})
        self._assign(branch.pipeline, (value,))
        if not has_value(value):
            yield from self.texts(branch.otherwise, dot)
        else:
            yield from self.texts(branch.body, value if branch.kind == "with" else dot)
        self._scopes.pop()

    def _range(self, branch: Branch, dot: Any) -> Iterator[str]:
        items = _items(self._value(branch.pipeline, dot))
        depth = len(self._scopes)
        if not items:
            self._scopes.append({})
            yield from self.texts(branch.otherwise, dot)
        for key, value in items:
            self._scopes[depth:] = [{}]
            wanted = (key, value) if len(branch.pipeline.variables) == 2 else (value,)
            self._assign(branch.pipeline, wanted)
            try:
                yield from self.texts(branch.body, value)
            except _LeavesLoop as leaving:
                if leaving.ends:
                    break
        del self._scopes[depth:]

    def _assign(self, pipeline: Pipeline, values: tuple[Any, ...]) -> None:
        for name, value in zip(pipeline.variables, values, strict=False):
            scope = self._scopes[-1] if pipeline.declares else self._scope_of(name)
            scope[name] = value

    def _scope_of(self, name: str) -> dict[str, Any]:
        scope: dict[str, Any]
        for scope in reversed(self._scopes):
            if name in scope:
                return scope
        raise TemplateError(f"undefined variable {name}")

    def _value(self, pipeline: Pipeline, dot: Any) -> Any:
        passed: tuple[Any, ...] = ()
        for command in pipeline.commands:
            passed = (self._command(command, dot, passed),)
        return passed[0]

    def _command(self, command: tuple[Operand, ...], dot: Any, passed: tuple[Any, ...]) -> Any:
        first, *arguments = command
        if not isinstance(first, Function):
            return self._operand(first, dot)
        if first.name in _SHORT_CIRCUIT:
            return self._first_that_decides(first.name == "or", arguments, dot, passed)
        values = [self._operand(argument, dot) for argument in arguments]
        return _called(first.name, [*values, *passed])

    def _first_that_decides(self, wanted: bool, arguments: list[Operand], dot: Any, passed: tuple[Any, ...]) -> Any:
        makers: list[Callable[[], Any]] = [lambda a=argument: self._operand(a, dot) for argument in arguments]  # type: ignore[misc]
        makers += [lambda: passed[0]] if passed else []
        if not makers:
            raise TemplateError("and, or take one argument or more")
        value: Any = None
        for make in makers:
            value = make()
            if has_value(value) is wanted:
                return value
        return value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Constant():
                return operand.value
            case Function():
                return self._command((operand,), dot, ())
            case TemplatePath(of=None):
                value = dot
            case TemplatePath(of=str() as name):
                value = self._scope_of(name)[name]
            case TemplatePath(of=Pipeline() as pipeline):
                value = self._value(pipeline, dot)
        for name in operand.names:
            value = _field(value, name)
        return value


def _field(value: Any, name: str) -> Any:
    if value is MISSING:
        return MISSING
    if isinstance(value, dict):
        return value.get(name, MISSING)
    kind = {type(None): "null", str: "a string", bool: "a bool", list: "a list"}.get(type(value), "a number")
    raise TemplateError(f"{kind} has no field {name!r}")


def _items(value: Any) -> list[tuple[Any, Any]]:
    match value:
        case list():
            return list(enumerate(value))
        case dict():
            return sorted(value.items())
        case bool():
            pass
        case int():
            return [(number, number) for number in range(value)]
        case None:
            return []
    if value is MISSING:
        return []
    raise TemplateError(f"range can't iterate over {sprint(value)}")


def _called(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except TypeError:
        raise TemplateError(f"{name} does not take {len(arguments)} arguments of these types") from None


def go_template_writer(output: str) -> Callable[[object], None]:
    """Writes what the template makes of a record; a line of its own where the template does not end one."""
    template = GoTemplate(output.removeprefix(PREFIX))

    def write(record: object) -> None:
        text = template.text_of(record)
        sys.stdout.write(text if text.endswith("\n") or not text.strip() else f"{text}\n")
        sys.stdout.flush()

    return write
