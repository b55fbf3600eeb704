"""Compares what kube-proxy has programmed on the nodes with what the API says. Each difference is a finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.diagnoses.kube_proxy import (
    NO_PROXY_RULES,
    RULES_WITHOUT_SERVICE,
    SERVICE_WITHOUT_RULES,
)
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, NotChecked, ObjectRef, Severity
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.drift.endpoints import endpoint_findings
from kubectl_genainet.proxy.drift.expected import Slices
from kubectl_genainet.proxy.drift.host_ports import host_port_findings
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.drift.nodes import disagreements, modes_differ, remedy
from kubectl_genainet.proxy.drift.ways import MAX_WAYS, FollowedWay, has_more_ways, way_findings, ways_to
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.proxy.services import ServiceRules

_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_NO_END = "no virtual server has it, but ipvsadm marks no end of its list; save `ipset list` too"


def compare(
    snapshot: ClusterSnapshot, rulesets: Mapping[str, Ruleset], *, services: Iterable[Service] | None = None
) -> list[Finding]:
    """The findings of `comparison` alone."""
    nodes = [NodeRules(name, ruleset) for name, ruleset in rulesets.items()]
    return [f for f in comparison(snapshot, nodes, services=services) if isinstance(f, Finding)]


def comparison(
    snapshot: ClusterSnapshot,
    every: Sequence[NodeRules],
    *,
    services: Iterable[Service] | None = None,
    ways: Mapping[str, Sequence[FollowedWay]] | None = None,
) -> list[Finding | NotChecked]:
    """Findings over the nodes' rules (drifted endpoints, missing and orphaned Services, modes, disagreement), and
    what could not be compared.

    With `services`, only those are compared (and nothing is said of Services that are gone). A kind of object that
    could not be read, and rules that were not read whole, make no finding: absence is then not known. `ways` are the
    Services' ways on each node, where they have been followed.
    """
    results: list[Finding | NotChecked] = [NotChecked(f"rules of {n.title}", str(p)) for n in every for p in n.gaps]
    nodes = [node for node in every if not node.gaps]
    missing = {left_out.kind for left_out in snapshot.left_out}
    results += modes_differ(snapshot, nodes)
    if "Service" in missing:
        return results
    slices = None if "EndpointSlice" in missing else Slices(snapshot)
    wanted = tuple(snapshot.services if services is None else services)
    proxied = [service for service in wanted if _is_proxied(service)]
    if slices is not None and proxied and not snapshot.of("EndpointSlice", "discovery.k8s.io"):
        slices = None
        results.append(NotChecked("endpoints", "no EndpointSlice is among the objects (Endpoints are not read)"))
    for node in nodes:
        if not node.modes and proxied:
            results.append(_no_rules(node))
            continue
        for service in proxied:
            results += _service(snapshot, slices, node, service)
        if services is None:
            results += _orphans(snapshot, node)
    results += disagreements(nodes, [s for s in wanted if _is_proxied(s)], slices)
    for node in nodes:
        results += _along_the_ways(snapshot, node, proxied, ways)
    results += host_port_findings(snapshot, nodes, services=None if services is None else wanted)
    return results


def _along_the_ways(
    snapshot: ClusterSnapshot,
    node: NodeRules,
    proxied: Sequence[Service],
    ways: Mapping[str, Sequence[FollowedWay]] | None,
) -> Iterator[Finding | NotChecked]:
    refs = {service.ref for service in proxied}
    followed = ways_to(snapshot, node, proxied) if ways is None else iter(ways[node.node])
    yield from way_findings((way for way in followed if way.service.ref in refs), snapshot)
    if has_more_ways(snapshot, node, proxied):
        yield NotChecked(f"ways of packets on {node.title}", f"more than {MAX_WAYS}; name a Service")


def _is_proxied(service: Service) -> bool:
    """Whether kube-proxy handles the Service at all (pkg/proxy/util.ShouldSkipService)."""
    labels = service.metadata.labels
    return (
        bool(service.cluster_ips)
        and service.spec.type != "ExternalName"
        and not (
            labels.keys()
            & {
                _PROXY_NAME,
                _HEADLESS,
            }
        )
    )


def _no_rules(node: NodeRules) -> Finding:
    reason = "; ".join(node.ruleset.errors)
    return NO_PROXY_RULES.finding(
        f"{node.title} has no rules of kube-proxy",
        (
            Evidence(
                reason or "no KUBE-SERVICES rules, no table kube-proxy, no IPVS servers",
                Certainty.OBSERVED if not reason else Certainty.UNKNOWN,
                node=node.node,
            ),
        ),
        ObjectRef("Node", node.node),
        severity=None if not reason else Severity.WARNING,
        detail="Either kube-proxy does not run there, or another program serves Services (Cilium without kube-proxy).",
    )


def _service(
    snapshot: ClusterSnapshot, slices: Slices | None, node: NodeRules, service: Service
) -> Iterator[Finding | NotChecked]:
    for port in service.spec.ports:
        name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
        vips = [canonical_ip(ip) for ip in service.cluster_ips if (6 if ":" in ip else 4) in node.families]
        entries = node.entries(name, port, vips)
        lost = [ip for ip in vips if not node.takes(entries, ip, port.port, port.protocol)]
        if lost and not node.ruleset.lists_all_servers:
            where = ", ".join(address_text(ip, port.port) for ip in lost)
            yield NotChecked(f"rules for {where} of {name} on {node.title}", _NO_END)
            continue
        if lost:
            yield _without_rules(node, service, port, [address_text(ip, port.port) for ip in lost])
            continue
        outside = _outside_without_rules(node, service, port, entries)
        if outside:
            yield _without_rules(node, service, port, outside)
        yield from _addresses_of_nobody(node, service, port, entries)
        unread = next((e.unread for e in entries if e.unread), "")
        if unread:
            yield NotChecked(f"endpoints of {name} on {node.title}", unread)
        elif slices is not None:
            yield from endpoint_findings(snapshot, slices, node, service, port, entries)


def _outside_without_rules(
    node: NodeRules, service: Service, port: ServicePort, entries: list[ServiceRules]
) -> list[str]:
    """External addresses and the node port for which the node has no rules."""
    balancer = [i.ip for i in service.status.load_balancer.ingress if i.ip and i.ip_mode != "Proxy"]
    addresses = [canonical_ip(ip) for ip in (*service.spec.external_ips, *balancer)]
    lost = [
        address_text(ip, port.port)
        for ip in dict.fromkeys(addresses)
        if (6 if ":" in ip else 4) in node.families and not node.takes(entries, ip, port.port, port.protocol)
    ]
    has_node_port = port.node_port and service.spec.type in ("NodePort", "LoadBalancer")
    if has_node_port and not node.takes(entries, "", port.node_port, port.protocol):
        lost.append(f"*:{port.node_port}")
    return lost


def _addresses_of_nobody(
    node: NodeRules, service: Service, port: ServicePort, entries: list[ServiceRules]
) -> Iterator[Finding]:
    """Rules of the Service for addresses and node ports that it does not have."""
    own = {canonical_ip(ip) for ip in (*service.cluster_ips, *service.external_addresses)}
    extra = [
        address.address
        for entry in entries
        if entry.service
        for address in entry.addresses
        if not (address.ip in own and address.port == port.port)
        and not (not address.ip and address.port == port.node_port)
    ]
    if extra:
        shown = ", ".join(dict.fromkeys(extra))
        name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
        yield RULES_WITHOUT_SERVICE.finding(
            f"{node.title} has rules for {shown} of {name}, which are no addresses of the Service",
            (Evidence(f"rules of {name} take {shown}", Certainty.OBSERVED, value=shown, node=node.node),),
            service.ref,
            remedy=remedy(node.node),
        )


def _without_rules(node: NodeRules, service: Service, port: ServicePort, lost: list[str]) -> Finding:
    addresses = ", ".join(lost)
    return SERVICE_WITHOUT_RULES.finding(
        f"{node.title} has no rules for {addresses} ({port.protocol}) of {service.ref}",
        (
            Evidence(f"no rule takes {addresses}", Certainty.OBSERVED, value=addresses, node=node.node),
            Evidence("the Service's addresses", Certainty.OBSERVED, service.ref, "spec"),
        ),
        service.ref,
        remedy=remedy(node.node),
    )


def _orphans(snapshot: ClusterSnapshot, node: NodeRules) -> Iterator[Finding]:
    """Rules for Services that are not in the API."""
    names = {
        (service_port_name(s.metadata.namespace, s.metadata.name, p.name), p.protocol)
        for s in snapshot.services
        for p in s.spec.ports
    }
    addresses = {canonical_ip(ip) for s in snapshot.services for ip in (*s.cluster_ips, *s.external_addresses)}
    addresses |= set(node.ruleset.node_ips or ()) | {canonical_ip(ip) for n in snapshot.nodes for ip in n.ips}
    for rules in node.rules:
        if rules.service and (rules.service, rules.protocol) in names:
            continue
        if not rules.service and any(a.ip in addresses or a.ip.startswith("127.") for a in rules.addresses):
            continue
        title = rules.service or ", ".join(a.address for a in rules.addresses)
        yield RULES_WITHOUT_SERVICE.finding(
            f"{node.title} has rules for {title} ({rules.protocol}), which the API does not have",
            (
                Evidence(
                    f"{rules.mode} rules take " + ", ".join(a.address for a in rules.addresses),
                    Certainty.OBSERVED,
                    value=title,
                    node=node.node,
                ),
            ),
            remedy=remedy(node.node),
        )
