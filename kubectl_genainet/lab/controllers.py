"""What a cluster's controllers make of manifests: nodes, pods with addresses, ClusterIPs, EndpointSlices.

Pure and deterministic: the same manifests give the same names, addresses and placement in every lab.
"""

from __future__ import annotations

import copy
import hashlib
import ipaddress
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.lab.spec import Family, LabSpec, family_of, node_name

Object = dict[str, Any]

CREATED = "2025-01-01T00:00:00Z"
FIRST_NODE_PORT = 30100
LOAD_BALANCER_RANGE = "172.18.255.201"
_CLUSTER_SCOPED = {"Node", "Namespace", "ClusterRole", "ClusterRoleBinding", "IngressClass", "PriorityClass"}
_POD_MAKERS = ("Deployment", "StatefulSet", "DaemonSet", "Pod")
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # the alphabet of generated names (apimachinery, util/rand)


def generated(text: str, length: int) -> str:
    """A suffix like those that controllers generate, the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_SAFE[b % len(_SAFE)] for b in digest[:length])


def key(obj: Object) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def _uid(kind: str, namespace: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"genainet-lab/{kind}/{namespace}/{name}"))


def _meta(kind: str, name: str, namespace: str = "", **more: Any) -> Object:
    scope = {"namespace": namespace} if namespace else {}
    return {"name": name, **scope, "uid": _uid(kind, namespace, name), "creationTimestamp": CREATED, **more}


def build_objects(spec: LabSpec, documents: Iterable[Object]) -> list[Object]:
    """The lab's API objects. Raises InputError for manifests that no cluster would take."""
    documents = [_defaulted(d) for d in documents]
    _check_unique(documents)
    nodes = [_node(spec, index) for index in range(1, spec.nodes + 1)]
    rest = [d for d in documents if d["kind"] not in (*_POD_MAKERS, "Service", "Node", "Namespace", "EndpointSlice")]
    pods, workloads = _schedule(spec, [d for d in documents if d["kind"] in _POD_MAKERS])
    services = _allocate(spec, [d for d in documents if d["kind"] == "Service"])
    objects = [*nodes, *_namespaces(documents), _kube_proxy_config(spec), *workloads, *pods, *services, *rest]
    return with_endpoint_slices(objects)


def _defaulted(document: Object) -> Object:
    document = copy.deepcopy(document)
    metadata = document["metadata"]
    if document["kind"] not in _CLUSTER_SCOPED:
        metadata.setdefault("namespace", "default")
    base = _meta(document["kind"], metadata["name"], metadata.get("namespace", ""))
    document["metadata"] = {**base, **metadata}
    return document


def _check_unique(documents: list[Object]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for document in documents:
        if key(document) in seen:
            kind, namespace, name = key(document)
            raise InputError("is in the manifests twice", obj=f"{kind} {namespace}/{name}")
        seen.add(key(document))


def _namespaces(documents: list[Object]) -> Iterator[Object]:
    given = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Namespace"}
    used = {d["metadata"]["namespace"] for d in documents if d["metadata"].get("namespace")}
    for name in sorted({"default", "kube-system", *used, *given}):
        namespace = given.get(name) or {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta("Namespace", name)}
        namespace["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        namespace.setdefault("status", {"phase": "Active"})
        yield namespace


def _node(spec: LabSpec, index: int) -> Object:
    name = node_name(index)
    addresses = [{"type": "InternalIP", "address": f.node_ip(index)} for f in spec.families]
    cidrs = [f.pod_cidr(index) for f in spec.families]
    capacity = {"cpu": "2", "memory": "8Gi", "pods": "110"}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _meta("Node", name, labels=labels),
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def _kube_proxy_config(spec: LabSpec) -> Object:
    cidr = ",".join(f.cluster_cidr for f in spec.families)
    config = (
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        f"clusterCIDR: {cidr}\nmode: {spec.proxy_mode.value}\n"
        + (f"{spec.proxy_mode.value}:\n  masqueradeAll: false\n  masqueradeBit: 14\n")
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta("ConfigMap", "kube-proxy", "kube-system", labels={"app": "kube-proxy"}),
        "data": {"config.conf": config},
    }


# --- pods -----------------------------------------------------------------------------------------------------------


def _schedule(spec: LabSpec, makers: list[Object]) -> tuple[list[Object], list[Object]]:
    """Pods (placed and with addresses) and the workload objects that own them."""
    scheduler = _Scheduler(spec)
    pods: list[Object] = []
    workloads: list[Object] = []
    for maker in makers:
        made = list(_pods_of(maker, spec.nodes))
        placed = [scheduler.place(pod, owner=key(maker)) for pod in made]
        pods += placed
        if maker["kind"] != "Pod":
            workloads += _with_status(maker, len(placed))
    return pods, workloads


def _with_status(maker: Object, count: int) -> list[Object]:
    if maker["kind"] == "DaemonSet":
        maker["status"] = {"desiredNumberScheduled": count, "currentNumberScheduled": count, "numberReady": count}
        return [maker]
    maker["status"] = {"replicas": count, "readyReplicas": count, "availableReplicas": count}
    if maker["kind"] != "Deployment":
        return [maker]
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": _meta(
            "ReplicaSet", _replica_set_name(maker), maker["metadata"]["namespace"],
            ownerReferences=[_owner_reference(maker)],
            labels=dict(_template(maker)["metadata"].get("labels", {})),
        ),
        "spec": {k: maker["spec"][k] for k in ("replicas", "selector", "template") if k in maker["spec"]},
        "status": dict(maker["status"]),
    }  # fmt: skip
    return [maker, replica_set]


def _template(maker: Object) -> Object:
    template: Object = maker["spec"]["template"]
    template.setdefault("metadata", {})
    return template


def _replica_set_name(deployment: Object) -> str:
    name = deployment["metadata"]["name"]
    namespace = deployment["metadata"]["namespace"]
    return f"{name}-{generated(f'{namespace}/{name}', 9)}"


def _owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _pods_of(maker: Object, nodes: int) -> Iterator[Object]:
    namespace, name = maker["metadata"]["namespace"], maker["metadata"]["name"]
    if maker["kind"] == "Pod":
        yield maker
        return
    try:
        template = _template(maker)
        replicas = int(maker["spec"].get("replicas", 1))
    except (KeyError, TypeError, ValueError):
        raise InputError("spec.template is missing", obj=f"{maker['kind']} {namespace}/{name}") from None
    match maker["kind"]:
        case "Deployment":
            owner = _replica_set_name(maker)
            uid = _uid("ReplicaSet", namespace, owner)
            reference = {**_owner_reference(maker), "kind": "ReplicaSet", "name": owner, "uid": uid}
            names = [f"{owner}-{generated(f'{namespace}/{owner}/{n}', 5)}" for n in range(replicas)]
            more = {"pod-template-hash": owner.rpartition("-")[2]}
        case "StatefulSet":
            reference, names, more = _owner_reference(maker), [f"{name}-{n}" for n in range(replicas)], {}
        case _:
            reference, more = _owner_reference(maker), {}
            names = [f"{name}-{generated(f'{namespace}/{name}/{n}', 5)}" for n in range(nodes)]
    for number, pod_name in enumerate(names):
        metadata = template["metadata"]
        labels = {**metadata.get("labels", {}), **more}
        if maker["kind"] == "StatefulSet":
            labels["statefulset.kubernetes.io/pod-name"] = pod_name
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **_meta("Pod", pod_name, namespace), "labels": labels,
                "annotations": dict(metadata.get("annotations", {})), "ownerReferences": [reference],
            },
            "spec": copy.deepcopy(template.get("spec", {})),
        }  # fmt: skip
        if maker["kind"] == "DaemonSet":
            pod["spec"]["nodeName"] = node_name(number + 1)
        yield pod


class _Scheduler:
    """Spreads each workload's pods over the nodes, then evens out the nodes; hands out addresses in order."""

    def __init__(self, spec: LabSpec) -> None:
        self._spec = spec
        self._nodes = [node_name(i) for i in range(1, spec.nodes + 1)]
        self._placed: dict[str, list[tuple[str, str, str]]] = {n: [] for n in self._nodes}
        self._numbers = dict.fromkeys(self._nodes, 0)

    def place(self, pod: Object, owner: tuple[str, str, str]) -> Object:
        pod_spec = pod.setdefault("spec", {})
        name = f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        node = pod_spec.get("nodeName") or min(
            self._nodes,
            key=lambda n: (self._placed[n].count(owner), len(self._placed[n]), n),
        )
        if node not in self._placed:
            raise InputError(f"there is no node {node!r}", obj=name, field="spec.nodeName",
                             hint=f"The lab's nodes are {', '.join(self._nodes)}.")  # fmt: skip
        self._placed[node].append(owner)
        pod_spec["nodeName"] = node
        pod_spec.setdefault("dnsPolicy", "ClusterFirst")
        index = self._nodes.index(node) + 1
        host_ips = [f.node_ip(index) for f in self._spec.families]
        if pod_spec.get("hostNetwork"):
            ips = host_ips
        else:
            number = self._numbers[node]
            self._numbers[node] += 1
            if number > 250:
                raise InputError(f"node {node} has no address left", obj=name)
            ips = [f.pod_ip(index, number) for f in self._spec.families]
        pod["status"] = _running(ips, host_ips, pod_spec)
        return pod


def _running(ips: list[str], host_ips: list[str], pod_spec: Object) -> Object:
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "podIP": ips[0],
        "podIPs": [{"ip": ip} for ip in ips],
        "hostIP": host_ips[0],
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": CREATED,
        "conditions": [{"type": c, "status": "True"} for c in conditions],
        "containerStatuses": [
            {"name": c.get("name", ""), "image": c.get("image", ""), "ready": True, "restartCount": 0, "started": True}
            for c in pod_spec.get("containers", ())
        ],
    }


def set_ready(pod: Object, ready: bool) -> None:
    """Changes a pod's readiness as its kubelet would report it."""
    for condition in pod["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = "True" if ready else "False"
            condition.pop("reason", None)
            if not ready:
                condition["reason"] = "ContainersNotReady"
    for status in pod["status"].get("containerStatuses", ()):
        status["ready"] = ready


# --- Services -------------------------------------------------------------------------------------------------------


def _allocate(spec: LabSpec, services: list[Object]) -> list[Object]:
    """Services with the addresses and node ports that the API server and a load balancer would give them."""
    taken = {ip for s in services for ip in _given_ips(s)}
    node_ports = {p["nodePort"] for s in services for p in s.get("spec", {}).get("ports", ()) if p.get("nodePort")}
    pools = {f: _free(f.service_cidr, taken) for f in spec.families}
    balancer_ips = _free_from(LOAD_BALANCER_RANGE)
    free_ports = (p for p in range(FIRST_NODE_PORT, 32768) if p not in node_ports)
    for service in services:
        service_spec = service.setdefault("spec", {})
        kind = service_spec.setdefault("type", "ClusterIP")
        service_spec.setdefault("sessionAffinity", "None")
        for port in service_spec.get("ports", ()):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
        if kind == "ExternalName":
            continue
        _set_families(spec, service, pools)
        service_spec.setdefault("internalTrafficPolicy", "Cluster")
        if kind in ("NodePort", "LoadBalancer"):
            service_spec.setdefault("externalTrafficPolicy", "Cluster")
            for port in service_spec.get("ports", ()):
                port["nodePort"] = port.get("nodePort") or next(free_ports)
        if kind == "LoadBalancer":
            ingress = service.setdefault("status", {}).setdefault("loadBalancer", {}).setdefault("ingress", [])
            if not ingress:
                ingress.append({"ip": next(balancer_ips)})
    return services


def _given_ips(service: Object) -> list[str]:
    service_spec = service.get("spec", {})
    return [ip for ip in (*service_spec.get("clusterIPs", ()), service_spec.get("clusterIP", "")) if ip]


def _free(cidr: str, taken: set[str]) -> Iterator[str]:
    """Addresses of a Service range; the first 64 are left for those that are asked for by name."""
    network = ipaddress.ip_network(cidr)
    return (ip for ip in (str(network[n]) for n in range(64, min(network.num_addresses, 65536))) if ip not in taken)


def _free_from(first: str) -> Iterator[str]:
    start = ipaddress.ip_address(first)
    return (str(start + n) for n in range(50))


def _set_families(spec: LabSpec, service: Object, pools: dict[Family, Iterator[str]]) -> None:
    service_spec = service["spec"]
    given = _given_ips(service)
    if "None" in given:
        service_spec["clusterIP"], service_spec["clusterIPs"] = "None", ["None"]
        service_spec.setdefault("ipFamilies", [f.value for f in spec.families])
        return
    wanted = [Family(f) for f in service_spec.get("ipFamilies", ())]
    if not wanted:
        dual = service_spec.get("ipFamilyPolicy", "SingleStack") != "SingleStack"
        wanted = list(spec.families if dual else spec.families[:1])
    wanted = [f for f in wanted if f in spec.families]
    if not wanted:
        raise InputError("none of its ipFamilies is the lab's", obj=f"Service {service['metadata']['name']}",
                         hint="Bring the lab up with --ip-family dual.")  # fmt: skip
    by_family = {family_of(ip): ip for ip in given}
    ips = [by_family.get(f) or next(pools[f]) for f in wanted]
    service_spec.update(clusterIP=ips[0], clusterIPs=ips, ipFamilies=[f.value for f in wanted])
    service_spec["ipFamilyPolicy"] = "SingleStack" if len(ips) == 1 else "PreferDualStack"


# --- EndpointSlices -------------------------------------------------------------------------------------------------

_MANAGED_BY = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}


def with_endpoint_slices(objects: list[Object]) -> list[Object]:
    """The objects with the EndpointSlices that the endpoint slice controller would make of the others."""
    others = [o for o in objects if o["kind"] != "EndpointSlice"]
    pods = [o for o in others if o["kind"] == "Pod"]
    slices = [s for service in others if service["kind"] == "Service" for s in _slices(service, pods)]
    return [*others, *slices]


def selects(labels: dict[str, str], selector: dict[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in selector.items())


def _slices(service: Object, pods: list[Object]) -> Iterator[Object]:
    selector = service["spec"].get("selector")
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    if not selector or service["spec"]["type"] == "ExternalName":
        return
    members = [
        p for p in pods
        if p["metadata"]["namespace"] == namespace and selects(p["metadata"].get("labels", {}), selector)
    ]  # fmt: skip
    for family in service["spec"].get("ipFamilies", ["IPv4"]):
        groups: dict[tuple[tuple[str, str, int], ...], list[Object]] = {}
        for pod in members:
            groups.setdefault(_resolved_ports(service, pod), []).append(pod)
        for number, (ports, group) in enumerate(groups.items() or [((), [])]):
            slice_name = f"{name}-{generated(f'{namespace}/{name}/{family}/{number}', 5)}"
            labels = {**service["metadata"].get("labels", {}), "kubernetes.io/service-name": name, **_MANAGED_BY}
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": _meta(
                    "EndpointSlice", slice_name, namespace, labels=labels, generateName=f"{name}-",
                    ownerReferences=[_owner_reference(service)],
                ),
                "addressType": family,
                "ports": [{"name": n, "protocol": proto, "port": port} for n, proto, port in ports],
                "endpoints": [e for pod in group for e in _endpoint(service, pod, family)],
            }  # fmt: skip


def _resolved_ports(service: Object, pod: Object) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of each Service port that the pod has; a named target port may be missing."""
    found = []
    for port in service["spec"].get("ports", ()):
        target = port["targetPort"]
        if isinstance(target, str):
            numbers = [
                p["containerPort"]
                for c in pod["spec"].get("containers", ())
                for p in c.get("ports", ())
                if p.get("name") == target and p.get("protocol", "TCP") == port["protocol"]
            ]
            if not numbers:
                continue
            target = numbers[0]
        found.append((port.get("name", ""), port["protocol"], int(target)))
    return tuple(found)


def _endpoint(service: Object, pod: Object, family: str) -> Iterator[Object]:
    ips = [i["ip"] for i in pod["status"]["podIPs"] if family_of(i["ip"]).value == family]
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
    ready = is_ready or bool(service["spec"].get("publishNotReadyAddresses"))
    metadata = pod["metadata"]
    for ip in ips:
        yield {
            "addresses": [ip],
            "conditions": {"ready": ready, "serving": is_ready, "terminating": False},
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": {
                "kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"],
            },
        }  # fmt: skip
