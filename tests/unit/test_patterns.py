"""No regular expression of the package goes back over its text without end: each is run on strings made to slow it."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kubectl_genainet
from kubectl_genainet.doctor.families.services import probe_paths
from kubectl_genainet.doctor.objects import platform, recognise
from kubectl_genainet.doctor.objects.stacks import STACKS
from kubectl_genainet.policy.dialects.cilium import options
from kubectl_genainet.render import jsonpath
from kubectl_genainet.render.gotemplate import evaluate as gotemplate
from scripts.fuzz import Hangs, interrupted_after
from tests.pumping import Pumped, pumped

PACKAGE = Path(kubectl_genainet.__file__).parent
SOURCES = {module: module.read_text() for module in sorted(PACKAGE.rglob("*.py"))}
NODES = {module: list(ast.walk(ast.parse(source))) for module, source in SOURCES.items() if "re." in source}
SHORT, LONG = 2 << 10, 64 << 10  # what takes a second for the second by its square takes SUSPECT_S for the first
SUSPECT_S, MOST_S = 0.0009, 1.0  # of CPU
METHODS = ("match", "fullmatch", "search", "finditer", "findall", "sub", "subn", "split")


@dataclass(frozen=True)
class Use:
    """One call that runs an expression, or one that is compiled to be run by the method."""

    place: str
    name: str
    pattern: re.Pattern[Any]
    method: str


# Texts that are shorter than a long one, wherever they come from; and the C that is shipped, which nobody else writes.
BOUNDED = {
    "render/gotemplate/parse.py": gotemplate.MAX_TEMPLATE,
    "render/jsonpath.py": jsonpath.MAX_TEMPLATE,
    "policy/dialects/cilium/options.py": 317,
    "model/units.py _PART": 64,
    "agent/probes/layout.py": 0,
}
# Calls that run what a table or a caller gives: module, expression -> what that may be.
GIVEN: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("doctor/objects/platform.py", "name"): lambda: [name for name, _ in platform._READERS],
    ("doctor/objects/recognise.py", "pattern"): lambda: [pattern for pattern, _, _ in recognise._MODEL_NAMES],
    ("doctor/objects/stacks.py", "s.image"): lambda: [s.image for s in STACKS if s.image],
    ("doctor/objects/stacks.py", "s.words"): lambda: [s.words for s in STACKS if s.words],
    ("doctor/families/services/probe_paths.py", "s.image"): lambda: [s.image for s in probe_paths._SERVERS],
    ("policy/dialects/cilium/options.py", "p"): lambda: [*options._TAKEN, *options._LEFT],  # others are judged first
    ("policy/dialects/cilium/options.py", "pattern"): list,  # compiled to be judged
    ("policy/enforcers/base.py", "rf'(^|/)({image})$'"): lambda: [rf"(^|/)({image})$" for image in images()],
    ("proxy/iptables/listing.py", "pattern"): list,  # a table's: compiled ones are found in it
}


def uses() -> Iterator[Use]:
    for module, nodes in NODES.items():
        place, loaded = str(module.relative_to(PACKAGE)), imported(module)
        methods = defaultdict(set)
        for node in nodes:
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                methods[ast.unparse(node.value)].add(node.attr)
        for call, method, name in calls(nodes):
            ways = [method] if method != "compile" else sorted(methods[name]) or ["finditer"]
            for pattern in patterns(call, place, loaded):
                yield from (Use(f"{place}:{call.lineno}", name, pattern, way) for way in ways)
        for name, value in vars(loaded).items():
            if not isinstance(value, re.Pattern):
                ways = sorted(set().union(*methods.values()) & {"match", "fullmatch"}) or ["finditer"]
                yield from (Use(f"{place}:0", name, pattern, way) for pattern in held(value) for way in ways)


def held(value: object) -> Iterator[re.Pattern[Any]]:
    """Expressions in a table."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from held(each)
    elif isinstance(value, dict):
        yield from held([*value.keys(), *value.values()])


def patterns(call: ast.Call, place: str, module: ModuleType) -> list[re.Pattern[Any]]:
    """What a call runs or compiles. A local name in an expression that is put together stands for a word."""
    first = call.args[0]
    if (place, ast.unparse(first)) in GIVEN:
        return [re.compile(text) for text in GIVEN[place, ast.unparse(first)]()]
    assert not isinstance(first, ast.Name) or first.id in vars(module), f"{place}:{call.lineno} is to be in GIVEN"
    others = [*call.args[1:], *(k.value for k in call.keywords)]
    flags = [ast.unparse(o) for o in others if re.search(r"\bre\.[A-Z]", ast.unparse(o))]
    texts = (ast.unparse(first), flags[0] if flags else "0")
    value, flag = (eval(text, vars(module), Words(module)) for text in texts)
    return [value if isinstance(value, re.Pattern) else re.compile(value, flag)]


class Words(dict[str, str]):
    """Local names in an expression that is put together stand for a word."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__()
        self._known = {*vars(module), *vars(builtins)}

    def __missing__(self, name: str) -> str:
        if name in self._known:
            raise KeyError(name)
        return "word"


def images() -> list[str]:
    """What modules of enforcers look for."""
    found = [
        str(argument.value)
        for module in sorted((PACKAGE / "policy/enforcers").glob("*.py"))
        for node in ast.walk(ast.parse(SOURCES[module]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("agent", "running")
        for argument in node.args
        if isinstance(argument, ast.Constant)
    ]
    assert len(found) > 10
    return found


def calls(nodes: list[ast.AST]) -> Iterator[tuple[ast.Call, str, str]]:
    """Calls of functions of `re`: the method that runs the expression, "compile" where a name gets it, and the name."""
    names = {id(n.value): ast.unparse(n.targets[0]) for n in nodes if isinstance(n, ast.Assign)}
    chained = {id(n.value): n.attr for n in nodes if isinstance(n, ast.Attribute)}
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) == "re" and node.func.attr in (*METHODS, "compile"):
            yield node, chained.get(id(node), node.func.attr), names.get(id(node), "")


def imported(module: Path) -> ModuleType:
    name = ".".join(("kubectl_genainet", *module.relative_to(PACKAGE).with_suffix("").parts))
    return importlib.import_module(name.removesuffix(".__init__"))


def slow(use: Use) -> str:
    module = use.place.partition(":")[0]
    most = BOUNDED.get(f"{module} {use.name}", BOUNDED.get(module, LONG))
    for string in pumped(use.pattern):
        if takes_long(use, string, most) and takes_long(use, string, most):  # a busy machine may slow one run
            return f"{use.place} {use.method} takes over {MOST_S} s for {string}"
    return ""


def takes_long(use: Use, string: Pumped, most: int) -> bool:
    try:
        with interrupted_after(2 * MOST_S):
            return seconds(use, string.text(min(SHORT, most))) > SUSPECT_S and seconds(use, string.text(most)) > MOST_S
    except Hangs:
        return True


def seconds(use: Use, text: str) -> float:
    data: Any = text.encode("latin-1", "replace") if isinstance(use.pattern.pattern, bytes) else text
    begun = time.process_time()
    if use.method in ("match", "fullmatch", "search"):
        getattr(use.pattern, use.method)(data)
    else:
        use.pattern.sub(data[:0], data)
    return time.process_time() - begun


@pytest.mark.parametrize(
    ("expression", "method"),
    [
        (r"\s+x", "search"),
        (r"/\*.*?\*/", "sub"),
    ],
)
def test_one_that_goes_back_is_seen(expression: str, method: str) -> None:
    assert slow(Use("here:1", "", re.compile(expression), method))


def test_none_of_the_package_goes_back_over_its_text() -> None:
    everything = list(uses())
    assert len(everything) > 400
    assert [finding for use in everything if (finding := slow(use))] == []
