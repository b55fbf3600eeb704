"""More faults: conditions of rules, sidecars, the node's settings; each made with real packets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import veth_name
from kubectl_genainet.model.kube import Pod
from tests.lab.connections.faultbench import Bench, Done, knock
from tests.lab.connections.faults import FAULTS, fault

__all__ = ["FAULTS", "fault"]

LIMITED, PROXIED, REDIRECTED, FORWARDED, SIGNED, SOMETIMES, CALLED, LATE, FRAGMENTED, IPSEC, QUEUED = range(9401, 9412)
NO_PROXY, PROXY = 15002, 15003
_TCP_MD5SIG = 14
_OWN_MARK = 7


@fault
def limit_reached(bench: Bench) -> Done:
    """The rule takes what exceeds a rate: the second SYN."""
    done, forward = Done(), "type filter hook forward priority -300;"
    rule = f"tcp dport {LIMITED} tcp flags & (syn|ack) == syn limit rate over 1/hour burst 1 packets counter drop"
    bench.until_the_end.enter_context(bench.nft(bench.there, forward, rule, done, name="limited"))
    with contextlib.suppress(OSError):
        knock(bench, bench.open_pod.ips[0], LIMITED).close()
    own = knock(bench, bench.open_pod.ips[0], LIMITED).getsockname()[1]
    done.got[own] = "nothing"
    return done


@fault
def rule_for_a_moment(bench: Bench) -> Done:
    """The rule is gone before anybody can read it."""
    done, forward = Done(), "type filter hook forward priority -300;"
    with bench.nft(bench.there, forward, f"tcp dport {LATE} counter drop", done, name="moment"):
        done.got[knock(bench, bench.open_pod.ips[0], LATE).getsockname()[1]] = "nothing"
        time.sleep(0.05)
    return done


@fault
def transparent_proxy_is_down(bench: Bench) -> Done:
    done, pod = Done(), bench.open_pod
    give = f"-p tcp --dport {PROXIED} -j TPROXY --on-port {NO_PROXY} --tproxy-mark 0x539".split()
    bench.until_the_end.enter_context(bench.iptables(pod, "mangle", "PREROUTING", *give, done=done))
    done.got[knock(bench, pod.ips[0], PROXIED).getsockname()[1]] = "nothing"
    return done


@fault
def clients_own_proxy_is_down(bench: Bench) -> Done:
    done = Done()
    redirect = f"-p tcp --dport {REDIRECTED} -j REDIRECT --to-ports {NO_PROXY}".split()
    bench.until_the_end.enter_context(bench.iptables(bench.client, "nat", "OUTPUT", *redirect, done=done))
    bench.call(done, bench.open_pod.ips[0], REDIRECTED)
    return done


@fault
def clients_own_proxy(bench: Bench) -> Done:
    """What the client sends is redirected to a proxy beside it, which calls the server."""
    done, server = Done(), bench.listening(bench.open_pod, CALLED)
    proxy = bench.listening(bench.client, PROXY)
    redirect = f"-p tcp --dport {CALLED} -m mark ! --mark {_OWN_MARK} -j REDIRECT --to-ports {PROXY}".split()
    bench.until_the_end.enter_context(bench.iptables(bench.client, "nat", "OUTPUT", *redirect))

    def answer() -> None:
        with server.accept()[0] as served:
            served.recv(65536)
            served.sendall(b"answer")

    def pass_on() -> None:
        with proxy.accept()[0] as asked, bench.own_socket() as onward:
            onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _OWN_MARK)
            onward.connect((bench.open_pod.ips[0], CALLED))
            onward.sendall(asked.recv(65536))
            asked.sendall(onward.recv(65536))

    threads = [threading.Thread(target=act, daemon=True) for act in (answer, pass_on)]
    for thread in threads:
        thread.start()
    bench.call(done, bench.open_pod.ips[0], CALLED, timeout=10)
    for thread in threads:
        thread.join(10)
    return done


@fault
def forwarding_is_off(bench: Bench) -> Done:
    done = Done()
    bench.run(bench.there, "sysctl", "-w", "net.ipv4.ip_forward=0")
    before = bench.counter(bench.there, "IpInAddrErrors")
    try:
        with knock(bench, bench.open_pod.ips[0], FORWARDED) as sock:
            done.got[sock.getsockname()[1]] = "nothing"
            deadline = time.monotonic() + 5
            while done.counted == 0 and time.monotonic() < deadline:
                done.counted = bench.counter(bench.there, "IpInAddrErrors") - before
    finally:
        bench.run(bench.there, "sysctl", "-w", "net.ipv4.ip_forward=1")
    return done


@fault
def ipsec_policy_blocks(bench: Bench) -> Done:
    done, pod = Done(), bench.open_pod
    selector = ("dir", "fwd", "src", bench.client.ips[0], "dst", pod.ips[0], "proto", "tcp", "dport", str(IPSEC))
    bench.run(bench.there, "ip", "xfrm", "policy", "add", *selector, "action", "block")
    bench.until_the_end.callback(bench.run, bench.there, "ip", "xfrm", "policy", "delete", *selector)
    done.counted = -_blocked_by_ipsec(bench)
    done.got[knock(bench, pod.ips[0], IPSEC).getsockname()[1]] = "nothing"
    time.sleep(0.1)
    done.counted += _blocked_by_ipsec(bench)
    return done


@fault
def segments_must_be_signed(bench: Bench) -> Done:
    done, pod = Done(), bench.open_pod
    with netns.inside(bench.space(pod)):
        server = bench.until_the_end.enter_context(socket.socket())
    address = struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(bench.client.ips[0])).ljust(128, b"\0")
    key = struct.pack("BBHI", 0, 0, 3, 0) + b"key".ljust(80, b"\0")  # struct tcp_md5sig, include/uapi/linux/tcp.h
    server.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG, address + key)
    server.bind(("0.0.0.0", SIGNED))
    server.listen()
    done.got[knock(bench, pod.ips[0], SIGNED).getsockname()[1]] = "nothing"
    return done


@fault
def later_fragments(bench: Bench) -> Done:
    """A firewall takes every fragment but the first."""
    done = Done()
    device = 'type filter hook ingress device "eth0" priority -500;'
    rule = "ip frag-off & 0x1fff != 0 counter drop"
    client = _datagrams(bench)
    client.connect((bench.open_pod.ips[0], FRAGMENTED))
    with bench.nft(bench.there, device, rule, done, name="fragments"):
        for _ in range(2):
            client.send(b"x" * 4000)
        time.sleep(0.1)
    done.got[client.getsockname()[1]] = "nothing"
    return done


@fault
def some_datagrams_lost(bench: Bench) -> Done:
    """Of nine heartbeats the rule takes every third; the others are answered."""
    done, forward = Done(), "type filter hook forward priority -300;"
    rule = f"udp dport {SOMETIMES} numgen inc mod 3 == 1 counter drop"
    bench.until_the_end.enter_context(bench.nft(bench.there, forward, rule, done, name="sometimes"))
    server = _datagrams(bench, bench.open_pod, SOMETIMES)
    client = _datagrams(bench)
    client.connect((bench.open_pod.ips[0], SOMETIMES))
    answered = 0
    for number in range(9):
        client.send(b"heartbeat")
        if number % 3 != 1:
            heartbeat, sender = server.recvfrom(100)
            server.sendto(heartbeat, sender)
            answered += client.recv(100) == heartbeat
        time.sleep(0.25)  # the last answers are counted after the last loss
    done.got[client.getsockname()[1]] = f"{answered} answered"
    return done


def _blocked_by_ipsec(bench: Bench) -> int:
    rows = (line.split() for line in bench.run(bench.there, "cat", "/proc/net/xfrm_stat").splitlines())
    return next(int(count) for name, count in rows if name == "XfrmInPolBlock")


def _datagrams(bench: Bench, who: Pod | str = "", port: int | None = None) -> socket.socket:
    sock = bench.until_the_end.enter_context(bench.own_socket(who, socket.SOCK_DGRAM, port))
    sock.settimeout(5)
    return sock


@fault
def entry_before_the_rules(bench: Bench) -> Done:
    """The client's port is that of a SYN which came to the Service's address while no rule took it."""
    done, own = Done(), next(bench.own_ports)
    service = bench.lab.service("my-llama-svc").cluster_ips[0]
    entry = f"-p tcp -s {bench.client.ips[0]} -d {service} --sport {own} --dport 80".split()
    bench.run("node-1", "conntrack", "-I", *entry, "--state", "SYN_SENT", "-t", "120")
    with bench.own_socket(port=own) as sock:
        sock.settimeout(1.5)
        with pytest.raises((TimeoutError, OSError)):
            sock.connect((service, 80))
    done.got[own] = "nothing"
    done.counted = len(bench.run("node-1", "conntrack", "-L", *entry).splitlines())
    return done


@fault
def stale_datagram_entry(bench: Bench) -> Done:
    """The client's port is that of an earlier flow to the cluster's DNS, whose entry leads to a pod that is gone."""
    done, own = Done(), next(bench.own_ports)
    dns = bench.lab.snapshot.service("kube-system", "kube-dns")
    assert dns is not None
    gone = ".".join([*bench.backend.ips[0].split(".")[:3], "250"])
    entry = f"-p udp -s {bench.client.ips[0]} -d {dns.cluster_ips[0]} --sport {own} --dport 53".split()
    bench.run("node-1", "conntrack", "-I", *entry, "--dst-nat", f"{gone}:53", "-t", "120")
    client = _datagrams(bench, port=own)
    client.connect((dns.cluster_ips[0], 53))
    client.send(bytes(12))
    time.sleep(0.2)
    done.got[own] = gone
    done.counted = len(bench.run("node-1", "conntrack", "-L", *entry).splitlines())
    return done


@fault
def called_itself(bench: Bench) -> Done:
    """A Service sends a pod to itself, by a rule that stands before kube-proxy's and masquerades nothing."""
    done, pod = Done(), bench.open_pod
    service = bench.lab.service("chatbot-ui").cluster_ips[0]
    to_itself = f"-p tcp -s {pod.ips[0]} -d {service} -j DNAT --to-destination {pod.ips[0]}:{pod.ports[0].container_port}".split()
    with bench.iptables(bench.there, "nat", "PREROUTING", *to_itself, done=done):
        bench.call(done, service, 80, who=pod, timeout=0.9)
    return done


@fault
def queue_is_slow(bench: Bench) -> Done:
    """The queue towards the client's pod lets 500 bytes a second through, after the first 1600, and others wait in it already."""
    done, pod = Done(), bench.open_pod
    device = veth_name(pod.metadata.namespace, pod.metadata.name)
    bench.run(bench.there, *f"tc qdisc add dev {device} root tbf rate 4kbit burst 1600 limit 20000".split())
    try:
        with _datagrams(bench, bench.there) as others, bench.own_socket(pod) as sock:
            for _ in range(3):
                others.sendto(bytes(800), (pod.ips[0], QUEUED))
            sock.settimeout(10)
            began = time.monotonic()
            sock.connect((bench.client.ips[0], bench.client.ports[0].container_port))
            done.seconds = time.monotonic() - began
            done.got[sock.getsockname()[1]] = "answered"
    finally:
        bench.run(bench.there, "tc", "qdisc", "del", "dev", device, "root")
    return done
