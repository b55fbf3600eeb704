"""CONTRIBUTING.md is true: each example is made in a copy of the tree, works there, and takes as many files as the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.contributing.examples import EXAMPLES

ROOT = Path(__file__).parents[3]
COPIED = ("kubectl_genainet", "probes", "daemonset", "docs", "tests", "scripts")
PROOFS = "tests/unit/contributing/proofs.py"


def link(file: str, copy: str) -> None:
    """A second name of the file, or a copy of it on another file system."""
    try:
        os.link(file, copy)
    except OSError:
        shutil.copy2(file, copy)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with all examples."""
    root = tmp_path_factory.mktemp("tree")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, root / folder, copy_function=link)
    for file in ("pyproject.toml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, root / file)
    for edits in EXAMPLES.values():
        for edit in edits:
            edit.apply(root)
    return root


def test_the_examples_work_and_the_tests_of_the_tree_find_them(copy: Path) -> None:
    tests = [edit.file for edits in EXAMPLES.values() for edit in edits if re.match(r"tests/unit/.*/test_", edit.file)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", PROOFS, *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_says_how_many_files_each_takes() -> None:
    rows = re.findall(r"^\| an? (.+?) \| (\d+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert dict(rows) == {name: str(len({edit.file for edit in edits})) for name, edits in EXAMPLES.items()}
    assert len(rows) == len(EXAMPLES)
