"""Runs of virtual machines: what is kept of them, and how their console is read. No machine is booted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vm import kept, machine
from tests.vm.kept import KeptRun, tree_key

TEXT = """booting
======== 12 passed, 2 skipped, 1 warning in 80.10s (0:01:20) ========
at the end: 9 images
exit status 0
the machine ran 95.3 s
"""
COMMAND = "python -m pytest tests/kernel/test_loader.py -v"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(kept, "used", [])
    return tmp_path / "cache"


def test_a_run_is_kept_for_its_machine_command_and_tree() -> None:
    run = KeptRun("6.1-amd64", COMMAND, ("6.1.0-1", "tree"))
    run.keep(TEXT)
    assert run.text() == TEXT
    for other in (
        KeptRun("6.12-amd64", COMMAND, ("6.1.0-1", "tree")),
        KeptRun("6.1-amd64", "true", ("6.1.0-1", "tree")),
        KeptRun("6.1-amd64", COMMAND, ("6.1.0-1", "another tree")),
    ):
        assert other.text() == ""


def test_a_run_that_a_test_finds_fault_with_is_made_again() -> None:
    good, bad, unfinished = (KeptRun("6.1-amd64", command, ()) for command in (COMMAND, "true", "sleep 600"))
    for run in (good, bad):
        run.text()
        run.keep(TEXT)
    kept.forget_last()
    unfinished.text()
    kept.forget_last()
    assert (good.text(), bad.text(), unfinished.text()) == (TEXT, "", "")


def test_the_table_has_the_last_run_of_each_file_and_machine() -> None:
    first, last = (KeptRun("6.1-amd64", COMMAND, (tree,)) for tree in ("a", "b"))
    first.keep(TEXT.replace("12", "11"))
    os.utime(first.file, (0, 0))
    last.keep(TEXT)
    KeptRun("5.10-amd64", "python tests/vm/guest_lab.py", ()).keep("exit status 0\nthe machine ran 60.0 s\n")
    assert kept.table().splitlines() == [
        "|  | 5.10-amd64 | 6.1-amd64 |",
        "| --- | --- | --- |",
        "| `guest_lab.py` | done, 60 s | not run |",
        "| `test_loader.py` | not run | 12 passed, 2 skipped, 95 s |",
    ]


def test_the_trees_key_is_of_what_runs_in_a_machine(tmp_path: Path) -> None:
    for name in ("probes/a.c", "probes/__pycache__/a.pyc", "docs/kernels.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    key = tree_key(tmp_path)
    for name in ("docs/kernels.md", "probes/__pycache__/a.pyc"):
        (tmp_path / name).write_text("2")
    assert tree_key(tmp_path) == key
    (tmp_path / "probes/a.c").write_text("2")
    assert tree_key(tmp_path) != key


def console(script: str, timeout: float) -> list[str]:
    return machine._console(machine.Machine(), ["sh", "-c", script], timeout).splitlines()


def test_a_console_is_shown_as_it_comes_without_what_clears_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    *lines, end = console(r"printf '\033c\033[2Jbooting\r\nexit status 0\r\n'", 60)
    assert lines == ["booting", "exit status 0"]
    assert end.startswith("the machine ran ")
    assert [line.rpartition("  ")[2] for line in capsys.readouterr().err.splitlines()] == lines


def test_a_machine_that_hangs_is_ended_and_what_it_said_is_there() -> None:
    lines = console("echo booting; exec sleep 600", 2)
    assert lines == ["booting", "the machine had not powered off after 2 s"]
