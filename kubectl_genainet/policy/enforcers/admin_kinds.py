"""Which of the administrators' kinds an enforcer reads: that depends on its version, or on an option.

Sources: network-policy-api, "Implementations"; release notes of Calico 3.29, 3.30 and 3.32; Antrea documentation, "Feature
Gates"; kube-network-policies, "Flavors and Architectures" and its manifests; Kube-OVN documentation, "Admin network policy".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Enforcer,
    EnforcerName,
    UnreadKinds,
    arguments_of,
    release_of,
    running,
)

ADMIN_GROUP = "policy.networking.k8s.io"
ADMIN_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_ANP, _BANP, _CNP = ADMIN_KINDS
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")

Version = tuple[int, ...]
# Since which version of Calico it reads a kind, in which it ceased to, and the tier that it makes for the kind.
_CALICO: Mapping[str, tuple[Version, Version | None, str]] = {
    _ANP: ((3, 29), (3, 32), "adminnetworkpolicy"),
    _BANP: ((3, 30), (3, 32), "baselineadminnetworkpolicy"),
    _CNP: ((3, 32), None, "kube-admin"),
}
# The feature gate of Antrea's controller for a kind; none is on by default.
_ANTREA: Mapping[str, str] = {_ANP: "AdminNetworkPolicy", _BANP: "AdminNetworkPolicy", _CNP: "ClusterNetworkPolicy"}
# What makes kube-network-policies read a kind: its image's flavor, or (before 1.0) an argument.
_KUBE_NETWORK_POLICIES: Mapping[str, tuple[str, str]] = {
    _ANP: ("-npa-v1alpha1", "-admin-network-policy=true"),
    _BANP: ("-npa-v1alpha1", "-baseline-admin-network-policy=true"),
    _CNP: ("-npa-v1alpha2", ""),
}


def unread_admin_kinds(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Iterator[UnreadKinds]:
    """The administrators' kinds that the enforcer of a cluster does not read, or of which that can't be told."""
    find = _FINDERS.get(enforcer.name)
    if find is not None:
        yield from find(snapshot)


def _calico(snapshot: ClusterSnapshot) -> Iterator[UnreadKinds]:
    version = _calico_version(snapshot)
    tiers = {tier.name for group in _CALICO_GROUPS for tier in snapshot.of("Tier", group)}
    for kind, (since, until, tier) in _CALICO.items():
        versions = f"since {_text(since)}" if until is None else f"from {_text(since)} until {_text(until)}"
        if version is None and tier not in tiers:
            why = f"Calico reads this kind {versions}, and these objects do not show its version"
            yield UnreadKinds(ADMIN_GROUP, (kind,), why, certain=False)
        elif version is not None and not (since <= version and (until is None or version < until)):
            why = f"Calico {_text(version)} enforces the policies, and it does not read this kind ({versions})"
            yield UnreadKinds(ADMIN_GROUP, (kind,), why)


def _calico_version(snapshot: ClusterSnapshot) -> Version | None:
    """By the tag of the agent's image, else as the agent itself wrote it down."""
    tags = [str(container.get("image", "")) for _, container in running(snapshot, "calico/node|calico-node")]
    for group in _CALICO_GROUPS:
        for obj in snapshot.of("ClusterInformation", group):
            spec = obj.raw.get("spec")
            tags.append(":" + str(spec.get("calicoVersion", "")) if isinstance(spec, dict) else "")
    return next(filter(None, map(release_of, tags)), None)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _antrea(snapshot: ClusterSnapshot) -> Iterator[UnreadKinds]:
    """By the controller's configuration, in a ConfigMap antrea-config (with a hash behind its name before 1.10)."""
    settings = [o.raw.get("data") for o in snapshot.of("ConfigMap", "") if o.name.startswith("antrea-config")]
    texts = [
        str(data["antrea-controller.conf"])
        for data in settings
        if isinstance(data, dict) and "antrea-controller.conf" in data
    ]
    for kind, gate in _ANTREA.items():
        if not texts:
            why = f"Antrea reads this kind where the feature gate {gate} is on (off by default); it was not read"
            yield UnreadKinds(ADMIN_GROUP, (kind,), why, certain=False)
        elif not any(re.search(rf"^[ \t]*({gate}|AllAlpha)\s*:\s*true\b", text, re.MULTILINE) for text in texts):
            why = f"Antrea enforces the policies, and its feature gate {gate} is off"
            yield UnreadKinds(ADMIN_GROUP, (kind,), why)


def _kube_network_policies(snapshot: ClusterSnapshot) -> Iterator[UnreadKinds]:
    agents = [container for _, container in running(snapshot, "kube-network-policies")]
    kindnetd = any(True for _ in running(snapshot, "kindnetd"))
    for kind, (flavor, argument) in _KUBE_NETWORK_POLICIES.items():
        needed = f"an image …{flavor}" + (f" or the argument -{argument}" if argument else "")
        if not agents and not kindnetd:
            why = f"kube-network-policies reads this kind with {needed}; its pods are not among the objects"
            yield UnreadKinds(ADMIN_GROUP, (kind,), why, certain=False)
        elif not any(_reads(container, flavor, argument) for container in agents):
            why = (
                f"kube-network-policies enforces the policies, and it reads this kind only with {needed}"
                if agents
                else "kindnetd enforces the policies, and it does not read this kind"
            )
            yield UnreadKinds(ADMIN_GROUP, (kind,), why)


def _reads(container: dict[str, object], flavor: str, argument: str) -> bool:
    arguments = {f"-{a.lstrip('-')}" for a in arguments_of(container)}
    return flavor in str(container.get("image", "")) or argument in arguments


def _ovn(snapshot: ClusterSnapshot) -> Iterator[UnreadKinds]:
    if any(True for _ in running(snapshot, "[^/]*kube-ovn")):
        why = "Kube-OVN reads this kind where its controller has --enable-anp (off by default)"
        yield UnreadKinds(ADMIN_GROUP, ADMIN_KINDS, why, certain=False)
    else:
        why = "OVN-Kubernetes is not among the documented implementations of this kind"
        yield UnreadKinds(ADMIN_GROUP, (_CNP,), why, certain=False)


def _undocumented(title: str) -> Callable[[ClusterSnapshot], Iterator[UnreadKinds]]:
    why = f"{title} is not among the documented implementations of this kind"
    return lambda snapshot: iter((UnreadKinds(ADMIN_GROUP, ADMIN_KINDS, why, certain=False),))


_FINDERS: Mapping[EnforcerName, Callable[[ClusterSnapshot], Iterator[UnreadKinds]]] = {
    EnforcerName.CALICO: _calico,
    EnforcerName.ANTREA: _antrea,
    EnforcerName.KUBE_NETWORK_POLICIES: _kube_network_policies,
    EnforcerName.OVN: _ovn,
    EnforcerName.KUBE_ROUTER: _undocumented("kube-router"),
    EnforcerName.VPC_CNI: _undocumented("the network policy agent of the Amazon VPC CNI"),
    EnforcerName.AZURE_NPM: _undocumented("Azure Network Policy Manager"),
    EnforcerName.WEAVE: _undocumented("Weave Net"),
}
