"""What the packet itself says of its drop: the connection tracking state that the kernel gave it, the tunnel that carried it, a
limit that may have been reached."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import DropRow
from tests.unit.drops.droprows import NODE, REQUEST, dropped, report, rows, rules, sample

INVALID = "-A FORWARD -m conntrack --ctstate INVALID -j DROP"


def row_of(packet: PacketDropped, *lines: str, **count: Any) -> DropRow:
    """The row of a drop in a node whose counter of INVALID packets has grown meanwhile."""
    grown = (report(1, conntrack_invalid=0), report(20, conntrack_invalid=3))
    (row,) = rows(grown[0], rules(*lines), packet, dropped(**count), grown[1])
    return row


@pytest.mark.parametrize(("state", "check"), [("INVALID", "conntrack-invalid"), ("NEW", "netfilter-drop")])
def test_only_what_the_kernel_takes_for_invalid_died_by_a_rule_for_that(state: str, check: str) -> None:
    row = row_of(msgspec.structs.replace(sample(), ct_state=state), INVALID)
    assert row.check == check
    seen = [e for e in row.evidence if e.statement.startswith("the packet has no connection tracking entry")]
    assert [e.certainty for e in seen] == ([Certainty.OBSERVED] if state == "INVALID" else [])


def test_a_rule_for_what_is_new_is_tried_with_the_state_that_the_packet_had() -> None:
    lines = ("-A FORWARD -m conntrack --ctstate NEW -j DROP",)
    assert row_of(msgspec.structs.replace(sample(), ct_state="NEW"), *lines).check == "rule-drop"
    assert row_of(msgspec.structs.replace(sample(), ct_state="ESTABLISHED"), *lines).check == "netfilter-drop"


def test_a_rule_with_a_limit_may_be_the_one_and_says_so() -> None:
    packet = msgspec.structs.replace(sample(), ct_state="NEW")
    row = row_of(packet, "-A FORWARD -p tcp -m hashlimit --hashlimit-above 5/sec --hashlimit-name a -j DROP")
    assert row.check == "rule-drop" and row.drop is not None and "--hashlimit-above" in (row.drop.rule or "")
    assert any("a condition that can't be read afterwards" in e.statement for e in row.evidence)


def test_what_a_tunnel_carries_dies_by_the_rules_for_the_tunnel() -> None:
    tunnel = FiveTuple("172.18.0.3", 40001, NODE, 8472, Protocol.UDP)
    packet = msgspec.structs.replace(sample(hook="INPUT"), tunnel=tunnel)
    row = row_of(packet, "-A INPUT -p udp --dport 8472 -j DROP", flow=REQUEST)
    assert row.check == "rule-drop" and row.title.startswith("a rule of node-1 drops the tunnel's packet")
    assert row.drop is not None and row.drop.policies == ()
