"""Runs inside the machine: soft-RoCE devices, real RDMA between two processes, and what the agent reads. Prints one JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import msgspec

from kubectl_genainet.agent.fabric.report import read_fabric

DEADLINE_S = 60.0
PINGPONG = ("ibv_rc_pingpong", "-d", "rxe0", "-g", "0", "-s", "65536")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def fabric() -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(read_fabric())
    return built


def listens() -> bool:
    """Whether a process listens on the port of ibv_rc_pingpong (18515); it makes its queue pair before."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    return any(":4853 " in line and " 0A " in line for table in tables for line in table.splitlines())


def until_it_listens() -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not listens():
        if time.monotonic() > deadline:
            raise TimeoutError("the server does not listen")
        time.sleep(0.1)


def main() -> dict[str, Any]:
    result: dict[str, Any] = {"none": fabric(), "own": os.stat("/proc/self/ns/net").st_ino}
    run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    for name in ("left", "right"):
        run("ip", "link", "set", name, "up")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "left")
    result["idle"] = fabric()
    result["links"] = json.loads(run("rdma", "-j", "link"))
    server = subprocess.Popen([*PINGPONG, "-n", "20"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until_it_listens()
        result["used"] = fabric()
        result["queue pairs"] = json.loads(run("rdma", "-j", "resource", "show", "qp"))
        result["client"] = run(*PINGPONG, "-n", "20", "127.0.0.1")
        result["server"] = server.communicate(timeout=DEADLINE_S)[0]
    finally:
        server.kill()
    result["after"] = fabric()
    run("rdma", "link", "delete", "rxe0")
    run("rdma", "system", "set", "netns", "exclusive")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "left")
    result["exclusive"] = fabric()
    return result


if __name__ == "__main__":
    try:
        print("RESULT " + json.dumps(main()))
    except subprocess.CalledProcessError as error:
        print(error, error.stdout, error.stderr)
        raise
