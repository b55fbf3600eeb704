"""Rows whose client is a node's address: who asked may be behind the node's source NAT."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.render.drops.table import client
from tests.unit.drops.droprows import HOST, LLAMA, LLAMA_NS, NODE, REQUEST, UI, rows, sampled, tcp

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
