"""A pod's resolv.conf: as its node read it, or else as kubelet makes it; and what its search domains cost.

Source: pod spec dnsPolicy and dnsConfig (core/v1), kubelet pkg/kubelet/network/dns, resolv.conf(5).
"""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.dns import DEFAULT_NDOTS, ResolvConf
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.units import whole_number

CLUSTER_DOMAIN = "cluster.local"  # kubelet's default; a cluster may have another, which only resolv.conf tells


def assumed_resolv_conf(pod: Pod, snapshot: ClusterSnapshot) -> ResolvConf | None:
    """As kubelet writes it by the pod's spec; None for policy Default, where it is the node's own."""
    spec = pod.spec
    config = spec.dns_config
    options = {o.name: o.value for o in config.options}
    policy = spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and spec.host_network:
        policy = "Default"
    if policy == "Default":
        return None
    search: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    ndots = DEFAULT_NDOTS
    if policy != "None":
        search = (f"{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
        service = snapshot.service("kube-system", "kube-dns")
        servers = service.cluster_ips[:1] if service else ()
        ndots = 5
    search += tuple(s.rstrip(".").lower() for s in config.searches)
    if (number := whole_number(options.get("ndots", ""))) is not None:
        ndots = number
    return ResolvConf(tuple(dict.fromkeys(search)), ndots, (*servers, *config.nameservers), Certainty.ASSUMED)


def split_search(name: str, search: tuple[str, ...]) -> tuple[str, str] | None:
    """(what the application asked for, the search domain) of a name that ends in one; the longest domain counts."""
    plain = name.rstrip(".").lower()
    for domain in sorted(search, key=len, reverse=True):
        if plain.endswith("." + domain) and len(plain) > len(domain) + 1:
            return plain[: -len(domain) - 1], domain
    return None


def search_domains(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """Every search domain that a pod's resolv.conf may have, as far as the objects tell."""
    domains: dict[str, None] = dict.fromkeys((f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN))
    for pod in snapshot.pods:
        conf = assumed_resolv_conf(pod, snapshot)
        domains.update(dict.fromkeys(conf.search if conf is not None else ()))
    return tuple(domains)
