"""What kube-proxy's own rules have dropped, by their counters."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.proxy.ruleset import Ruleset


def counted(ruleset: Ruleset, ending: str) -> Iterator[tuple[str, int]]:
    """(comment, packets) of kube-proxy's own filter rules that end in some words and have counted packets."""
    for name in ("KUBE-EXTERNAL-SERVICES", "KUBE-SERVICES", "KUBE-NODEPORTS"):
        for family in (4, 6):
            chain = ruleset.chain("filter", name, family)
            for rule in chain.rules if chain is not None else ():
                ref = rule.ref
                if ref.packets and ref.comment.endswith(ending):
                    yield ref.comment, ref.packets


def local_drops(cluster: Cluster, service: ObjectRef) -> list[tuple[str, int]]:
    """(node, packets) where kube-proxy has dropped packets to a Service because the node has no local endpoint."""
    drops: list[tuple[str, int]] = []
    for node, ruleset in cluster.rules.parsed.items():
        packets = sum(
            count
            for comment, count in counted(ruleset, " has no local endpoints")
            if comment.split(" ")[0].split(":")[0] == f"{service.namespace}/{service.name}"
        )
        if packets:
            drops.append((node, packets))
    return drops
