"""What was felt: paths, rows of drops, DNS exchanges and findings, each reduced to what tells one cause from another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubectl_genainet.dns.findings import ADMIT_DNS
from kubectl_genainet.model.diagnoses.connections import RESET_BY_APP, RESET_BY_CLIENT, STALE_ENDPOINT
from kubectl_genainet.model.diagnoses.kube_proxy import STALE_ENDPOINT_RULES
from kubectl_genainet.model.diagnoses.rules import OF_NO_ENFORCER, POLICY_DROP
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy, Severity
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.drops import DropOutcome, DropRow
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import Drop, PacketPath, Party, ServiceRef

DNS_PORT = 53
# Units of their own: the same connections and queries are counted as paths and as exchanges too.
PASSED = "established connections"
LOOKUPS = "name lookups"
LOOKUPS_FAIL = "name lookups fail: "
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?\b|\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:/\d+)?|rule \d+")


@dataclass(frozen=True, slots=True)
class Felt:
    """One thing that went wrong. Things with the same `key` have one cause.

    `key` is what decided: the policies, or the rule, or else the kind of fault and the place where it happened.
    `pairs` are (client, server) by name, `called` the same with the Service that the client called; `dns` says that the flow
    was a name lookup.
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
    called: frozenset[tuple[str, str]] = frozenset()


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
    server = name_of(path.backend) if path.backend else _name_of_service(service) or "?"
    pairs, called = frozenset({(client, server)}), _called(client, service)
    lookup = is_lookup(path)
    unit = LOOKUPS if lookup else "connections"
    if path.drop is not None:
        title = f"{LOOKUPS_FAIL}{path.drop.explanation}" if lookup and path.drop.explanation else ""
        felt = replace(_of_drop(path.drop, pairs, 1, unit, title=title, dns=lookup), path=path, called=called)
        yield from (felt, *_of_policies_too(felt, path.drop))
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
            unit,
            finding.evidence,
            finding.remedy,
            lookup,
            path=path,
            called=called,
        )


def _name_of_service(service: ServiceRef | None) -> str:
    return f"{service.namespace}/{service.name}" if service is not None else ""


def _called(client: str, service: ServiceRef | None) -> frozenset[tuple[str, str]]:
    return frozenset({(client, _name_of_service(service))}) if service is not None else frozenset()


def is_lookup(path: PacketPath) -> bool:
    """Whether it is a query of DNS, and no connection that somebody waits for."""
    ends = (path.flow.service, path.backend)
    return path.flow.protocol is Protocol.UDP and any(end is not None and end.port == DNS_PORT for end in ends)


def of_row(row: DropRow) -> Felt | None:
    """A row of drops; None for one that lost nothing."""
    if row.severity is Severity.INFO:
        return None
    server = _name_of_service(row.service) or name_of(row.server)
    if row.server is not None and row.server.pod:
        server = name_of(row.server)
    called = _called(name_of(row.client), row.service)
    pairs = frozenset({(name_of(row.client), server)}) if row.client or row.server else frozenset()
    check = RESET_BY_CLIENT.name if row.check == RESET_BY_APP.name and _is_the_clients(row) else row.check
    dns = row.server is not None and row.server.port == DNS_PORT
    if row.drop is not None:
        felt = _of_drop(row.drop, pairs, row.packets, "packets", title=row.title, check=check, dns=dns)
        return replace(felt, called=called)
    place = row.pod or f"node {row.node}"
    policies = row.policy.policies if row.policy else ()
    key = (check, *policies) if policies else (check, place)
    unit = PASSED if row.outcome is DropOutcome.PASSED else "packets"
    return Felt(
        key, check, row.title, row.severity, pairs, place, row.packets, unit, row.evidence, dns=dns, called=called
    )


def _is_the_clients(row: DropRow) -> bool:
    """Whether it happened in the client's own pod. Where it is not known which end asks, the row's client is only who sent."""
    if row.direction == "unknown":
        return False
    return row.client is not None and bool(row.pod) and row.pod == f"{row.client.namespace}/{row.client.pod}"


def of_exchange(exchange: DnsExchange) -> Felt | None:
    """A query whose packet was seen dropped; None for any other, which the DNS findings judge over all queries."""
    if exchange.outcome is not QueryOutcome.TIMEOUT or exchange.drop is None or exchange.race:
        return None
    client, service = name_of(exchange.client), _name_of_service(exchange.service)
    server = name_of(exchange.server) if exchange.server else service or name_of(exchange.asked)
    drop = exchange.drop
    title = f"{LOOKUPS_FAIL}{drop.explanation}" if drop.explanation else ""
    pairs = frozenset({(client, server)})
    remedy = ADMIT_DNS if drop.policies else None
    felt = _of_drop(drop, pairs, 1, "queries", title=title, dns=True, remedy=remedy)
    return replace(felt, called=_called(client, exchange.service))


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


def _of_policies_too(felt: Felt, drop: Drop) -> Iterator[Felt]:
    """A rule that is no policy's dropped it, and the policies would have as well: a cause of its own, once the rule is gone."""
    statements = [evidence for evidence in drop.evidence if evidence.certainty is Certainty.ASSUMED]
    if drop.check in OF_NO_ENFORCER and drop.policies and statements:
        yield replace(
            felt,
            key=("policies", *sorted(drop.policies)),
            check=POLICY_DROP.name,
            title=statements[0].statement,  # of what the policies say, the first
            evidence=tuple(statements[1:]),
            remedy=drop.remedy,
        )


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
    named = check or drop.check
    if drop.policies and named not in OF_NO_ENFORCER:
        key: tuple[str, ...] = ("policies", *sorted(drop.policies))
    elif drop.rule:
        key = ("rule", _ADDRESS.sub("*", drop.rule))  # the same rule for another pod or on another node
    else:
        key = (named or drop.reason, place)
    title = title or drop.explanation or f"{drop.reason} in {place}"
    return Felt(
        key,
        named or "dropped",
        title,
        Severity.ERROR,
        pairs,
        place,
        count,
        unit,
        (*_where(drop), *drop.evidence[1:]),  # the first says where the kernel freed it, and so does `_where`
        drop.remedy or remedy if named not in OF_NO_ENFORCER else None,  # it is one of policies
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
