"""Groups of counts as rows: each with its explanation, what else was seen of the same client and server, and what the
policies say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from kubectl_genainet.context.judging import denied_of, policy_flow
from kubectl_genainet.drops.clients import hidden_client
from kubectl_genainet.drops.counters import CounterRows
from kubectl_genainet.drops.drops import COUNTED_LATE_NS, DropCorrelator
from kubectl_genainet.drops.groups import EventGroup, GroupKind
from kubectl_genainet.drops.outcomes import (
    AFTER_THE_END,
    LAG,
    came_after_the_end,
    causes,
    how_many_were_told,
    mtu_text,
    severity,
)
from kubectl_genainet.drops.related import Related
from kubectl_genainet.drops.senders import may_have_sent, why_unseen
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.diagnoses import DIAGNOSES
from kubectl_genainet.model.diagnoses.connections import (
    ICMP_DROPPED,
    ICMP_ERROR,
    RESET_BY_APP,
    RESET_BY_KERNEL,
    RESET_FROM_OUTSIDE,
    RESET_UNATTRIBUTED,
    RETRANSMITS,
    UNACKNOWLEDGED,
)
from kubectl_genainet.model.diagnoses.kernel import MTU_BLACKHOLE, PACKET_TOO_BIG
from kubectl_genainet.model.diagnoses.rules import CONNTRACK_INVALID, POLICY_NOT_ENFORCED
from kubectl_genainet.model.diagnoses.sockets import CLOSED_PORT
from kubectl_genainet.model.events import IcmpCount, ResetCount
from kubectl_genainet.model.finding import Certainty, Evidence, Severity, counted
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.reasons import icmp_meaning
from kubectl_genainet.model.results.drops import Agreement, DropOutcome, DropRow, PolicyView
from kubectl_genainet.model.results.path import Drop
from kubectl_genainet.policy import PolicyVerdict
from kubectl_genainet.why.explain import explain_drop

_RESETS = {  # enum sk_rst_reason, include/net/rstreason.h
    "TCP_ABORT_ON_CLOSE": "it was closed with data that had not been read",
    "TCP_ABORT_ON_LINGER": "the other end's FIN did not come in time (TCP_LINGER2)",
    "TCP_ABORT_ON_DATA": "data came for a socket that was closed already",
    "TCP_DISCONNECT_WITH_DATA": "it was disconnected with data that had not been sent",
    "TCP_KEEPALIVE_TIMEOUT": "its keepalives were not answered",
    "TCP_STATE": "it was open when it was closed with SO_LINGER 0, or disconnected",
}
SEEN_LATE_NS = 3_000_000_000  # until a change of the objects is seen
ALL_COUNTED_NS = 2_500_000_000  # agents empty their counters once a second, and may be late
ALL_REPORTED_NS = 10_000_000_000  # they report their namespaces every two seconds, and less often on busy nodes


class Rows:
    """Builds rows from what a correlator knows. Explanations are kept as long as nothing that they rest on changes."""

    def __init__(self, correlator: DropCorrelator) -> None:
        self._correlator = correlator
        self.is_final = False  # no node will report anything more
        self._drops: dict[int, tuple[tuple[object, ...], Drop]] = {}
        self._counters = CounterRows(correlator)
        self._settled: dict[int, DropRow] = {}
        self._changed_ns: dict[str, int] = {}  # when the objects changed last, on each node's clock

    def settle(self) -> None:
        """To be called before the cluster's objects become others: what was dropped until now is judged by those of now."""
        self._changed_ns = dict(self._correlator.now)
        known = {group.id: group for group in self._correlator.groups}
        for row in self.build():
            group = known.get(row.id)
            # Objects are seen a little later than they changed: what has just begun may be their doing.
            if group is not None and self._changed_ns.get(group.node, 0) - group.first_ns > SEEN_LATE_NS:
                self._settled[row.id] = row

    def build(self) -> list[DropRow]:
        """All rows by count, those that are no fault last; what is only evidence of another row has none of its own."""
        late = {
            group.id
            for group in self._correlator.groups
            if group.last_ns - self._changed_ns.get(group.node, group.last_ns) > COUNTED_LATE_NS
        }
        rows = [self._as_settled(row) if row.id not in late else row for row in self._rows()]
        return sorted(rows, key=lambda r: (r.severity is Severity.INFO, -r.packets, r.id))

    def _as_settled(self, row: DropRow) -> DropRow:
        settled = self._settled.get(row.id)
        if settled is None:
            return row
        return msgspec.structs.replace(settled, packets=row.packets, bytes=row.bytes, last_time=row.last_time)

    def _rows(self) -> list[DropRow]:
        correlator = self._correlator
        related = Related(correlator.groups, correlator.identity, correlator.ends)
        rows = []
        for group in correlator.groups:
            row = self._row(group, related.to(group))
            if row is None:
                continue
            hidden = hidden_client(group, correlator.identity)
            if hidden is not None:
                row = msgspec.structs.replace(row, client_hidden=True, evidence=(*row.evidence, hidden))
            rows.append(row)
        return [*rows, *self._counters.rows(self.explained, self._beside)]

    def _row(self, group: EventGroup, others: list[EventGroup]) -> DropRow | None:
        match group.kind:
            case GroupKind.DROP:
                return self._drop(group, others)
            case GroupKind.RESET:
                return self._reset(group, others)
            case GroupKind.ICMP:
                return None if _has(others, GroupKind.DROP, GroupKind.ICMP) else self._told(group)
            case GroupKind.ICMP_DROPPED:
                return None if _has(others, GroupKind.DROP) else self._icmp_dropped(group)
            case GroupKind.RETRANSMIT:
                if _has(others, GroupKind.DROP, GroupKind.RESET, GroupKind.ICMP_DROPPED):
                    return None
                return self._retransmitted(group, others)
            case _:
                return self._passed(group)

    def _base(self, group: EventGroup, **fields: object) -> DropRow:
        request = group.request
        identity = self._correlator.identity
        pod = identity.pod_in(group.node, group.netns)
        end = partial(identity.party_within, group.node, group.netns)
        return DropRow(
            id=group.id,
            packets=group.packets,
            bytes=group.bytes,
            client=end(request.src, None if group.oriented else request.sport or None) if request.src else None,
            server=end(request.dst, request.dport or None) if request.dst else None,
            service=self._correlator.ends.service(request.dst, request.dport, request.protocol.value),
            protocol=request.protocol,
            direction="unknown" if not group.oriented else "reply" if group.reply else "request",
            node=group.node,
            pod=f"{pod.metadata.namespace}/{pod.metadata.name}" if pod else None,
            t_ns=group.first_ns,
            time=self._correlator.walls.time(group.node, group.first_ns),
            last_time=self._correlator.walls.time(group.node, group.last_ns),
            **fields,  # type: ignore[arg-type]
        )

    def explained(self, group: EventGroup) -> Drop:
        """The group's drop. One without an explanation is looked at anew each time: settings may have changed."""
        ruleset, _ = self._correlator.context.rulesets.of(group.node, group.netns)
        engines = self._correlator.engines_for(group)
        basis = (id(ruleset), id(self._correlator.identity.snapshot), id(group.sample), engines)
        known = self._drops.get(group.id)
        if known is None or known[0] != basis or known[1].certainty is Certainty.UNKNOWN:
            self._drops[group.id] = known = (basis, explain_drop(self._correlator.context_of(group)))
        return known[1]

    def explained_error(self, group: EventGroup) -> Drop | None:
        """The drop of an ICMP error; None where no sample of it came."""
        context = self._correlator.context_of_error(group)
        return explain_drop(context) if context is not None else None

    def _drop(self, group: EventGroup, others: list[EventGroup]) -> DropRow:
        drop = self.explained(group)
        title, diagnosis = drop.explanation, DIAGNOSES[drop.check]
        evidence = [*drop.evidence, *self._beside(group, others)]
        blocked = next((o for o in others if o.kind is GroupKind.ICMP_DROPPED), None)
        if diagnosis is PACKET_TOO_BIG and blocked is not None:
            diagnosis = MTU_BLACKHOLE
            title += f"; the sender is not told, since the ICMP error about it is dropped too, on {blocked.node}"
        if diagnosis is CONNTRACK_INVALID and came_after_the_end(group, others):
            evidence.append(Evidence(AFTER_THE_END, Certainty.DERIVED, node=group.node))
        evidence += how_many_were_told(group, drop, others, self._correlator.identity)
        outcome = (
            DropOutcome.REJECTED
            if drop.told
            else DropOutcome.REFUSED
            if diagnosis is CLOSED_PORT
            else DropOutcome.DROPPED
        )
        return self._base(
            group,
            outcome=outcome,
            check=diagnosis.name,
            severity=severity(group, diagnosis, others, self._correlator.identity),
            title=title,
            drop=drop,
            policy=self._policy(group, drop) if diagnosis.policies_judge else None,
            evidence=tuple(evidence),
        )

    def _beside(self, group: EventGroup, others: list[EventGroup]) -> Iterator[Evidence]:
        """What else was observed of the same client and server."""
        for other in others:
            where = self._where(other)
            match other.kind, other.event:
                case GroupKind.ICMP, IcmpCount() as icmp:
                    meaning = f"ICMP {icmp_meaning(icmp.family, icmp.type, icmp.code)}{mtu_text(other)}"
                    text = f"{other.packets} times {meaning} reached {where}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                case GroupKind.ICMP_DROPPED, IcmpCount() as icmp:
                    meaning = f"ICMP {icmp_meaning(icmp.family, icmp.type, icmp.code)}{mtu_text(other)}"
                    hook = f" in {other.error.hook}" if other.error and other.error.hook else ""
                    text = f"{other.packets} times {meaning} was dropped in {where}{hook} ({icmp.reason})"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                    error = self.explained_error(other)
                    if error is not None and error.rule:
                        yield Evidence(f"the ICMP error is dropped by {error.rule}", error.certainty, node=other.node)
                case GroupKind.RESET, ResetCount() as reset:
                    by = "sent by" if reset.sent else "received in"
                    text = f"{other.packets} TCP resets {by} {where}{f' ({reset.reason})' if reset.reason else ''}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                case GroupKind.RETRANSMIT, _:
                    states = ", ".join(f"{n} in {state}" for state, n in other.states.most_common())
                    text = f"TCP of {where} sent again: {states}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)

    def _where(self, group: EventGroup) -> str:
        return self._correlator.identity.place(group.node, group.netns)

    def _policy(self, group: EventGroup, drop: Drop) -> PolicyView | None:
        """The policies' verdict on the flow beside the drop; None where neither end is a pod, or a Service's address is
        the destination, which policies do not know."""
        request, snapshot = group.request, self._correlator.identity.snapshot
        if snapshot.pod_at(request.src) is None and snapshot.pod_at(request.dst) is None:
            return None
        if snapshot.service_at(request.dst, request.dport, request.protocol.value) is not None:
            return None
        engines = self._correlator.engines_for(group)
        try:
            answers = [
                engine.explain(policy_flow(request, engine.snapshot)) for engine in engines if engine is not None
            ]
        except GenainetError:
            answers = []
        if request.protocol not in (Protocol.TCP, Protocol.UDP, Protocol.SCTP) or len(answers) < len(engines):
            return PolicyView("unknown", Agreement.UNKNOWN)
        denying = next((answer for answer in answers if answer.verdict is PolicyVerdict.DENY), None)
        if denying is not None:
            isolated = (f"{ref.namespace}/{ref.name}" for _, result in denied_of(denying) for ref in result.isolated_by)
            return PolicyView("deny", Agreement.AGREE, tuple(dict.fromkeys(isolated)))
        if all(answer.verdict is PolicyVerdict.ALLOW for answer in answers):
            return PolicyView("allow", Agreement.API_ADMITS, (), causes(group, drop))
        return PolicyView("unknown", Agreement.UNKNOWN)

    def _all_counted(self, group: EventGroup, within_ns: int) -> bool:
        """Whether all nodes have reported what they counted until the group's first packet, as they do within so long."""
        if self.is_final:
            return True
        walls, now = self._correlator.walls, self._correlator.now
        since = walls.realtime_ns(group.node, group.first_ns) or 0
        return all((walls.realtime_ns(node, t_ns) or 0) - since > within_ns for node, t_ns in now.items())

    def _explains(self, other: EventGroup) -> bool:
        """Whether a drop is the reason of what came with it, and not itself a consequence."""
        return other.kind is GroupKind.DROP and not DIAGNOSES[self.explained(other).check].mild

    def _reset(self, group: EventGroup, others: list[EventGroup]) -> DropRow | None:
        event = group.event
        assert isinstance(event, ResetCount)
        if not event.sent and any(may_have_sent(other, group) for other in others):
            return None
        if not (event.sent and event.active) and any(self._explains(other) for other in others):
            return None
        unseen = "" if event.sent else why_unseen(group, self._correlator.identity, self._correlator.counting)
        if not event.sent and not self._all_counted(group, ALL_REPORTED_NS if unseen else ALL_COUNTED_NS):
            return None  # the node that sent it may have yet to report it
        where, reason = self._where(group), event.reason or "no reason"
        if event.sent and event.active:
            diagnosis, cause = RESET_BY_APP, _RESETS.get(event.reason, "its socket was ended")
            title = f"{where} reset the connection: {cause}. No rule and no closed port did"
        elif event.sent:
            diagnosis, title = RESET_BY_KERNEL, f"TCP of {where} answered a packet with a reset ({reason})"
        elif unseen:
            diagnosis, title = RESET_UNATTRIBUTED, f"a reset reached {where}; what sent it is not known: {unseen}"
        else:
            diagnosis, title = RESET_FROM_OUTSIDE, f"a reset reached {where}; what sent it was not seen"
        told_by = f"tracepoint tcp_{'send' if event.sent else 'receive'}_reset: {reason}"
        if event.sent and not event.reason:
            told_by = "TCP sent a reset; this kernel gives no reasons of resets"  # by a kprobe, or a tracepoint before Linux 6.10
        evidence = (Evidence(told_by, Certainty.OBSERVED, node=group.node), *self._beside(group, others))
        level = Severity.INFO if diagnosis is RESET_BY_KERNEL else Severity.WARNING
        return self._base(
            group, outcome=DropOutcome.RESET, check=diagnosis.name, severity=level, title=title, evidence=evidence
        )

    def _told(self, group: EventGroup) -> DropRow:
        event, error = group.event, group.error
        assert isinstance(event, IcmpCount)
        meaning = icmp_meaning(event.family, event.type, event.code)
        by = f" by {error.src}" if error else ""
        return self._base(
            group,
            outcome=DropOutcome.TOLD,
            check=ICMP_ERROR.name,
            severity=Severity.WARNING,
            title=f"{self._where(group)} was told{by}: {meaning}{mtu_text(group)}; where the packet died was not seen",
            evidence=(Evidence(f"ICMP type {event.type} code {event.code}", Certainty.OBSERVED, node=group.node),),
        )

    def _icmp_dropped(self, group: EventGroup) -> DropRow:
        event, error = group.event, group.error
        assert isinstance(event, IcmpCount)
        hook = f" in {error.hook}" if error and error.hook else ""
        meaning = icmp_meaning(event.family, event.type, event.code)
        drop = self.explained_error(group)
        by = f": {drop.explanation}" if drop is not None else ""
        return self._base(
            group,
            outcome=DropOutcome.DROPPED,
            check=ICMP_DROPPED.name,
            severity=Severity.ERROR,
            title=f"the ICMP error ({meaning}{mtu_text(group)}) that would tell the sender is dropped{hook} on {group.node}{by}",
            evidence=(
                Evidence(f"{event.reason}{hook}", Certainty.OBSERVED, node=group.node),
                *(drop.evidence if drop is not None else ()),
            ),
            drop=drop,
        )

    def _retransmitted(self, group: EventGroup, others: list[EventGroup]) -> DropRow:
        states = ", ".join(f"{n} in {state}" for state, n in group.states.most_common())
        title = f"TCP of {self._where(group)} sent segments again ({states}); where they were lost was not seen"
        evidence = [Evidence(f"tracepoint tcp_retransmit_skb: {states}", Certainty.OBSERVED, node=group.node)]
        if group.in_vain:
            title = (
                f"TCP of {self._where(group)} sent the same again and again ({states}), and nothing acknowledged it; where "
                "the packets or their acknowledgements were lost was not seen"
            )
            statement = (
                f"{counted(group.in_vain, 'segment')} sent again after three timeouts in a row (icsk_retransmits)"
            )
            evidence.append(Evidence(statement, Certainty.OBSERVED, node=group.node, value=group.in_vain))
        return self._base(
            group,
            outcome=DropOutcome.RETRANSMITTED,
            check=(UNACKNOWLEDGED if group.in_vain else RETRANSMITS).name,
            severity=Severity.WARNING if group.in_vain else Severity.INFO,
            title=title,
            evidence=tuple(evidence),
        )

    def _passed(self, group: EventGroup) -> DropRow:
        by = tuple(dict.fromkeys(f"{r.namespace}/{r.name}" for _, result in group.denied for r in result.isolated_by))
        names = " and ".join(by) or "the policies"
        causes = (
            LAG.format(node=group.node),
            "no enforcer of these policies runs on the node",
            "a rule before the enforcer's accepts the packet",
        )
        return self._base(
            group,
            outcome=DropOutcome.PASSED,
            check=POLICY_NOT_ENFORCED.name,
            severity=Severity.ERROR,
            title=f"{self._where(group)} accepts connections that {names} does not admit",
            policy=PolicyView("deny", Agreement.API_ISOLATES, by, causes),
            evidence=(
                Evidence(
                    f"{counted(group.packets, 'connection')} established (tracepoint inet_sock_set_state)",
                    Certainty.OBSERVED,
                    node=group.node,
                    value=group.packets,
                ),
                Evidence(f"isolated for {' and '.join(n for n, _ in group.denied)} by {names}", Certainty.ASSUMED),
            ),
        )


def _has(others: list[EventGroup], *kinds: GroupKind) -> bool:
    return any(other.kind in kinds for other in others)
