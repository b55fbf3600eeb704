"""A packet that a rule took, as the drops probe reports it."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.packet import FiveTuple


def died(flow: FiveTuple, **known: Any) -> PacketDropped:
    """A SYN of the flow that netfilter dropped at a node's eth0; `known` are fields with another value."""
    fields: dict[str, Any] = {
        "node": "node-1",
        "t_ns": 1,
        "netns": 1,
        "ifindex": 2,
        "device": "eth0",
        "skb": 1,
        "flow": flow,
        "length": 60,
        "payload": 0,
        "ip_id": 1,
        "reason": "NETFILTER_DROP",
        "location": "nft_do_chain+0x1",
    }
    return PacketDropped(**fields | known)
