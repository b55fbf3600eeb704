"""What the golden tests share: bundles recorded in the lab, and the command run on them at the widths of two terminals.

GENAINET_GOLDEN=text writes the expected texts anew, GENAINET_GOLDEN=bundles records the bundles (as root) and the texts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = os.environ.get("GENAINET_GOLDEN", "")
COMMAND = [sys.executable, "-m", "kubectl_genainet"]
MOST_BYTES = 250_000
LAB = "golden"


WIDTHS = (80, 200)


def run(*arguments: str, status: tuple[int, ...] = (0,), width: int = 100) -> str:
    """The command's standard output; fails where it ends with another status."""
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"COLUMNS": str(width)}
    # The folder's own path is none of the text's: bundles are named from here.
    named = [argument.removeprefix(f"{HERE}/") for argument in arguments]
    done = subprocess.run([*COMMAND, *named], capture_output=True, text=True, timeout=120, env=environment, cwd=HERE)
    assert done.returncode in status, done.stderr
    return done.stdout


def bundle_of(name: str) -> Path:
    return HERE / "bundles" / f"{name}.gnb"


def compare(name: str, text: str) -> None:
    """Compares a text with the golden one of that name, or writes it where that is asked for."""
    expected = HERE / f"{name}.txt"
    if GOLDEN:
        expected.write_text(text)
    assert text == expected.read_text()
