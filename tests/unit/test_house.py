"""The package's structure, as far as import-linter has no contract for it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import kubectl_genainet

PACKAGE = Path(kubectl_genainet.__file__).parent
ROOT = PACKAGE.parent
MODULES_OF_A_FOLDER = 16
LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 47  # without its docstring


def sources() -> list[Path]:
    """Every Python module of the tree."""
    folders = ("kubectl_genainet", "tests", "scripts", "benchmarks")
    return [module for folder in folders for module in (ROOT / folder).rglob("*.py")]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("kubectl_genainet", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(error.args[1])}")
    assert len(order) > 300


def test_no_folder_is_crowded() -> None:
    folders = Counter(str(module.parent.relative_to(PACKAGE)) for module in PACKAGE.rglob("*.py"))
    assert {folder: count for folder, count in folders.items() if count > MODULES_OF_A_FOLDER} == {}


def test_no_module_is_too_long_for_one_job() -> None:
    lengths = {str(m.relative_to(ROOT)): len(m.read_text().splitlines()) for m in sources()}
    assert {name: length for name, length in lengths.items() if length > LINES_OF_A_MODULE} == {}


def test_no_function_is_too_long_for_a_screen() -> None:
    long = {
        f"{module.relative_to(PACKAGE)}:{function.name}"
        for module in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(module.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_of_code(function) > LINES_OF_A_FUNCTION
    }
    assert long == set()


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    documented = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_the_formatter_has_no_exceptions() -> None:
    exception = "fmt: " + "skip"
    assert [str(p.relative_to(ROOT)) for p in sources() if exception in p.read_text()] == []


# What this project's own processes write for each other is not damaged; items are decoded within ItemDecoder.object.
READS_ITS_OWN = {
    "agent/bpf/compiler.py",
    "agent/bpf/image.py",
    "agent/session/worker.py",
    "kube/items.py",
    "lab/change.py",
    "lab/state.py",
    "mcp/server.py",
    "mcp/worker.py",
    "run/sources/engines.py",
}


def test_what_others_wrote_is_decoded_where_all_that_decoding_raises_is_caught() -> None:
    """Bytes that are no UTF-8 and JSON that nests without end are no DecodeError of msgspec's."""
    bare = {
        f"{name}:{call.lineno}"
        for module in PACKAGE.rglob("*.py")
        if (name := str(module.relative_to(PACKAGE))) not in READS_ITS_OWN
        for call in unguarded_decoding(ast.parse(module.read_text()))
    }
    assert bare == set()


def unguarded_decoding(node: ast.AST, guarded: bool = False) -> Iterator[ast.Call]:
    if isinstance(node, ast.Try):
        handled = any("DECODE_ERRORS" in ast.unparse(h.type) for h in node.handlers if h.type is not None)
        for statement in node.body:
            yield from unguarded_decoding(statement, guarded or handled)
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            yield from unguarded_decoding(part, guarded)
        return
    if isinstance(node, ast.Call) and not guarded and decodes(ast.unparse(node.func)):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from unguarded_decoding(child, guarded)


def decodes(function: str) -> bool:
    decoder, _, name = function.rpartition(".")
    return name == "decode" and (decoder in ("msgspec.json", "msgspec.msgpack") or decoder.endswith("decoder"))
