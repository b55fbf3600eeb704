"""Which pods a policy that is not evaluated may concern, and whose traffic with them.

Where the object does not say so in a form that is read here, it is all within the policy's reach. Sources: Istio,
"AuthorizationPolicy" and "Sidecar"; Kuma, "Mutual TLS"; Amazon EKS, "Create a Node Class"; KubeArmor, policy specification;
OVN-Kubernetes, "User Defined Network"; Kube-OVN, "Subnet"; Linkerd, "Egress Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.left_out.of_nodes import is_of_nodes_alone
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS
from kubectl_genainet.policy.left_out.served import SERVED
from kubectl_genainet.policy.matching.cidr import block_of
from kubectl_genainet.policy.matching.peers import (
    AllOfPeer,
    AnyOfPeer,
    AnyPeer,
    BlockPeer,
    NotPeer,
    Peer,
    PodsPeer,
)
from kubectl_genainet.policy.matching.selectors import (
    EVERYTHING,
    Operator,
    RawSelector,
    Requirement,
    Selector,
    selector_of,
)
from kubectl_genainet.policy.model import Term
from kubectl_genainet.policy.where import Where

MESH_ROOT = "istio-system"
_DEFAULT_VPC = "ovn-cluster"
_OF_POLICIES = frozenset(
    {
        "enable-policy",
        "policy-audit-mode",
        "labels",
        "policy-cidr-match-mode",
        "enable-k8s-networkpolicy",
        "allow-localhost",
    }
)
_KUMA_SYSTEM = ("kuma-system", "kong-mesh-system")
_INJECTED = Selector((Requirement("kuma.io/sidecar-injection", Operator.IN, ("enabled", "true")),))
_IN_KUMA = AnyOfPeer((PodsPeer(_INJECTED), PodsPeer(namespaces=_INJECTED)))
_POD_PART = {"podSelector", "namespaceSelector"}


class PolicyScope(msgspec.Struct, frozen=True):
    """`subject` and `own` are both terms of the policy's own side; `peers` None stands for everybody."""

    subject: Peer
    peers: tuple[Peer, ...] | None = None
    own: Peer | None = None


EVERYBODY = PolicyScope(AnyPeer())


def scope_of(obj: KubeObject) -> PolicyScope | None:
    """The scope of an object; None where it restricts nothing."""
    spec = _mapping(obj.raw.get("spec"))
    reader = _READERS.get((obj.group, obj.kind))
    return reader(obj, spec) if reader is not None else PolicyScope(_subject(obj, spec))


def _authorization(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    if spec.get("action") == "AUDIT":
        return None
    return PolicyScope(_workloads(obj, _mapping(spec.get("selector")).get("matchLabels")))


def _sidecar(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """Only where it closes the way to what the mesh does not know."""
    if _mapping(spec.get("outboundTrafficPolicy")).get("mode") != "REGISTRY_ONLY":
        return None
    return PolicyScope(_workloads(obj, _mapping(spec.get("workloadSelector")).get("labels")))


def _workloads(obj: KubeObject, labels: Any) -> Peer:
    namespace = "" if obj.namespace == MESH_ROOT else obj.namespace
    if not isinstance(labels, dict):
        return PodsPeer(namespace=namespace)
    wanted = tuple(Requirement(str(k), Operator.IN, (str(v),)) for k, v in labels.items())
    return PodsPeer(Selector(wanted), namespace=namespace)


def _egress_network(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    return None if spec.get("trafficPolicy") == "Allow" else PolicyScope(PodsPeer(namespace=obj.namespace))


def _mutual_tls_of_kuma(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """A mesh with mutual TLS: its proxies refuse what no MeshTrafficPermission admits."""
    if not _mapping(spec.get("mtls")).get("enabledBackend"):
        return None
    return PolicyScope(_IN_KUMA)


def _mesh_permission(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """Who may call: in the control plane's own namespace it is about the whole mesh."""
    everywhere = obj.namespace in _KUMA_SYSTEM or obj.labels.get("kuma.io/policy-role") == "system"
    return PolicyScope(_IN_KUMA) if everywhere else PolicyScope(_subject(obj, spec))


def _node_class(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    return EVERYBODY if spec.get("networkPolicy") == "DefaultDeny" else None


def _node_config(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """Only where it changes what agents make of policies."""
    return EVERYBODY if _mapping(spec.get("defaults")).keys() & _OF_POLICIES else None


def _kubearmor(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """Only where it is about the network."""
    if not _mapping(spec.get("network")).get("matchProtocols"):
        return None
    return PolicyScope(_workloads(obj, _mapping(spec.get("selector")).get("matchLabels")))


def _own_network(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """A primary network of some namespaces: pods of others are not on it."""
    network = _mapping(spec.get("network", spec))
    layers = [_mapping(network.get(layer)) for layer in ("layer2", "layer3")]
    if all(layer.get("role") != "Primary" for layer in layers):
        return None
    if obj.namespace and "network" not in spec:
        members: Peer = PodsPeer(namespace=obj.namespace)
    else:
        members = PodsPeer(namespaces=_selector(obj, spec.get("namespaceSelector")))
    others = NotPeer(members, Term.NAMESPACE, "a pod of another network", "")
    return PolicyScope(members, (AllOfPeer((PodsPeer(), others)),))


def _subnet(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    """A subnet with access lists, a private one, or one of a network of its own."""
    apart = spec.get("private") is True or str(spec.get("vpc") or _DEFAULT_VPC) != _DEFAULT_VPC
    if not spec.get("acls") and not apart:
        return None
    try:
        blocks = [block_of(text, Where(obj, "spec.cidrBlock")) for text in str(spec.get("cidrBlock", "")).split(",")]
    except InputError:
        return EVERYBODY
    own = AnyOfPeer(tuple(BlockPeer(block, (), "spec.cidrBlock") for block in blocks))
    beyond = NotPeer(own, Term.ADDRESS, "an address outside the subnet", "spec.cidrBlock")
    return PolicyScope(AnyPeer(), None if spec.get("acls") else (beyond,), own)


def _antrea(obj: KubeObject, spec: dict[str, Any]) -> PolicyScope | None:
    return None if is_of_nodes_alone(obj) else PolicyScope(_subject(obj, spec))


_READERS: Mapping[tuple[str, str], Callable[[KubeObject, dict[str, Any]], PolicyScope | None]] = {
    ("security.istio.io", "AuthorizationPolicy"): _authorization,
    ("networking.istio.io", "Sidecar"): _sidecar,
    ("policy.linkerd.io", "EgressNetwork"): _egress_network,
    ("kuma.io", "Mesh"): _mutual_tls_of_kuma,
    ("kuma.io", "MeshTrafficPermission"): _mesh_permission,
    ("eks.amazonaws.com", "NodeClass"): _node_class,
    ("cilium.io", "CiliumNodeConfig"): _node_config,
    ("security.policy.gloo.solo.io", "AccessPolicy"): lambda obj, spec: EVERYBODY,
    ("security.kubearmor.com", "KubeArmorPolicy"): _kubearmor,
    ("security.kubearmor.com", "KubeArmorClusterPolicy"): _kubearmor,
    ("k8s.ovn.org", "UserDefinedNetwork"): _own_network,
    ("k8s.ovn.org", "ClusterUserDefinedNetwork"): _own_network,
    ("kubeovn.io", "Subnet"): _subnet,
    ("crd.antrea.io", "ClusterNetworkPolicy"): _antrea,
}


def _subject(obj: KubeObject, spec: dict[str, Any]) -> Peer:
    """The pods that the policy may select: by its podSelector, subject or appliedTo where that can be read."""
    applied = spec.get("appliedTo")
    if isinstance(applied, list) and applied:
        parts = tuple(
            _pods(obj, subject if isinstance(subject, dict) and set(subject) <= _POD_PART else {})
            for subject in applied
        )
        return parts[0] if len(parts) == 1 else AnyOfPeer(parts)
    if isinstance(spec.get("subject"), dict):
        return _administered(obj, spec["subject"])
    return _pods(obj, spec)


def _may_be_cluster_scoped(obj: KubeObject) -> bool:
    """Whether the namespace of an object, of a kind that is not known, may be none of its own."""
    if (obj.group, obj.kind) in OTHER_KINDS or (obj.group, obj.kind) in SERVED:
        return False
    return obj.unplaced or obj.kind.startswith(("Cluster", "Global"))


def _administered(obj: KubeObject, subject: dict[str, Any]) -> Peer:
    """The subject of an administrator's policy, which is cluster-scoped."""
    if isinstance(subject.get("namespaces"), dict):
        return PodsPeer(namespaces=_selector(obj, subject["namespaces"]))
    pods = _mapping(subject.get("pods"))
    return PodsPeer(_selector(obj, pods.get("podSelector")), _selector(obj, pods.get("namespaceSelector")))


def _pods(obj: KubeObject, part: dict[str, Any]) -> Peer:
    pods, namespaces = (_selector(obj, part.get(field)) for field in ("podSelector", "namespaceSelector"))
    if obj.namespace and not _may_be_cluster_scoped(obj):
        return PodsPeer(pods, namespace=obj.namespace)
    return PodsPeer(pods, namespaces) if pods.requirements or namespaces.requirements else AnyPeer()


def _selector(obj: KubeObject, raw: Any) -> Selector:
    """A selector; one that selects all where it can't be read."""
    if not isinstance(raw, dict):
        return EVERYTHING
    try:
        return selector_of(msgspec.convert(raw, RawSelector), Where(obj).at("spec"))
    except (InputError, msgspec.ValidationError):
        return EVERYTHING


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
