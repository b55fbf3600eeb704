"""What the lab's tests share: a lab that is up, and the drops that the kernel itself reports."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubectl_genainet.lab import cluster
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.incidents import clear_incident, make_incident
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import LabRecord, lab_snapshot
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod, Service

TRACEFS = Path("/sys/kernel/tracing/events/skb/kfree_skb")

_SYN_SENT = "02"  # of /proc/net/tcp, include/net/tcp_states.h


def fresh_name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@dataclass
class RunningLab:
    """A lab that is up, with short cuts for the tests."""

    record: LabRecord

    @property
    def name(self) -> str:
        return self.record.spec.name

    @property
    def snapshot(self) -> ClusterSnapshot:
        return lab_snapshot(self.name)

    def pods(self, app: str) -> list[Pod]:
        found = [p for p in self.snapshot.pods if p.metadata.labels.get("app.kubernetes.io/name") == app]
        return sorted(found, key=lambda p: (p.spec.node_name, p.metadata.name))

    def service(self, name: str) -> Service:
        found = self.snapshot.service("default", name)
        assert found is not None
        return found

    def pod_netns(self, pod: Pod) -> str:
        return self.record.pods[f"{pod.metadata.namespace}/{pod.metadata.name}"]

    def node_output(self, node: str, *command: str) -> str:
        with netns.inside(self.record.nodes[node]):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def tcp_ext(self, pod: Pod, counter: str) -> int:
        """A counter of TcpExt in the pod's namespace."""
        with netns.inside(self.pod_netns(pod)):
            names, values = Path("/proc/thread-self/net/netstat").read_text().splitlines()[:2]
        return int(dict(zip(names.split(), values.split(), strict=True))[counter])

    def get(self, pod: Pod, ip: str, port: int, path: str = "/healthz", timeout: float = 3.0) -> tuple[int, str]:
        """(status, name of the pod that answered) of one HTTP request from a pod, on a connection of its own."""
        with netns.inside(self.pod_netns(pod)):
            sock = socket.create_connection((ip, port), timeout=timeout)
        with sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split()[1]), json.loads(body)["pod"]


@contextlib.contextmanager
def running(spec: LabSpec) -> Iterator[RunningLab]:
    record = cluster.up(spec)
    try:
        yield RunningLab(record)
    finally:
        cluster.down(spec.name)


@contextlib.contextmanager
def broken(lab: RunningLab, name: str) -> Iterator[None]:
    """Has an incident in the lab while it is entered."""
    make_incident(lab.name, name)
    try:
        yield
    finally:
        clear_incident(lab.name, name)
        wait_for_openings(lab)


def wait_for_openings(lab: RunningLab, within_s: float = 60.0) -> None:
    """Until no pod waits for the answer to a SYN: the entry that its connection has may be of a time that is over."""
    deadline = time.monotonic() + within_s
    while any(_opening(lab, pod) for pod in lab.snapshot.pods) and time.monotonic() < deadline:
        time.sleep(0.1)


def _opening(lab: RunningLab, pod: Pod) -> bool:
    with netns.inside(lab.pod_netns(pod)):
        rows = [
            row
            for file in ("tcp", "tcp6")
            for row in Path(f"/proc/thread-self/net/{file}").read_text().splitlines()[1:]
        ]
    return any(row.split()[3] == _SYN_SENT for row in rows)


@dataclass(frozen=True)
class SeenDrop:
    """One skb:kfree_skb event with a reason, read by bpftrace: independent of the project's own probes."""

    t: float
    reason: str
    location: str
    netns: int
    device: str
    protocol: int
    source: str
    destination: str
    stack: tuple[str, ...]

    @property
    def hook(self) -> str:
        """The netfilter hook, from the functions on the stack; "" where the drop is not netfilter's."""
        if self.reason != "NETFILTER_DROP":
            return ""
        for function, hook in (
            ("ip_forward", "forward"),
            ("ip6_forward", "forward"),
            ("ip_local_deliver", "input"),
            ("ip6_input", "input"),
            ("__ip_local_out", "output"),
            ("ip_output", "postrouting"),
            ("ip_rcv", "prerouting"),
            ("ipv6_rcv", "prerouting"),
            ("ip_list_rcv", "prerouting"),
        ):
            if function in self.stack:
                return hook
        return "?"


@dataclass
class DropWatch:
    """All drops since the watch began, on the whole machine."""

    drops: list[SeenDrop] = field(default_factory=list)

    def wait_for(self, wanted: Callable[[SeenDrop], bool], *, since: float, timeout: float = 60.0) -> SeenDrop:
        """The first drop after `since` that is wanted; fails the test with what was seen instead."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for drop in list(self.drops):
                if drop.t >= since and wanted(drop):
                    return drop
            time.sleep(0.02)
        pytest.fail(f"no such drop in {timeout} s; seen: {[d for d in self.drops if d.t >= since][:20]}")


PROGRAM = """
tracepoint:skb:kfree_skb /args->reason >= 2/ {
  $skb = (struct sk_buff *)args->skbaddr;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  if ($ip->protocol == 6 || $ip->protocol == 17) {
    printf("drop|%d|%s|%u|%s|%d|%s|%s|%s|end\\n", args->reason, ksym(args->location), $skb->dev->nd_net.net->ns.inum,
      $skb->dev->name, $ip->protocol, ntop($ip->saddr), ntop($ip->daddr), kstack(14));
  }
}
"""


def read_drops(process: subprocess.Popen[str], watch: DropWatch, ready: threading.Event) -> None:
    assert process.stdout is not None
    names: dict[str, str] = {}
    text = ""
    for line in process.stdout:
        if not ready.is_set():
            names |= dict(re.findall(r'\{\s*(\d+), "(\w+)"', line))
            if line.startswith("Attaching"):
                ready.set()
            continue
        text += line
        if not text.rstrip().endswith("|end"):
            continue
        fields = text.strip().split("|")
        text = ""
        if fields[0] == "drop" and len(fields) == 10:
            stack = tuple(part.strip().partition("+")[0] for part in fields[8].splitlines() if part.strip())
            watch.drops.append(
                SeenDrop(
                    time.monotonic(),
                    names.get(fields[1], fields[1]),
                    fields[2].partition("+")[0],
                    int(fields[3]),
                    fields[4],
                    int(fields[5]),
                    fields[6],
                    fields[7],
                    stack,
                )
            )
