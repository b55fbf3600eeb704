"""What `rules` shows: for each node and address of a Service, what is programmed and whether it is in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot, canonical_ip
from kubectl_genainet.model.finding import Finding, NotChecked, Severity
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.target import Target, TargetKind, not_found
from kubectl_genainet.proxy.drift import comparison
from kubectl_genainet.proxy.drift.connections import stale_connections
from kubectl_genainet.proxy.drift.expected import Slices, expected
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.drift.ways import ServiceWay, ways_to
from kubectl_genainet.proxy.hits import ConntrackEntry, begun, connections_by_backend, parse_conntrack, since
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset
from kubectl_genainet.proxy.services import RuleAddress, ServiceRules, service_rules
from kubectl_genainet.wire import FilterEntry

ConnectionsTo = Mapping[tuple[str, str, int], int]  # connections by protocol, address and port


class RulesRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="rules"):
    """One address of a Service port on one node.

    `expected` is the number of endpoints that the API leaves to this node for the address, by the Service's traffic
    policies and topology hints; None where it is not known. `conntrack` are the connections
    to this address that conntrack holds, `begun` those of them that an earlier reading did not have, None where it was
    not dumped. `state`: "in step", or what is not.
    """

    node: str
    service: str
    protocol: str
    mode: str
    source: str
    address: RuleAddress
    expected: int | None = None
    conntrack: int | None = None
    begun: int | None = None
    state: str = ""


@dataclass(frozen=True)
class RulesReport:
    """A row for each node and address, what differs from the API, and what could not be compared. `nodes` are those whose rules
    were read ("": saved dumps that do not say whose). `compared`: there was an API to compare them with."""

    rows: tuple[RulesRow, ...]
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    ways: tuple[ServiceWay, ...] = ()  # of a Service that was asked for
    nodes: tuple[str, ...] = ()
    compared: bool = True

    @property
    def found_something(self) -> bool:
        return any(f.severity is not Severity.INFO for f in self.findings)


def rules_report(
    snapshot: ClusterSnapshot | None,
    dumps: Mapping[str, Sequence[RulesetDump]],
    target: Target | None = None,
    *,
    namespace: str = "default",
    earlier: Mapping[str, Sequence[RulesetDump]] | None = None,
    node_ips: Mapping[str, Sequence[str]] | None = None,
) -> RulesReport:
    """The report on a Service (or on all of them, without a target). `earlier` dumps make the counters differences.

    `snapshot` None: there is no API to compare with. Raises InputError where the target does not exist.
    """
    nodes = [
        NodeRules(node, parse_ruleset(node_dumps, node_ips=(node_ips or {}).get(node)))
        for node, node_dumps in dumps.items()
        if node_dumps
    ]
    services = None if snapshot is None or target is None else services_of(snapshot, target, namespace)
    ways = None
    if snapshot is not None and services is not None:  # of all Services they are only looked at
        ways = {of_node.node: list(ways_to(snapshot, of_node, services)) for of_node in nodes}
    compared = [] if snapshot is None else comparison(snapshot, nodes, services=services, ways=ways)
    findings = [item for item in compared if isinstance(item, Finding)]
    silent = [item for item in compared if isinstance(item, NotChecked)]
    if snapshot is not None:
        for node, node_dumps in dumps.items():
            findings += stale_connections(snapshot, node, _connections(node_dumps) or (), services)
    wanted = _wanted(snapshot, services, target, namespace)
    has_slices = snapshot is not None and snapshot.of("EndpointSlice", "discovery.k8s.io")
    slices = Slices(snapshot) if snapshot is not None and has_slices else None
    rows: list[RulesRow] = []
    for of_node in nodes:
        node = of_node.node
        rules, counts = _counted(of_node, dumps[node], (earlier or {}).get(node))
        rows += _rows(node, rules, snapshot, slices, wanted, findings, counts, target)
    rulesets = {of_node.node: of_node.ruleset for of_node in nodes}
    silent += _unread(rulesets, {item.reason for item in silent})
    if snapshot is None and target is not None and any(r.virtual_servers for r in rulesets.values()):
        silent.append(NotChecked("names of IPVS services", "IPVS keeps none; give the address, or --manifests"))
    silent += [NotChecked(f"rules of node {node}", "no dump came from it") for node in dumps if node not in rulesets]
    statements = tuple(way.told() for of_node in (ways or {}).values() for way in of_node)
    return RulesReport(tuple(rows), tuple(findings), tuple(silent), statements, tuple(rulesets), snapshot is not None)


def _counted(
    node: NodeRules, now: Sequence[RulesetDump], earlier: Sequence[RulesetDump] | None
) -> tuple[Sequence[ServiceRules], tuple[ConnectionsTo | None, ConnectionsTo | None]]:
    """A node's rules with what they counted (since the `earlier` dumps), and the connections: all, and those that began since."""
    connections = _connections(now)
    if earlier is None:
        return node.rules, (_by_address(connections), None)
    then = _connections(earlier)
    new = begun(then, connections) if connections is not None and then is not None else None
    return since(service_rules(parse_ruleset(earlier)), node.rules), (_by_address(connections), _by_address(new))


def _unread(rulesets: Mapping[str, Ruleset], known: set[str]) -> Iterator[NotChecked]:
    """What could not be read of the rules, besides the `known` reasons."""
    errors = [NotChecked(f"rules of node {r.node or n}", e) for n, r in rulesets.items() for e in r.errors]
    yield from errors
    told = known | {item.reason for item in errors}
    for node, ruleset in rulesets.items():
        for part in ruleset.unread:
            if str(part) not in told:
                yield NotChecked(f"rules of node {node}" if node else "the rules", str(part))


def services_of(snapshot: ClusterSnapshot, target: Target, namespace: str) -> list[Service]:
    if target.kind is TargetKind.ADDRESS:
        addressed = [s for s in snapshot.services if target.name in _addresses(s)]
        if not addressed:
            known = [ip for s in snapshot.services for ip in _addresses(s)]
            raise not_found("Service with the address", target.name, known)
        return addressed
    where = target.namespace or namespace
    service = snapshot.service(where, target.name) if target.kind is TargetKind.SERVICE else None
    if service is None:
        known = [s.metadata.name for s in snapshot.services if s.metadata.namespace == where]
        raise not_found("Service", target.name, known, namespace=where)
    return [service]


def _addresses(service: Service) -> list[str]:
    return [canonical_ip(ip) for ip in (*service.cluster_ips, *service.external_addresses)]


def addresses_of(snapshot: ClusterSnapshot, target: Target, namespace: str) -> tuple[FilterEntry, ...]:
    """What to trace for a Service: each of its addresses with each port, and its node ports on every node."""
    entries: dict[tuple[str, int, str], FilterEntry] = {}
    node_ips = [ip for node in snapshot.nodes for ip in node.ips]
    for service in services_of(snapshot, target, namespace):
        for port in service.spec.ports:
            if target.port not in (None, port.port, port.name):
                continue
            places = [(ip, port.port) for ip in _addresses(service)]
            places += [(ip, port.node_port) for ip in node_ips if port.node_port]
            for ip, number in places:
                entries[(ip, number, port.protocol)] = FilterEntry(ip, number, port.protocol)
    return tuple(entries.values())


WantedPorts = Mapping[tuple[str, str], tuple[Service | None, ServicePort | None]]


def _wanted(
    snapshot: ClusterSnapshot | None, services: Sequence[Service] | None, target: Target | None, namespace: str
) -> WantedPorts | None:
    """Service ports by (name, protocol) that the rows are limited to; None: all."""
    if snapshot is None:
        if target is None or target.kind is not TargetKind.SERVICE:
            return None  # an address limits the rows themselves
        return {(f"{target.namespace or namespace}/{target.name}", ""): (None, None)}
    port = target.port if target is not None else None
    return {
        (service_port_name(s.metadata.namespace, s.metadata.name, p.name), p.protocol): (s, p)
        for s in (snapshot.services if services is None else services)
        for p in s.spec.ports
        if port in (None, p.port, p.name)
    }


def _rows(
    node: str,
    rules: Sequence[ServiceRules],
    snapshot: ClusterSnapshot | None,
    slices: Slices | None,
    wanted: WantedPorts | None,
    findings: Sequence[Finding],
    connections: tuple[ConnectionsTo | None, ConnectionsTo | None],
    target: Target | None,
) -> list[RulesRow]:
    rows = []
    for entry in rules:
        name = entry.service or _name_by_address(snapshot, entry)
        service, port = _match(wanted, name, entry.protocol)
        if wanted is not None and service is None and not _wanted_without_api(wanted, name):
            continue
        known: list[Backend] | None = None
        if snapshot is not None and service is not None and port is not None and slices is not None:
            families = {":" in a.ip for a in entry.addresses if a.ip}
            known = [b for b in snapshot.backends(service, port) if (":" in b.ip) in families]
        for address in entry.addresses:
            if snapshot is None and target is not None and not _is_at(address, target):
                continue
            rows.append(
                RulesRow(
                    node=node,
                    service=name,
                    protocol=entry.protocol,
                    mode=entry.mode,
                    source=entry.source,
                    address=address,
                    expected=None
                    if known is None or service is None or slices is None
                    else _expected(service, address, known, node, slices),
                    conntrack=_count(connections[0], entry.protocol, address),
                    begun=_count(connections[1], entry.protocol, address),
                    state=_state(node, name, findings, address.unread, has_slices=slices is not None)
                    if snapshot is not None
                    else "",
                )
            )
    return rows


def _expected(
    service: Service, address: RuleAddress, known: Sequence[Backend], node: str, slices: Slices
) -> int | None:
    options = expected(service, address, known, node, slices)
    programmed = {(b.ip, b.port) for b in address.backends}
    matching = [wanted for wanted in options if {(b.ip, b.port) for b in wanted} == programmed]
    return next((len(wanted) for wanted in (*matching, *options)), None)


def _is_at(address: RuleAddress, target: Target) -> bool:
    if target.kind is not TargetKind.ADDRESS:
        return True
    return address.ip == target.name and target.port in (None, address.port)


def _connections(dumps: Sequence[RulesetDump]) -> tuple[ConntrackEntry, ...] | None:
    listings = [d.text for d in dumps if d.source == "conntrack" and not d.error]
    return tuple(c for text in listings for c in parse_conntrack(text)) if listings else None


def _by_address(connections: Sequence[ConntrackEntry] | None) -> ConnectionsTo | None:
    if connections is None:
        return None
    counts: Counter[tuple[str, str, int]] = Counter()
    for (protocol, ip, port, *_), count in connections_by_backend(connections).items():
        counts[(protocol, ip, port)] += count
    return counts


def _count(connections: ConnectionsTo | None, protocol: str, address: RuleAddress) -> int | None:
    if connections is None:
        return None
    if address.ip:
        return connections.get((protocol, address.ip, address.port), 0)
    return sum(n for (p, _, port), n in connections.items() if p == protocol and port == address.port)


def _name_by_address(snapshot: ClusterSnapshot | None, entry: ServiceRules) -> str:
    for address in entry.addresses:
        served = snapshot.service_at(address.ip, address.port, entry.protocol) if snapshot is not None else None
        if served is not None:
            return service_port_name(served.service.metadata.namespace, served.service.metadata.name, served.port.name)
    return ""


def _match(wanted: WantedPorts | None, name: str, protocol: str) -> tuple[Service | None, ServicePort | None]:
    return (None, None) if wanted is None else wanted.get((name, protocol), (None, None))


def _wanted_without_api(wanted: WantedPorts, name: str) -> bool:
    return (name.partition(":")[0], "") in wanted


def _state(node: str, name: str, findings: Sequence[Finding], unread: str, *, has_slices: bool) -> str:
    """What the findings say of a Service on a node, in short."""
    marks = [
        f.check.replace("-endpoint-rules", " endpoints").replace("-", " ")
        for f in findings
        if f.object is not None
        and f.severity is not Severity.INFO
        and f"{f.object.namespace}/{f.object.name}" == name.partition(":")[0]
        and (f.check == "nodes-disagree" or any(e.node == node for e in f.evidence))
        and (":" not in name or name in f.title or str(f.object) in f.title)
    ]
    marks += ["endpoints unknown"] if unread else []
    marks += [] if has_slices else ["endpoints not checked"]
    return ", ".join(dict.fromkeys(marks)) or "in step"
