"""What a cluster's controllers make of manifests: nodes, pods with addresses, ClusterIPs, EndpointSlices.

Pure and deterministic: the same manifests give the same names, addresses and placement in every lab.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

from kubectl_genainet.errors import InputError
from kubectl_genainet.lab.api.endpoints import allocate, with_endpoint_slices
from kubectl_genainet.lab.api.objects import CREATED, Object, generated, key, meta, owner_reference, uid_of
from kubectl_genainet.lab.spec import LabSpec, node_name

_CLUSTER_SCOPED = {"Node", "Namespace", "ClusterRole", "ClusterRoleBinding", "IngressClass", "PriorityClass"}
_POD_MAKERS = ("Deployment", "StatefulSet", "DaemonSet", "Pod")


def build_objects(spec: LabSpec, documents: Iterable[Object]) -> list[Object]:
    """The lab's API objects. Raises InputError for manifests that no cluster would take."""
    documents = [_defaulted(d) for d in documents]
    _check_unique(documents)
    nodes = [_node(spec, index) for index in range(1, spec.nodes + 1)]
    other_objects = [
        d for d in documents if d["kind"] not in (*_POD_MAKERS, "Service", "Node", "Namespace", "EndpointSlice")
    ]
    pods, workloads = _schedule(spec, [d for d in documents if d["kind"] in _POD_MAKERS])
    services = allocate(spec, [d for d in documents if d["kind"] == "Service"])
    objects = [*nodes, *_namespaces(documents), _kube_proxy_config(spec), *workloads, *pods, *services, *other_objects]
    return with_endpoint_slices(objects)


def _defaulted(document: Object) -> Object:
    document = copy.deepcopy(document)
    metadata = document["metadata"]
    if document["kind"] not in _CLUSTER_SCOPED:
        metadata.setdefault("namespace", "default")
    base = meta(document["kind"], metadata["name"], metadata.get("namespace", ""))
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
    declared = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Namespace"}
    used = {d["metadata"]["namespace"] for d in documents if d["metadata"].get("namespace")}
    for name in sorted({"default", "kube-system", *used, *declared}):
        namespace = declared.get(name) or {"apiVersion": "v1", "kind": "Namespace", "metadata": meta("Namespace", name)}
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
        "metadata": meta("Node", name, labels=labels),
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
        "metadata": meta("ConfigMap", "kube-proxy", "kube-system", labels={"app": "kube-proxy"}),
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
        "metadata": meta(
            "ReplicaSet",
            _replica_set_name(maker),
            maker["metadata"]["namespace"],
            ownerReferences=[owner_reference(maker)],
            labels=dict(_template(maker)["metadata"].get("labels", {})),
        ),
        "spec": {k: maker["spec"][k] for k in ("replicas", "selector", "template") if k in maker["spec"]},
        "status": dict(maker["status"]),
    }
    return [maker, replica_set]


def _template(maker: Object) -> Object:
    template: Object = maker["spec"]["template"]
    template.setdefault("metadata", {})
    return template


def _replica_set_name(deployment: Object) -> str:
    name = deployment["metadata"]["name"]
    namespace = deployment["metadata"]["namespace"]
    return f"{name}-{generated(f'{namespace}/{name}', 9)}"


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
            uid = uid_of("ReplicaSet", namespace, owner)
            reference = {**owner_reference(maker), "kind": "ReplicaSet", "name": owner, "uid": uid}
            names = [f"{owner}-{generated(f'{namespace}/{owner}/{n}', 5)}" for n in range(replicas)]
            more = {"pod-template-hash": owner.rpartition("-")[2]}
        case "StatefulSet":
            reference, names, more = owner_reference(maker), [f"{name}-{n}" for n in range(replicas)], {}
        case _:
            reference, more = owner_reference(maker), {}
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
                **meta("Pod", pod_name, namespace),
                "labels": labels,
                "annotations": dict(metadata.get("annotations", {})),
                "ownerReferences": [reference],
            },
            "spec": copy.deepcopy(template.get("spec", {})),
        }
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
            raise InputError(
                f"there is no node {node!r}",
                obj=name,
                field="spec.nodeName",
                hint=f"The lab's nodes are {', '.join(self._nodes)}.",
            )
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
