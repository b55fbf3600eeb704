"""The kinds of object that the tool reads, and which of them (in which version) a server offers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS


class Resource(msgspec.Struct, frozen=True):
    """One kind. `versions` are those the tool understands, best first; empty: the server's preferred one.

    `optional` kinds come with an add-on or with newer servers: a cluster without them has none of these objects.
    """

    kind: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    optional: bool = False
    query: tuple[tuple[str, str], ...] = ()


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
    Resource("Event", "events", query=(("fieldSelector", "type=Warning"),)),
    Resource("Deployment", "deployments", "apps"),
    Resource("StatefulSet", "statefulsets", "apps"),
    Resource("DaemonSet", "daemonsets", "apps"),
    Resource("ReplicaSet", "replicasets", "apps"),  # between a pod and its Deployment
    Resource("Job", "jobs", "batch"),
    Resource("Ingress", "ingresses", "networking.k8s.io", ("v1", "v1beta1")),
    Resource("IngressClass", "ingressclasses", "networking.k8s.io", ("v1", "v1beta1"), namespaced=False),
    Resource("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", ("v2", "v2beta2", "v1")),
    # Gateway API and its Inference Extension.
    *_add_on(
        "gateway.networking.k8s.io",
        "Gateway/gateways",
        "HTTPRoute/httproutes",
        "GRPCRoute/grpcroutes",
        "TCPRoute/tcproutes",
        "TLSRoute/tlsroutes",
        "ReferenceGrant/referencegrants",
    ),
    *_add_on("gateway.networking.k8s.io", "GatewayClass/gatewayclasses", namespaced=False),
    *_add_on("inference.networking.k8s.io", "InferencePool/inferencepools"),
    *_add_on("inference.networking.x-k8s.io", "InferencePool/inferencepools", "InferenceModel/inferencemodels"),
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
    *_add_on("crd.projectcalico.org", "NetworkPolicy/networkpolicies", "NetworkSet/networksets"),
    *_add_on(
        "crd.projectcalico.org",
        "GlobalNetworkPolicy/globalnetworkpolicies",
        "GlobalNetworkSet/globalnetworksets",
        "IPPool/ippools",
        "FelixConfiguration/felixconfigurations",
        namespaced=False,
    ),
    *(
        Resource(kind, other.plural, group, (), other.namespaced, optional=True)
        for (group, kind), other in OTHER_KINDS.items()
    ),
    # Amazon VPC CNI, secondary networks, mesh.
    *_add_on("crd.k8s.amazonaws.com", "ENIConfig/eniconfigs", namespaced=False),
    *_add_on("vpcresources.k8s.aws", "CNINode/cninodes", namespaced=False),
    *_add_on("networking.k8s.aws", "PolicyEndpoint/policyendpoints"),
    *_add_on("k8s.cni.cncf.io", "NetworkAttachmentDefinition/network-attachment-definitions"),
    # AWS resources as objects (ACK), certificates that Ingresses wait for.
    *_add_on("ec2.services.k8s.aws", "Subnet/subnets", "SecurityGroup/securitygroups"),
    *_add_on("cert-manager.io", "Certificate/certificates"),
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
    *_add_on(
        "networking.istio.io", "VirtualService/virtualservices", "Gateway/gateways", "ServiceEntry/serviceentries"
    ),
    *_add_on("route.openshift.io", "Route/routes"),
    *_add_on("gateway.envoyproxy.io", "BackendTrafficPolicy/backendtrafficpolicies"),
    *_add_on("aigateway.envoyproxy.io", "AIGatewayRoute/aigatewayroutes"),
    *_add_on("serving.knative.dev", "Service/services"),
    *_add_on("networking.gke.io", "GCPBackendPolicy/gcpbackendpolicies"),
    *_add_on("cloud.google.com", "BackendConfig/backendconfigs"),
    *_add_on("elbv2.k8s.aws", "IngressClassParams/ingressclassparams", namespaced=False),
    *_add_on("operator.tigera.io", "Installation/installations", namespaced=False),
    # Nodes that Karpenter makes, virtual functions, GKE's networks.
    *_add_on("karpenter.k8s.aws", "EC2NodeClass/ec2nodeclasses", namespaced=False),
    *_add_on("karpenter.sh", "NodePool/nodepools", namespaced=False),
    *_add_on(
        "sriovnetwork.openshift.io",
        "SriovNetwork/sriovnetworks",
        "SriovNetworkNodePolicy/sriovnetworknodepolicies",
        "SriovNetworkPoolConfig/sriovnetworkpoolconfigs",
    ),
    *_add_on("networking.gke.io", "Network/networks", "GKENetworkParamSet/gkenetworkparamsets", namespaced=False),
    # Dynamic resource allocation (v1 since Kubernetes 1.34).
    *_add_on("resource.k8s.io", "ResourceClaim/resourceclaims", "ResourceClaimTemplate/resourceclaimtemplates"),
    *_add_on("resource.k8s.io", "DeviceClass/deviceclasses", "ResourceSlice/resourceslices", namespaced=False),
    *_add_on("security.istio.io", "PeerAuthentication/peerauthentications"),
)


# Kinds that have the name of another and are another thing: that these could not be read says nothing of the other.
_NAMESAKES = frozenset(
    {("serving.knative.dev", "Service"), ("networking.istio.io", "Gateway"), ("batch.volcano.sh", "Job")}
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
    groups = {
        g.name: g
        for g in msgspec.json.decode(
            client.request("GET", "/apis", doing="ask which APIs there are"), type=_Groups
        ).groups
    }
    listed: dict[str, frozenset[str]] = {}
    served_resources: list[Served] = []
    missing: list[LeftOut] = []
    for resource in wanted:
        for version in _versions(resource, groups):
            served = Served(resource, version)
            if not resource.group or resource.plural in _resources_of(client, served.api_version, listed):
                served_resources.append(served)
                break
        else:
            group = groups.get(resource.group, _Group())
            others = [v.version for v in group.versions if v.version not in resource.versions]
            offered = [v for v in others if resource.plural in _resources_of(client, f"{group.name}/{v}", listed)]
            if offered or not resource.optional:
                reason = f"the server does not offer {resource.group} {' or '.join(resource.versions)}"
                as_others = f", but {' and '.join(offered)}" if offered else ""
                missing.append(LeftOut(told_name(resource), reason + as_others))
    return served_resources, missing


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


def _resources_of(client: KubeClient, api_version: str, listed: dict[str, frozenset[str]]) -> frozenset[str]:
    if api_version not in listed:
        text = client.request("GET", f"/apis/{api_version}", doing=f"ask what {api_version} offers")
        listed[api_version] = frozenset(r.name for r in msgspec.json.decode(text, type=_ApiResources).resources)
    return listed[api_version]
