"""What the tests of faults share: a client's call with what came of it, rules and counters in the lab's namespaces."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.kube import Pod
from tests.lab.labtest import RunningLab

PORT, OTHER = 8080, 9200
FIRST_OWN_PORT = 20_001  # below those that the kernel and kube-proxy give
OUTSIDE = "172.18.0.1"
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass
class Done:
    """What a fault's client got: "answered", or the error's name, by its own port; and what was counted."""

    got: dict[int, str] = field(default_factory=dict)
    counted: int = 0
    syns: int = 1  # a busy machine ends an attempt later than it is told to: the SYN is sent again then
    seconds: float = 0.0  # for how long it was idle


@dataclass
class Bench:
    lab: RunningLab
    client: Pod  # on node-1
    backend: Pod  # on node-3, behind a policy that admits the client to PORT
    open_pod: Pod  # on node-3 too, behind none
    until_the_end: contextlib.ExitStack  # of the trace
    before_the_end: list[threading.Thread] = field(default_factory=list)  # what goes on beside the faults that follow
    own_ports: Iterator[int] = field(default_factory=lambda: itertools.count(FIRST_OWN_PORT))

    def own(self, app: str) -> Pod:
        """The application's pod on the client's node."""
        return next(p for p in self.lab.pods(app) if p.spec.node_name == self.client.spec.node_name)

    @property
    def there(self) -> str:
        return self.backend.spec.node_name

    @staticmethod
    def cable(node: str) -> str:
        """The fabric's end of the cable to the node."""
        return f"port{node.rpartition('-')[2]}"

    def space(self, who: Pod | str) -> str:
        if isinstance(who, Pod):
            return self.lab.pod_netns(who)
        return self.lab.record.nodes.get(who, f"gnlab-{self.lab.name}-fabric")

    def run(self, who: Pod | str, *command: str) -> str:
        with netns.inside(self.space(who)):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def own_socket(
        self, who: Pod | str = "", kind: socket.SocketKind = socket.SOCK_STREAM, port: int | None = None
    ) -> socket.socket:
        """A socket of the client, or of another, with a port that no other connection has: paths are told by it. (The kernel
        gives the same port to connections of several destinations.)"""
        with netns.inside(self.space(who or self.client)):
            sock = socket.socket(type=kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", next(self.own_ports) if port is None else port))
        return sock

    def call(
        self, done: Done, ip: str, port: int, *, who: Pod | str = "", ask: bytes = ASK, timeout: float = 2.0
    ) -> None:
        """Opens a connection, asks, reads to the end; notes what came of it."""
        with self.own_socket(who) as sock:
            sock.settimeout(timeout)
            outcome = "answered"
            try:
                sock.connect((ip, port))
                sock.sendall(ask)
                while sock.recv(65536):
                    pass
            except OSError as error:
                outcome = type(error).__name__
            done.got[sock.getsockname()[1]] = outcome

    @contextlib.contextmanager
    def nft(self, who: Pod | str, chain: str, rule: str, done: Done, name: str = "fault") -> Iterator[None]:
        """Has the rule, with a counter, meanwhile."""
        family = "netdev" if "device" in chain else "inet"
        self.run(who, "nft", f"add table {family} {name}; add chain {family} {name} f {{ {chain} }}")
        self.run(who, "nft", f"add rule {family} {name} f {rule}")
        try:
            yield
        finally:
            listed = self.run(who, "nft", "list", "table", family, name)
            done.counted = sum(map(int, re.findall(r"counter packets (\d+)", listed)))
            self.run(who, "nft", "delete", "table", family, name)

    @contextlib.contextmanager
    def iptables(self, who: Pod | str, table: str, chain: str, *rule: str, done: Done | None = None) -> Iterator[None]:
        self.run(who, "iptables", "-w", "-t", table, "-I", chain, *rule)
        try:
            yield
        finally:
            if done is not None:
                listed = self.run(who, "iptables-save", "-c", "-t", table)
                first = next(line for line in listed.splitlines() if f"-A {chain} " in line)
                done.counted = int(first.partition(":")[0].lstrip("["))
            self.run(who, "iptables", "-w", "-t", table, "-D", chain, *rule)

    def listening(self, pod: Pod, port: int) -> socket.socket:
        with netns.inside(self.space(pod)):
            return self.until_the_end.enter_context(socket.create_server(("0.0.0.0", port)))

    def counter(self, who: Pod | str, name: str) -> int:
        """A counter of the namespace's protocols, as nstat has it."""
        rows = (line.split() for line in self.run(who, "nstat", "-asz").splitlines())
        return next((int(row[1]) for row in rows if row[0] == name), 0)

    def grown(self, who: Pod, counter: str, act: Callable[[], None]) -> int:
        before = self.counter(who, counter)
        act()
        return self.counter(who, counter) - before


def knock(bench: Bench, ip: str, port: int) -> socket.socket:
    """A socket of the client that has sent its SYN, and waits for nothing."""
    sock = bench.until_the_end.enter_context(bench.own_socket())
    sock.setblocking(False)
    sock.connect_ex((ip, port))
    return sock


def serve(server: socket.socket, answers: int | None) -> None:
    """Answers every request on one connection, until it ends; closes it after so many `answers`."""
    with contextlib.suppress(OSError):
        sock, _ = server.accept()
        with sock:
            while answers != 0 and sock.recv(65536):
                sock.sendall(b"token")
                answers = answers - 1 if answers else None


def held(bench: Bench, answers: int | None = None) -> tuple[socket.socket, int]:
    """A connection that has been answered once, and goes on; with its own port."""
    with netns.inside(bench.space(bench.open_pod)):
        server = bench.until_the_end.enter_context(socket.create_server(("0.0.0.0", 0)))
    threading.Thread(target=serve, args=(server, answers), daemon=True).start()
    sock = bench.until_the_end.enter_context(bench.own_socket())
    sock.settimeout(2)
    sock.connect((bench.open_pod.ips[0], server.getsockname()[1]))
    sock.sendall(ASK)
    assert sock.recv(65536) == b"token"
    return sock, sock.getsockname()[1]
