"""How often rules are hit: differences of the rules' own counters, and connections that conntrack holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy.services import ServiceRules

_FIELD = re.compile(r"(src|dst|sport|dport)=(\S+)")
_NUMBERS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}

# TCP states after a FIN or a RST, as nf_conntrack prints them. Source: net/netfilter/nf_conntrack_proto_tcp.c.
_ENDED = frozenset(("FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"))


class ConntrackEntry(msgspec.Struct, frozen=True):
    """A conntrack entry: the tuple as the client sent it, the tuple of the replies, and TCP's state ("" for UDP)."""

    original: FiveTuple
    reply: FiveTuple
    state: str = ""

    @property
    def translated(self) -> FiveTuple:
        """The client's tuple after destination NAT."""
        return self.reply.reversed

    @property
    def has_ended(self) -> bool:
        """One side has closed it. A new SYN from the same port replaces the entry, and so meets the rules."""
        return self.state in _ENDED

    @property
    def has_dnat(self) -> bool:
        return (self.reply.src, self.reply.sport) != (self.original.dst, self.original.dport)


def parse_conntrack(text: str) -> tuple[ConntrackEntry, ...]:
    """Entries of `conntrack -L` or /proc/net/nf_conntrack. Entries without ports are left out."""
    entries: list[ConntrackEntry] = []
    for line in text.splitlines():
        tokens = line.split(maxsplit=7)[:7]
        protocol = next((_NUMBERS[word] for word in tokens[:4] if word in _NUMBERS), None)
        fields = _FIELD.findall(line)
        if protocol is None or len(fields) < 8:
            continue
        sides = [dict(fields[:4]), dict(fields[4:8])]
        try:
            tuples = [
                FiveTuple(canonical_ip(s["src"]), int(s["sport"]), canonical_ip(s["dst"]), int(s["dport"]), protocol)
                for s in sides
            ]
        except (KeyError, ValueError):
            continue
        state = next((word for word in tokens if word.isupper()), "")
        entries.append(ConntrackEntry(tuples[0], tuples[1], state))
    return tuple(entries)


BackendKey = tuple[str, str, int, str, int]  # protocol, Service address and port, backend address and port


def connections_by_backend(connections: Iterable[ConntrackEntry]) -> Counter[BackendKey]:
    """How many translated connections each pair of Service address and backend has in conntrack now."""
    return Counter(
        (c.original.protocol.value, c.original.dst, c.original.dport, c.translated.dst, c.translated.dport)
        for c in connections
        if c.has_dnat
    )


def begun(before: Iterable[ConntrackEntry], after: Iterable[ConntrackEntry]) -> tuple[ConntrackEntry, ...]:
    """Connections of `after` that were not there before. Those that came and went in between are in neither."""
    known = {c.original for c in before}
    return tuple(c for c in after if c.original not in known)


def since(before: Sequence[ServiceRules], after: Sequence[ServiceRules]) -> tuple[ServiceRules, ...]:
    """`after` with counters as differences to `before`. A counter that fell was reset, and counts from zero."""
    packets = {(r.source, r.service, r.protocol, a.address, a.via): a.packets for r in before for a in r.addresses}
    connections = {(r.source, b.chain, b.address): b.connections for r in before for b in r.backends}
    return tuple(
        msgspec.structs.replace(
            rules,
            addresses=tuple(
                msgspec.structs.replace(
                    address,
                    packets=_difference(
                        address.packets,
                        packets.get((rules.source, rules.service, rules.protocol, address.address, address.via)),
                    ),
                    backends=tuple(
                        msgspec.structs.replace(
                            b,
                            connections=_difference(b.connections, connections.get((rules.source, b.chain, b.address))),
                        )
                        for b in address.backends
                    ),
                )
                for address in rules.addresses
            ),
        )
        for rules in after
    )


def _difference(now: int | None, then: int | None) -> int | None:
    if now is None or then is None:
        return now
    return now - then if now >= then else now
