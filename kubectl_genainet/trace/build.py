"""A connection as a path: its hops, its translation, its end, and why."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from operator import itemgetter

import msgspec

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.model.diagnoses.connections import RESET_ON_PATH
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import (
    ConnectionOutcome,
    Drop,
    Flow,
    Hop,
    OpenStream,
    PacketPath,
    Party,
    Verdict,
)
from kubectl_genainet.trace.entries import untranslated
from kubectl_genainet.trace.exact import ExactHits
from kubectl_genainet.trace.fate import Around, Fate, fate_of
from kubectl_genainet.trace.hops import (
    established,
    handshake_ns,
    hops_of,
    in_order,
    learn_crossings,
    response_ns,
    translation_of,
)
from kubectl_genainet.trace.joining.connection import Connection, Dropped, PacketDirection, Place, place_of
from kubectl_genainet.trace.nat import nat_of
from kubectl_genainet.trace.streaming.findings import stream_findings
from kubectl_genainet.trace.streaming.http import http2_of, http_of
from kubectl_genainet.trace.streaming.measure import quiet_ns, stream_of
from kubectl_genainet.trace.symptoms import symptoms
from kubectl_genainet.trace.watching.coverage import CLOCKS_NS, Coverage
from kubectl_genainet.trace.watching.missed import missed_by
from kubectl_genainet.trace.watching.node_progress import NodeProgress
from kubectl_genainet.trace.watching.watches import Watches
from kubectl_genainet.why.drop_context import DropContext
from kubectl_genainet.why.explain import explain_drop
from kubectl_genainet.why.remedies import Remedies


class PathBuilder:
    def __init__(
        self,
        context: Context,
        clocks: Clocks,
        watches: Watches,
        progress: NodeProgress,
        coverage: Coverage,
        exact: ExactHits,
        slow_ns: int,
    ) -> None:
        self._context, self._identity, self._clocks, self._watches = context, context.identity, clocks, watches
        self._progress, self._coverage, self._exact, self._slow_ns = progress, coverage, exact, slow_ns
        self.seek_remedies()

    def seek_remedies(self) -> None:
        """The policies have changed."""
        engine = self._context.engine
        self._remedies = Remedies(engine, self._identity) if engine is not None else None

    def path_of(self, connection: Connection) -> PacketPath:
        """A connection as a path, from all that is known of it now."""
        most = connection.first
        ordered = self._in_order(connection, most)
        learn_crossings(connection, self._clocks, ordered)
        around = self._around(connection)
        fate = fate_of(connection, around)
        dropped = fate.drop if fate.drop is not None and fate.drop.first_packet else None
        if (attempt := self._attempt(connection, most, dropped)) is not most:
            ordered = self._in_order(connection, attempt)
        asked = next((seen.asked for seen in ordered if seen.asked is not None), None)
        original = asked or (ordered[0].flow if ordered else self._as_asked(connection))
        assert original is not None, "a connection has at least the tuple that it was made for"
        entered = self._as_it_came_in(ordered, dropped)
        served = ordered[-1].flow if ordered else self._as_served(connection, original)
        final = entered or (dropped.event.flow if dropped else served)
        outside = dropped if entered is None else None
        translation = translation_of(
            ordered, outside.event.flow if outside else None, outside.event.node if outside else None, asked
        )
        opens = connection.protocol is Protocol.TCP and not connection.mid_stream
        nat = nat_of(translation, self._context.rulesets, self._exact, opens=opens) if translation is not None else None
        service = self._identity.service(original)
        at_host = self._answered_by_host(connection, ordered, final)
        backend = at_host or self._backend(original, final, service is not None, ordered[-1] if ordered else None)
        lost = self._coverage.lost_records(connection)
        outcome, verdict, waited = _as_far_as_known(connection, fate, lost)
        t_ns, time = self._watches.earliest(connection.moments)
        path = PacketPath(
            t_ns=t_ns,
            time=time,
            flow=Flow(self._client(original, ordered[0] if ordered else None), service, original.protocol),
            backend=backend,
            nat=nat,
            hops=hops_of(ordered, self._clocks, self._identity),
            verdict=verdict,
            outcome=outcome,
            waited=waited,
            drop=self._explain(fate.drop, original, entered) if fate.drop else None,
            recovered_drops=fate.recovered,
            incomplete=bool(lost),
            handshake_ns=handshake_ns(connection, ordered),
            response_ns=response_ns(connection),
            established=established(connection),
            attempts=len(connection.attempts),
            retransmits=connection.retransmits,
        )
        return self._with_what_is_found(path, connection, fate, around, original)

    def _with_what_is_found(
        self, path: PacketPath, connection: Connection, fate: Fate, around: Around, original: FiveTuple
    ) -> PacketPath:
        """The path with the way back, what its stream and its HTTP heads were, and what is found in all that."""
        stream = stream_of(connection, around)
        http = http_of(connection, stream, self._watches.wall_clock)
        path = msgspec.structs.replace(
            path,
            stream=stream,
            back=self._way(connection.answer or connection.first_reply),
            back_data=self._way(connection.first_reply) if connection.protocol is Protocol.TCP else (),
            drop_direction=fate.drop.direction.value if fate.drop else "",
            http=http,
            http2=http2_of(connection.streams.values()),
        )
        findings = [*symptoms(path, connection, self._identity, around), *stream_findings(path, self._slow_ns)]
        first_packets = fate.drop if fate.drop is not None and fate.drop.first_packet else None
        if (kept := untranslated(path, original, first_packets, self._context.rulesets)) is not None:
            findings.insert(0, kept)
        if stream is not None and any(finding.check == RESET_ON_PATH.name for finding in findings):
            path = msgspec.structs.replace(path, stream=msgspec.structs.replace(stream, ended_by="network"))
        return msgspec.structs.replace(path, findings=tuple(findings))

    def _in_order(self, connection: Connection, sightings: list[PacketSeen]) -> list[PacketSeen]:
        client = next(iter(connection.tuples), None)
        client_party = self._identity.party(client.src, client.sport) if client else None
        return in_order(sightings, self._clocks, client_party.node if client_party else None)

    def _attempt(self, connection: Connection, most: list[PacketSeen], dropped: Dropped | None) -> list[PacketSeen]:
        """Sightings of the attempt that is shown: `most`, seen at most places; where that went elsewhere than the packet that
        died, the attempt of the latter. Each is translated anew until the connection's entry is confirmed."""
        wall = self._watches.wall_clock
        client = next(iter(connection.tuples), None)
        if dropped is None or client is None or {s.flow.dst for s in most} <= {client.dst, dropped.event.flow.dst}:
            return most
        died_ns = wall(dropped.event.node, dropped.event.t_ns) + CLOCKS_NS
        began = [(min(wall(s.node, s.t_ns) for s in attempt), attempt) for attempt in connection.attempts if attempt]
        return max((b for b in began if b[0] <= died_ns), key=itemgetter(0), default=(0, most))[1]

    def open_stream(self, connection: Connection) -> OpenStream | None:
        """What a connection that goes on has carried until now; None for what is no TCP, and before any data was counted."""
        around = self._around(connection)
        stream = stream_of(connection, around)
        original = self._as_asked(connection)
        if stream is None or original is None:
            return None
        service = self._identity.service(original)
        final = self._as_served(connection, original)
        seen = next(iter(connection.first), None)
        return OpenStream(
            flow=Flow(self._client(original, seen), service, original.protocol),
            backend=self._backend(original, final, service is not None, seen),
            stream=stream,
            quiet_ns=quiet_ns(connection, around),
        )

    def _way(self, sightings: list[PacketSeen]) -> tuple[Hop, ...]:
        """The hops of a packet that went back, by the first sighting at each place; the last may be where it died."""
        seen: dict[Place, PacketSeen] = {}
        for event in sightings:
            seen.setdefault(place_of(event), event)
        return hops_of(in_order(list(seen.values()), self._clocks, None), self._clocks, self._identity)

    def _as_asked(self, connection: Connection) -> FiveTuple | None:
        """The tuple that the client used, where its own packets were not seen: the Service's address, if one is known."""
        service = (t for t in connection.tuples if self._identity.service(t) is not None)
        return next(service, next(iter(connection.tuples), None))

    def _as_served(self, connection: Connection, original: FiveTuple) -> FiveTuple:
        """The tuple behind the translation, by the same."""
        return next((t for t in connection.tuples if (t.dst, t.dport) != (original.dst, original.dport)), original)

    def _around(self, connection: Connection) -> Around:
        nodes = [n for n in connection.last if n in self._progress.now] or list(self._progress.now)
        until = min((self._watches.wall_clock(n, self._progress.now[n]) for n in nodes), default=0)
        counted = {n: max(self._progress.counted.get(n, 0), self._watches.ended(n) or 0) for n in nodes}
        counted_ns = min((self._watches.wall_clock(n, t_ns) for n, t_ns in counted.items()), default=0)
        return Around(self._watches.wall_clock, self._identity.owns, self._node_of, until, counted_ns)

    def _node_of(self, ip: str) -> str | None:
        return self._identity.party(ip, None).node

    def _as_it_came_in(self, ordered: list[PacketSeen], dropped: Dropped | None) -> FiveTuple | None:
        """The tuple with which the packet came into the namespace of its destination, where it died after that: what a pod's
        own rules make of it is not what it was sent to."""
        last = ordered[-1] if ordered else None
        if last is None or dropped is None or (last.node, last.netns) != (dropped.event.node, dropped.event.netns):
            return None
        arrived = last.point is Point.RX and self._identity.owns(last.node, last.netns, last.flow.dst)
        return last.flow if arrived and self._identity.pod_in(last.node, last.netns) is not None else None

    def _client(self, original: FiveTuple, first: PacketSeen | None) -> Party:
        return self._end(original.src, original.sport, first)

    def _backend(
        self, original: FiveTuple, final: FiveTuple, is_service: bool, last: PacketSeen | None
    ) -> Party | None:
        """The end that the packet was sent to; None where it never got past the Service's address."""
        if is_service and (original.dst, original.dport) == (final.dst, final.dport):
            return None
        return self._end(final.dst, final.dport, last)

    def _end(self, ip: str, port: int, seen: PacketSeen | None) -> Party:
        """An end of a connection by a sighting nearest to it: a loopback address has an owner only within a namespace."""
        if seen is None:
            return self._identity.party(ip, port or None)
        return self._identity.party_within(seen.node, seen.netns, ip, port or None)

    def _answered_by_host(self, connection: Connection, ordered: list[PacketSeen], final: FiveTuple) -> Party | None:
        """The node itself, where its own namespace has the address and answered: NodeLocal DNSCache has that of the DNS
        Service. With IPVS every node has every Service's address, so that having it alone tells nothing."""
        if not (connection.answer or connection.first_reply):
            return None
        for seen in reversed(ordered):
            is_arrival = seen.point is Point.RX and seen.flow.dst == final.dst
            if is_arrival and self._identity.owns_as_host(seen.node, seen.netns, final.dst):
                return self._identity.party_at(seen.node, seen.netns, final.dst, final.dport or None)
        return None

    def _explain(self, dropped: Dropped, asked: FiveTuple, entered: FiveTuple | None) -> Drop:
        event, established = dropped.event, not dropped.first_packet
        ruleset, error = self._context.rulesets.of(event.node, event.netns)
        named = self._exact.dropping_rule(ruleset, event.node, event.flow) if ruleset is not None else None
        context = DropContext(
            event,
            established,
            self._identity,
            ruleset,
            error,
            self._context.in_force.engines(event.node, event.t_ns, event.t_ns),
            self._remedies,
            named,
            request=event.flow.reversed if dropped.direction is PacketDirection.REPLY else event.flow,
            asked=asked,
            entered=entered,
            earlier=partial(self._context.rulesets.earlier, event.node, event.netns),
        )
        return explain_drop(context)


def _as_far_as_known(
    connection: Connection, fate: Fate, lost: Collection[str]
) -> tuple[ConnectionOutcome, Verdict, str]:
    """(outcome, verdict, what was waited for): both UNKNOWN where records that the nodes `lost` could have made them others."""
    missed = missed_by(connection, fate, lost)
    if not missed:
        return fate.outcome, fate.verdict, fate.waited
    waited = (
        f"{fate.waited or fate.outcome.value}; but records of {', '.join(sorted(lost))} were lost meanwhile: {missed}"
    )
    return ConnectionOutcome.UNKNOWN, Verdict.UNKNOWN, waited
