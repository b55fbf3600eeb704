"""What a trace amounts to: per backend connections, share, times, retransmits, drops; losses; findings over all paths."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.diagnoses.connections import SLOW_BACKEND
from kubectl_genainet.model.events import Event, FlowCounters
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.losses import COUNTS_LEFT_OUT, Losses
from kubectl_genainet.model.results.measure import quantiles
from kubectl_genainet.model.results.path import PacketPath, ServiceRef, Verdict
from kubectl_genainet.model.results.trace import BackendSummary, TraceSummary
from kubectl_genainet.trace.streaming.early import early_ends
from kubectl_genainet.trace.streaming.pinned import pinned
from kubectl_genainet.trace.streaming.together import streams_of
from kubectl_genainet.trace.totals import Totals

SLOW_FACTOR = 5  # a backend is called slow from so many times the median of the others
SLOW_LEAST_NS = 50_000_000  # and from so long a response time
MAX_FINDINGS = 200
MAX_FLOWS = 200_000  # tuples at a device whose packets are counted
MAX_SAMPLES = 20_000  # per backend and measure


class SummaryBuilder:
    """Collects paths and records as they come."""

    def __init__(self, target: str, ready: Callable[[ServiceRef], int] = lambda _: 0) -> None:
        self._ready = ready  # how many endpoints of a Service's port are ready
        self.target = target
        self.paths = 0
        self._verdicts: Counter[str] = Counter()
        self._backends: dict[tuple[str, int | None] | None, list[PacketPath]] = defaultdict(list)
        self._count: Counter[tuple[str, int | None] | None] = Counter()
        self.account = Account()
        self._totals = Totals()
        self._findings: dict[tuple[str, str], Finding] = {}
        self._findings_left_out = 0
        self._flows: dict[tuple[object, ...], FlowCounters] = {}
        self._flows_left_out: Counter[str] = Counter()  # by node: records of flows that have no place

    def event(self, event: Event) -> None:
        self.account.event(event)
        self._totals.event(event)
        match event:
            case FlowCounters():
                key = (event.node, event.netns, event.ifindex, event.point, event.flow, event.began_ns)
                if len(self._flows) < MAX_FLOWS or key in self._flows:
                    self._flows[key] = event
                else:
                    self._flows_left_out[event.node] += 1
            case _:
                pass

    def path(self, path: PacketPath) -> None:
        self.paths += 1
        self._verdicts[path.verdict.value] += 1
        for finding in path.findings:
            known = (finding.check, finding.title)
            if len(self._findings) < MAX_FINDINGS:
                self._findings.setdefault(known, finding)
            elif known not in self._findings:
                self._findings_left_out += 1
        key = (path.backend.ip, path.backend.port) if path.backend else None
        self._count[key] += 1
        if len(self._backends[key]) < MAX_SAMPLES:
            self._backends[key].append(path)

    def build(
        self,
        identity: Identity,
        half_seen: int = 0,
        left_out: int = 0,
        sampled: int = 1,
        *,
        not_shown: int = 0,
        forgotten: int = 0,
    ) -> TraceSummary:
        backends = tuple(self._backend(key) for key in sorted(self._backends, key=lambda k: (k is None, str(k))))
        first_points = self._flows.values()
        return TraceSummary(
            target=self.target,
            connections=self.paths,
            verdicts=dict(self._verdicts),
            backends=backends,
            findings=(*self._findings.values(), *slow_backends(backends), *self._of_several()),
            events=self.account.events,
            counted={
                "packets": sum(f.packets for f in first_points),
                "bytes": sum(f.bytes for f in first_points),
                "flows": len(self._flows),
            },
            nodes=self.account.nodes,
            silent_nodes=self.account.silent_nodes,
            lost=(*self.account.lost, *self._totals.lost, *self._counts_lost()),
            half_seen=half_seen,
            left_out=left_out,
            sampled=sampled,
            totals=self._totals.rows(identity),
            agents=self.account.costs,
            not_shown=not_shown,
            forgotten=forgotten,
            findings_left_out=self._findings_left_out,
        )

    def _counts_lost(self) -> list[Losses]:
        return [Losses(node, "packets", COUNTS_LEFT_OUT, n) for node, n in sorted(self._flows_left_out.items())]

    def _of_several(self) -> list[Finding]:
        """What only several connections together show."""
        paths = [path for paths in self._backends.values() for path in paths]
        return [*pinned(paths, self._ready), *early_ends(paths)]

    def _backend(self, key: tuple[str, int | None] | None) -> BackendSummary:
        paths = self._backends[key]
        spans = [
            p.hops[-1].t_ns - p.hops[0].t_ns
            for p in paths
            if len(p.hops) > 1 and p.hops[-1].t_error_ns is not None and not p.drop
        ]
        return BackendSummary(
            backend=paths[0].backend,
            connections=self._count[key],
            share=self._count[key] / max(1, self.paths),
            path=quantiles(spans),
            handshake=quantiles([p.handshake_ns for p in paths if p.handshake_ns is not None]),
            response=quantiles([p.response_ns for p in paths if p.response_ns is not None]),
            retransmits=sum(p.retransmits for p in paths),
            drops=sum(p.drop is not None for p in paths),
            streams=streams_of(paths),
        )


def slow_backends(backends: Sequence[BackendSummary]) -> list[Finding]:
    """Backends whose responses take many times what the others take: the network delivered, the application is slow."""
    measured = [b for b in backends if b.backend is not None and b.response.p50 is not None]
    findings = []
    for backend in measured:
        others = sorted(b.response.p50 or 0 for b in measured if b is not backend)
        if not others or backend.response.p50 is None or backend.backend is None:
            continue
        median = others[len(others) // 2]
        if backend.response.p50 < max(SLOW_LEAST_NS, SLOW_FACTOR * median):
            continue
        party = backend.backend
        name = party.pod or address_text(party.ip, party.port)
        findings.append(
            SLOW_BACKEND.finding(
                f"{name} answers slowly: the packets arrive, the application takes its time",
                (
                    Evidence(
                        f"median time from request in to response out: {backend.response.p50 / 1e6:.1f} ms "
                        f"({backend.response.count} requests), of the other backends {median / 1e6:.1f} ms",
                        Certainty.OBSERVED,
                        node=party.node or "",
                    ),
                ),
                object=ObjectRef("Pod", party.pod, party.namespace or "") if party.pod else None,
            )
        )
    return findings


def forgotten_text(connections: int) -> str:
    return (
        f"{counted(connections, 'connection')} let go before the end for want of room: what came of it later counts as "
        "another connection's"
    )


def something_wrong(summary: TraceSummary) -> bool:
    """Whether a trace found a drop, a refusal, or anything else that is a finding (exit status 1)."""
    failed = (Verdict.DROPPED, Verdict.REJECTED, Verdict.UNANSWERED, Verdict.RESET)
    in_total = summary.sampled > 1 and any(t.refused or t.timed_out or t.reset for t in summary.totals or ())
    return bool(any(summary.verdicts.get(verdict.value) for verdict in failed) or summary.findings or in_total)
