"""What the DNS of a run amounts to: per client workload, per name, per server."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.results.agents import AgentCost
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.results.measure import Quantiles


class QueryCounts(msgspec.Struct, frozen=True):
    """queries = answered + failed + timeouts + open. `rcodes` has every response code but NOERROR: those of
    the failed ones, and NXDOMAIN, which is an answer. `last` is when the newest query was sent (RFC 3339; "" where that is
    not known)."""

    queries: int
    answered: int
    failed: int
    timeouts: int
    open: int
    retries: int
    truncated: int
    tcp_retries: int
    races: int
    rcodes: dict[str, int]
    latency: Quantiles
    last: str = ""


class ClientStats(msgspec.Struct, frozen=True):
    """A client workload ("namespace/name"). `wasted` queries only tried search domains before the name that resolved."""

    client: str
    counts: QueryCounts
    wasted: int
    ndots: int | None
    search: tuple[str, ...]


class NameStats(msgspec.Struct, frozen=True):
    """A name and type as one client workload asked for it."""

    client: str
    name: str
    type: str
    counts: QueryCounts
    wasted: bool


class ServerStats(msgspec.Struct, frozen=True):
    """A DNS server: `way` is what of the latency passed outside of it, `upstream` what of `server` waited for others."""

    server: str
    node: str | None
    counts: QueryCounts
    way: Quantiles
    server_time: Quantiles
    upstream_time: Quantiles


class Lookup(msgspec.Struct, frozen=True):
    """What a client workload asked for, over all its candidates. `resolved_as` is the one with an answer, "" if none.

    `wasted` queries ended in NXDOMAIN for other candidates; `queries` are all of the candidates'.
    """

    client: str
    base: str
    resolved_as: str
    queries: int
    wasted: int
    lookups: int


class DnsSummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="dns_summary"):
    """`queries` are the clients' (queries = answered + failed + timeouts + open), `upstream` those that DNS servers made
    on their behalf. `malformed` messages could not be decoded whole, `unmatched` are responses whose query was not seen.
    `not_grouped` exchanges count in the totals and lack a row of their own, as the number of rows is bounded; `names` and
    `lookups` list the first of them, `unlisted` is how many more there are.
    `events` as in a trace's summary: emitted = received + lost."""

    target: str
    queries: QueryCounts
    upstream: QueryCounts
    malformed: int
    unmatched: int
    not_grouped: int = 0
    unlisted: int = 0
    clients: tuple[ClientStats, ...]
    names: tuple[NameStats, ...]
    servers: tuple[ServerStats, ...]
    lookups: tuple[Lookup, ...]
    findings: tuple[Finding, ...]
    events: dict[str, int | None]
    nodes: tuple[str, ...]
    silent_nodes: tuple[str, ...]
    lost: tuple[Losses, ...]
    redacted: bool = False
    agents: tuple[AgentCost, ...] = ()
