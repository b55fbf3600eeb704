"""Runs of machines that ended well, kept: `make test-vm`, stopped in its midst, goes on with those that are missing.

    python -m tests.vm.kept    prints the table of docs/kernels.md: the last run that is kept, by file and machine

A run is kept for its command, kernel and tree: a change of what runs in there makes it another run. One that a test finds fault
with is forgotten (tests/vm/conftest.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kubectl-genainet" / "machines"
KEPT_S = 7 * 24 * 3600.0
RUNS_IN_THERE = (
    "kubectl_genainet/**/*",
    "probes/**/*",
    "tests/kernel/*.py",
    "tests/vm/guest_*.py",
    "tests/proxy_traffic.py",
    "pyproject.toml",
)
_FILE = re.compile(r"tests/(?:kernel|vm)/(\w+\.py)")
_COUNTS = re.compile(r"^=+ (\d+ passed.*?)(?:, \d+ warnings?)? in [0-9.]+s", re.MULTILINE)
_RAN = re.compile(r"^the machine ran ([0-9.]+) s$", re.MULTILINE)
used: list[Path] = []  # the places of the runs that this process's tests have asked for, made or not


def tree_key(tree: Path) -> str:
    """Of all of the tree that runs in a machine."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in RUNS_IN_THERE for file in tree.glob(pattern)}):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(tree)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def drop_old(folder: Path) -> None:
    """Removes the files that nobody has written for a week."""
    for file in folder.glob("*"):
        if file.is_file() and time.time() - file.stat().st_mtime > KEPT_S:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class KeptRun:
    """The place of one run. `on` is all that it depends on beside its command."""

    machine: str
    command: str
    on: tuple[str, ...]

    @property
    def file(self) -> Path:
        key = hashlib.sha256(repr((self.command, self.on)).encode()).hexdigest()[:16]
        return CACHE / self.machine / "runs" / f"{key}.txt"

    def text(self) -> str:
        """The console's text; empty where the run was not made, or did not end well."""
        used.append(self.file)
        try:
            return self.file.read_text().partition("\n")[2]
        except OSError:
            return ""

    def keep(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        drop_old(self.file.parent)
        part = self.file.with_suffix(f".{os.getpid()}")
        part.write_text(f"{self.command}\n{text}")
        part.replace(self.file)


def forget_last() -> None:
    """Forgets the run that was asked for last: it did not go well."""
    if used:
        used[-1].unlink(missing_ok=True)


def _results() -> Iterator[tuple[str, str, str]]:
    """(File, machine, result) of each run that is kept, the oldest first."""
    for run in sorted(CACHE.glob("*/runs/*.txt"), key=lambda run: run.stat().st_mtime):
        command, _, text = run.read_text().partition("\n")
        file, ran, counts = _FILE.search(command), _RAN.search(text), _COUNTS.search(text)
        if file and ran:
            yield file[1], run.parents[1].name, f"{counts[1] if counts else 'done'}, {float(ran[1]):.0f} s"


def table() -> str:
    """Markdown."""
    results = {(file, machine): result for file, machine, result in _results()}
    machines = sorted({machine for _, machine in results})
    rows = [["", *machines], ["---"] * (len(machines) + 1)]
    for file in sorted({file for file, _ in results}):
        rows.append([f"`{file}`", *(results.get((file, machine), "not run") for machine in machines)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
