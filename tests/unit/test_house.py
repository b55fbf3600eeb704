"""The package's structure, as far as import-linter has no contract for it."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import kubectl_genainet

PACKAGE = Path(kubectl_genainet.__file__).parent
MODULES_OF_A_FOLDER = 16


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
