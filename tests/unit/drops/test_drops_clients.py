"""Rows whose client is a node's address: who asked may be behind the source NAT; and the agents' own, of which there are none."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.context.account import Account
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.render.drops.table import client
from tests.unit.drops.droprows import (
    HOST,
    LLAMA,
    LLAMA_NS,
    NODE,
    REQUEST,
    UI,
    dropped,
    objects,
    pod,
    report,
    rows,
    sampled,
    tcp,
)

FROM_NODE = tcp(NODE, 40000, LLAMA, 8080)


def said_hidden(row: DropRow) -> bool:
    statements = [e for e in row.evidence if "source NAT" in e.statement]
    assert all(e.certainty is Certainty.UNKNOWN and e.node == "node-1" for e in statements)
    assert row.client_hidden is bool(statements) and client(row).endswith("or behind it") is bool(statements)
    return bool(statements)


def test_a_pods_own_address_hides_nobody() -> None:
    (row,) = rows(*sampled("NETFILTER_DROP", hook="FORWARD"))
    assert row.client is not None and row.client.pod == "chatbot-ui" and not said_hidden(row)


@pytest.mark.parametrize(
    ("netns", "hook", "hidden"),
    [
        (LLAMA_NS, "INPUT", True),  # in the pod's namespace, after the node's POSTROUTING
        (HOST, "POSTROUTING", True),
        (HOST, "", True),  # at the device it leaves by
        (HOST, "OUTPUT", False),  # before the translation: the node's own packet
        (HOST, "FORWARD", False),
    ],
)
def test_a_nodes_address_hides_whom_it_translates_but_not_before_it_translates(
    netns: int, hook: str, hidden: bool
) -> None:
    (row,) = rows(*sampled("NETFILTER_DROP", flow=FROM_NODE, netns=netns, hook=hook))
    assert row.client is not None and row.client.ip == NODE and said_hidden(row) is hidden


def test_an_answer_to_a_nodes_address_hides_the_client_too() -> None:
    answer = tcp(LLAMA, 8080, NODE, 40000)
    (row,) = rows(*sampled("NETFILTER_DROP", flow=answer, netns=LLAMA_NS, hook="OUTPUT", flags=18))
    assert row.direction == "reply" and said_hidden(row)


def test_an_address_outside_the_cluster_stands_for_itself() -> None:
    outside = msgspec.structs.replace(REQUEST, src="203.0.113.9")
    (row,) = rows(*sampled("NETFILTER_DROP", flow=outside, hook="FORWARD"))
    assert row.client is not None and row.client.ip == "203.0.113.9" != UI and not said_hidden(row)


def test_what_an_agent_says_on_its_own_loopback_is_no_drop() -> None:
    """Its probes try the port before it listens; who asks it comes by the kubelet, and may go before the answer."""
    agent = pod("genainet-agent-x", "10.244.1.9", "node-1")
    agent["metadata"]["labels"] = {"app.kubernetes.io/name": "genainet-agent"}
    correlator = DropCorrelator(ClusterSnapshot(tuple(KubeObject(o) for o in (*objects(), agent))))
    device = Device(name="eth0", ifindex=2, mtu=1500, addresses=("10.244.1.9",))
    own = NodeReport(node="node-1", t_ns=1, namespaces=(NetNs(inode=9, host=False, devices=(device,)),))
    tried = FiveTuple("127.0.0.1", 50000, "127.0.0.1", 9912, Protocol.TCP)
    for event in (
        report(),
        own,
        dropped(tried, reason="NO_SOCKET", netns=9, packets=3),
        dropped(tried, reason="NO_SOCKET", netns=LLAMA_NS),  # of another pod's program on that port
    ):
        correlator.feed(event)
    (row,) = Rows(correlator).build()
    assert row.pod == "default/my-llama" and summary_of("all", [row], correlator, Account()).observers == 3
