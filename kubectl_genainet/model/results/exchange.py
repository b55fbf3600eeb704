"""What is made of DNS packets: one query, where it went, what came of it. JSON as docs/dns.md says.

None is "unknown" everywhere. Times in ns.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.dns import Answer
from kubectl_genainet.model.results.path import Drop, Hop, Party, ServiceRef


class QueryOutcome(Enum):
    """What came of a query; exactly one of these."""

    ANSWERED = "answered"  # NOERROR, or NXDOMAIN: that there is no such name is an answer
    FAILED = "failed"  # any other response code; it says which
    TIMEOUT = "timeout"  # no response within 5 s, or before the resolver asked again
    OPEN = "open"  # the watch ended before the 5 s did, or records of a node on its way were lost meanwhile: `last_seen` says so


class Split(msgspec.Struct, frozen=True):
    """Where the time went. `upstream` is a part of `server`: from its first query upstream to the last response."""

    to_nat: int | None = None  # from the client to the device behind the destination NAT
    to_server: int | None = None  # from there (without NAT: from the client) into the server's network namespace
    server: int | None = None
    upstream: int | None = None
    to_client: int | None = None


class DnsExchange(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="dns_exchange"):
    """One query and what came of it. A query sent again is an exchange of its own.

    `asked` is whom the client asked, `server` who got it (after NAT). `upstream`: the client is a DNS server that asks on
    behalf of others. `retry` says that the same was asked before without an answer, `after_truncation` that it is asked
    over TCP because the answer over UDP was truncated. `race`: the query was lost to the conntrack race.
    """

    client: Party
    asked: Party
    service: ServiceRef | None
    server: Party | None
    transport: str
    id: int
    name: str | None
    type: str | None
    outcome: QueryOutcome
    rcode: str | None
    t_ns: int
    latency_ns: int | None
    split: Split
    upstream: bool = False
    retry: bool = False
    truncated: bool = False
    after_truncation: bool = False
    race: bool = False
    late_ns: int | None = None  # the response came after the query had been given up, so many ns after it was sent
    answers: tuple[Answer, ...] | None = None
    hops: tuple[Hop, ...] = ()
    way_back: tuple[Hop, ...] = ()
    last_seen: str = ""  # of a query without an answer: the last place that saw it, or its response
    drop: Drop | None = None
    time: str = ""  # `t_ns` as wall-clock time, RFC 3339
