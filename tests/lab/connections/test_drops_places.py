"""`drops` on packets that really die at each place of the kernel's path, all in one run: the operator's words, the kernel's
evidence, and what the policies say beside an eBPF program's drop."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.cluster import wires
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import LabSpec, veth_name
from kubectl_genainet.model.kube import Pod
from tests.lab.dropbpf import EGRESS, INGRESS, drop_at_tc, drop_at_xdp
from tests.lab.labtest import RunningLab, fresh_name, running

Row = dict[str, Any]
Send = Callable[[], None]
SECONDS = 9  # a neighbour that does not answer is given up after 3 s
(TC_IN, TC_OUT, XDP, NEIGHBOUR, BLACKHOLE, NO_ROUTE, QUEUE, CHECKSUM, BUFFER, REJECT, CLOSED, HIDDEN, GATEWAY) = range(
    4041, 4054
)
ABSENT = "172.18.77.77"  # in the nodes' subnet
UNROUTED = "198.51.100.7"
BEHIND_ABSENT, GONE = "203.0.113.7", "172.18.77.78"  # whose gateway is gone


@pytest.fixture(scope="module")
def lab(quiet_manifests: Path) -> Iterator[RunningLab]:
    with running(LabSpec(name=fresh_name(), manifests=str(quiet_manifests))) as found:
        yield found


def on(pods: list[Pod], node: str) -> Pod:
    return next(p for p in pods if p.spec.node_name == node)


def udp(lab: RunningLab, pod: Pod, ip: str, port: int, count: int = 3, size: int = 40) -> Send:
    def send() -> None:
        with netns.inside(lab.pod_netns(pod)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(count):
                with contextlib.suppress(OSError):  # an ICMP error came back
                    sock.sendto(b"x" * size, (ip, port))

    return send


def connect(lab: RunningLab, pod: Pod, ip: str, port: int) -> Send:
    def send() -> None:
        with netns.inside(lab.pod_netns(pod)):
            sock = socket.socket()
        with sock:
            sock.settimeout(2)
            sock.connect_ex((ip, port))

    return send


def damaged_syn(lab: RunningLab, pod: Pod, ip: str, port: int) -> Send:
    """A SYN with a wrong checksum, through a raw socket; the kernel writes the IP header."""

    def send() -> None:
        segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1024, 0xDEAD, 0)
        with (
            netns.inside(lab.pod_netns(pod)),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock,
        ):
            sock.sendto(segment, (ip, 0))

    return send


@pytest.fixture(scope="module")
def rows(lab: RunningLab) -> Iterator[dict[int, Row]]:
    """By destination port, the row of each fault. Client is a chatbot-ui pod of node-1 unless said otherwise."""
    client, far = on(lab.pods("chatbot-ui"), "node-1"), on(lab.pods("chatbot-ui"), "node-3")
    rag, llama = on(lab.pods("rag-app"), "node-1"), on(lab.pods("my-llama-finetuned"), "node-1")
    node_ip = "172.18.0.2"
    sends = [
        udp(lab, client, llama.ips[0], TC_IN),
        udp(lab, client, far.ips[0], TC_OUT),
        udp(lab, rag, client.ips[0], XDP),
        udp(lab, client, ABSENT, NEIGHBOUR),
        udp(lab, client, BEHIND_ABSENT, GATEWAY),
        udp(lab, client, "10.244.1.250", BLACKHOLE),
        udp(lab, client, UNROUTED, NO_ROUTE),
        udp(lab, far, client.ips[0], QUEUE, 30, 1000),
        damaged_syn(lab, client, node_ip, CHECKSUM),
        udp(lab, client, far.ips[0], BUFFER, 40, 1000),
        connect(lab, client, far.ips[0], REJECT),
        connect(lab, client, far.ips[0], CLOSED),
        connect(lab, client, "172.18.0.4", HIDDEN),  # node-3's; node-1 masquerades what leaves the pods' range
    ]
    with contextlib.ExitStack() as stack, wires(lab.record) as wired:

        def device(pod: Pod) -> tuple[Any, int]:
            namespace = lab.record.nodes[pod.spec.node_name]
            return wired.at(namespace), wired.index_of(namespace, veth_name(pod.metadata.namespace, pod.metadata.name))

        drop_at_tc(*device(client), INGRESS, TC_IN)
        drop_at_tc(*device(far), EGRESS, TC_OUT)
        drop_at_xdp(*device(rag), XDP)
        ipr, index = device(client)
        ipr.tc("add", "tbf", index=index, handle=0x10000, rate="64kbit", burst=2000, limit=3000)
        lab.node_output("node-1", "ip", "route", "add", "unreachable", "198.51.100.0/24")
        lab.node_output("node-1", "ip", "route", "add", "203.0.113.0/24", "via", GONE, "dev", "eth0", "onlink")
        lab.node_output(
            "node-1",
            "iptables",
            "-w",
            "-I",
            "FORWARD",
            "-s",
            client.ips[0],
            "-p",
            "tcp",
            "--dport",
            str(REJECT),
            "-m",
            "comment",
            "--comment",
            "no experiments",
            "-j",
            "REJECT",
            "--reject-with",
            "tcp-reset",
        )
        with netns.inside(lab.record.nodes["node-1"]):
            stack.enter_context(socket.create_server((node_ip, CHECKSUM)))
        with netns.inside(lab.pod_netns(far)):
            deaf = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.bind((far.ips[0], BUFFER))
        command = (
            sys.executable,
            "-m",
            "kubectl_genainet",
            "drops",
            "-A",
            "--lab",
            lab.name,
            "-o",
            "json",
            "--timeout",
            f"{SECONDS}s",
        )
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(subprocess.run, command, capture_output=True, text=True, timeout=180, check=False)
            while not run.done():
                for send in sends:
                    send()
                time.sleep(0.3)
        done = run.result()
        assert done.returncode == 1, done.stderr
    last = {r["id"]: r for r in map(json.loads, done.stdout.splitlines()) if r["kind"] == "drop"}
    seen = [r for r in last.values() if r["server"] is not None and r["drop"] is not None]
    # Of a port the row with the most packets: what finds room in a queue goes on, to a closed port.
    yield {r["server"]["port"]: r for r in sorted(seen, key=lambda r: r["packets"])}


def kernel(row: Row) -> tuple[str, str | None, str | None]:
    """(reason, hook, device) as the kernel had them; the first statement of the evidence says the reason."""
    assert row["evidence"][0]["statement"].startswith(f"{row['drop']['reason']} in {row['drop']['location']}")
    assert row["evidence"][0]["certainty"] == "observed"
    return row["drop"]["reason"], row["drop"]["hook"], row["drop"]["device"]


def test_tc_program_on_ingress_is_an_ebpf_data_plane_and_agrees_with_the_policy(
    lab: RunningLab, rows: dict[int, Row]
) -> None:
    row = rows[TC_IN]
    client = on(lab.pods("chatbot-ui"), "node-1")
    assert (row["check"], row["outcome"], row["drop"]["rule"]) == ("ebpf-drop", "dropped", None)
    assert kernel(row) == ("TC_INGRESS", None, veth_name("default", client.metadata.name))
    assert "an eBPF program dropped it (TC_INGRESS): an eBPF data plane decides here, not iptables" in row["title"]
    assert (row["policy"]["verdict"], row["policy"]["agreement"]) == ("deny", "agree")
    assert row["policy"]["policies"] == row["drop"]["policies"] == ["default/my-llama-ingress-policy"]
    assert row["drop"]["certainty"] == "assumed"  # the API says so, the program was not asked


def test_tc_program_on_egress_drops_what_the_policies_admit(lab: RunningLab, rows: dict[int, Row]) -> None:
    row = rows[TC_OUT]
    far = on(lab.pods("chatbot-ui"), "node-3")
    assert (row["check"], row["node"]) == ("ebpf-drop", "node-3")
    assert kernel(row) == ("TC_EGRESS", None, veth_name("default", far.metadata.name))
    assert (row["policy"]["verdict"], row["policy"]["agreement"], row["drop"]["policies"]) == (
        "allow",
        "api-admits",
        [],
    )
    assert any("an eBPF data plane" in cause for cause in row["policy"]["causes"])


def test_xdp_program_is_told_from_a_rule(lab: RunningLab, rows: dict[int, Row]) -> None:
    row = rows[XDP]
    assert (row["check"], row["node"]) == ("ebpf-drop", "node-1")
    rag = on(lab.pods("rag-app"), "node-1")
    reason, hook, device = kernel(row)  # Linux 6.18 gives generic XDP no reason: its function tells
    assert reason == "XDP" or row["drop"]["location"].startswith("do_xdp_generic")
    assert (hook, device) == (None, veth_name("default", rag.metadata.name))
    assert "an eBPF program dropped it (XDP)" in row["title"]
    assert row["policy"]["agreement"] == "api-admits"


def test_neighbour_that_does_not_answer(rows: dict[int, Row]) -> None:
    row = rows[NEIGHBOUR]
    assert (row["check"], row["node"], row["drop"]["rule"]) == ("neighbour-failed", "node-1", None)
    assert kernel(row)[:2] == ("NEIGH_FAILED", None)
    assert f"node node-1 gets no answer on eth0 to who has {ABSENT}" in row["title"]


def test_gateway_that_is_gone_is_named_and_not_what_lies_behind_it(rows: dict[int, Row]) -> None:
    row = rows[GATEWAY]
    assert (row["check"], row["node"], row["server"]["ip"]) == ("neighbour-failed", "node-1", BEHIND_ABSENT)
    assert f"node node-1 gets no answer on eth0 to who has {GONE}" in row["title"]
    assert f"who has {BEHIND_ABSENT}" not in json.dumps(row)


@pytest.mark.parametrize("port", [BLACKHOLE, NO_ROUTE])
def test_address_without_a_route(rows: dict[int, Row], port: int) -> None:
    row = rows[port]
    assert (row["check"], row["node"]) == ("no-route", "node-1")
    assert f"node node-1 has no route to {row['server']['ip']}" in row["title"]
    kernel(row)


def test_full_queue_of_a_device(lab: RunningLab, rows: dict[int, Row]) -> None:
    row = rows[QUEUE]
    client = on(lab.pods("chatbot-ui"), "node-1")
    assert (row["check"], row["node"]) == ("queue-full", "node-1")
    reason, hook, device = kernel(row)
    assert (reason.startswith("QDISC_"), hook, device) == (True, None, veth_name("default", client.metadata.name))
    queue = f"the queue of {device} (tbf, 64.0 kbit/s, at most 3,000 bytes waiting) in node node-1 has no room"
    nobodys = f"which no annotation of pod default/{client.metadata.name} asks for"
    assert queue in row["title"] and nobodys in row["title"]


def test_wrong_checksum(rows: dict[int, Row]) -> None:
    row = rows[CHECKSUM]
    assert (row["check"], row["node"]) == ("checksum", "node-1")
    assert kernel(row)[:2] == ("TCP_CSUM", None)
    assert "a checksum is wrong in node node-1" in row["title"]


def test_full_socket_buffer(lab: RunningLab, rows: dict[int, Row]) -> None:
    row = rows[BUFFER]
    far = on(lab.pods("chatbot-ui"), "node-3")
    assert (row["check"], row["pod"]) == ("socket-buffer", f"default/{far.metadata.name}")
    assert kernel(row)[:2] == ("SOCKET_RCVBUFF", None)
    assert "its application does not read fast enough" in row["title"]


def test_reset_made_by_a_rule_is_told_from_a_closed_port(rows: dict[int, Row]) -> None:
    rejected, closed = rows[REJECT], rows[CLOSED]
    assert (rejected["check"], rejected["outcome"], rejected["drop"]["told"]) == (
        "rejected-by-rule",
        "rejected",
        "tcp-reset",
    )
    assert kernel(rejected)[:2] == ("NETFILTER_DROP", "FORWARD")
    assert "no experiments" in rejected["drop"]["rule"]
    assert rejected["policy"]["agreement"] == "api-admits"
    assert (closed["check"], closed["outcome"], closed["drop"]["told"]) == ("closed-port", "refused", None)
    assert kernel(closed)[:2] == ("NO_SOCKET", None)


def test_what_dies_where_a_pods_own_rules_redirect_to_is_the_services(lab: RunningLab) -> None:
    client, pod = on(lab.pods("chatbot-ui"), "node-1"), on(lab.pods("chatbot-ui"), "node-3")
    service = lab.service("chatbot-ui")
    command = [sys.executable, "-m", "kubectl_genainet", "drops", f"svc/{service.metadata.name}", "-n", "default"]
    command += ["--lab", lab.name, "--timeout", "300s", "-o", "json"]
    rule = ("PREROUTING", "-p", "tcp", "--dport", "3000", "-j", "REDIRECT", "--to-ports", "15006")
    with netns.inside(lab.pod_netns(pod)):
        subprocess.run(["iptables", "-w", "-t", "nat", "-A", *rule], check=True)
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        seen: list[Row] = []
        with ThreadPoolExecutor() as pool:
            read = pool.submit(lambda: seen.extend(map(json.loads, watching.stdout or ())))
            deadline = time.monotonic() + 150
            while not any(row.get("check") == "redirect-without-listener" for row in list(seen)):
                assert time.monotonic() < deadline, seen
                connect(lab, client, pod.ips[0], 3000)()
                connect(lab, client, pod.ips[0], 15999)()  # is none of the Service's ports, nor redirected to
                time.sleep(0.2)
            watching.send_signal(signal.SIGINT)
            read.result(60)
    finally:
        watching.kill()
        watching.communicate(timeout=10)
        with netns.inside(lab.pod_netns(pod)):
            subprocess.run(["iptables", "-w", "-t", "nat", "-D", *rule], check=True)
    ports = {row["server"]["port"] for row in seen if row["kind"] == "drop" and row["server"]["ip"] == pod.ips[0]}
    (row, *_) = [row for row in seen if row.get("check") == "redirect-without-listener"]
    assert ports == {15006} and "REDIRECT --to-ports 15006" in row["drop"]["rule"]


def test_client_behind_its_nodes_source_nat_is_said_to_be_hidden(rows: dict[int, Row]) -> None:
    row = rows[HIDDEN]
    assert (row["check"], row["node"], row["client"]["node"], row["client_hidden"]) == (
        "closed-port",
        "node-3",
        "node-1",
        True,
    )
    (hidden,) = [e for e in row["evidence"] if "source NAT" in e["statement"]]
    assert hidden["certainty"] == "unknown" and not rows[CLOSED]["client_hidden"]
