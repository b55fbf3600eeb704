"""docs/security.md: every claim names its test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/security.md").read_text()
ROW = re.compile(r"^\| (?P<claim>[^|]+) \| `(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)` \|$", re.MULTILINE)


def rows() -> list[re.Match[str]]:
    return list(ROW.finditer(TEXT))


def assertions(tree: ast.Module, name: str) -> int:
    """How many things a test asserts: with `assert`, with pytest.raises, or by what it calls."""
    function = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name), None)
    if function is None:
        return 0
    return sum(
        isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr == "raises")
        for node in ast.walk(function)
    )


def test_every_claim_has_a_test_that_asserts_something() -> None:
    trees: dict[str, ast.Module] = {}
    without = []
    for row in rows():
        path = ROOT / row["file"]
        if row["file"] not in trees:
            trees[row["file"]] = ast.parse(path.read_text() if path.is_file() else "")
        if not assertions(trees[row["file"]], row["test"]):
            without.append(f"{row['claim']}: {row['file']}::{row['test']}")
    assert rows() and without == []


def test_every_line_of_the_table_is_a_claim_with_a_test() -> None:
    table = TEXT.partition("| claim | test |\n|---|---|\n")[2].splitlines()
    assert len(table) == len(rows()) >= 60
    assert len({row["claim"] for row in rows()}) == len(rows())
