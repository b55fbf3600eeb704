"""One rule that the kernel itself said a packet met: nftables' nftrace, or the legacy TRACE target."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.units import Nanoseconds

IPTABLES_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})


class RuleHit(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="rule_hit"):
    """A rule that matched a traced packet (observed).

    `table` and `chain` are named as in rule references ("nat", "ip kube-proxy"); `index` counts from 1 (0: the chain's
    policy or its end; None: the handle is no longer in the chain). `trace` joins the hits of one packet on one node.
    `flow` is the packet's tuple as it was there.
    """

    node: str
    t_ns: Nanoseconds
    trace: int
    engine: str  # "nftrace", "TRACE"
    family: int  # 4 or 6
    table: str
    chain: str
    index: int | None
    verdict: str  # "accept", "drop", "jump KUBE-SERVICES", "continue", …
    flow: FiveTuple | None = None
    mark: int | None = None
