"""However a session ends, nothing of it stays in the kernel, and it ends soon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kubectl_genainet import wire
from kubectl_genainet.agent.serve.server import LAST_S
from kubectl_genainet.history.blocks import Flag
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import Bye, Event, Hello, Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest
from tests.kernel.kerneltest import PORT, SERVER_IP, WAIT_S, Row, cache_folder

FILTERS = (FilterEntry(SERVER_IP, PORT),)
SOON_S = 1.0  # what is promised; a loaded machine gets `SLACK`
SLACK = 4.0


class Agent:
    """A served agent, as a DaemonSet runs it."""

    def __init__(self, row: Row, folder: Path, *options: str) -> None:
        self.path = str(folder / "agent.sock")
        arguments = [
            "--node",
            "node",
            "--socket",
            self.path,
            "--host-netns",
            str(netns.RUN_NETNS / row.router),
            *options,
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_genainet.agent.main", "serve", *arguments, "--cache", str(cache_folder())]
        )
        wait_for(lambda: listens(self.path), "the agent's socket")

    def trace(self, timeout_s: float = 600) -> Client:
        return Client(self.path, TraceRequest(filters=FILTERS, timeout_s=timeout_s, rulesets=False))

    def workers(self) -> list[int]:
        """Pids of the sessions' processes."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, timeout=10)
        return [int(pid) for pid in found.stdout.split()]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class Client:
    """One request on a socket of its own, read by hand."""

    def __init__(self, path: str, request: TraceRequest) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        body = msgspec.json.encode(request)
        self.sock.sendall(b"POST /v1/trace HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        self.response = http.client.HTTPResponse(self.sock)
        self.lines = self._lines()

    def _lines(self) -> Iterator[bytes]:
        """The body's lines, until it ends or breaks off."""
        self.response.begin()
        assert self.response.status == 200
        with contextlib.suppress(http.client.IncompleteRead):
            yield from self.response

    def until(self, wanted: type[Event], stage: str = "") -> Event:
        for line in self.lines:
            for event in wire.expand(wire.decode(line)):
                if isinstance(event, wanted) and (not stage or getattr(event, "stage", "") == stage):
                    return event
        raise AssertionError(f"the stream ended without {wanted.__name__}")

    def close(self) -> None:
        self.response.close()
        self.sock.close()


def listens(path: str) -> bool:
    """Whether a server accepts at the path: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def wait_for(condition: object, what: str, timeout: float = WAIT_S) -> float:
    """Seconds until the condition holds."""
    assert callable(condition)
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            processes = subprocess.run(["pgrep", "-af", "agent"], capture_output=True, text=True, timeout=10).stdout
            pytest.fail(f"{what} did not come in {timeout} s: {processes}")
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.fixture
def agent(row: Row, tmp_path: Path) -> Iterator[Agent]:
    found = Agent(row, tmp_path)
    try:
        yield found
    finally:
        found.stop()


def bpf_objects(pid: int) -> dict[str, set[int]]:
    """Ids of the programs, maps and links that a process holds, by the kernel's own /proc/PID/fdinfo."""
    found: dict[str, set[int]] = {"prog": set(), "map": set(), "link": set()}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)", entry.read_text(), re.MULTILINE):
                found[kind].add(int(number))
    return found


def still_there(objects: dict[str, set[int]]) -> dict[str, set[int]]:
    """Those that the kernel still has."""
    left = {}
    for kind, ids in objects.items():
        text = subprocess.run(
            ["bpftool", "-j", kind, "list"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        left[kind] = ids & {o["id"] for o in json.loads(text or "[]")}
    return {kind: ids for kind, ids in left.items() if ids}


@pytest.fixture
def session(agent: Agent) -> Iterator[tuple[Client, int, dict[str, set[int]]]]:
    """(client, the worker's pid, its BPF objects) of an attached trace."""
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    client = agent.trace()
    client.until(Progress, "attached")
    (worker,) = agent.workers()
    objects = bpf_objects(worker)
    assert len(objects["prog"]) >= 3 and len(objects["link"]) >= 3 and len(objects["map"]) >= 8
    assert still_there(objects) == {k: v for k, v in objects.items() if v}
    yield client, worker, objects
    client.close()


def gone(objects: dict[str, set[int]]) -> float:
    """Seconds until nothing of it is attached any more. What was attached is freed when the kernel gets to it (RCU)."""
    links = {"link": objects["link"]}
    seconds = wait_for(lambda: not still_there(links), f"the end of the session's attachments {links}")
    wait_for(lambda: not still_there(objects), f"the end of the session's BPF objects {objects}")
    return seconds


def test_session_ends_when_its_client_goes_away(session: tuple[Client, int, dict[str, set[int]]]) -> None:
    client, worker, objects = session
    client.close()
    assert gone(objects) < SOON_S * SLACK
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end", 10)


def test_client_that_ends_its_side_gets_the_last_records(session: tuple[Client, int, dict[str, set[int]]]) -> None:
    client, _, objects = session
    client.sock.shutdown(socket.SHUT_WR)
    bye = client.until(Bye)
    assert isinstance(bye, Bye) and bye.reason == "stopped" and bye.emitted == bye.sent + bye.lost
    assert gone(objects) < SOON_S * SLACK


def test_session_ends_in_time(agent: Agent) -> None:
    client = agent.trace(timeout_s=0.5)
    attached = client.until(Progress, "attached")
    detached = client.until(Progress, "detached")
    assert isinstance(attached, Progress) and isinstance(detached, Progress)
    assert 0.4e9 < detached.t_ns - attached.t_ns < (0.5 + SOON_S * SLACK) * 1e9
    bye = client.until(Bye)
    assert isinstance(bye, Bye) and bye.reason == "timeout"
    client.close()
    wait_for(lambda: not agent.workers(), "the worker's end", 10)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_session_ends_with_its_agent(
    agent: Agent, session: tuple[Client, int, dict[str, set[int]]], sign: signal.Signals
) -> None:
    """Even one that hangs."""
    _, worker, objects = session
    os.kill(worker, signal.SIGSTOP)
    agent.process.send_signal(sign)
    waits_s = LAST_S if sign is signal.SIGTERM else 0  # for the session's last records, which never come
    assert gone(objects) < waits_s + SOON_S * SLACK
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end", 10)
    assert agent.process.wait(10) == (0 if sign is signal.SIGTERM else -signal.SIGKILL)


def test_an_agent_that_is_stopped_ends_its_sessions_with_their_accounts_and_the_reason(
    agent: Agent, session: tuple[Client, int, dict[str, set[int]]]
) -> None:
    client, _, objects = session
    agent.process.send_signal(signal.SIGTERM)
    client.until(Progress, "detached")
    bye = client.until(Bye)
    assert isinstance(bye, Bye) and bye.reason == "agent stopped" and bye.emitted == bye.sent + bye.lost
    assert list(client.lines) == [] and client.response.isclosed()  # a whole answer
    assert not still_there({"link": objects["link"]})
    assert agent.process.wait(WAIT_S) == 0


def test_an_agent_that_is_stopped_writes_what_it_has_recorded(row: Row, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    agent = Agent(row, tmp_path, "--record", str(folder))
    try:
        wait_for(lambda: recorded_until(folder), "the first block")
        stopped = time.time_ns()
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(WAIT_S) == 0
        assert recorded_until(folder) >= stopped
    finally:
        agent.stop()


def recorded_until(folder: Path) -> int:
    """The end of the time that the recording covers (wall clock, ns); 0 where there is none."""
    blocks = RangeReader(folder, "node", 0, time.time_ns()).blocks() if folder.exists() else ()
    recorded = node_range("node", blocks).blocks
    return max((block.covers.wall_until for block in recorded if Flag.END not in block.flags), default=0)


def test_killed_worker_leaves_nothing_and_the_agent_goes_on(
    agent: Agent, session: tuple[Client, int, dict[str, set[int]]]
) -> None:
    client, worker, objects = session
    os.kill(worker, signal.SIGKILL)
    assert gone(objects) < SOON_S * SLACK
    with pytest.raises(AssertionError, match="ended without Bye"):
        client.until(Bye)
    again = agent.trace()
    assert isinstance(again.until(Hello), Hello)
    again.close()
