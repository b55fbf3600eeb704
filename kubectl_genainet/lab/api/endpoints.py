"""Services with their addresses, as the API server allots them, and the EndpointSlices of their controller."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

from kubectl_genainet.errors import InputError
from kubectl_genainet.lab.api.objects import Object, generated, key, meta, owner_reference
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, family_of

FIRST_NODE_PORT = 30100
LOAD_BALANCER_RANGE = "172.18.255.201"


def allocate(spec: LabSpec, services: list[Object]) -> list[Object]:
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


def _set_families(spec: LabSpec, service: Object, pools: dict[AddressFamily, Iterator[str]]) -> None:
    service_spec = service["spec"]
    given_ips = _given_ips(service)
    if "None" in given_ips:
        service_spec["clusterIP"], service_spec["clusterIPs"] = "None", ["None"]
        service_spec.setdefault("ipFamilies", [f.value for f in spec.families])
        return
    wanted = [AddressFamily(f) for f in service_spec.get("ipFamilies", ())]
    if not wanted:
        dual = service_spec.get("ipFamilyPolicy", "SingleStack") != "SingleStack"
        wanted = list(spec.families if dual else spec.families[:1])
    wanted = [f for f in wanted if f in spec.families]
    if not wanted:
        raise InputError(
            "none of its ipFamilies is the lab's",
            obj=f"Service {service['metadata']['name']}",
            hint="Bring the lab up with --ip-family dual.",
        )
    by_family = {family_of(ip): ip for ip in given_ips}
    ips = [by_family.get(f) or next(pools[f]) for f in wanted]
    service_spec.update(clusterIP=ips[0], clusterIPs=ips, ipFamilies=[f.value for f in wanted])
    service_spec["ipFamilyPolicy"] = "SingleStack" if len(ips) == 1 else "PreferDualStack"


# --- EndpointSlices -------------------------------------------------------------------------------------------------

_CHANGED = "endpoints.kubernetes.io/last-change-trigger-time"
_MANAGED_BY = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}


def with_endpoint_slices(objects: list[Object]) -> list[Object]:
    """The objects with the EndpointSlices that the endpoint slice controller would make of the others.

    A slice that changes says when, as the controller does (`_CHANGED`); one that does not keeps its time.
    """
    others = [o for o in objects if o["kind"] != "EndpointSlice"]
    before = {key(o): o for o in objects if o["kind"] == "EndpointSlice"}
    pods = [o for o in others if o["kind"] == "Pod"]
    slices = [s for service in others if service["kind"] == "Service" for s in _slices(service, pods)]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for endpoint_slice in slices:
        old = before.get(key(endpoint_slice))
        kept = old is not None and all(old.get(part) == endpoint_slice[part] for part in ("endpoints", "ports"))
        notes = old["metadata"].get("annotations", {}) if old is not None and kept else {}
        endpoint_slice["metadata"]["annotations"] = {_CHANGED: notes.get(_CHANGED, now)}
    return [*others, *slices]


def selects(labels: dict[str, str], selector: dict[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in selector.items())


def _slices(service: Object, pods: list[Object]) -> Iterator[Object]:
    selector = service["spec"].get("selector")
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    if not selector or service["spec"]["type"] == "ExternalName":
        return
    members = [
        p
        for p in pods
        if p["metadata"]["namespace"] == namespace and selects(p["metadata"].get("labels", {}), selector)
    ]
    members.sort(key=lambda p: (p["spec"]["nodeName"], p["metadata"]["name"]))
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
                "metadata": meta(
                    "EndpointSlice",
                    slice_name,
                    namespace,
                    labels=labels,
                    generateName=f"{name}-",
                    ownerReferences=[owner_reference(service)],
                ),
                "addressType": family,
                "ports": [{"name": n, "protocol": proto, "port": port} for n, proto, port in ports],
                "endpoints": [e for pod in group for e in _endpoint(service, pod, family)],
            }


def _resolved_ports(service: Object, pod: Object) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of each Service port that the pod has; a named target port may be missing."""
    resolved = []
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
        resolved.append((port.get("name", ""), port["protocol"], int(target)))
    return tuple(resolved)


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
                "kind": "Pod",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
