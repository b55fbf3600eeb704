"""Writes docs/incidents/: one page an incident of the lab, with the transcripts of `diagnose` and of the command that shows
the details, run now.

Needs root and a checkout's environment: `.venv/bin/python -m scripts.incident_pages [NAME …]`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from kubectl_genainet.lab.incidents import incidents
from scripts.incident_index import index_markdown

LAB = "pages"
PAGES = Path(__file__).resolve().parent.parent / "docs" / "incidents"
TRACE = ("trace", "svc/my-llama-svc", "--timeout", "5s")
DROPS = ("drops", "-A", "--timeout", "10s")
COMMANDS = {
    "policy-bypassed": DROPS,
    "conntrack-full": DROPS,
    "no-local-endpoint": ("trace", "svc/chatbot-ui", "--timeout", "5s"),
    "slow-backend": ("trace", "svc/my-llama-svc", "--timeout", "10s"),
    "stream-early-end": ("trace", "svc/my-llama-svc", "--timeout", "15s"),
}
DNS = ("dns", "-A", "--timeout", "12s")


def genainet(*arguments: str, check: bool = True) -> str:
    """The command's output, and its warnings before it. Progress is drawn over in a terminal."""
    environment = {**os.environ, "COLUMNS": "130", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_genainet", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    if check and done.returncode > 1:
        raise RuntimeError(f"{arguments}: {done.stderr}")
    warnings = (line for line in done.stderr.splitlines(keepends=True) if line.startswith("warning: "))
    return "".join((*warnings, done.stdout))


def telling(transcript: str) -> str:
    """The first tree that shows something wrong, and what follows the last tree; all of what is no tree."""
    blocks = re.split(r"\n(?=[^\s└├│])", transcript.rstrip())
    trees = [b for b in blocks if "└──" in b]
    if not trees:
        return transcript.rstrip()
    bad = r"DROPPED|REJECTED|UNKNOWN|^ *[├└]── !"
    wrong = [b for b in trees if re.search(bad, b, re.M)] or trees
    tail = blocks[blocks.index(trees[-1]) + 1 :]
    return "\n".join([max(wrong[:6], key=len), "…", *tail])


def page(name: str) -> str:
    incident = incidents()[name]
    command = COMMANDS.get(name, DNS if name.startswith(("dns-", "ndots")) else TRACE)
    diagnose = ("diagnose", incident.cause.target, "--for", f"{incident.cause.watch_s}s")
    genainet("lab", "incident", name, "--lab", LAB)
    try:
        time.sleep(2)
        conclusion = genainet(*diagnose, "--lab", LAB)
        details = telling(genainet(*command, "--lab", LAB))
    finally:
        genainet("lab", "incident", name, "--clear", "--lab", LAB)
    return (
        f"# {name}\n\n{incident.summary}\n\n{incident.description.strip()}\n\n"
        f"Make it: `kubectl genainet lab incident {name}`; find it:\n\n{block(diagnose, conclusion)}\n"
        f"The details:\n\n{block(command, details)}"
    )


def block(command: tuple[str, ...], transcript: str) -> str:
    """A command and its output; the lab is named as a reader's own is."""
    lines = transcript.replace(f"--lab {LAB}", "--lab").splitlines()
    return (
        "\n".join((f"    $ kubectl genainet {' '.join(command)} --lab", *(f"    {line.rstrip()}" for line in lines)))
        + "\n"
    )


def main() -> None:
    names = sys.argv[1:] or list(incidents())
    PAGES.mkdir(exist_ok=True)
    genainet("lab", "up", "--lab", LAB)
    try:
        for name in names:
            (PAGES / f"{name}.md").write_text(page(name))
            print(name, flush=True)
    finally:
        genainet("lab", "down", "--lab", LAB)
    (PAGES / "README.md").write_text(index_markdown())


if __name__ == "__main__":
    main()
