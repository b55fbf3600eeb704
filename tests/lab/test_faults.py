"""Faults that people report, made with real packets one after the other beside one `trace`, each with its truth: what its client
got, and what the kernel's rules, queues and counters counted. `ROWS` names the test of each fault that must be judged."""

from __future__ import annotations

import contextlib
import importlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import LabSpec, veth_name
from kubectl_genainet.model.kube import Pod
from tests.lab.faultbench import ASK, OTHER, OUTSIDE, PORT, Bench, Done, held
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import Record, RunningTrace, tracing

ROWS = {
    "a SYN or SYN-ACK lost once, all answered": "test_faults.test_a_syn_ack_that_is_lost_once_decides_nothing",
    "INVALID packets and bad checksums": "test_faults.test_a_bad_checksum_is_invalid_and_a_rule_drops_what_is",
    "a reply that was not translated back": "test_faults.test_a_reply_that_is_not_translated_back_is_no_closed_port",
    "SNAT ports used up": "test_faults.test_source_ports_that_are_used_up_are_no_race",
    "a rule drops the SYN-ACK": "test_faults.test_a_rule_on_the_way_back_is_named",
    "replies die on another device": "test_trace_incidents.test_incident_is_diagnosed",
    "SYN queue full": "test_faults.test_a_full_syn_queue_is_unanswered_and_counted",
    "path MTU black hole on the wire": "test_faults.test_a_wire_that_takes_no_large_packets_fails_the_connection",
    "idle flow cut": "test_faults.test_a_connection_that_is_cut_while_idle_is_unanswered",
    "stream cut midway": "test_faults.test_a_rule_that_comes_in_the_middle_is_named",
    "stream reset midway": "test_stream_incidents.test_reset_stream_is_told_with_what_it_had_carried",
    "sidecar redirect without a listener": "test_faults.test_a_pods_own_redirect_is_told_from_the_backends_port",
    "a rule in the pod's own namespace": "test_faults.test_a_rule_of_the_pod_itself_is_named",
    "the next hop is gone": "test_drops_places.test_neighbour_that_does_not_answer",
    "TTL ran out in a loop": "test_faults.test_a_loop_is_no_malformed_header",
    "stale connection table entries": "test_rules_lab.test_stale_endpoint_is_found_on_its_node_with_its_age",
    "a node's own client": "test_faults.test_a_nodes_own_client_has_service_and_backend",
    "UDP, IPv6, overlays, node ports, equal payloads": "test_truth.test_every_connection_is_told_as_it_was_or_as_unknown",
    "UDP to a closed port, a rule that prohibits": "test_faults.test_an_icmp_error_to_a_pod_refuses_what_it_is_about",
    "keep-alive race": "test_faults.test_a_request_on_a_connection_that_the_server_had_closed_is_a_finding",
    "a port used again": "test_faults.test_a_port_that_is_used_again_has_the_bytes_of_its_own_connection",
    "recovered drops": "test_faults.test_drops_of_a_queue_that_were_made_good_fail_nothing",
    "a stale link address": "test_faults.test_a_stale_link_address_is_a_failure",
    "no endpoints": "test_trace_incidents.test_incident_is_diagnosed",
    "the observer's own traffic": "test_drops_incidents.test_healthy_lab_has_nothing_to_say",
}
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
    done = Done()
    segment = struct.pack("!HHIIBBHHH", 39999, PORT, 1, 0, 5 << 4, 2, 1024, 0xDEAD, 0)
    invalid = ("-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    with (
        bench.iptables("node-1", "filter", "FORWARD", *invalid, done=done),
        netns.inside(bench.space(bench.client)),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw,
    ):
        for _ in range(3):
            raw.sendto(segment, (bench.backend.ips[0], 0))
    done.got[39999] = "nothing"
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
    with netns.inside(bench.space(bench.client)):
        sock = bench.until_the_end.enter_context(socket.socket())
        sock.bind((bench.client.ips[0], 0))
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
                with netns.inside(bench.space(bench.client)):
                    sock = stack.enter_context(socket.socket())
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
    few = f"-p tcp -d {OUTSIDE} --dport {OTHER} -j MASQUERADE --to-ports 61000-61001".split()
    bench.until_the_end.enter_context(bench.iptables("node-1", "nat", "POSTROUTING", *few))
    for number in range(4):
        with netns.inside(bench.space(bench.client)):
            sock = bench.until_the_end.enter_context(socket.socket())
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
    redirect = f"-p tcp --dport {PORT} -j REDIRECT --to-ports 15006".split()
    with bench.iptables(bench.backend, "nat", "PREROUTING", *redirect, done=done):
        bench.call(done, bench.backend.ips[0], PORT)
    return done


@fault
def own_rule(bench: Bench) -> Done:
    done = Done()
    rule = f"-p tcp --dport {PORT} -j DROP".split()
    with bench.iptables(bench.backend, "filter", "INPUT", *rule, done=done):
        bench.call(done, bench.backend.ips[0], PORT, timeout=1.5)
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
    with netns.inside(bench.space(bench.client)):
        sock = bench.until_the_end.enter_context(socket.socket(type=socket.SOCK_DGRAM))
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
    reject = f"-p tcp --dport {PORT} -d {bench.backend.ips[0]} -j REJECT --reject-with icmp-admin-prohibited".split()
    with bench.iptables(bench.there, "filter", "FORWARD", *reject, done=done):
        bench.call(done, bench.backend.ips[0], PORT)
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
    with netns.inside(bench.space(bench.client)):
        sock = bench.until_the_end.enter_context(socket.socket())
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
    for answer in (b"x" * 3000, b"one"):
        with netns.inside(bench.space(bench.client)):
            sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((bench.client.ips[0], 45123))
        sock.connect((bench.open_pod.ips[0], server.getsockname()[1]))
        with server.accept()[0] as served:
            served.sendall(answer)
        with sock:
            while sock.recv(65536):
                pass
        done.got[45123] = "answered"
    return done


@dataclass
class Told:
    """What the faults' clients got, and the paths of their connections."""

    done: dict[str, Done]
    paths: dict[int, Record]

    def of(self, name: str) -> tuple[Done, list[Record]]:
        done = self.done[name]
        assert done.got.keys() <= self.paths.keys(), (name, done, sorted(self.paths))
        return done, [self.paths[port] for port in done.got]


@pytest.fixture(scope="module")
def lab(quiet_manifests: Path) -> Iterator[RunningLab]:
    with running(LabSpec(name=fresh_name(), manifests=str(quiet_manifests))) as found:
        yield found


def warmed_up(bench: Bench, trace: RunningTrace) -> None:
    for _ in range(100):
        bench.call(Done(), bench.backend.ips[0], PORT)
        with contextlib.suppress(Empty):
            if trace._next(0.2) is not None:
                return
    raise AssertionError(trace.errors)


@pytest.fixture(scope="module")
def told(lab: RunningLab) -> Told:
    def on(app: str, node: str) -> Pod:
        return next(p for p in lab.pods(app) if p.spec.node_name == node)

    with (
        contextlib.ExitStack() as until_the_end,
        tracing("--lab", lab.name, "-n", "default", "--timeout", "300s", "--slow", "0s") as trace,
    ):
        backend, open_pod = on("my-llama-finetuned", "node-3"), on("chatbot-ui", "node-3")
        bench = Bench(lab, on("chatbot-ui", "node-1"), backend, open_pod, until_the_end)
        warmed_up(bench, trace)
        order = sorted(
            FAULTS, key=lambda name: name not in ("ports_used_up", "cut_while_idle", "cut_midway")
        )  # the slow ones
        done = {name: FAULTS[name](bench) for name in order}
        time.sleep(1.5)  # beyond the time after which TCP would have sent the last SYN again
        trace.stop()
    return Told(done, {p["flow"]["client"]["port"]: p for p in trace.paths})


def one(told: Told, name: str) -> tuple[Done, Record]:
    done, (path,) = told.of(name)
    return done, path


def checks(path: Record) -> set[str]:
    return {finding["check"] for finding in path["findings"]}


def test_every_fault_that_is_reported_has_its_test() -> None:
    for place in ROWS.values():
        module, _, name = place.partition(".")
        assert callable(getattr(importlib.import_module(f"tests.lab.{module}"), name)), place


def test_a_syn_ack_that_is_lost_once_decides_nothing(told: Told) -> None:
    done, path = one(told, "syn_ack_lost_once")
    assert [*done.got.values()] == ["answered"] and done.counted >= 1
    assert (path["outcome"], path["verdict"], path["drop"]) == ("answered", "forwarded", None)


def test_a_bad_checksum_is_invalid_and_a_rule_drops_what_is(told: Told) -> None:
    done, path = one(told, "bad_checksum")
    assert (done.counted, path["outcome"], path["drop"]["check"]) == (3, "dropped", "conntrack-invalid")
    assert path["drop"]["node"] == "node-1" and "--ctstate INVALID -j DROP" in path["drop"]["rule"]


def test_a_reply_that_is_not_translated_back_is_no_closed_port(told: Told) -> None:
    done, path = one(told, "not_translated_back")
    assert [*done.got.values()] == ["TimeoutError"] and done.counted >= 1
    assert (path["outcome"], path["drop"]["check"]) == ("reset", "reply-not-translated")
    assert "nothing listens" not in path["drop"]["explanation"]


def test_source_ports_that_are_used_up_are_no_race(told: Told) -> None:
    _, paths = told.of("ports_used_up")
    assert [p["outcome"] for p in paths] == ["dropped", "dropped"]
    assert {p["drop"]["check"] for p in paths} == {"snat-ports-exhausted"}
    assert all("--to-ports 61000-61001" in p["drop"]["rule"] for p in paths)


def test_a_rule_on_the_way_back_is_named(told: Told) -> None:
    done, path = one(told, "rule_on_the_way_back")
    assert done.counted >= 2 and path["outcome"] == "dropped"
    assert (path["drop"]["node"], path["drop"]["check"]) == ("node-3", "rule-drop")
    assert path["drop"]["rule"].startswith("inet back f rule 1:")


def test_a_full_syn_queue_is_unanswered_and_counted(told: Told) -> None:
    done, paths = told.of("full_syn_queue")
    waiting = [p for p in paths if p["outcome"] == "unanswered"]
    assert done.counted > 0 and waiting and all(p["verdict"] != "forwarded" for p in paths)
    assert any("syn-queue-full" in checks(p) for p in waiting)


def test_a_wire_that_takes_no_large_packets_fails_the_connection(told: Told) -> None:
    done, path = one(told, "small_wire")
    assert [*done.got.values()] == ["TimeoutError"] and path["outcome"] == "dropped"
    assert path["drop"]["check"] == "peer-refused" and "MTU" in path["drop"]["explanation"]


def test_a_connection_that_is_cut_while_idle_is_unanswered(told: Told) -> None:
    done, path = one(told, "cut_while_idle")
    assert done.counted >= 2 and (path["outcome"], path["verdict"]) == ("unanswered", "unanswered")
    assert "stopped-arriving" in checks(path) and path["retransmits"] >= done.counted - 2


def test_a_rule_that_comes_in_the_middle_is_named(told: Told) -> None:
    done, path = one(told, "cut_midway")
    assert done.counted >= 2 and (path["outcome"], path["drop"]["check"]) == ("dropped", "rule-drop")
    assert path["drop"]["rule"].startswith("inet midway f rule 1:") and path["stream"]["reply_bytes"] == len(b"token")


def test_a_pods_own_redirect_is_told_from_the_backends_port(told: Told) -> None:
    done, path = one(told, "own_redirect")
    assert ([*done.got.values()], done.counted) == (["ConnectionRefusedError"], 1)
    assert (path["outcome"], path["backend"]["port"]) == ("refused", PORT)
    assert path["drop"]["check"] == "redirect-without-listener" and "port 15006" in path["drop"]["explanation"]


def test_a_rule_of_the_pod_itself_is_named(told: Told) -> None:
    done, path = one(told, "own_rule")
    assert [*done.got.values()] == ["TimeoutError"] and done.counted >= 1
    assert (path["outcome"], path["drop"]["check"], path["drop"]["hook"]) == ("dropped", "rule-drop", "INPUT")
    assert path["drop"]["pod"] and "filter INPUT rule 1:" in path["drop"]["rule"]


def test_a_loop_is_no_malformed_header(told: Told) -> None:
    _, path = one(told, "loop")
    assert (path["drop"]["check"], path["verdict"]) == ("ttl-expired", path["verdict"])
    assert path["outcome"] in ("dropped", "refused") and "routing-loop" in checks(path)


def test_a_nodes_own_client_has_service_and_backend(told: Told) -> None:
    done, path = one(told, "nodes_own_client")
    assert [*done.got.values()] == ["answered"] and path["outcome"] == "answered"
    assert (path["flow"]["client"]["node"], path["flow"]["service"]["name"]) == ("node-1", "chatbot-ui")
    assert path["backend"]["pod"].startswith("chatbot-ui-") and path["nat"] is not None


def test_drops_of_a_queue_that_were_made_good_fail_nothing(told: Told) -> None:
    done, path = one(told, "short_queue")
    assert [*done.got.values()] == ["answered"] and (path["outcome"], path["drop"]) == ("answered", None)
    assert 1 <= path["retransmits"] <= done.counted  # of the whole pod, which repeats another's SYN-ACK meanwhile


def test_an_icmp_error_to_a_pod_refuses_what_it_is_about(told: Told) -> None:
    _, path = one(told, "udp_port_closed")
    assert (path["outcome"], path["drop"]["check"]) == ("refused", "closed-port")
    assert "icmp-error" in checks(path)
    done, path = one(told, "prohibited_by_a_rule")
    assert done.counted >= 1 and path["outcome"] == "refused"
    assert "the sender was told: administratively prohibited" in {f["title"] for f in path["findings"]}


def test_a_request_on_a_connection_that_the_server_had_closed_is_a_finding(told: Told) -> None:
    done, path = one(told, "sent_after_the_server_had_closed")
    assert set(done.got.values()) <= {"closed", "reset"} and "sent-after-close" in checks(path)


def test_a_client_that_has_said_fin_and_gets_its_answer_has_lost_nothing(told: Told) -> None:
    _, path = one(told, "half_closed")
    assert (path["outcome"], path["verdict"], path["drop"]) == ("answered", "forwarded", None)


def test_a_port_that_is_used_again_has_the_bytes_of_its_own_connection(told: Told) -> None:
    _, path = one(told, "port_used_again")
    assert path["stream"]["reply_bytes"] == len(b"one")


def test_a_stale_link_address_is_a_failure(told: Told) -> None:
    done, path = one(told, "stale_link_address")
    assert [*done.got.values()] == ["TimeoutError"] and path["outcome"] == "dropped"
    assert path["drop"]["reason"] == "OTHERHOST" and path["drop"]["node"] == "node-3"
