"""The kinds of object that the tool reads, and which of them (in which version) a server offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError, decoded_answer
from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS, names_an_unknown_policy


class Resource(msgspec.Struct, frozen=True):
    """One kind. `versions` are those the tool understands, best first; empty: the server's preferred one.

    `optional` kinds come with an add-on or with newer servers: a cluster without them has none of these objects.
    `stored_in` is a group that has the same objects under the same plural: where it is offered, it is read instead.
    `for_checks`: only doctor's checks ask for them, and what builds on these.
    """

    kind: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    optional: bool = False
    query: tuple[tuple[str, str], ...] = ()
    stored_in: str = ""
    for_checks: bool = False


class Served(msgspec.Struct, frozen=True):
    """A resource in the version that the server offers."""

    resource: Resource
    version: str

    @property
    def api_version(self) -> str:
        return f"{self.resource.group}/{self.version}" if self.resource.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of the collection, in all namespaces or in one, or of one object."""
        root = f"/apis/{self.api_version}" if self.resource.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace and self.resource.namespaced else ""
        return f"{root}{scope}/{self.resource.plural}" + (f"/{name}" if name else "")


def _add_on(group: str, *kinds: str, version: str = "", namespaced: bool = True) -> tuple[Resource, ...]:
    """Kinds of an add-on, each as "Kind/plural"."""
    split = (kind.split("/") for kind in kinds)
    versions = (version,) if version else ()
    return tuple(Resource(kind, plural, group, versions, namespaced, optional=True) for kind, plural in split)


def _checked(group: str, *kinds: str, namespaced: bool = True) -> tuple[Resource, ...]:
    """Kinds of an add-on that only checks ask for."""
    return tuple(
        msgspec.structs.replace(kind, for_checks=True) for kind in _add_on(group, *kinds, namespaced=namespaced)
    )


def _calico(group: str, stored_in: str = "") -> Iterator[Resource]:
    """Calico's kinds, which are custom resources of one group or (since 3.32) of the other."""
    for kind, plural in (("NetworkPolicy", "networkpolicies"), ("NetworkSet", "networksets")):
        yield Resource(kind, plural, group, (), optional=True, stored_in=stored_in)
    for kind in (
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "Tier",
        "HostEndpoint",
        "IPPool",
        "FelixConfiguration",
        "ClusterInformation",
    ):
        plural = kind.lower().removesuffix("y") + "ies" if kind.endswith("Policy") else f"{kind.lower()}s"
        yield Resource(kind, plural, group, (), namespaced=False, optional=True, stored_in=stored_in)


POD = Resource("Pod", "pods")
SERVICE = Resource("Service", "services")
NODE = Resource("Node", "nodes", namespaced=False)
NAMESPACE = Resource("Namespace", "namespaces", namespaced=False)
# v1 since Kubernetes 1.21, v1beta1 from 1.17 to 1.24.
ENDPOINT_SLICE = Resource("EndpointSlice", "endpointslices", "discovery.k8s.io", ("v1", "v1beta1"))

KINDS: tuple[Resource, ...] = (
    POD,
    SERVICE,
    NODE,
    NAMESPACE,
    ENDPOINT_SLICE,
    Resource("NetworkPolicy", "networkpolicies", "networking.k8s.io"),
    Resource("ServiceAccount", "serviceaccounts"),  # rules of Calico select by their labels
    Resource("ConfigMap", "configmaps"),  # kube-proxy's, CoreDNS's and the CNI's settings; URLs that workloads call
    Resource("Event", "events", query=(("fieldSelector", "type=Warning"),), for_checks=True),
    Resource("Deployment", "deployments", "apps"),
    Resource("StatefulSet", "statefulsets", "apps"),
    Resource("DaemonSet", "daemonsets", "apps"),
    Resource("ReplicaSet", "replicasets", "apps"),  # between a pod and its Deployment
    Resource("Job", "jobs", "batch"),
    Resource("Ingress", "ingresses", "networking.k8s.io", ("v1", "v1beta1"), for_checks=True),
    Resource(
        "IngressClass", "ingressclasses", "networking.k8s.io", ("v1", "v1beta1"), namespaced=False, for_checks=True
    ),
    Resource(
        "HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", ("v2", "v2beta2", "v1"), for_checks=True
    ),
    # Gateway API and its Inference Extension.
    *_checked(
        "gateway.networking.k8s.io",
        "Gateway/gateways",
        "HTTPRoute/httproutes",
        "GRPCRoute/grpcroutes",
        "TCPRoute/tcproutes",
        "TLSRoute/tlsroutes",
        "ReferenceGrant/referencegrants",
    ),
    *_checked("gateway.networking.k8s.io", "GatewayClass/gatewayclasses", namespaced=False),
    *_checked("inference.networking.k8s.io", "InferencePool/inferencepools"),
    *_checked("inference.networking.x-k8s.io", "InferencePool/inferencepools", "InferenceModel/inferencemodels"),
    # Policies beyond networking.k8s.io.
    *_add_on(
        "policy.networking.k8s.io",
        "AdminNetworkPolicy/adminnetworkpolicies",
        "BaselineAdminNetworkPolicy/baselineadminnetworkpolicies",
        "ClusterNetworkPolicy/clusternetworkpolicies",
        namespaced=False,
    ),
    *_add_on("cilium.io", "CiliumNetworkPolicy/ciliumnetworkpolicies", version="v2"),
    *_add_on(
        "cilium.io", "CiliumClusterwideNetworkPolicy/ciliumclusterwidenetworkpolicies", version="v2", namespaced=False
    ),
    *_calico("crd.projectcalico.org"),
    *_calico("projectcalico.org", stored_in="crd.projectcalico.org"),
    *(
        Resource(kind, other.plural, group, (), other.namespaced, optional=True)
        for (group, kind), other in OTHER_KINDS.items()
    ),
    # Amazon VPC CNI, secondary networks, mesh.
    *_checked("crd.k8s.amazonaws.com", "ENIConfig/eniconfigs", namespaced=False),
    *_checked("vpcresources.k8s.aws", "CNINode/cninodes", namespaced=False),
    *_add_on("networking.k8s.aws", "PolicyEndpoint/policyendpoints"),
    *_add_on("k8s.cni.cncf.io", "NetworkAttachmentDefinition/network-attachment-definitions"),
    # AWS resources as objects (ACK), certificates that Ingresses wait for.
    *_checked("ec2.services.k8s.aws", "Subnet/subnets", "SecurityGroup/securitygroups"),
    *_checked("eks.services.k8s.aws", "PodIdentityAssociation/podidentityassociations"),
    *_checked("cert-manager.io", "Certificate/certificates"),
    # Controllers of training jobs and of models that span pods.
    *_add_on("leaderworkerset.x-k8s.io", "LeaderWorkerSet/leaderworkersets"),
    *_add_on("jobset.x-k8s.io", "JobSet/jobsets"),
    *_add_on("kubeflow.org", "PyTorchJob/pytorchjobs", version="v1"),
    *_add_on("kubeflow.org", "MPIJob/mpijobs"),
    *_add_on("trainer.kubeflow.org", "TrainJob/trainjobs"),
    *_add_on("batch.volcano.sh", "Job/jobs"),
    *_add_on("ray.io", "RayCluster/rayclusters", "RayService/rayservices", "RayJob/rayjobs"),
    *_add_on("serving.kserve.io", "InferenceService/inferenceservices", "LLMInferenceService/llminferenceservices"),
    *_add_on("serving.kserve.io", "ClusterServingRuntime/clusterservingruntimes", namespaced=False),
    *_add_on("apps.nvidia.com", "NIMService/nimservices"),
    *_add_on("nvidia.com", "DynamoGraphDeployment/dynamographdeployments"),
    *_add_on("kubeai.org", "Model/models"),
    *_add_on("kaito.sh", "Workspace/workspaces"),
    *_add_on("orchestration.aibrix.ai", "StormService/stormservices", "RayClusterFleet/rayclusterfleets"),
    *_add_on("argoproj.io", "Rollout/rollouts"),
    # Timeouts and targets of gateways, load balancers and meshes.
    *_checked("networking.istio.io", "VirtualService/virtualservices", "Gateway/gateways"),
    *_add_on("networking.istio.io", "ServiceEntry/serviceentries"),
    *_checked("route.openshift.io", "Route/routes"),
    *_checked("k8s.nginx.org", "VirtualServer/virtualservers", "VirtualServerRoute/virtualserverroutes"),
    *_checked(
        "traefik.io",
        "IngressRoute/ingressroutes",
        "IngressRouteTCP/ingressroutetcps",
        "TraefikService/traefikservices",
        "Middleware/middlewares",
        "MiddlewareTCP/middlewaretcps",
        "ServersTransport/serverstransports",
    ),
    *_checked("gateway.envoyproxy.io", "BackendTrafficPolicy/backendtrafficpolicies"),
    *_checked("aigateway.envoyproxy.io", "AIGatewayRoute/aigatewayroutes"),
    *_add_on("serving.knative.dev", "Service/services"),
    *_checked("networking.gke.io", "GCPBackendPolicy/gcpbackendpolicies", "HealthCheckPolicy/healthcheckpolicies"),
    *_checked("cloud.google.com", "BackendConfig/backendconfigs"),
    *_checked("elbv2.k8s.aws", "IngressClassParams/ingressclassparams", namespaced=False),
    *_add_on("operator.tigera.io", "Installation/installations", namespaced=False),
    # Nodes that Karpenter makes, virtual functions, GKE's networks.
    *_checked("karpenter.k8s.aws", "EC2NodeClass/ec2nodeclasses", namespaced=False),
    *_checked("karpenter.sh", "NodePool/nodepools", namespaced=False),
    *_checked(
        "sriovnetwork.openshift.io",
        "SriovNetwork/sriovnetworks",
        "SriovNetworkNodePolicy/sriovnetworknodepolicies",
        "SriovNetworkPoolConfig/sriovnetworkpoolconfigs",
    ),
    *_checked("networking.gke.io", "Network/networks", "GKENetworkParamSet/gkenetworkparamsets", namespaced=False),
    # Dynamic resource allocation (v1 since Kubernetes 1.34).
    *_checked("resource.k8s.io", "ResourceClaim/resourceclaims", "ResourceClaimTemplate/resourceclaimtemplates"),
    *_checked("resource.k8s.io", "DeviceClass/deviceclasses", "ResourceSlice/resourceslices", namespaced=False),
    *_add_on("security.istio.io", "PeerAuthentication/peerauthentications"),
)

# What a run reads that asks no check.
COMMON_KINDS = tuple(kind for kind in KINDS if not kind.for_checks)

# Kinds that have the name of another and are another thing: that these could not be read says nothing of the other.
_NAMESAKES = frozenset(
    {
        ("serving.knative.dev", "Service"),
        ("networking.istio.io", "Gateway"),
        ("batch.volcano.sh", "Job"),
        ("ec2.services.k8s.aws", "Subnet"),
        ("ec2.services.k8s.aws", "SecurityGroup"),
    }
)


def told_name(resource: Resource) -> str:
    """The kind as a reader is told it, with its group where the bare name means another thing."""
    namesake = (resource.group, resource.kind) in _NAMESAKES
    return f"{resource.kind}.{resource.group}" if namesake else resource.kind


class _GroupVersion(msgspec.Struct, frozen=True):
    version: str = ""


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    versions: tuple[_GroupVersion, ...] = ()
    preferred_version: _GroupVersion = _GroupVersion()


class _Groups(msgspec.Struct, frozen=True):
    groups: tuple[_Group, ...] = ()


class _ApiResource(msgspec.Struct, frozen=True):
    name: str = ""


class _ApiResources(msgspec.Struct, frozen=True):
    resources: tuple[_ApiResource, ...] = ()


def discover(client: KubeClient, wanted: Iterable[Resource] = KINDS) -> tuple[list[Served], list[LeftOut]]:
    """Which of the wanted kinds the server offers. One request for the groups and one a group version that matters.

    Left out are kinds that the server offers in no version the tool understands; an optional kind that it does not serve
    at all has no objects there, and is not mentioned.
    """
    doing = "ask which APIs there are"
    offered_groups: _Groups = decoded_answer(client.request("GET", "/apis", doing=doing), _Groups, doing)
    groups = {group.name: group for group in offered_groups.groups}
    listed: dict[str, frozenset[str] | ApiError] = {}
    served_resources: list[Served] = []
    missing: list[LeftOut] = []
    for resource in wanted:
        if _is_stored_elsewhere(client, resource, groups, listed):
            continue
        served = _served(client, resource, groups, listed)
        if isinstance(served, Served):
            served_resources.append(served)
        elif served is not None:
            missing.append(served)
    return served_resources, missing


def _is_stored_elsewhere(
    client: KubeClient, resource: Resource, groups: dict[str, _Group], listed: dict[str, frozenset[str] | ApiError]
) -> bool:
    """Whether the group in which its objects are stored is served: they are read there."""
    versions = (v.version for v in groups.get(resource.stored_in, _Group()).versions)
    offered = (_resources_of(client, f"{resource.stored_in}/{version}", listed) for version in versions)
    return any(resource.plural in plurals for plurals in offered if isinstance(plurals, frozenset))


def _served(
    client: KubeClient, resource: Resource, groups: dict[str, _Group], listed: dict[str, frozenset[str] | ApiError]
) -> Served | LeftOut | None:
    """The kind in the best version that is offered, or why it can't be read. None: there are no objects of it."""
    failed: ApiError | None = None
    for version in _versions(resource, groups):
        served = Served(resource, version)
        if not resource.group:
            return served
        offered = _resources_of(client, served.api_version, listed)
        if isinstance(offered, ApiError):
            failed = offered  # an aggregated API that does not answer; another version may
        elif resource.plural in offered:
            return served
    if failed is not None:
        return LeftOut(told_name(resource), failed.message)
    group = groups.get(resource.group, _Group())
    unknown = [v.version for v in group.versions if v.version not in resource.versions]
    others = {version: _resources_of(client, f"{group.name}/{version}", listed) for version in unknown}
    offering = [v for v, plurals in others.items() if isinstance(plurals, frozenset) and resource.plural in plurals]
    if not offering and resource.optional:
        return None
    reason = f"the server does not offer {resource.group} {' or '.join(resource.versions)}"
    return LeftOut(told_name(resource), reason + (f", but {' and '.join(offering)}" if offering else ""))


def _versions(resource: Resource, groups: dict[str, _Group]) -> list[str]:
    if not resource.group:
        return list(resource.versions)
    group = groups.get(resource.group)
    if group is None:
        return []
    offered = [v.version for v in group.versions]
    if resource.versions:
        return [v for v in resource.versions if v in offered]
    preferred = group.preferred_version.version
    return [preferred, *(v for v in offered if v != preferred)]


def _resources_of(
    client: KubeClient, api_version: str, listed: dict[str, frozenset[str] | ApiError]
) -> frozenset[str] | ApiError:
    """The plurals of a group version; none where it has gone since it was named, or is not served yet (404)."""
    if api_version not in listed:
        doing = f"ask what {api_version} offers"
        try:
            text = client.request("GET", f"/apis/{api_version}", doing=doing)
        except ApiError as error:
            if error.status == 401:
                raise
            listed[api_version] = frozenset() if error.status == 404 else error
        else:
            offered: _ApiResources = decoded_answer(text, _ApiResources, doing)
            listed[api_version] = frozenset(resource.name for resource in offered.resources)
    return listed[api_version]


_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
_MOST_UNKNOWN = 50  # kinds


class _Kind(msgspec.Struct, frozen=True):
    kind: str = ""


class _OfferedResource(msgspec.Struct, frozen=True, rename="camel"):
    resource: str = ""
    response_kind: _Kind = _Kind()
    scope: str = ""
    verbs: tuple[str, ...] = ()


class _OfferedVersion(msgspec.Struct, frozen=True):
    version: str = ""
    resources: tuple[_OfferedResource, ...] = ()


class _GroupName(msgspec.Struct, frozen=True):
    name: str = ""


class _OfferedGroup(msgspec.Struct, frozen=True):
    metadata: _GroupName = _GroupName()
    versions: tuple[_OfferedVersion, ...] = ()


class _Offered(msgspec.Struct, frozen=True):
    items: tuple[_OfferedGroup, ...] = ()


def unknown_policies(client: KubeClient) -> list[Served]:
    """Kinds that are policies by their names, though no entry names them, each in the version that the server prefers: what they
    may stop is not taken for what passes.

    One request asks for all kinds at once (Kubernetes 1.27 and later; API concepts, "Aggregated discovery"). Of an older server,
    which answers in another form, nothing is taken.
    """
    doing = "ask which kinds there are"
    try:
        text = client.request("GET", "/apis", accept=f"{_AGGREGATED},application/json", doing=doing)
        offered: _Offered = decoded_answer(text, _Offered, doing)
    except GenainetError:
        return []
    known = {(kind.group, kind.kind) for kind in KINDS}
    found: dict[tuple[str, str], Served] = {}
    for served in (served for group in offered.items for served in _policies(group)):
        found.setdefault((served.resource.group, served.resource.kind), served)
    return [served for key, served in found.items() if key not in known][:_MOST_UNKNOWN]


def _policies(group: _OfferedGroup) -> Iterator[Served]:
    """The kinds of policies in a group's versions, the preferred one first."""
    name = group.metadata.name
    for version in group.versions:
        for offered in version.resources:
            kind = offered.response_kind.kind
            if "list" in offered.verbs and names_an_unknown_policy(name, kind):
                namespaced = offered.scope == "Namespaced"
                yield Served(Resource(kind, offered.resource, name, (), namespaced, optional=True), version.version)
