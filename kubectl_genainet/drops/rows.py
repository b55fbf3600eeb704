"""Groups of counts as rows: each with its explanation, what else was seen of the same client and server, and what the
policies say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.judging import denied_directions, policy_flow
from kubectl_genainet.drops.drops import DropCorrelator, Group
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import IcmpCount, ResetCount
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Severity, counted
from kubectl_genainet.model.node import NetNs
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.reasons import HARMLESS_REASONS, icmp_meaning
from kubectl_genainet.model.results.drops import Agreement, DropRow, DropSummary, Outcome, PolicyView
from kubectl_genainet.model.results.path import Drop, Party
from kubectl_genainet.policy import Verdict
from kubectl_genainet.why.explain import explain_drop

# Where a policy may be behind a drop: elsewhere the policies have nothing to say.
_JUDGED = {
    "policy-drop",
    "policy-disagreement",
    "rule-drop",
    "rejected-by-rule",
    "netfilter-drop",
    "ebpf-drop",
    "data-plane",
}
_MILD = {"tcp-out-of-place", "other-host", "late-answer"}
_RESETS = {  # enum sk_rst_reason, include/net/rstreason.h
    "TCP_ABORT_ON_CLOSE": "it was closed with data that had not been read",
    "TCP_ABORT_ON_LINGER": "the other end's FIN did not come in time (TCP_LINGER2)",
    "TCP_ABORT_ON_DATA": "data came for a socket that was closed already",
    "TCP_DISCONNECT_WITH_DATA": "it was disconnected with data that had not been sent",
    "TCP_KEEPALIVE_TIMEOUT": "its keepalives were not answered",
    "TCP_STATE": "it was open when it was closed with SO_LINGER 0, or disconnected",
}
_LAG = "the policy enforcer on {node} lags behind the API, or has stopped"
_OLD = "the connection was established under other policies, or its entry in the connection table is gone"
_OTHER = "another enforcer: an eBPF data plane, a firewall of the node, a security agent"


class Rows:
    """Builds rows from what a correlator knows. Explanations are kept as long as nothing that they rest on changes."""

    def __init__(self, correlator: DropCorrelator) -> None:
        self._of = correlator
        self._drops: dict[int, tuple[tuple[int, ...], Drop]] = {}
        self._counter_ids: dict[tuple[str, int, str], int] = {}

    def build(self) -> list[DropRow]:
        """All rows by count, those that are no fault last; what is only evidence of another row has none of its own."""
        beside = self._of.by_pair()
        rows = []
        for group in self._of.groups:
            others = {id(g): g for pair in self._of.pairs(group) for g in beside[pair] if self._related(group, g)}
            row = self._row(group, list(others.values()))
            if row is not None:
                rows.append(row)
        rows += self._counted()
        return sorted(rows, key=lambda r: (r.severity is Severity.INFO, -r.packets, r.id))

    def _related(self, group: Group, other: Group) -> bool:
        """Whether both are of one client and server. A Service's address and an endpoint of it may be the same server, two
        endpoints are not."""
        if other is group or other.pair == group.pair:
            return other is not group
        snapshot = self._of.identity.snapshot
        ends = (group.request, other.request)
        return any(snapshot.service_at(r.dst, r.dport, r.protocol.value) is not None for r in ends)

    def _row(self, group: Group, others: list[Group]) -> DropRow | None:
        match group.what:
            case "drop":
                return self._drop(group, others)
            case "reset":
                return self._reset(group, others)
            case "icmp":
                return None if _has(others, "drop", "icmp") else self._told(group)
            case "icmp-drop":
                return None if _has(others, "drop") else self._icmp_dropped(group)
            case "retransmit":
                return None if _has(others, "drop", "reset", "icmp-drop") else self._retransmitted(group, others)
            case _:
                return self._passed(group)

    def _base(self, group: Group, **fields: object) -> DropRow:
        request = group.request
        identity = self._of.identity
        pod = identity.pod_in(group.node, group.netns)
        return DropRow(
            id=group.id,
            packets=group.packets,
            bytes=group.bytes,
            client=identity.party(request.src, None) if request.src else None,
            server=identity.party(request.dst, request.dport or None) if request.dst else None,
            service=self._of.ends.service(request.dst, request.dport, request.protocol.value),
            protocol=request.protocol,
            direction="reply" if group.reply else "request",
            node=group.node,
            pod=f"{pod.metadata.namespace}/{pod.metadata.name}" if pod else None,
            **fields,  # type: ignore[arg-type]
        )

    def explained(self, group: Group) -> Drop:
        """The group's drop. One without an explanation is looked at anew each time: settings may have changed."""
        ruleset, _ = self._of.context.rulesets.of(group.node)
        basis = (id(ruleset), id(self._of.identity.snapshot), id(group.sample))
        known = self._drops.get(group.id)
        if known is None or known[0] != basis or known[1].certainty is Certainty.UNKNOWN:
            self._drops[group.id] = known = (basis, explain_drop(self._of.case(group)))
        return known[1]

    def explained_error(self, group: Group) -> Drop | None:
        """The drop of an ICMP error; None where no sample of it came."""
        case = self._of.case_of_error(group)
        return explain_drop(case) if case is not None else None

    def _drop(self, group: Group, others: list[Group]) -> DropRow:
        drop = self.explained(group)
        title, check = drop.explanation, drop.check
        evidence = [*drop.evidence, *self._beside(group, others)]
        blocked = next((o for o in others if o.what == "icmp-drop"), None)
        if check == "packet-too-big" and blocked is not None:
            check = "mtu-blackhole"
            title += f"; the sender is not told, since the ICMP error about it is dropped too, on {blocked.node}"
        severity = Severity.WARNING if check == "unexplained" else Severity.ERROR
        if group.reason in HARMLESS_REASONS or check in _MILD:
            severity = Severity.INFO
        outcome = Outcome.REJECTED if drop.told else Outcome.REFUSED if check == "closed-port" else Outcome.DROPPED
        return self._base(
            group,
            outcome=outcome,
            check=check,
            severity=severity,
            title=title,
            drop=drop,
            policy=self._policy(group, drop) if check in _JUDGED else None,
            evidence=tuple(evidence),
        )

    def _beside(self, group: Group, others: list[Group]) -> Iterator[Evidence]:
        """What else was observed of the same client and server."""
        for other in others:
            where = self._where(other)
            match other.what, other.event:
                case "icmp", IcmpCount() as icmp:
                    told = f"ICMP {icmp_meaning(icmp.family, icmp.type, icmp.code)}{_mtu(other)}"
                    text = f"{other.packets} times {told} reached {where}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                case "icmp-drop", IcmpCount() as icmp:
                    told = f"ICMP {icmp_meaning(icmp.family, icmp.type, icmp.code)}{_mtu(other)}"
                    hook = f" in {other.error.hook}" if other.error and other.error.hook else ""
                    text = f"{other.packets} times {told} was dropped in {where}{hook} ({icmp.reason})"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                    error = self.explained_error(other)
                    if error is not None and error.rule:
                        yield Evidence(f"the ICMP error is dropped by {error.rule}", error.certainty, node=other.node)
                case "reset", ResetCount() as reset:
                    by = "sent by" if reset.sent else "received in"
                    text = f"{other.packets} TCP resets {by} {where}{f' ({reset.reason})' if reset.reason else ''}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)
                case "retransmit", _:
                    states = ", ".join(f"{n} in {state}" for state, n in other.states.most_common())
                    text = f"TCP of {where} sent again: {states}"
                    yield Evidence(text, Certainty.OBSERVED, node=other.node, value=other.packets)

    def _where(self, group: Group) -> str:
        return self._of.identity.place(group.node, group.netns)

    def _policy(self, group: Group, drop: Drop) -> PolicyView | None:
        """The policies' verdict on the flow beside the drop; None where neither end is a pod, or a Service's address is
        the destination, which policies do not know."""
        request, snapshot = group.request, self._of.identity.snapshot
        if snapshot.pod_at(request.src) is None and snapshot.pod_at(request.dst) is None:
            return None
        if snapshot.service_at(request.dst, request.dport, request.protocol.value) is not None:
            return None
        if self._of.context.engine is None or request.protocol not in (Protocol.TCP, Protocol.UDP, Protocol.SCTP):
            return PolicyView("unknown", Agreement.UNKNOWN)
        try:
            answer = self._of.context.engine.explain(policy_flow(request, self._of.identity))
        except GenainetError:
            return PolicyView("unknown", Agreement.UNKNOWN)
        isolated = tuple(
            dict.fromkeys(
                f"{ref.namespace}/{ref.name}"
                for result in (answer.egress, answer.ingress)
                if result.verdict is Verdict.DENY
                for ref in result.isolated_by
            )
        )
        match answer.verdict:
            case Verdict.DENY:
                return PolicyView("deny", Agreement.AGREE, isolated)
            case Verdict.ALLOW:
                return PolicyView("allow", Agreement.API_ADMITS, (), _causes(group, drop))
            case _:
                return PolicyView("unknown", Agreement.UNKNOWN)

    def _reset(self, group: Group, others: list[Group]) -> DropRow | None:
        event = group.event
        assert isinstance(event, ResetCount)
        if not event.sent and any(isinstance(o.event, ResetCount) and o.event.sent for o in others):
            return None
        if not (event.sent and event.active) and _has(others, "drop"):
            return None
        where, reason = self._where(group), event.reason or "no reason"
        if event.sent and event.active:
            check, words = "reset-by-app", _RESETS.get(event.reason, "its socket was ended")
            title = f"{where} reset the connection: {words}. No rule and no closed port did"
        elif event.sent:
            check, title = "reset-by-kernel", f"TCP of {where} answered a packet with a reset ({reason})"
        else:
            check, title = "reset-from-outside", f"a reset reached {where}; what sent it was not seen"
        evidence = (
            Evidence(
                f"tracepoint tcp_{'send' if event.sent else 'receive'}_reset: {reason}",
                Certainty.OBSERVED,
                node=group.node,
            ),
            *self._beside(group, others),
        )
        severity = Severity.INFO if check == "reset-by-kernel" else Severity.WARNING
        return self._base(group, outcome=Outcome.RESET, check=check, severity=severity, title=title, evidence=evidence)

    def _told(self, group: Group) -> DropRow:
        event, error = group.event, group.error
        assert isinstance(event, IcmpCount)
        meaning = icmp_meaning(event.family, event.type, event.code)
        by = f" by {error.src}" if error else ""
        return self._base(
            group,
            outcome=Outcome.TOLD,
            check="icmp-error",
            severity=Severity.WARNING,
            title=f"{self._where(group)} was told{by}: {meaning}{_mtu(group)}; where the packet died was not seen",
            evidence=(Evidence(f"ICMP type {event.type} code {event.code}", Certainty.OBSERVED, node=group.node),),
        )

    def _icmp_dropped(self, group: Group) -> DropRow:
        event, error = group.event, group.error
        assert isinstance(event, IcmpCount)
        hook = f" in {error.hook}" if error and error.hook else ""
        meaning = icmp_meaning(event.family, event.type, event.code)
        drop = self.explained_error(group)
        by = f": {drop.explanation}" if drop is not None else ""
        return self._base(
            group,
            outcome=Outcome.DROPPED,
            check="icmp-dropped",
            severity=Severity.ERROR,
            title=f"the ICMP error ({meaning}{_mtu(group)}) that would tell the sender is dropped{hook} on {group.node}{by}",
            evidence=(
                Evidence(f"{event.reason}{hook}", Certainty.OBSERVED, node=group.node),
                *(drop.evidence if drop is not None else ()),
            ),
            drop=drop,
        )

    def _retransmitted(self, group: Group, others: list[Group]) -> DropRow:
        states = ", ".join(f"{n} in {state}" for state, n in group.states.most_common())
        title = f"TCP of {self._where(group)} sent segments again ({states}); where they were lost was not seen"
        return self._base(
            group,
            outcome=Outcome.RETRANSMITTED,
            check="retransmits",
            severity=Severity.INFO,
            title=title,
            evidence=(Evidence(f"tracepoint tcp_retransmit_skb: {states}", Certainty.OBSERVED, node=group.node),),
        )

    def _passed(self, group: Group) -> DropRow:
        request, engine = group.request, self._of.context.engine
        denied = denied_directions(request, self._of.identity, engine) if engine is not None else []
        by = tuple(dict.fromkeys(f"{r.namespace}/{r.name}" for _, result in denied for r in result.isolated_by))
        names = " and ".join(by) or "the policies"
        causes = (
            _LAG.format(node=group.node),
            "no enforcer of these policies runs on the node",
            "a rule before the enforcer's accepts the packet",
        )
        return self._base(
            group,
            outcome=Outcome.PASSED,
            check="policy-not-enforced",
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
                Evidence(f"isolated for {' and '.join(n for n, _ in denied)} by {names}", Certainty.ASSUMED),
            ),
        )

    def _counted(self) -> Iterator[DropRow]:
        """What the kernel counts and no tracepoint shows: overflown listen queues, the connection tracking table."""
        identity = self._of.identity
        for (node, inode), netns in list(identity.namespaces.items()):
            pod = identity.pod_in(node, inode)
            if netns.host:
                yield from self._conntrack(node, inode, netns)
            overflows = identity.grown(node, inode, "ListenOverflows")
            ip = next(iter(netns.addresses), "")
            if overflows > 0 and ip and self._of.concerns(FiveTuple("", 0, ip, 0, Protocol.TCP)):
                place = identity.place(node, inode)
                evidence = [
                    Evidence(
                        f"TcpExt ListenOverflows grew by {overflows}", Certainty.OBSERVED, node=node, value=overflows
                    )
                ]
                for group in self._of.groups:
                    if group.what == "retransmit" and self._leads_to(group, ip) and group.states["SYN_SENT"]:
                        evidence += self._beside(group, [group])
                yield self._counter_row(
                    (node, inode, "ListenOverflows"),
                    overflows,
                    identity.party(ip, None),
                    check="listen-overflow",
                    pod=f"{pod.metadata.namespace}/{pod.metadata.name}" if pod else None,
                    title=f"the listen queue of {place} is full: its application does not accept connections",
                    evidence=tuple(evidence[:6]),
                )

    def _leads_to(self, group: Group, ip: str) -> bool:
        """Whether the group's server is the address, or a Service with it as an endpoint."""
        request, snapshot = group.request, self._of.identity.snapshot
        found = snapshot.service_at(request.dst, request.dport, request.protocol.value)
        return request.dst == ip or (
            found is not None and any(b.ip == ip for b in snapshot.backends(found.service, found.port))
        )

    def _conntrack(self, node: str, inode: int, netns: NetNs) -> Iterator[DropRow]:
        fill = f"nf_conntrack_count {netns.conntrack_count} of nf_conntrack_max {netns.conntrack_max}"
        for counter, check, title in (
            (
                "drop",
                "conntrack-full",
                "the connection tracking table of node {node} is full: new connections are dropped",
            ),
            (
                "insert_failed",
                "conntrack-race",
                "two packets of one connection raced for its entry in the connection table of node {node}, and one was "
                "dropped: typical of A and AAAA queries from one socket",
            ),
        ):
            grown = self._of.identity.grown(node, inode, f"conntrack_{counter}")
            if counter == "drop":  # it counts the failed insertions too (nf_ct_resolve_clash, nf_conntrack_core.c)
                grown -= self._of.identity.grown(node, inode, "conntrack_insert_failed")
            if grown > 0:
                stated = Evidence(
                    f"conntrack -S: {counter} grew by {grown}", Certainty.OBSERVED, node=node, value=grown
                )
                yield self._counter_row(
                    (node, inode, counter),
                    grown,
                    None,
                    check=check,
                    pod=None,
                    title=title.format(node=node),
                    evidence=(stated, Evidence(fill, Certainty.OBSERVED, node=node)),
                )

    def _counter_row(
        self,
        key: tuple[str, int, str],
        count: int,
        server: Party | None,
        *,
        check: str,
        pod: str | None,
        title: str,
        evidence: tuple[Evidence, ...],
    ) -> DropRow:
        number = self._counter_ids.setdefault(key, -len(self._counter_ids) - 1)
        protocol = Protocol.TCP if check == "listen-overflow" else Protocol.UNKNOWN
        severity = Severity.WARNING if check == "conntrack-race" else Severity.ERROR
        return DropRow(
            id=number,
            outcome=Outcome.DROPPED,
            check=check,
            severity=severity,
            packets=count,
            bytes=0,
            client=None,
            server=server,
            service=None,
            protocol=protocol,
            direction="request",
            node=key[0],
            pod=pod,
            title=title,
            evidence=evidence,
        )


def _has(others: list[Group], *kinds: str) -> bool:
    return any(other.what in kinds for other in others)


def _mtu(group: Group) -> str:
    return f", MTU {group.error.mtu}" if group.error is not None and group.error.mtu else ""


def _causes(group: Group, drop: Drop) -> tuple[str, ...]:
    """What may be behind a drop that the policies do not ask for. A rule that is no enforcer's is a cause of its own."""
    if drop.check in ("rule-drop", "rejected-by-rule"):
        return ()
    lag, old = (_LAG.format(node=group.node),), () if group.opening else (_OLD,)
    return (*lag, *old) if drop.check == "policy-disagreement" else (*lag, *old, _OTHER)


def summary_of(target: str, rows: list[DropRow], correlator: DropCorrelator, account: Account) -> DropSummary:
    packets: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    by_flow: Counter[tuple[str, str]] = Counter()  # a node's own counter (id < 0) counts these packets again
    for row in rows:
        by_flow[row.node, row.check] += row.packets if row.id > 0 else 0
    findings: dict[tuple[str, str], Finding] = {}
    for row in rows:
        packets[row.outcome.value] += row.packets if row.id > 0 else max(row.packets - by_flow[row.node, row.check], 0)
        if row.drop is not None:
            reasons[row.drop.reason] += row.packets
        if row.severity.rank >= Severity.WARNING.rank:
            pod = row.server.pod if row.server is not None else None
            ref = ObjectRef("Pod", pod, row.server.namespace or "") if row.server is not None and pod else None
            findings.setdefault((row.check, row.title), Finding(row.check, row.title, row.severity, row.evidence, ref))
    return DropSummary(
        target=target,
        packets=dict(packets),
        by_reason=dict(reasons.most_common()),
        rows=len(rows),
        background=correlator.background,
        forgotten=correlator.forgotten,
        findings=tuple(findings.values()),
        events=account.events,
        nodes=account.nodes,
        silent_nodes=account.silent_nodes,
        lost=account.lost,
    )
