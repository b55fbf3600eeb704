"""The ends of a flow, as policies see them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Node, Pod
from kubectl_genainet.model.target import pod_named
from kubectl_genainet.policy.matching.api_servers import API_SERVER
from kubectl_genainet.policy.matching.cidr import Address, address_of
from kubectl_genainet.policy.matching.mesh import MeshLevel, linkerd_default, linkerd_mesh_default, mesh_level
from kubectl_genainet.policy.model import PolicyEndpoint

# Amazon EKS user guide, Fargate; Kubernetes, well-known labels.
_FARGATE, _COMPUTE, _SYSTEM = "eks.amazonaws.com/fargate-profile", "eks.amazonaws.com/compute-type", "kubernetes.io/os"


class PartyKind(Enum):
    POD = "pod"
    HOST = "host"  # a node, or a pod that uses its node's network
    OUTSIDE = "outside"  # an address that is no pod's and no node's, or a domain name


class NamedPort(msgspec.Struct, frozen=True):
    name: str
    protocol: str
    port: int
    sidecar: bool = False


class PolicyParty(msgspec.Struct, frozen=True):
    """One end. `address` is None where it isn't known; `node` is the node it is or runs on (empty: not known).

    `namespace_known` is False where the Namespace object wasn't read: of its labels only the name's is known then.
    """

    kind: PartyKind
    text: str
    namespace: str = ""
    name: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    namespace_labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    namespace_known: bool = True
    address: Address | None = None
    node: str = ""
    host_ip: Address | None = None
    node_labels: Mapping[str, str] | None = None
    service_account: str = ""
    ports: tuple[NamedPort, ...] = ()
    domain: str = ""
    owned: bool = True  # by a controller; of a pod
    platform: str = ""  # of a pod: what runs it, where that is no node with Linux of its own (Fargate, Windows)
    mesh: MeshLevel = MeshLevel.OUTSIDE
    linkerd: str = ""  # what Linkerd's proxy of the pod admits by default; empty where it has none
    versions: tuple[int, ...] = ()  # the IP versions of a pod's addresses; empty where they are not known
    api_server: bool = False  # it is one, though its address was not read

    def same_pod(self, other: PolicyParty) -> bool:
        return bool(self.name) and (self.namespace, self.name) == (other.namespace, other.name)

    def runs(self, pod: PolicyParty) -> bool | None:
        """Whether this node runs `pod`; None where the pod's node isn't known."""
        if pod.host_ip is not None and pod.host_ip == self.address:
            return True
        if pod.node and self.node:
            return pod.node == self.node
        return None if not pod.node and pod.host_ip is None else False


class Parties:
    """Finds the party behind an endpoint."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self._namespace_labels: dict[str, dict[str, str]] = {}
        self._node_labels = {n.metadata.name: n.metadata.labels for n in snapshot.nodes}
        self._annotations = {o.name: o.annotations for o in snapshot.of("Namespace", "")}
        self._mesh_default = linkerd_mesh_default(snapshot)
        self._host_pods = {
            address: pod
            for pod in snapshot.host_pods
            if pod.spec.node_name
            for address in filter(None, map(address_of, pod.ips))
        }

    def of(self, endpoint: PolicyEndpoint, version: int = 0) -> PolicyParty:
        """The party of an endpoint; of a pod's addresses the one of IP version `version`, if it is not 0.

        Raises InputError for a pod that isn't there and for an address that isn't one.
        """
        if endpoint.name:
            pod = pod_named(self.snapshot, endpoint.namespace, endpoint.name)
            return self.of_pod(pod, endpoint.ip, version)
        address = address_of(endpoint.ip) if endpoint.ip else None
        if endpoint.ip and address is None:
            raise InputError(f"{endpoint.ip!r} is not an IP address")
        if endpoint.domain == API_SERVER:
            return PolicyParty(PartyKind.OUTSIDE, "the API server", api_server=True)
        if endpoint.domain:
            return PolicyParty(
                PartyKind.OUTSIDE, endpoint.domain, address=address, domain=endpoint.domain.lower().rstrip(".")
            )
        if address is None:
            raise InputError("a pod or an address without a name")
        return self.of_address(address)

    def of_address(self, address: Address) -> PolicyParty:
        """The party that has an address: a pod, a node, or something outside the cluster."""
        text = str(address)
        pod = self.snapshot.pod_at(text)
        if pod is not None:
            return self.of_pod(pod, text)
        node = self.snapshot.node_at(text)
        if node is not None:
            return self._of_node(node, address)
        host_pod = self._host_pods.get(address)
        if host_pod is not None:
            name = host_pod.spec.node_name
            return PolicyParty(
                PartyKind.HOST, text, address=address, node=name, node_labels=self._node_labels.get(name)
            )
        return PolicyParty(PartyKind.OUTSIDE, text, address=address)

    def of_pod(self, pod: Pod, ip: str = "", version: int = 0) -> PolicyParty:
        meta = pod.metadata
        own = [a for a in map(address_of, pod.ips) if a is not None]
        address = next(
            (a for a in ([address_of(ip)] if ip else own) if a is not None and version in (0, a.version)), None
        )
        host = pod.spec.host_network
        host_ip = address_of(pod.status.host_ip) if pod.status.host_ip else None
        return PolicyParty(
            kind=PartyKind.HOST if host else PartyKind.POD,
            text=f"{meta.namespace}/{meta.name}",
            namespace=meta.namespace,
            name=meta.name,
            labels=meta.labels,
            namespace_labels=self._labels_of(meta.namespace),
            namespace_known=meta.namespace in self.snapshot.namespaces,
            address=address if address is not None else host_ip if host else None,
            node=pod.spec.node_name,
            host_ip=host_ip,
            node_labels=self._node_labels.get(pod.spec.node_name),
            service_account=pod.spec.service_account_name or "default",
            versions=tuple(sorted({a.version for a in own})),
            mesh=mesh_level(pod, self._labels_of(meta.namespace)),
            linkerd=linkerd_default(pod, self._annotations.get(meta.namespace, {}), self._mesh_default),
            owned=bool(meta.owner_references),
            platform=self._platform(pod),
            ports=_named_ports(pod),
        )

    def _of_node(self, node: Node, address: Address) -> PolicyParty:
        meta = node.metadata
        return PolicyParty(
            PartyKind.HOST, f"node {meta.name}", address=address, node=meta.name, node_labels=meta.labels
        )

    def _platform(self, pod: Pod) -> str:
        node_labels = self._node_labels.get(pod.spec.node_name, {})
        if _FARGATE in pod.metadata.labels or node_labels.get(_COMPUTE) == "fargate":
            return "Fargate"
        return "Windows" if node_labels.get(_SYSTEM) == "windows" else ""

    def _labels_of(self, namespace: str) -> dict[str, str]:
        labels = self._namespace_labels.get(namespace)
        if labels is None:
            labels = self._namespace_labels[namespace] = self.snapshot.namespace_labels(namespace)
        return labels


def _named_ports(pod: Pod) -> tuple[NamedPort, ...]:
    sidecars = frozenset(pod.sidecar_ports)
    return tuple(NamedPort(p.name, p.protocol, p.container_port, p in sidecars) for p in pod.ports if p.name)
