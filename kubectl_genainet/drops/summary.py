"""The sum of a run of `drops`."""

from __future__ import annotations

from collections import Counter

from kubectl_genainet.context.account import Account
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.model.finding import Finding, ObjectRef, Severity
from kubectl_genainet.model.results.drops import DropRow, DropSummary


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
        observers=correlator.observers,
        timeline={kind.value: dict(sorted(counts.items())) for kind, counts in correlator.timeline.items()},
        agents=account.costs,
    )
