"""Command lines whose output finds no room, each in a process of its own: reads them, and prints how each ended, as JSON.

`python -m tests.unit.commands.full_disk` is a process of its own, with one thread: it may fork.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys

from kubectl_genainet import cli

ROOM = 100  # bytes of a file


def ended(arguments: list[str]) -> tuple[int, str]:
    """(exit status, what it said)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(run(arguments, writer))
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def run(arguments: list[str], messages: int) -> int:
    where = os.devnull if "--report" in arguments else "/dev/full"
    os.dup2(os.open(where, os.O_WRONLY), 1)
    os.dup2(messages, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - the process's own
    sys.argv = ["kubectl-genainet", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stderr.flush()
    return 0


def load_modules(arguments: list[str]) -> None:
    """By running the command once, so that those that follow need not load them anew."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.cli.main(arguments, standalone_mode=False)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    load_modules(next(iter(asked.values())))
    print(json.dumps({name: ended(arguments) for name, arguments in asked.items()}))
