"""Kubernetes API objects, as far as the tool reads them: field names and nesting are the API's own.

`KubeObject.raw` has no nulls (in the Kubernetes API null and absent are the same): whoever reads objects calls
`without_nulls` first. Typed views are decoded from it with `KubeObject.decode`.
Source: Kubernetes API reference, core/v1, discovery.k8s.io/v1 and v1beta1.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import ObjectRef

T = TypeVar("T")
SERVICE_LABEL = "kubernetes.io/service-name"  # of an EndpointSlice
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
# The label's value on objects of a kustomization that is built here: kubectl puts its own version.
BUILT_HERE = "kustomize-VERSION"


# Kinds of policies that other projects have too, with the groups whose own they are.
_OWN_GROUPS = {"NetworkPolicy": ("networking.k8s.io",), "ClusterNetworkPolicy": ("policy.networking.k8s.io",)}
_PLAIN = frozenset((str, int, bool, float))


def without_nulls(value: Any) -> Any:
    """A copy of a JSON value without its null members (API semantics: null is absent)."""
    if isinstance(value, dict):
        return {k: v if v.__class__ in _PLAIN else without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [v if v.__class__ in _PLAIN else without_nulls(v) for v in value if v is not None]
    return value


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class KubeObject(msgspec.Struct, frozen=True):
    """One object as the API (or a file) gave it. `source` names the file and document; empty for the API. `line` is where
    it begins in the file; 0 where that is not known. `unplaced`: neither the manifest nor the user names its namespace, so
    that `default`, or a word that asks to be replaced, is a guess."""

    raw: dict[str, Any]
    source: str = ""
    line: int = 0
    unplaced: bool = False

    @property
    def kind(self) -> str:
        """Empty where it is no text: of what has no kind only a policy is kept."""
        kind = self.raw.get("kind")
        return kind if isinstance(kind, str) else ""

    @property
    def api_version(self) -> str:
        version = self.raw.get("apiVersion")
        return version if isinstance(version, str) else ""

    @property
    def group(self) -> str:
        """The API group; empty for core/v1."""
        return self.api_version.rpartition("/")[0]

    @property
    def metadata(self) -> dict[str, Any]:
        """Empty where it is none: a recording may hold anything."""
        metadata = self.raw.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """Empty where it is a list or a mapping, which no object has."""
        namespace = self.metadata.get("namespace", "")
        return "" if isinstance(namespace, list | dict) else str(namespace)

    @property
    def owner_references(self) -> list[dict[str, Any]]:
        references = self.metadata.get("ownerReferences")
        return [ref for ref in references if isinstance(ref, dict)] if isinstance(references, list) else []

    @property
    def labels(self) -> dict[str, str]:
        labels = self.metadata.get("labels", {})
        return labels if isinstance(labels, dict) else {}

    @property
    def annotations(self) -> dict[str, str]:
        annotations = self.metadata.get("annotations", {})
        return annotations if isinstance(annotations, dict) else {}

    @property
    def ref(self) -> ObjectRef:
        """Of a kind that Kubernetes has too, one of another group is told from its own as kubectl does: KIND.GROUP."""
        own = _OWN_GROUPS.get(self.kind)
        kind = self.kind if own is None or "." not in self.group or self.group in own else f"{self.kind}.{self.group}"
        return ObjectRef(kind or "policy", self.name or "(without a name)", self.namespace)

    @property
    def pod_containers(self) -> list[dict[str, Any]]:
        """The containers in the pod template of a DaemonSet or Deployment, or of a pod."""
        spec = self.raw.get("spec")
        template = spec.get("template") if isinstance(spec, dict) and self.kind != "Pod" else self.raw
        pod = template.get("spec") if isinstance(template, dict) else None
        containers = pod.get("containers") if isinstance(pod, dict) else None
        return [c for c in containers or () if isinstance(c, dict)]

    def decode(self, shape: type[T]) -> T:
        """The object as `shape`; raises InputError with file, object and field where the types don't fit."""
        try:
            return msgspec.convert(self.raw, shape)
        except msgspec.ValidationError as error:
            problem, _, path = str(error).partition(" - at `$.")
            raise InputError(problem, source=self.source, obj=str(self.ref), field=path.rstrip("`")) from None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class Container(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""  # Always makes a sidecar of an init container


class DnsOption(msgspec.Struct, frozen=True):
    name: str = ""
    value: str = ""


class PodDnsConfig(msgspec.Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    hostname: str = ""
    dns_policy: str = "ClusterFirst"
    dns_config: PodDnsConfig = PodDnsConfig()
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    service_account_name: str = ""


class PodIP(msgspec.Struct, frozen=True):
    ip: str = ""


class PodCondition(msgspec.Struct, frozen=True):
    type: str
    status: str = ""


class PodAddresses(msgspec.Struct, frozen=True, rename="camel"):
    """Of a pod's status: its phase, and its addresses."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")

    @property
    def ips(self) -> tuple[str, ...]:
        return tuple(p.ip for p in self.pod_ips if p.ip) or ((self.pod_ip,) if self.pod_ip else ())

    @property
    def finished(self) -> bool:
        """Succeeded and Failed pods keep their address in status, but it may belong to another pod by now."""
        return self.phase in ("Succeeded", "Failed")


class PodStatus(PodAddresses, frozen=True, rename="camel"):
    host_ip: str = msgspec.field(default="", name="hostIP")
    conditions: tuple[PodCondition, ...] = ()


class PodNetwork(msgspec.Struct, frozen=True, rename="camel"):
    """Of a pod's spec: whose network it uses."""

    host_network: bool = False


class PodPlace(msgspec.Struct, frozen=True, rename="camel"):
    """A pod as far as its addresses are concerned: decoded in a tenth of a Pod's time."""

    spec: PodNetwork = PodNetwork()
    status: PodAddresses = PodAddresses()


class Pod(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef("Pod", self.metadata.name, self.metadata.namespace)

    @property
    def ips(self) -> tuple[str, ...]:
        return self.status.ips

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def finished(self) -> bool:
        return self.status.finished

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        """Declared ports of the containers and of the sidecars; those of other init containers end before the pod starts."""
        return (*(p for c in self.spec.containers for p in c.ports), *self.sidecar_ports)

    @property
    def sidecar_ports(self) -> tuple[ContainerPort, ...]:
        """Declared ports of the init containers that keep running."""
        return tuple(p for c in self.spec.init_containers if c.restart_policy == "Always" for p in c.ports)


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0  # 0: same as port
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(msgspec.Struct, frozen=True, rename="camel"):
    timeout_seconds: int = 10800


class SessionAffinityConfig(msgspec.Struct, frozen=True, rename="camel"):
    client_ip: ClientIPConfig = msgspec.field(default=ClientIPConfig(), name="clientIP")


class LoadBalancerIngress(msgspec.Struct, frozen=True, rename="camel"):
    ip: str = ""
    hostname: str = ""
    ip_mode: str = "VIP"  # Proxy: the balancer's address is not the nodes' business


class LoadBalancerStatus(msgspec.Struct, frozen=True, rename="camel"):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    external_traffic_policy: str = "Cluster"
    internal_traffic_policy: str = "Cluster"
    health_check_node_port: int = 0
    load_balancer_source_ranges: tuple[str, ...] = ()
    publish_not_ready_addresses: bool = False
    ip_families: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef("Service", self.metadata.name, self.metadata.namespace)

    @property
    def cluster_ips(self) -> tuple[str, ...]:
        """ClusterIPs of all families; empty for headless and ExternalName Services."""
        ips = self.spec.cluster_ips or (self.spec.cluster_ip,)
        return tuple(ip for ip in ips if ip and ip != "None")

    @property
    def external_addresses(self) -> tuple[str, ...]:
        """externalIPs and the load balancer's addresses."""
        balancer = tuple(i.ip for i in self.status.load_balancer.ingress if i.ip)
        return (*self.spec.external_ips, *balancer)


class EndpointConditions(msgspec.Struct, frozen=True):
    ready: bool = True  # API: nil means ready
    serving: bool | None = None  # API: nil defers to ready
    terminating: bool = False


class TargetRef(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str = ""
    topology: dict[str, str] = {}  # v1beta1
    target_ref: TargetRef | None = None

    @property
    def node(self) -> str:
        return self.node_name or self.topology.get("kubernetes.io/hostname", "")


class EndpointPort(msgspec.Struct, frozen=True, rename="camel"):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service(self) -> str:
        """Name of the Service (in the slice's namespace) that the slice belongs to; empty if none."""
        return self.metadata.labels.get(SERVICE_LABEL, "")


class NodeAddress(msgspec.Struct, frozen=True):
    type: str
    address: str


class NodeStatus(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[NodeAddress, ...] = ()
    allocatable: dict[str, Any] = {}
    capacity: dict[str, Any] = {}


class NodeSpec(msgspec.Struct, frozen=True, rename="camel"):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    provider_id: str = msgspec.field(default="", name="providerID")


class Node(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ips(self) -> tuple[str, ...]:
        return tuple(a.address for a in self.status.addresses if a.type in ("InternalIP", "ExternalIP"))


class Namespace(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
