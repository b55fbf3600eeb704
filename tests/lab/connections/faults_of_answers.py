"""Faults of what comes back: errors that are not sent, answers that die or take another way."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import veth_name
from kubectl_genainet.model.kube import Pod
from tests.lab.connections.faultbench import ASK, PORT, Bench, Done
from tests.lab.connections.faults_of_nodes import fault
from tests.lab.connections.faults_of_time import FAULTS, checksum

__all__ = ["FAULTS"]

REJECTED, OWN_PORT, MASQUERADED = range(9501, 9504)
ASKED_AT_ONCE = 12
_BRIDGE = "cni0"
_THROUGH_RULES = "net.bridge.bridge-nf-call-iptables"


@fault
def proxys_own_port(bench: Bench) -> Done:
    """The pod redirects to a port where nobody listens, and the client asks for that very port."""
    done, pod = Done(), bench.open_pod
    redirect = f"-p tcp --dport {OWN_PORT + 1000} -j REDIRECT --to-ports {OWN_PORT}".split()
    with bench.iptables(pod, "nat", "PREROUTING", *redirect, done=done):
        bench.call(done, pod.ips[0], OWN_PORT)
    return done


@fault
def errors_are_limited(bench: Bench) -> Done:
    """A rule rejects by ICMP, and the kernel sends the first six errors only (net.ipv4.icmp_ratelimit is 1000 ms)."""
    done, pod = Done(), bench.open_pod
    reject = f"-p tcp --dport {REJECTED} -d {pod.ips[0]} -j REJECT --reject-with icmp-port-unreachable".split()
    with netns.inside(bench.space(bench.client)):
        sender = bench.until_the_end.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
        errors = bench.until_the_end.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    errors.settimeout(0.1)
    # Until the end, since a node reads its rules after a drop.
    bench.until_the_end.enter_context(bench.iptables(bench.there, "filter", "FORWARD", *reject))
    before = bench.counter(bench.there, "IcmpOutRateLimitHost")
    for own in itertools.islice(bench.own_ports, ASKED_AT_ONCE):
        sender.sendto(_lone_syn(bench.client.ips[0], own, pod.ips[0], REJECTED), (pod.ips[0], 0))
        done.got[own] = "TimeoutError"
    deadline = time.monotonic() + 5
    while [*done.got.values()].count("TimeoutError") != done.counted and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            own = int.from_bytes(errors.recv(1024)[48:50], "big")  # of the segment that the error quotes
            done.got |= {own: "ConnectionRefusedError"} if own in done.got else {}
        done.counted = bench.counter(bench.there, "IcmpOutRateLimitHost") - before
    return done


def _lone_syn(source: str, own: int, destination: str, port: int) -> bytes:
    """A SYN that is sent once: a socket sends its own again after a second, which a busy machine makes of any shorter time."""
    segment = struct.pack("!HHIIBBHHH", own, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    checked = checksum(ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", checked) + segment[18:]


@fault
def first_data_lost(bench: Bench) -> Done:
    """The SYN-ACK passes, what carries data back does not."""
    done, forward = Done(), "type filter hook forward priority -300;"
    sock = bench.until_the_end.enter_context(bench.own_socket())
    own = sock.getsockname()[1]
    rule = f"tcp sport {PORT} tcp dport {own} tcp flags & (syn|fin|psh) == psh counter drop"
    bench.until_the_end.enter_context(bench.nft(bench.there, forward, rule, done, name="firstdata"))
    sock.settimeout(2)
    sock.connect((bench.backend.ips[0], PORT))
    sock.sendall(ASK)
    done.got[own] = "nothing"
    return done


@fault
def masqueraded(bench: Bench) -> Done:
    """The client's node gives its packets for another node's pod its own address."""
    done, ip = Done(), bench.open_pod.ips[0]
    server = bench.listening(bench.open_pod, MASQUERADED)
    thread = threading.Thread(target=_answer_once, args=(server,), daemon=True)
    thread.start()
    hide = f"-s {bench.client.ips[0]} -p tcp -d {ip} --dport {MASQUERADED} -j MASQUERADE".split()
    with bench.iptables("node-1", "nat", "POSTROUTING", *hide, done=done):
        bench.call(done, ip, MASQUERADED, timeout=5)
    thread.join(5)
    return done


def _answer_once(server: socket.socket) -> None:
    with contextlib.suppress(OSError), server.accept()[0] as served:
        served.recv(65536)
        served.sendall(b"answer")


@contextlib.contextmanager
def on_a_bridge(bench: Bench, node: str, pods: list[Pod]) -> Iterator[None]:
    """Wires the pods as the bridge CNI plugin does: those of one node reach each other without its IP stack."""
    gateway = bench.run(pods[0], "ip", "-4", "route", "show", "default").split()[2]
    bench.run(node, "ip", "link", "add", _BRIDGE, "type", "bridge")
    bench.run(node, "ip", "addr", "add", f"{gateway}/32", "dev", _BRIDGE)
    bench.run(node, "ip", "link", "set", _BRIDGE, "up")
    before = {}
    for pod in pods:
        device = veth_name("default", pod.metadata.name)
        before[pod.ips[0]] = device
        bench.run(node, "ip", "link", "set", device, "master", _BRIDGE)
        bench.run(node, "ip", "route", "replace", f"{pod.ips[0]}/32", "dev", _BRIDGE)
        for other in pods:
            if other is not pod:
                bench.run(pod, "ip", "route", "add", f"{other.ips[0]}/32", "dev", "eth0")
        bench.run(pod, "ip", "neigh", "flush", "dev", "eth0")
    try:
        yield
    finally:
        for pod in pods:
            for other in pods:
                if other is not pod:
                    bench.run(pod, "ip", "route", "del", f"{other.ips[0]}/32", "dev", "eth0")
            bench.run(node, "ip", "link", "set", before[pod.ips[0]], "nomaster")
            bench.run(node, "ip", "route", "replace", f"{pod.ips[0]}/32", "dev", before[pod.ips[0]])
            bench.run(pod, "ip", "neigh", "flush", "dev", "eth0")
        bench.run(node, "ip", "link", "del", _BRIDGE)


def bridged(bench: Bench, through_rules: int) -> Done:
    """A pod asks a Service whose backend is beside it on its node's bridge."""
    done, node = Done(), "node-1"
    client, backend = bench.own("my-llama-finetuned"), bench.own("rag-app")
    service = bench.lab.service("rag-app").cluster_ips[0]
    old = bench.run(node, "sysctl", "-n", _THROUGH_RULES).strip()
    bench.run(node, "sysctl", "-w", f"{_THROUGH_RULES}={through_rules}")
    to_it = f"-p tcp -s {client.ips[0]} -d {service} -j DNAT --to-destination {backend.ips[0]}:80".split()
    passes = ("-i", _BRIDGE, "-o", _BRIDGE, "-j", "ACCEPT")  # whatever the policies say
    with (
        on_a_bridge(bench, node, [client, backend]),
        bench.iptables(node, "nat", "PREROUTING", *to_it),
        bench.iptables(node, "filter", "FORWARD", *passes),
    ):

        def ask() -> None:
            bench.call(done, service, 80, who=client, timeout=0.9)

        again = bench.counter(client, "TcpExtTCPSynRetrans")
        done.counted = bench.grown(client, "TcpOutRsts", ask)
        done.syns += bench.counter(client, "TcpExtTCPSynRetrans") - again
    bench.run(node, "sysctl", "-w", f"{_THROUGH_RULES}={old}")
    return done


@fault
def bridge_without_rules(bench: Bench) -> Done:
    """Rules do not see what the bridge passes: the answer goes by them, and its translation is not undone."""
    return bridged(bench, 0)


@fault
def bridge_with_rules(bench: Bench) -> Done:
    return bridged(bench, 1)


@fault
def bridge_where_rules_drop(bench: Bench) -> Done:
    """The pods' policies hold on the bridge too, where rules see what it passes."""
    done, node = Done(), "node-1"
    client, backend = bench.own("my-llama-finetuned"), bench.own("rag-app")
    old = bench.run(node, "sysctl", "-n", _THROUGH_RULES).strip()
    bench.run(node, "sysctl", "-w", f"{_THROUGH_RULES}=1")
    drop = f"-p tcp -s {client.ips[0]} -d {backend.ips[0]} --dport 80 -j DROP".split()
    bench.until_the_end.enter_context(bench.iptables(node, "filter", "FORWARD", *drop, done=done))
    with on_a_bridge(bench, node, [client, backend]):
        bench.call(done, backend.ips[0], 80, who=client, timeout=0.9)
    bench.run(node, "sysctl", "-w", f"{_THROUGH_RULES}={old}")
    return done
