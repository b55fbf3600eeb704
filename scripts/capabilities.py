"""Which capabilities the agent needs: each of its DaemonSet's is left out in turn, and what is missed then is printed.

    python -m scripts.capabilities

Needs root. An agent in full is compared with one without, by what it answers about the node and what a session reports of a
datagram that nobody takes. While it runs, kernel.kptr_restrict is 1, as distributions set it. Exit status 1 where nothing is
missed without a capability; SYS_RESOURCE is not looked at, from Linux 5.11 on nothing misses it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kubectl_genainet import wire
from kubectl_genainet.kube.agents.base import DeployOptions, render
from kubectl_genainet.model.events import Event, Progress
from kubectl_genainet.model.events.packets import PacketDropped, PacketSeen
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.wire import FilterEntry, TraceRequest
from tests.kernel.kerneltest import SERVER_IP, Row, cache_folder, send_datagrams, three_namespaces
from tests.kernel.test_agent_lifecycle import Client

KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")
STARTS_S = 20.0
CLOSED_PORT = 7919
ONLY_BEFORE_5_11 = {"SYS_RESOURCE"}
Facts = dict[str, object]


def asked_for() -> list[str]:
    """The capabilities of the DaemonSet."""
    (daemonset,) = (o for o in render(DeployOptions()) if o["kind"] == "DaemonSet")
    security = daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    return list(security["capabilities"]["add"])


@contextlib.contextmanager
def agent(capabilities: list[str], folder: Path) -> Iterator[str]:
    """The socket of an agent with these capabilities; "" where it does not start."""
    path = str(folder / "agent.sock")
    allowed = ",".join(("-all", *(f"+{name.lower()}" for name in capabilities)))
    command = ["setpriv", f"--bounding-set={allowed}", "--inh-caps=-all", "--", sys.executable, "-m"]
    command += [
        "kubectl_genainet.agent.main",
        "serve",
        "--node",
        "node",
        "--socket",
        path,
        "--cache",
        str(cache_folder()),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield path if _listens(path, process) else ""
    finally:
        process.kill()
        process.wait(10)
        Path(path).unlink(missing_ok=True)


def _listens(path: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + STARTS_S
    while process.poll() is None and time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(path) == 0:
                return True
        time.sleep(0.05)
    return False


def facts(row: Row, path: str) -> Facts:
    """What the agent can tell."""
    if not path:
        return {}
    known: Facts = {"it starts": True}
    for line in ask(path, "/v1/node"):
        match wire.decode(line):
            case NodeReport(namespaces=namespaces):
                known["the node's namespaces"] = len(namespaces) > 0
    for line in ask(path, "/v1/rulesets"):
        match wire.decode(line):
            case RulesetDump(source=source, error=error):
                known[f"rules of {source}"] = not error
    return known | session_facts(row, path)


def ask(path: str, what: str) -> list[bytes]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(STARTS_S)
        sock.connect(path)
        sock.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    return [line for line in answer.splitlines() if line.startswith(b'{"kind"')]


def session_facts(row: Row, path: str) -> Facts:
    """Of datagrams to a port that nobody listens on, and of DNS."""
    known: Facts = {}
    following = TraceRequest(filters=(FilterEntry(SERVER_IP, CLOSED_PORT, "UDP"),), timeout_s=4, rulesets=False)
    for event in events(path, following):
        match event:
            case Progress(stage="attached"):
                known["probes attach"] = True
                send_datagrams(row, 3, port=CLOSED_PORT)
            case PacketSeen():
                known["packets are seen"] = True
            case PacketDropped(location=location):
                known["drops have a function"] = not location.startswith("0x") and location != ""
    watching = TraceRequest(filters=(), probes=("dns",), timeout_s=2, rulesets=False)
    unread = [event for event in events(path, watching) if "DNS over TCP is not read" in getattr(event, "detail", "")]
    return known | {"DNS over TCP is read": not unread}


def events(path: str, request: TraceRequest) -> Iterator[Event]:
    client = Client(path, request)
    try:
        for line in client.lines:
            yield from wire.expand(wire.decode(line))
    finally:
        client.close()


def main() -> int:
    asked, needed = asked_for(), True
    before = KPTR_RESTRICT.read_text()
    with three_namespaces("capabilities") as row, tempfile.TemporaryDirectory() as folder:
        KPTR_RESTRICT.write_text("1")
        try:
            with agent(asked, Path(folder)) as path:
                full = {fact for fact, is_so in facts(row, path).items() if is_so}
            print(f"with all: {', '.join(sorted(full))}", flush=True)
            for capability in asked:
                with agent([c for c in asked if c != capability], Path(folder)) as path:
                    left = {fact for fact, is_so in facts(row, path).items() if is_so}
                missed = sorted(full - left)
                print(f"without {capability}: {'; '.join(missed) or 'nothing is missed'}", flush=True)
                needed &= bool(missed) or capability in ONLY_BEFORE_5_11
        finally:
            KPTR_RESTRICT.write_text(before)
    return 0 if needed else 1


if __name__ == "__main__":
    sys.exit(main())
