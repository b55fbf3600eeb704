"""What differs between the configuration and the nodes, and between one node and the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.diagnoses.kube_proxy import LEFTOVER_PROXY_RULES, NODES_DISAGREE, PROXY_MODE_MISMATCH
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Remedy
from kubectl_genainet.model.kube import Service
from kubectl_genainet.proxy.cleanup import cleanup
from kubectl_genainet.proxy.drift.expected import Slices
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.shell import sh

_MODE = re.compile(r"^mode:[ \t]*[\"']?(\w*)", re.M)
_RESTART = "Restart kube-proxy on the node: it writes all its rules anew."
_VARIANT = "Remove those of the variant that kube-proxy does not write, on the node:"
_DELETE = "kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector"


def modes_differ(snapshot: ClusterSnapshot, nodes: list[NodeRules]) -> Iterator[Finding]:
    configured, source = configured_mode(snapshot)
    for node in nodes:
        for mode, dumps in node.modes.items():
            variants = {d for d in dumps if d.endswith(("-legacy", "-nft"))}
            if {v.rpartition("-")[2] for v in variants} == {"legacy", "nft"}:
                what = f"{mode} rules in both iptables-legacy and iptables-nft"
                either = " or ".join(cleanup((d,)) for d in sorted(variants))
                yield _leftover(node, what, ", ".join(dumps), Remedy(f"{_VARIANT} {either}."))
        if len(node.modes) > 1:
            what = "rules of several kube-proxy modes"
            yield _leftover(node, what, ", ".join(node.modes), _of_other_modes(node, configured))
        if configured and node.modes and configured not in node.modes:
            programmed = " and ".join(node.modes)
            yield PROXY_MODE_MISMATCH.finding(
                f"{node.title} has rules of kube-proxy's {programmed} mode, its ConfigMap says {configured}",
                (
                    Evidence(
                        f"the node's rules are those of the {programmed} mode", Certainty.OBSERVED, node=node.node
                    ),
                    Evidence("mode of the configuration", Certainty.OBSERVED, source, "data", configured),
                ),
                source,
                remedy=remedy(node.node),
            )


def _of_other_modes(node: NodeRules, configured: str) -> Remedy:
    """Takes away the rules of all modes but the configured one, where that is among them; with what it shares a dump with
    (iptables and ipvs), its own go too, and a new kube-proxy writes them."""
    unused = sorted({d for mode, dumps in node.modes.items() if mode != configured for d in dumps})
    text = "Remove the rules of the mode that is no longer used, on the node."
    if configured not in node.modes:
        return Remedy(text)
    shared = not set(unused).isdisjoint(node.modes[configured])
    restart = remedy(node.node).command if shared else ""
    where = f"on node {sh(node.node)}" if node.node else ""
    return Remedy(text, "\n".join(filter(None, (cleanup(unused, where), restart))))


def _leftover(node: NodeRules, what: str, value: str, mend: Remedy) -> Finding:
    return LEFTOVER_PROXY_RULES.finding(
        f"{node.title} has {what}: packets meet the older ones too",
        (Evidence(f"found on the node: {value}", Certainty.OBSERVED, value=value, node=node.node),),
        ObjectRef("Node", node.node),
        remedy=mend,
    )


def remedy(node: str) -> Remedy:
    return Remedy(_RESTART, f"{_DELETE} {sh(f'spec.nodeName={node}')}" if node else "")


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


def disagreements(nodes: list[NodeRules], services: Sequence[Service], slices: Slices | None) -> Iterator[Finding]:
    """Service ports whose endpoints differ from node to node, where neither policies nor hints explain it."""
    for service in services:
        if service.spec.internal_traffic_policy == "Local":
            continue
        if slices is None or slices.hints(service):
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
    return NODES_DISAGREE.finding(
        f"nodes disagree about the endpoints of {name}: {' against '.join(', '.join(n) for _, n in groups)}",
        evidence,
        service.ref,
    )
