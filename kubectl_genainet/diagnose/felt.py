"""What was felt: paths, rows of drops, DNS exchanges and findings, each reduced to what tells one cause from another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubectl_genainet.dns.findings import ADMIT_DNS
from kubectl_genainet.model.diagnoses.connections import STALE_ENDPOINT
from kubectl_genainet.model.diagnoses.kube_proxy import STALE_ENDPOINT_RULES
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy, Severity
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import Drop, PacketPath, Party

DNS_PORT = 53
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?\b|\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:/\d+)?|rule \d+")


@dataclass(frozen=True, slots=True)
class Felt:
    """One thing that went wrong. Things with the same `key` have one cause.

    `key` is what decided: the policies, or the rule, or else the kind of fault and the place where it happened.
    `pairs` are (client, server) by name; `dns` says that the flow was a name lookup.
    """

    key: tuple[str, ...]
    check: str
    title: str
    severity: Severity
    pairs: frozenset[tuple[str, str]]
    place: str
    count: int
    unit: str
    evidence: tuple[Evidence, ...]
    remedy: Remedy | None = None
    dns: bool = False
    path: PacketPath | None = None


def name_of(party: Party | None) -> str:
    """ "namespace/workload", or the pod where no workload made it, or the address."""
    if party is None:
        return "?"
    if party.pod:
        return f"{party.namespace}/{party.workload or party.pod}"
    return party.ip


def of_path(path: PacketPath) -> Iterator[Felt]:
    """What a connection's path shows: the drop, and each finding."""
    client = name_of(path.flow.client)
    service = path.flow.service
    server = name_of(path.backend) if path.backend else f"{service.namespace}/{service.name}" if service else "?"
    pairs = frozenset({(client, server)})
    if path.drop is not None:
        yield replace(_of_drop(path.drop, pairs, 1, "connections"), path=path)
    for finding in path.findings:
        place = _place_of(finding) or server
        yield Felt(
            (finding.check, place),
            finding.check,
            finding.title,
            finding.severity,
            pairs,
            place,
            1,
            "connections",
            finding.evidence,
            finding.remedy,
            path=path,
        )


def of_row(row: DropRow) -> Felt | None:
    """A row of drops; None for one that lost nothing."""
    if row.severity is Severity.INFO:
        return None
    server = f"{row.service.namespace}/{row.service.name}" if row.service else name_of(row.server)
    if row.server is not None and row.server.pod:
        server = name_of(row.server)
    pairs = frozenset({(name_of(row.client), server)}) if row.client or row.server else frozenset()
    dns = row.server is not None and row.server.port == DNS_PORT
    if row.drop is not None:
        return _of_drop(row.drop, pairs, row.packets, "packets", title=row.title, check=row.check, dns=dns)
    place = row.pod or f"node {row.node}"
    policies = row.policy.policies if row.policy else ()
    key = (row.check, *policies) if policies else (row.check, place)
    return Felt(key, row.check, row.title, row.severity, pairs, place, row.packets, "packets", row.evidence, dns=dns)


def of_exchange(exchange: DnsExchange) -> Felt | None:
    """A query whose packet was seen dropped; None for any other, which the DNS findings judge over all queries."""
    if exchange.outcome is not QueryOutcome.TIMEOUT or exchange.drop is None or exchange.race:
        return None
    client, server = name_of(exchange.client), name_of(exchange.server or exchange.asked)
    drop = exchange.drop
    title = f"name lookups fail: {drop.explanation}" if drop.explanation else ""
    pairs = frozenset({(client, server)})
    remedy = ADMIT_DNS if drop.policies else None
    return _of_drop(drop, pairs, 1, "queries", title=title, dns=True, remedy=remedy)


def of_finding(finding: Finding, *, client: str = "") -> Felt:
    """A finding over a whole watch; of one client where one is named."""
    place = _place_of(finding) or finding.title
    return Felt(
        (finding.check, place),
        finding.check,
        finding.title,
        finding.severity,
        frozenset({(client, "?")}) if client else frozenset(),
        place,
        1,
        "findings",
        finding.evidence,
        finding.remedy,
        dns=finding.check.startswith("dns-"),
    )


def of_drift(finding: Finding) -> Felt:
    """What a node's rules do with a Service, of all its clients. A connection that was seen to go that way is the same."""
    felt = of_finding(finding)
    service = finding.object
    pairs = frozenset({("?", f"{service.namespace}/{service.name}")}) if service is not None else frozenset()
    key = (STALE_ENDPOINT.name, felt.place) if finding.check == STALE_ENDPOINT_RULES.name else felt.key
    return replace(felt, key=key, pairs=pairs)


def _place_of(finding: Finding) -> str:
    """The pod or other object that a finding is about, as `DropRow.pod` names pods; "" for none."""
    ref = finding.object
    if ref is None:
        return ""
    return f"{ref.namespace}/{ref.name}" if ref.kind == "Pod" else str(ref)


def _of_drop(
    drop: Drop,
    pairs: frozenset[tuple[str, str]],
    count: int,
    unit: str,
    *,
    title: str = "",
    check: str = "",
    dns: bool = False,
    remedy: Remedy | None = None,
) -> Felt:
    place = drop.pod or f"node {drop.node}" if drop.pod or drop.node else "?"
    if drop.policies:
        key: tuple[str, ...] = ("policies", *sorted(drop.policies))
    elif drop.rule:
        key = ("rule", _ADDRESS.sub("*", drop.rule))  # the same rule for another pod or on another node
    else:
        key = (check or drop.check or drop.reason, place)
    title = title or drop.explanation or f"{drop.reason} in {place}"
    return Felt(
        key,
        check or drop.check or "dropped",
        title,
        Severity.ERROR,
        pairs,
        place,
        count,
        unit,
        (*_where(drop), *drop.evidence[1:]),  # the first says where the kernel freed it, and so does `_where`
        drop.remedy or remedy,
        dns,
    )


def _where(drop: Drop) -> Iterator[Evidence]:
    where = drop.pod or f"node {drop.node}"
    hook = f" in {drop.hook}" if drop.hook else ""
    device = f", device {drop.device}" if drop.device else ""
    by = f", by {drop.location}" if drop.location else ""
    yield Evidence(f"{drop.reason or 'dropped'}{hook} on {where}{device}{by}", Certainty.OBSERVED, node=drop.node or "")
    if drop.rule:
        yield Evidence(drop.rule, drop.rule_certainty or drop.certainty, node=drop.node or "")
