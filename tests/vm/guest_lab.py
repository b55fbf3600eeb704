"""Runs inside the machine: a lab is brought up, watched by each live verb, broken and watched again. Prints one JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAB = "vm"
RESULT = "RESULT "
# Under emulation a probe is compiled for tens of seconds before the watch begins.
COMMANDS = {
    "trace": ("trace", "svc/my-llama-svc", "--lab", LAB, "--timeout", "20s", "-o", "json"),
    "drops": ("drops", "svc/my-llama-svc", "--lab", LAB, "--timeout", "20s", "-o", "json"),
    "dns": ("dns", "--lab", LAB, "--timeout", "20s", "-o", "json"),
}
INCIDENT = "policy-drop"


def run(*argv: str) -> dict[str, Any]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_genainet", *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    seconds = round(time.monotonic() - started, 1)
    return {"status": done.returncode, "rows": rows, "error": done.stderr[-3000:], "seconds": seconds}


def main() -> None:
    report = {"up": run("lab", "up", "--lab", LAB, "--nodes", "2")}
    report |= {name: run(*argv) for name, argv in COMMANDS.items()}
    report["incident"] = run("lab", "incident", INCIDENT, "--lab", LAB)
    report["broken drops"] = run(*COMMANDS["drops"])
    report["broken trace"] = run(*COMMANDS["trace"])
    report["down"] = run("lab", "down", "--lab", LAB)
    print(RESULT + json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
