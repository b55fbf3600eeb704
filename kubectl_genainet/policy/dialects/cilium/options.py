"""The agent's options that decide verdicts, from ConfigMap cilium-config, and what follows from them.

Without the ConfigMap, options have the values that Cilium's Helm chart installs; those that operators do change count as
not read, and a verdict that hangs on one is unknown. Source: Cilium, pkg/option, pkg/labelsfilter.
"""

from __future__ import annotations

import re
import warnings
from functools import cache

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.identity import IdentityScheme
from kubectl_genainet.policy.matching.api_servers import api_servers
from kubectl_genainet.policy.matching.cidr import Address, address_of

_CONFIG = "cilium-config"
_AGENT_KINDS = (
    "CiliumNode",
    "CiliumEndpoint",
    "CiliumIdentity",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
)
_AGENT_LABEL = ("k8s-app", "cilium")

# The default list of identity labels. The longest pattern that takes a key is weighed against the shortest that leaves it.
_TAKEN = (
    r"reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
)
_LEFT = (
    r"io\.kubernetes",
    r"kubernetes\.io",
    r"statefulset\.kubernetes\.io/pod-name",
    r"apps\.kubernetes\.io/pod-index",
    r"batch\.kubernetes\.io/job-completion-index",
    r"batch\.kubernetes\.io/controller-uid",
    r".*beta\.kubernetes\.io",
    r"k8s\.io",
    r"pod-template-generation",
    r"pod-template-hash",
    r"controller-revision-hash",
    r"controller-uid",
    r"annotation.*",
    r"etcd_node",
    r"topology\.kubernetes\.io",  # since 1.20
)


# Python's regular expressions go back over a text, Go's don't: more than this takes minutes for some keys, and is not read.
_MOST_PATTERN, _MOST_REPETITIONS, _MOST_ALTERNATIVES = 256, 2, 4
_MOST_KEY = 317  # a label's key is a prefix of 253 and a name of 63 characters
_ESCAPE_OR_CLASS = re.compile(r"\\.|\[\^?\]?[^\]]*\]", re.DOTALL)
_REPETITION = re.compile(r"(?<!\()[?*+{]")


class Options(msgspec.Struct, frozen=True):
    """Each option as it is set; `read` says that it comes from the cluster and is no default."""

    read: bool = False
    cluster_name: str = "default"
    labels: tuple[str, ...] = ()
    enable_node_selector_labels: bool = False
    cidr_match_modes: frozenset[str] = frozenset()
    allow_localhost: str = "auto"
    enable_policy: str = "default"
    enable_ipv6: bool | None = None
    host_firewall: bool = False


def enforces(snapshot: ClusterSnapshot) -> bool:
    """Whether Cilium enforces this cluster's policies: objects of its own kinds, its configuration or its agent are there."""
    if any(snapshot.of(kind, "cilium.io") for kind in _AGENT_KINDS):
        return True
    if _config(snapshot) is not None:
        return True
    workloads = (*snapshot.of("DaemonSet", "apps"), *snapshot.of("Pod", ""))
    return any(_is_agent(obj) for obj in workloads)


def _is_agent(obj: KubeObject) -> bool:
    """An agent's DaemonSet or pod: its label, and a container of its name or image."""
    spec = obj.raw.get("spec") or {}
    pod = spec.get("template") if obj.kind == "DaemonSet" else obj.raw
    if not isinstance(pod, dict):
        return False
    labels = (pod.get("metadata") or {}).get("labels") or {}
    containers = (pod.get("spec") or {}).get("containers") or []
    key, value = _AGENT_LABEL
    return labels.get(key) == value and any(
        c.get("name") == "cilium-agent" or "/cilium" in str(c.get("image", "")) for c in containers
    )


def _config(snapshot: ClusterSnapshot) -> KubeObject | None:
    return next((o for o in snapshot.of("ConfigMap", "") if o.name == _CONFIG), None)


def options_of(snapshot: ClusterSnapshot) -> Options:
    config = _config(snapshot)
    if config is None:
        return Options()
    given = config.raw.get("data")
    data = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    ipv6 = data.get("enable-ipv6")
    return Options(
        read=True,
        cluster_name=data.get("cluster-name") or "default",
        labels=tuple(re.split(r"[\s,]+", data["labels"].strip())) if data.get("labels", "").strip() else (),
        enable_node_selector_labels=data.get("enable-node-selector-labels") == "true",
        cidr_match_modes=frozenset(re.split(r"[\s,]+", data.get("policy-cidr-match-mode", "").strip())) - {""},
        allow_localhost=data.get("allow-localhost") or "auto",
        enable_policy=(data.get("enable-policy") or "default").lower(),
        enable_ipv6=None if ipv6 is None else ipv6 == "true",
        host_firewall=data.get("enable-host-firewall") == "true",
    )


def identities_of(snapshot: ClusterSnapshot, options: Options) -> IdentityScheme:
    servers = _api_servers(snapshot)
    nodes = frozenset(
        n.metadata.name for n in snapshot.nodes if servers and any(address_of(ip) in servers for ip in n.ips)
    )
    return IdentityScheme(
        takes=KeyFilter.of(options).takes,
        cluster=options.cluster_name,
        cluster_known=options.read,
        api_servers=servers,
        api_nodes=nodes,
        dual_stack=_dual_stack(snapshot) if options.enable_ipv6 is None else options.enable_ipv6,
        families_known=options.enable_ipv6 is not None or _dual_stack(snapshot),
        node_labels=options.enable_node_selector_labels,
        version=6 if _versions(snapshot) == {True} else 4,
    )


def _dual_stack(snapshot: ClusterSnapshot) -> bool:
    return len(_versions(snapshot)) == 2


def _versions(snapshot: ClusterSnapshot) -> set[bool]:
    """Whether there are addresses of IPv6 (True) and of IPv4 (False)."""
    return {version == 6 for version in snapshot.pods_ip_versions} | {":" in ip for n in snapshot.nodes for ip in n.ips}


def _api_servers(snapshot: ClusterSnapshot) -> frozenset[Address] | None:
    """The addresses behind the Service default/kubernetes, where API servers publish their own; None if not read."""
    addresses = map(address_of, api_servers(snapshot))
    return frozenset(a for a in addresses if a is not None) or None


class KeyFilter(msgspec.Struct, frozen=True):
    """Which keys of labels are part of an identity. `closed`: only those that a pattern takes."""

    taken: tuple[str, ...]
    left: tuple[str, ...]
    closed: bool
    known: bool
    unread: bool = False  # one of the list's expressions

    @classmethod
    def of(cls, options: Options) -> KeyFilter:
        taken, left, closed = list(_TAKEN), list(_LEFT), False
        for pattern in options.labels:
            text = pattern.partition(":")[2] if pattern.startswith(("k8s:", "any:")) else pattern
            if text.startswith("!"):
                left.append(text[1:])
            else:
                taken.append(text)
                closed = True
        unread = not all(map(_is_read, taken + left))
        return cls(tuple(taken), tuple(left), closed, options.read, unread)

    def takes(self, key: str) -> bool | None:
        """Whether a key counts; None where an expression of the agent's list was not read, or where the default list
        leaves it out and the agent's list was not read."""
        if self.unread or len(key) > _MOST_KEY:
            return None
        counts = _counts(self, key)
        return None if not counts and not self.known else counts


def _is_read(pattern: str) -> bool:
    """Whether an expression means the same to Python as to Go, and takes no time."""
    if len(pattern) > _MOST_PATTERN or "[[" in pattern:
        return False
    try:
        with warnings.catch_warnings(action="error"):  # of what Go takes otherwise
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning):
        return False
    plain = _ESCAPE_OR_CLASS.sub("x", pattern)
    repeats_a_group = re.search(r"\)[*+?{]", plain) is not None
    return (
        not repeats_a_group
        and len(_REPETITION.findall(plain)) <= _MOST_REPETITIONS
        and plain.count("|") <= _MOST_ALTERNATIVES
    )


@cache
def _counts(keys: KeyFilter, key: str) -> bool:
    taken = max((m.end() for p in keys.taken if (m := re.match(p, key))), default=0)
    shortest_left_out = min((m.end() for p in keys.left if (m := re.match(p, key))), default=0)
    return taken > shortest_left_out or (not shortest_left_out and not keys.closed)
