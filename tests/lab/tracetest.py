"""What the tests of `trace` share: the real command line, run beside real traffic, its records read as they come."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubectl_genainet.lab.datapath.wiring import vxlan_device
from kubectl_genainet.lab.spec import AddressFamily, Overlay, ProxyMode, veth_name
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.packet import address_text
from tests.lab.labtest import RunningLab

COMMAND = [sys.executable, "-m", "kubectl_genainet"]
# Of servers that answer late, as those of a busy machine do: true, and nothing to do with what a test makes.
SLOW = {"slow-first-reply", "slow-backend"}
Record = dict[str, Any]

# Opens connections from inside a pod, one after the other, and prints the port of each of its ends.
CONNECT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as s:
        print(s.getsockname()[1])
        s.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        while s.recv(65536): pass
"""


def genainet(
    *arguments: str, environment: dict[str, str] | None = None, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """One run of the command line to its end."""
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")} | (environment or {})
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, env=env)


class RunningTrace:
    """`trace … -o json` beside the test. `records` are those that were read."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "trace", *arguments, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.records: list[Record] = []
        self.text = ""
        self.errors: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors += list(self.process.stderr)

    def _next(self, timeout: float) -> Record | None:
        """The next record; None at the end. Raises queue.Empty."""
        line = self._queue.get(timeout=max(0.0, timeout))
        if line is None:
            return None
        self.text += line
        self.records.append(json.loads(line))
        return self.records[-1]

    @property
    def paths(self) -> list[Record]:
        return [r for r in self.records if r["kind"] == "path"]

    def until(self, wanted: Callable[[Record], bool], timeout: float = 150.0) -> Record:
        """The first path, from now on, that is wanted; fails with what came instead."""
        deadline = time.monotonic() + timeout
        seen = []
        with contextlib.suppress(queue.Empty):
            while (record := self._next(deadline - time.monotonic())) is not None:
                if record["kind"] == "path" and wanted(record):
                    return record
                seen.append(record)
        raise AssertionError(f"no such path in {timeout} s; seen: {json.dumps(seen[-5:], indent=1)} {self.errors}")

    def stop(self, sign: signal.Signals | None = signal.SIGINT, timeout: float = 90.0) -> int:
        """Ends the trace as a user does, reads the rest, and returns its exit status."""
        if sign is not None:
            self.process.send_signal(sign)
        deadline = time.monotonic() + timeout
        while self._next(deadline - time.monotonic()) is not None:
            pass
        return self.process.wait(timeout)

    @property
    def summary(self) -> Record:
        (found,) = [r for r in self.records if r["kind"] == "summary"]
        return found


@contextlib.contextmanager
def tracing(*arguments: str) -> Iterator[RunningTrace]:
    trace = RunningTrace(*arguments)
    try:
        yield trace
    finally:
        if trace.process.poll() is None:
            trace.process.kill()
        trace.process.wait(10)
        for thread in trace._threads:
            thread.join(5)
        for stream in (trace.process.stdout, trace.process.stderr):
            if stream is not None:
                stream.close()


def connect(lab: RunningLab, pod: Pod, ip: str, port: int, count: int) -> list[int]:
    """Opens connections from the pod through `lab exec`, and returns their own ports."""
    name = f"pod/{pod.metadata.name}"
    done = subprocess.run(
        [
            *COMMAND,
            "lab",
            "exec",
            "--name",
            lab.name,
            name,
            "--",
            sys.executable,
            "-c",
            CONNECT,
            ip,
            str(port),
            str(count),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def address(ips: tuple[str, ...], family: AddressFamily) -> str:
    return next(ip for ip in ips if (":" in ip) == (family is AddressFamily.IPV6))


def hops_of(path: Record) -> list[tuple[str, str | None, str, str, str]]:
    """(node, pod, device, point, destination) of each hop."""
    return [(h["node"], h["pod"], h["device"], h["point"], h["dst"]) for h in path["hops"]]


def expected_hops(
    lab: RunningLab, client: Pod, backend: Pod, service: str, family: AddressFamily
) -> list[tuple[str, str | None, str, str, str]]:
    """The way of a first packet by the lab's wiring; the translation is made when its node has received it."""
    here, there = client.spec.node_name, backend.spec.node_name
    ours = veth_name(client.metadata.namespace, client.metadata.name)
    theirs = veth_name(backend.metadata.namespace, backend.metadata.name)
    to_service, to_backend = address_text(service, 80), address_text(address(backend.ips, family), 8080)
    between: list[tuple[str, str | None, str, str, str]] = []
    if here != there:
        devices = [vxlan_device(family), "eth0"] if lab.record.spec.overlay is Overlay.VXLAN else ["eth0"]
        between += [(here, None, device, "tx", to_backend) for device in devices]
        between += [(there, None, device, "rx", to_backend) for device in reversed(devices)]
    return [
        (here, client.metadata.name, "eth0", "tx", to_service),
        (here, None, ours, "rx", to_service),
        *between,
        (there, None, theirs, "tx", to_backend),
        (there, backend.metadata.name, "eth0", "rx", to_backend),
    ]


def programmed_chains(
    lab: RunningLab, node: str, family: AddressFamily, service: str
) -> tuple[str, dict[str, str | None]]:
    """(chain of my-llama-svc, chain of each endpoint's address) as the system's own tools print the node's rules; None for an
    endpoint in a map of the Service's own chain."""
    if lab.record.spec.proxy_mode is ProxyMode.IPTABLES:
        text = lab.node_output(node, "iptables-save" if family is AddressFamily.IPV4 else "ip6tables-save", "-t", "nat")
        dispatch = re.search(rf"-A KUBE-SERVICES -d {re.escape(service)}/\d+ .*--dport 80 .*-j (KUBE-SVC-\w+)", text)
        found = re.findall(r"-A (KUBE-SEP-\w+) .*-j DNAT --to-destination \[?([0-9a-f.:]+?)\]?:8080\b", text)
        assert dispatch is not None
        return dispatch[1], {ip: chain for chain, ip in found}
    text = lab.node_output(node, "nft", "list", "table", "ip" if family is AddressFamily.IPV4 else "ip6", "kube-proxy")
    dispatch = re.search(rf"{re.escape(service)} \. tcp \. 80 : goto (service-[^\s,]+)", text)
    assert dispatch is not None, text
    endpoints: dict[str, str | None] = {}
    for block in re.findall(r"chain (\S+) \{(.*?)\n\t\}", text, re.DOTALL):
        targets = re.findall(r"dnat to \[?([0-9a-f.:]+?)\]?:8080\b|: ([0-9a-f.:]+) \. 8080\b", block[1])
        endpoints |= {alone or of_map: block[0] if alone else None for alone, of_map in targets}
    return dispatch[1], endpoints


def chain_counts(lab: RunningLab, node: str, family: AddressFamily) -> Counter[str]:
    """Packets that each endpoint chain's DNAT rule has counted (iptables): one a connection."""
    text = lab.node_output(
        node, "iptables-save" if family is AddressFamily.IPV4 else "ip6tables-save", "-c", "-t", "nat"
    )
    return Counter({chain: int(n) for n, chain in re.findall(r"\[(\d+):\d+\] -A (KUBE-SEP-\w+) .*-j DNAT", text)})


def tracked_backends(
    lab: RunningLab, node: str, family: AddressFamily, service: str, ports: set[int]
) -> dict[int, str]:
    """The backend of each connection, by the client's port, as the node's connection tracking has it."""
    text = lab.node_output(node, "conntrack", "-L", "-f", family.value.lower(), "-p", "tcp", "--orig-dst", service)
    found = {}
    for line in text.splitlines():
        sport, (_, reply_source) = int(re.findall(r"sport=(\d+)", line)[0]), re.findall(r"src=(\S+)", line)
        if sport in ports:
            found[sport] = reply_source
    return found


def copied_for_all(bundle: Path, folder: Path) -> Path:
    """The bundle where any user may read it."""
    folder.chmod(0o755)
    copy = folder / bundle.name
    copy.write_bytes(bundle.read_bytes())
    copy.chmod(0o644)
    return copy
