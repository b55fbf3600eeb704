"""Compares what kube-proxy has programmed on the nodes with what the API says. Each difference is a finding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot, canonical_ip
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.proxy.services import ServiceRules, proxy_modes, service_rules

_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
_MODE = re.compile(r"^mode:[ \t]*[\"']?(\w*)", re.M)
_RESTART = Remedy(
    "Restart kube-proxy on the node: it writes all rules anew and removes those of other modes only with --cleanup.",
    command="kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName={node}",
)


@dataclass(frozen=True)
class _NodeRules:
    node: str
    ruleset: Ruleset
    rules: tuple[ServiceRules, ...]
    modes: Mapping[str, tuple[str, ...]]

    @cached_property
    def families(self) -> set[int]:
        listed = {6 if ":" in s.vip else 4 for s in self.ruleset.virtual_servers}
        return {t.family for t in self.ruleset.tables} | listed

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str], list[ServiceRules]]:
        found: dict[tuple[str, str], list[ServiceRules]] = {}
        for rules in self.rules:
            found.setdefault((rules.service, rules.protocol), []).append(rules)
        return found

    @cached_property
    def unnamed(self) -> Mapping[tuple[str, int, str], ServiceRules]:
        """Rules of the modes that don't name Services (IPVS), by address."""
        return {(a.ip, a.port, r.protocol): r for r in self.rules if not r.service for a in r.addresses}

    def entries(self, name: str, port: ServicePort, vips: list[str]) -> list[ServiceRules]:
        """The rules of a Service port: by name, and by address where the mode has no names."""
        named = self.by_name.get((name, port.protocol), [])
        return named + [r for ip in vips if (r := self.unnamed.get((ip, port.port, port.protocol))) is not None]


class _Slices:
    """EndpointSlices by Service, for what the typed view leaves out: hints and the time of the last change."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.taken_at = snapshot.taken_at
        self.by_service: dict[tuple[str, str], list[KubeObject]] = {}
        for obj in snapshot.of("EndpointSlice", "discovery.k8s.io"):
            key = (obj.namespace, obj.labels.get("kubernetes.io/service-name", ""))
            self.by_service.setdefault(key, []).append(obj)

    def of(self, service: Service) -> list[KubeObject]:
        return self.by_service.get((service.metadata.namespace, service.metadata.name), [])

    def have_hints(self, service: Service) -> bool:
        """Topology hints: kube-proxy then leaves out endpoints of other zones on purpose."""
        endpoints = (e for obj in self.of(service) for e in obj.raw.get("endpoints", []))
        return any(isinstance(e, dict) and e.get("hints") for e in endpoints)

    def age(self, service: Service) -> str:
        """How long before the snapshot the endpoints last changed ("41 s"); empty where that is not recorded."""
        times = [obj.annotations[_TRIGGER] for obj in self.of(service) if _TRIGGER in obj.annotations]
        try:
            latest = max(map(datetime.fromisoformat, times))
            seconds = (datetime.fromisoformat(self.taken_at) - latest).total_seconds()
        except (ValueError, TypeError):
            return ""
        return f"{seconds:.0f} s"


def compare(
    snapshot: ClusterSnapshot, rulesets: Mapping[str, Ruleset], *, services: Iterable[Service] | None = None
) -> list[Finding]:
    """Findings over the nodes' rulesets: drifted endpoints, missing and orphaned Services, modes, disagreement.

    With `services`, only those are compared (and nothing is said of Services that are gone). A kind of object that
    could not be read makes no finding: absence is then not known.
    """
    nodes = [
        _NodeRules(name, ruleset, service_rules(ruleset), proxy_modes(ruleset)) for name, ruleset in rulesets.items()
    ]
    missing = {left_out.kind for left_out in snapshot.left_out}
    findings = list(_modes(snapshot, nodes))
    if "Service" in missing:
        return findings
    slices = None if "EndpointSlice" in missing else _Slices(snapshot)
    wanted = tuple(snapshot.services if services is None else services)
    for node in nodes:
        if not node.modes and any(_is_proxied(s) for s in wanted):
            findings.append(_no_rules(node))
            continue
        for service in wanted:
            if _is_proxied(service):
                findings += _service(snapshot, slices, node, service)
        if services is None:
            findings += _orphans(snapshot, node)
    findings += _disagreements(nodes, wanted)
    return findings


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


def _modes(snapshot: ClusterSnapshot, nodes: list[_NodeRules]) -> Iterator[Finding]:
    configured, source = configured_mode(snapshot)
    for node in nodes:
        for mode, dumps in node.modes.items():
            variants = {d for d in dumps if d.endswith(("-legacy", "-nft"))}
            if {v.rpartition("-")[2] for v in variants} == {"legacy", "nft"}:
                yield _leftover(node, f"{mode} rules in both iptables-legacy and iptables-nft", ", ".join(dumps))
        if len(node.modes) > 1:
            yield _leftover(node, "rules of several kube-proxy modes", ", ".join(node.modes))
        if configured and node.modes and configured not in node.modes:
            programmed = " and ".join(node.modes)
            yield Finding(
                "proxy-mode-mismatch",
                f"node {node.node} has rules of kube-proxy's {programmed} mode, its ConfigMap says {configured}",
                Severity.WARNING,
                (
                    Evidence(
                        f"the node's rules are those of the {programmed} mode", Certainty.OBSERVED, node=node.node
                    ),
                    Evidence("mode of the configuration", Certainty.OBSERVED, source, "data", configured),
                ),
                source,
                remedy=_remedy(node.node),
            )


def _leftover(node: _NodeRules, what: str, value: str) -> Finding:
    return Finding(
        "leftover-proxy-rules",
        f"node {node.node} has {what}: packets meet the older ones too",
        Severity.WARNING,
        (Evidence(f"found on the node: {value}", Certainty.OBSERVED, value=value, node=node.node),),
        ObjectRef("Node", node.node),
        remedy=Remedy("Remove the rules of the mode that is no longer used, on the node.", "kube-proxy --cleanup"),
    )


def _remedy(node: str) -> Remedy:
    return Remedy(_RESTART.text, _RESTART.command.format(node=node))


def configured_mode(snapshot: ClusterSnapshot) -> tuple[str, ObjectRef | None]:
    """The mode that kube-proxy's ConfigMap asks for ("" where there is none, iptables where it leaves it open)."""
    for obj in snapshot.of("ConfigMap", ""):
        if obj.namespace != "kube-system" or not obj.name.startswith("kube-proxy"):
            continue
        for text in obj.raw.get("data", {}).values():
            if isinstance(text, str) and "KubeProxyConfiguration" in text:
                match = _MODE.search(text)
                return (match.group(1) if match and match.group(1) else "iptables"), obj.ref
    return "", None


def _no_rules(node: _NodeRules) -> Finding:
    reason = "; ".join(node.ruleset.errors)
    return Finding(
        "no-proxy-rules",
        f"node {node.node} has no rules of kube-proxy",
        Severity.ERROR if not reason else Severity.WARNING,
        (
            Evidence(
                reason or "no KUBE-SERVICES rules, no table kube-proxy, no IPVS servers",
                Certainty.OBSERVED if not reason else Certainty.UNKNOWN,
                node=node.node,
            ),
        ),
        ObjectRef("Node", node.node),
        detail="Either kube-proxy does not run there, or another program serves Services (Cilium without kube-proxy).",
    )


def _service(
    snapshot: ClusterSnapshot, slices: _Slices | None, node: _NodeRules, service: Service
) -> Iterator[Finding]:
    for port in service.spec.ports:
        name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
        vips = [canonical_ip(ip) for ip in service.cluster_ips if (6 if ":" in ip else 4) in node.families]
        entries = node.entries(name, port, vips)
        covered = {a.ip for e in entries for a in e.addresses if a.port == port.port}
        lost = [ip for ip in vips if ip not in covered]
        if lost:
            yield _without_rules(node, service, port, lost)
        elif slices is not None:
            yield from _endpoints(snapshot, slices, node, service, port, entries)


def _without_rules(node: _NodeRules, service: Service, port: ServicePort, lost: list[str]) -> Finding:
    addresses = ", ".join(address_text(ip, port.port) for ip in lost)
    return Finding(
        "service-without-rules",
        f"node {node.node} has no rules for {addresses} ({port.protocol}) of {service.ref}",
        Severity.ERROR,
        (
            Evidence(f"no rule takes {addresses}", Certainty.OBSERVED, value=addresses, node=node.node),
            Evidence("the Service's cluster addresses", Certainty.OBSERVED, service.ref, "spec.clusterIPs"),
        ),
        service.ref,
        remedy=_remedy(node.node),
    )


def _endpoints(
    snapshot: ClusterSnapshot,
    slices: _Slices,
    node: _NodeRules,
    service: Service,
    port: ServicePort,
    entries: list[ServiceRules],
) -> Iterator[Finding]:
    programmed = {(b.ip, b.port): b for e in entries for b in e.backends}
    families = {6 if ":" in a.ip else 4 for e in entries for a in e.addresses if a.ip}
    known = [b for b in snapshot.backends(service, port) if (6 if ":" in b.ip else 4) in families]
    age = slices.age(service)
    gone = [key for key in programmed if key not in {(b.ip, b.port) for b in known if b.ready or b.serving}]
    if gone:
        yield _endpoint_finding(
            "stale-endpoint-rules",
            "still sends to",
            "which no EndpointSlice has ready or serving",
            node,
            service,
            port,
            [address_text(ip, p) for ip, p in gone],
            age,
            Severity.ERROR,
        )
    wanted = _expected(service, known, node.node)
    if not slices.have_hints(service):
        absent = [b for b in wanted if (b.ip, b.port) not in programmed]
        if absent:
            yield _endpoint_finding(
                "missing-endpoint-rules",
                "does not send to",
                "ready in the EndpointSlices",
                node,
                service,
                port,
                [address_text(b.ip, b.port) for b in absent],
                age,
                Severity.ERROR if len(absent) == len(wanted) else Severity.WARNING,
            )


def _expected(service: Service, backends: list[Backend], node: str) -> list[Backend]:
    """Endpoints that must be in the rules: ready ones, or while none is ready those that serve while terminating.

    With both traffic policies Local, only the node's own (pkg/proxy/topology.go, CategorizeEndpoints).
    """
    spec = service.spec
    external = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    usable = [b for b in backends if b.ready] or [b for b in backends if b.serving and b.terminating]
    if spec.internal_traffic_policy == "Local" and (not external or spec.external_traffic_policy == "Local"):
        return [b for b in usable if b.node == node]
    return usable


def _endpoint_finding(
    check: str,
    verb: str,
    why: str,
    node: _NodeRules,
    service: Service,
    port: ServicePort,
    addresses: list[str],
    age: str,
    severity: Severity,
) -> Finding:
    shown = ", ".join(addresses[:5]) + (f" and {len(addresses) - 5} more" if len(addresses) > 5 else "")
    name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
    evidence = [
        Evidence(
            f"the rules of {name} on the node, against {shown}", Certainty.OBSERVED, value=addresses, node=node.node
        ),
        Evidence(f"{shown}: {why}", Certainty.DERIVED, service.ref),
    ]
    if age:
        evidence.append(Evidence(f"the endpoints last changed {age} before the snapshot", Certainty.OBSERVED))
    return Finding(
        check,
        f"node {node.node} {verb} {shown} for {name}, {why}" + (f"; the last change is {age} old" if age else ""),
        severity,
        tuple(evidence),
        service.ref,
        remedy=_remedy(node.node),
    )


def _orphans(snapshot: ClusterSnapshot, node: _NodeRules) -> Iterator[Finding]:
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
        yield Finding(
            "rules-without-service",
            f"node {node.node} has rules for {title} ({rules.protocol}), which the API does not have",
            Severity.WARNING,
            (
                Evidence(
                    f"{rules.mode} rules take " + ", ".join(a.address for a in rules.addresses),
                    Certainty.OBSERVED,
                    value=title,
                    node=node.node,
                ),
            ),
            remedy=_remedy(node.node),
        )


def _disagreements(nodes: list[_NodeRules], services: tuple[Service, ...]) -> Iterator[Finding]:
    """Service ports whose endpoints differ from node to node, where the traffic policies don't explain it."""
    for service in services:
        if not _is_proxied(service) or service.spec.internal_traffic_policy == "Local":
            continue
        for port in service.spec.ports:
            name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
            vips = [canonical_ip(ip) for ip in service.cluster_ips]
            seen: dict[frozenset[str], list[str]] = {}
            for node in nodes:
                entries = node.entries(name, port, vips)
                at_cluster_ip = [a for e in entries for a in e.addresses if a.ip in vips and a.port == port.port]
                if at_cluster_ip:
                    backends = frozenset(b.address for a in at_cluster_ip for b in a.backends)
                    seen.setdefault(backends, []).append(node.node)
            if len(seen) > 1:
                yield _disagreement(service, name, seen)


def _disagreement(service: Service, name: str, seen: dict[frozenset[str], list[str]]) -> Finding:
    groups = sorted(seen.items(), key=lambda item: -len(item[1]))
    common = frozenset.intersection(*seen)
    evidence = tuple(
        Evidence(
            f"{', '.join(nodes)}: {len(backends)} endpoints"
            + (f", among them {', '.join(sorted(backends - common)[:5])}" if backends - common else ""),
            Certainty.OBSERVED,
            value=sorted(backends),
            node=nodes[0],
        )
        for backends, nodes in groups
    )
    return Finding(
        "nodes-disagree",
        f"nodes disagree about the endpoints of {name}: {' against '.join(', '.join(n) for _, n in groups)}",
        Severity.WARNING,
        evidence,
        service.ref,
    )
