"""What a trace amounts to."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.results.agents import AgentCost
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.results.measure import Quantiles
from kubectl_genainet.model.results.path import Party, ServiceRef, Silence


class BackendStreams(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's TCP connections carried together, those with data.

    `requests` (of HTTP/2: streams) is None where it was not read of all. `gap` is over the connections' median gaps between new
    data of the reply, `silence` the longest of all. `ended` counts "fin by client", "reset by server", "open", ….
    """

    connections: int
    request_bytes: int
    reply_bytes: int
    requests: int | None
    gap: Quantiles
    silence: Silence | None
    lasted: Quantiles
    ended: dict[str, int]


class BackendSummary(msgspec.Struct, frozen=True):
    """One backend (None: connections that got none). `path` is from the first hop to the last of a first packet."""

    backend: Party | None
    connections: int
    share: float
    path: Quantiles
    handshake: Quantiles
    response: Quantiles
    retransmits: int
    drops: int
    streams: BackendStreams | None = None


class ConnectionTotals(msgspec.Struct, frozen=True):
    """All TCP connections of a kind that began during the trace, counted in the kernel at one end's sockets: exact, whether
    their packets were followed or not.

    `counted_at` "client": by `client` (workload, node or address), the `service` that it asked for, if it is one, and the
    `backend` where its node sent it. That is known when the handshake is over: connections through a Service are `opened` in
    the row without a backend. `counted_at` "server": by the `client` that it saw, its `backend`, and the `service` by which
    that client came, where it asked for that backend in no other way. Of those that are over, each is in one of `refused`,
    `timed_out`, `given_up` (before it was established), `ended`, `reset`. `sent` and `received` are their bytes, as
    seen from that end.
    """

    counted_at: str
    client: str
    service: ServiceRef | None
    backend: str | None
    opened: int
    established: int
    refused: int
    timed_out: int
    given_up: int
    ended: int
    reset: int
    sent: int
    received: int


class TraceSummary(msgspec.Struct, frozen=True, tag_field="kind", tag="summary"):
    """`events` are the probes' totals over all nodes: emitted = received + lost. Packets that were only counted are in
    `counted`. `half_seen` connections began before every node on their way was watched, or too late to see their end:
    they are in no other number."""

    target: str
    connections: int
    verdicts: dict[str, int]
    backends: tuple[BackendSummary, ...]
    findings: tuple[Finding, ...]
    events: dict[str, int | None]
    counted: dict[str, int]
    nodes: tuple[str, ...]
    silent_nodes: tuple[str, ...]
    lost: tuple[Losses, ...]
    half_seen: int = 0
    left_out: int = 0  # connections that not all nodes followed, as they kept within their budgets of CPU time
    not_shown: int = 0  # connections that the filters (--verdict, --from, …) left out: they are in no other number
    sampled: int = 1  # at the busiest moment one connection in so many was followed
    totals: tuple[ConnectionTotals, ...] | None = None  # None: not known
    agents: tuple[AgentCost, ...] = ()
    forgotten: int = (
        0  # connections let go before their end for want of room: what came of it later counts as another's
    )
    findings_left_out: int = 0  # findings about connections beyond the 200 of `findings`, each time that one was made
