"""A client with the usual limit of open files reaches a thousand nodes."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LIMITED = """
import resource, socket, sys
from kubectl_genainet.stream import ask_all
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
kept = []

def dial():
    "As a port-forward does: a connection, and a pair that carries it to the reader."
    kept.append(socket.socketpair())
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours

answers = ask_all({f"node-{n}": dial for n in range(300)}, "/v1/hello", within_s=20)
print(sum("Too many open files" in str(answer) for answer in answers.values()))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "limits"), [(256, 20_000, (1000, 20_000)), (5_000, 20_000, (5_000, 20_000))])
def test_every_node_gets_its_descriptors(soft: int, hard: int, limits: tuple[int, int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(soft), str(hard)], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.splitlines() == ["0", str(limits)], done.stderr
