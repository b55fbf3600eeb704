"""Faults that people report, as functions that make each with real packets and note what its client got and what was counted."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable

import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import veth_name
from kubectl_genainet.model.kube import Pod
from tests.lab.connections.faultbench import ASK, OTHER, OUTSIDE, PORT, Bench, Done, held

FAULTS: dict[str, Callable[[Bench], Done]] = {}


def fault(act: Callable[[Bench], Done]) -> Callable[[Bench], Done]:
    FAULTS[act.__name__] = act
    return act


@fault
def syn_ack_lost_once(bench: Bench) -> Done:
    done = Done()
    device = f'type filter hook ingress device "{bench.cable(bench.there)}" priority -500;'
    syn_ack = f"tcp flags & (syn|ack) == (syn|ack) tcp sport {PORT} numgen inc mod 2 == 0 counter drop"
    with bench.nft("fabric", device, syn_ack, done):
        bench.call(done, bench.backend.ips[0], PORT, timeout=5)
    return done


@fault
def bad_checksum(bench: Bench) -> Done:
    """To the backend itself, and to its Service: what is INVALID is not translated."""
    done = Done()
    asked = ((bench.backend.ips[0], PORT), (bench.lab.service("my-llama-svc").cluster_ips[0], 80))
    invalid = ("-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    with (
        bench.iptables("node-1", "filter", "FORWARD", *invalid, done=done),
        netns.inside(bench.space(bench.client)),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw,
    ):
        for ip, port in asked:
            own = next(bench.own_ports)
            for _ in range(3):
                raw.sendto(struct.pack("!HHIIBBHHH", own, port, 1, 0, 5 << 4, 2, 1024, 0xDEAD, 0), (ip, 0))
            done.got[own] = "nothing"
    return done


@fault
def not_translated_back(bench: Bench) -> Done:
    done = Done()
    service = bench.lab.service("my-llama-svc").cluster_ips[0]
    untracked = ("-p", "tcp", "--sport", str(PORT), "-d", bench.client.ips[0], "-j", "CT", "--notrack")
    with bench.iptables("node-1", "raw", "PREROUTING", *untracked, done=done):
        bench.call(done, service, 80, timeout=1.0)
    return done


@fault
def rule_on_the_way_back(bench: Bench) -> Done:
    done = Done()
    sock = bench.until_the_end.enter_context(bench.own_socket())
    own, forward = sock.getsockname()[1], "type filter hook forward priority -300;"
    rule = f"tcp dport {own} tcp flags & (syn|ack) == (syn|ack) counter drop"
    bench.until_the_end.enter_context(bench.nft(bench.there, forward, rule, done, name="back"))
    sock.setblocking(False)
    sock.connect_ex((bench.backend.ips[0], PORT))
    done.got[own] = "nothing"
    return done


@fault
def full_syn_queue(bench: Bench) -> Done:
    done, pod = Done(), bench.open_pod
    with contextlib.ExitStack() as stack:
        old = bench.run(pod, "sysctl", "-n", "net.ipv4.tcp_max_syn_backlog").strip()
        bench.run(pod, "sysctl", "-w", "net.ipv4.tcp_syncookies=0", "net.ipv4.tcp_max_syn_backlog=8")
        restore = ("sysctl", "-w", "net.ipv4.tcp_syncookies=1", f"net.ipv4.tcp_max_syn_backlog={old}")
        stack.callback(bench.run, pod, *restore)
        unanswered = f"-p tcp --sport {OTHER} --tcp-flags SYN,ACK SYN,ACK -j DROP".split()
        stack.enter_context(bench.iptables(pod, "filter", "OUTPUT", *unanswered))
        with netns.inside(bench.space(pod)):
            stack.enter_context(socket.create_server(("0.0.0.0", OTHER), backlog=1))

        def knock() -> None:
            for _ in range(12):
                sock = stack.enter_context(bench.own_socket())
                sock.setblocking(False)
                sock.connect_ex((pod.ips[0], OTHER))
                done.got[sock.getsockname()[1]] = "nothing"
                time.sleep(0.02)
            time.sleep(1.2)  # they are sent again

        done.counted = bench.grown(pod, "TcpExtTCPReqQFullDrop", knock)
    return done


@fault
def small_wire(bench: Bench) -> Done:
    done = Done()
    port = bench.cable(bench.there)
    devices: list[tuple[Pod | str, str]] = [
        (bench.backend, "eth0"),
        (bench.there, veth_name("default", bench.backend.metadata.name)),
        (bench.there, "eth0"),
    ]
    bench.run("fabric", "ip", "link", "set", port, "mtu", "1300")
    for who, device in devices:
        bench.run(who, "ip", "link", "set", device, "gso_max_segs", "1")
    try:
        bench.call(done, bench.backend.ips[0], PORT, ask=ASK.replace(b"/healthz", b"/"), timeout=3)
    finally:
        bench.run("fabric", "ip", "link", "set", port, "mtu", "1500")
        for who, device in devices:
            bench.run(who, "ip", "link", "set", device, "gso_max_segs", "65535")
    return done


@fault
def cut_while_idle(bench: Bench) -> Done:
    done = Done()
    sock, own = held(bench)
    device = f'type filter hook ingress device "{bench.cable("node-1")}" priority -500;'
    bench.until_the_end.enter_context(bench.nft("fabric", device, f"tcp sport {own} counter drop", done, name="idle"))
    sock.sendall(ASK)
    done.got[own] = "nothing"
    return done


@fault
def cut_midway(bench: Bench) -> Done:
    done = Done()
    sock, own = held(bench)
    forward = "type filter hook forward priority -300;"
    bench.until_the_end.enter_context(
        bench.nft(bench.there, forward, f"tcp dport {own} counter drop", done, name="midway")
    )
    sock.sendall(ASK)
    done.got[own] = "nothing"
    return done


@fault
def ports_used_up(bench: Bench) -> Done:
    done = Done()
    with netns.inside(bench.space("fabric")):
        bench.until_the_end.enter_context(socket.create_server((OUTSIDE, OTHER)))
    few = f"-s {bench.client.ips[0]} -p tcp -d {OUTSIDE} --dport {OTHER} -j MASQUERADE --to-ports 61000-61001".split()
    bench.until_the_end.enter_context(bench.iptables("node-1", "nat", "POSTROUTING", *few))
    for number in range(4):
        sock = bench.until_the_end.enter_context(bench.own_socket())
        sock.setblocking(False)
        sock.connect_ex((OUTSIDE, OTHER))
        if number > 1:
            done.got[sock.getsockname()[1]] = "nothing"
        time.sleep(0.05)
    return done


@fault
def loop(bench: Bench) -> Done:
    done, range_ = Done(), ".".join(bench.backend.ips[0].split(".")[:3])
    (ip,) = (node.ips[0] for node in bench.lab.snapshot.nodes if node.metadata.name == bench.there)
    bench.run(bench.there, "ip", "route", "del", "blackhole", f"{range_}.0/24")
    bench.run("fabric", "ip", "route", "add", f"{range_}.0/24", "via", ip)
    old = bench.run("fabric", "sysctl", "-n", "net.ipv4.ip_forward").strip()
    bench.run("fabric", "sysctl", "-w", "net.ipv4.ip_forward=1")
    try:
        bench.call(done, f"{range_}.250", PORT)
    finally:
        bench.run("fabric", "sysctl", "-w", f"net.ipv4.ip_forward={old}")
        bench.run("fabric", "ip", "route", "del", f"{range_}.0/24")
        bench.run(bench.there, "ip", "route", "add", "blackhole", f"{range_}.0/24", "proto", "static")
    return done


@fault
def own_redirect(bench: Bench) -> Done:
    done = Done()
    with bench.own_socket() as sock:
        own = sock.getsockname()[1]
        redirect = f"-p tcp --sport {own} --dport {PORT} -j REDIRECT --to-ports 15006".split()
        bench.until_the_end.enter_context(bench.iptables(bench.backend, "nat", "PREROUTING", *redirect, done=done))
        sock.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((bench.backend.ips[0], PORT))
    done.got[own] = "ConnectionRefusedError"
    return done


@fault
def own_rule(bench: Bench) -> Done:
    done = Done()
    with bench.own_socket() as sock:
        own = sock.getsockname()[1]
        rule = f"-p tcp --sport {own} --dport {PORT} -j DROP".split()
        bench.until_the_end.enter_context(bench.iptables(bench.backend, "filter", "INPUT", *rule, done=done))
        sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            sock.connect((bench.backend.ips[0], PORT))
    done.got[own] = "TimeoutError"
    return done


@fault
def nodes_own_client(bench: Bench) -> Done:
    done = Done()
    bench.call(done, bench.lab.service("chatbot-ui").cluster_ips[0], 80, who="node-1")
    return done


@fault
def short_queue(bench: Bench) -> Done:
    done = Done()
    device = veth_name("default", bench.client.metadata.name)
    bench.run("node-1", *f"tc qdisc add dev {device} root tbf rate 8mbit burst 4kb limit 6kb".split())
    try:

        def call() -> None:
            bench.call(done, bench.backend.ips[0], PORT, ask=ASK.replace(b"/healthz", b"/"), timeout=10)

        done.counted = bench.grown(bench.backend, "TcpRetransSegs", call)
    finally:
        bench.run("node-1", "tc", "qdisc", "del", "dev", device, "root")
    return done


@fault
def stale_link_address(bench: Bench) -> Done:
    done = Done()
    (ip,) = (node.ips[0] for node in bench.lab.snapshot.nodes if node.metadata.name == bench.there)
    entry = ("ip", "neigh", "replace", ip, "dev", "eth0")
    bench.run("node-1", *entry, "lladdr", "02:00:00:00:be:ef", "nud", "permanent")
    try:
        bench.call(done, bench.backend.ips[0], PORT, timeout=1.5)
    finally:
        bench.run("node-1", "ip", "neigh", "del", ip, "dev", "eth0")
    return done


@fault
def udp_port_closed(bench: Bench) -> Done:
    done = Done()
    sock = bench.until_the_end.enter_context(bench.own_socket(kind=socket.SOCK_DGRAM))
    sock.settimeout(2)
    sock.connect((bench.open_pod.ips[0], OTHER))
    sock.send(b"a datagram that nobody takes")
    with pytest.raises(ConnectionRefusedError):
        sock.recv(1)
    done.got[sock.getsockname()[1]] = "ConnectionRefusedError"
    return done


@fault
def prohibited_by_a_rule(bench: Bench) -> Done:
    done = Done()
    with bench.own_socket() as sock:
        own = sock.getsockname()[1]
        reject = f"-p tcp --sport {own} --dport {PORT} -j REJECT --reject-with icmp-admin-prohibited".split()
        sock.settimeout(5)
        with bench.iptables(bench.there, "filter", "FORWARD", *reject, done=done), pytest.raises(OSError):
            sock.connect((bench.backend.ips[0], PORT))
    done.got[own] = "refused"
    return done


@fault
def sent_after_the_server_had_closed(bench: Bench) -> Done:
    done = Done()
    sock, own = held(bench, answers=1)
    time.sleep(0.3)  # a pool that does not look whether its connections are alive
    sock.sendall(ASK)
    with contextlib.suppress(OSError):
        done.got[own] = "closed" if sock.recv(1) == b"" else "answered"
    done.got.setdefault(own, "reset")
    return done


@fault
def half_closed(bench: Bench) -> Done:
    done = Done()
    with netns.inside(bench.space(bench.open_pod)):
        server = bench.until_the_end.enter_context(socket.create_server(("0.0.0.0", 0)))
    sock = bench.until_the_end.enter_context(bench.own_socket())
    sock.connect((bench.open_pod.ips[0], server.getsockname()[1]))
    sock.sendall(ASK)
    sock.shutdown(socket.SHUT_WR)
    with server.accept()[0] as served:
        while served.recv(65536):
            pass
        served.sendall(b"late answer")
    assert sock.recv(65536) == b"late answer"
    done.got[sock.getsockname()[1]] = "answered"
    return done


@fault
def port_used_again(bench: Bench) -> Done:
    done = Done()
    with netns.inside(bench.space(bench.open_pod)):
        server = bench.until_the_end.enter_context(socket.create_server(("0.0.0.0", 0)))
    own = next(bench.own_ports)
    for answer in (b"x" * 3000, b"one"):
        sock = bench.own_socket(port=own)
        sock.connect((bench.open_pod.ips[0], server.getsockname()[1]))
        with server.accept()[0] as served:
            served.sendall(answer)
        with sock:
            while sock.recv(65536):
                pass
        done.got[own] = "answered"
    return done
