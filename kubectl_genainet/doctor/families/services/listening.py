"""What really listens in the pods behind a Service, as the kernel told the agents."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import host_of, netns_of
from kubectl_genainet.doctor.objects.raw import command, kubectl, patch
from kubectl_genainet.doctor.objects.workloads import LivePod
from kubectl_genainet.doctor.predicates.mesh import Mesh, mesh_of
from kubectl_genainet.model.cluster import Backend
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.node import Listener, NetNs, NodeReport

# Where a stack is told its address; those that listen on loopback by themselves first.
_ADDRESS_OPTION = {
    "TorchServe": "inference_address=http://0.0.0.0:8080 in config.properties",
    "llama.cpp": "--host 0.0.0.0",
    "Ollama": "the environment variable OLLAMA_HOST=0.0.0.0",
    "Chroma": "--host 0.0.0.0",
    "vLLM": "--host 0.0.0.0",
    "SGLang": "--host 0.0.0.0",
    "TGI": "--hostname 0.0.0.0",
    "Qdrant": "the environment variable QDRANT__SERVICE__HOST=0.0.0.0",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A ready endpoint whose node's agent told what listens in its network namespace."""

    backend: Backend
    live: LivePod
    node: str
    listeners: tuple[Listener, ...]

    @property
    def here(self) -> list[Listener]:
        return [i for i in self.listeners if i.port == self.backend.port]

    @property
    def reachable(self) -> bool:
        return any(_accepts(i, self.backend.ip) for i in self.here)

    @property
    def loopback_only(self) -> bool:
        return bool(self.here) and all(_loopback(i.ip) for i in self.here)


@cache
def _loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback


def _accepts(listener: Listener, ip: str) -> bool:
    """Whether a socket gets what is sent to an address of its namespace (ipv6(7), IPV6_V6ONLY)."""
    if ":" in ip:
        return listener.ip in ("::", ip)
    return listener.ip in ("0.0.0.0", ip) or (listener.ip == "::" and not listener.v6only)


def _pods(cluster: Cluster) -> Mapping[tuple[str, str], LivePod]:
    return {(p.ref.namespace, p.ref.name): p for p in cluster.live_pods}


def _netns(report: NodeReport, live: LivePod) -> NetNs | None:
    return host_of(report) if live.pod.spec.host_network else netns_of(report, live)


def _places(
    cluster: Cluster, service: Service, port: ServicePort, pods: Mapping[tuple[str, str], LivePod]
) -> tuple[list[_Place], list[str]]:
    """The ready endpoints of a Service port, and the names of the pods of which nothing is known."""
    reports = {r.node: r for r in cluster.reports}
    listening, unknown = [], []
    for backend in cluster.snapshot.backends(service, port):
        live = pods.get((service.metadata.namespace, backend.pod))
        if live is None or not backend.ready or backend.terminating:
            continue
        report = reports.get(live.node)
        netns = _netns(report, live) if report else None
        listeners = None if netns is None else netns.tcp_listeners if port.protocol == "TCP" else netns.udp_listeners
        if listeners is None:
            unknown.append(backend.pod)
        else:
            listening.append(_Place(backend, live, live.node, listeners))
    return listening, unknown


def _ports(cluster: Cluster) -> Iterator[tuple[Service, int, list[_Place], list[str]]]:
    """Each Service port that pods stand behind, with what is known of them. SCTP can't be told."""
    pods = _pods(cluster)
    for service in cluster.services:
        for index, port in enumerate(service.spec.ports):
            if port.protocol in ("TCP", "UDP"):
                places, unknown = _places(cluster, service, port, pods)
                if places or unknown:
                    yield service, index, places, unknown


def _unknown(unread_pods: Mapping[str, list[str]]) -> Iterator[NotChecked]:
    names = sorted({pod for pods in unread_pods.values() for pod in pods})
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield NotChecked("", f"no agent told what listens in {shown}")


@check(Area.SERVICES, Severity.ERROR, needs=(Need.NODES, "Service", "EndpointSlice", "Pod"))
def service_listener(cluster: Cluster) -> Problems:
    """Nothing listens where a Service sends its connections.

    Looks in the network namespaces of the ready pods behind each Service port, at the sockets that the kernel has: TCP
    in LISTEN, or UDP bound, on the endpoint's port and on an address that gets what is sent to the pod's. Sockets on
    loopback only are left to listen-loopback.

    Why: the kernel answers with a reset (TCP) or an ICMP error (UDP): "connection refused", from pods that are
    ready. Declared container ports can't tell; they are a comment. An error: the requests to those pods are
    refused.

    Source: man 7 sock_diag, https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.32/#container-v1-core (ports)
    """
    unknown: dict[str, list[str]] = defaultdict(list)
    for service, index, places, unread in _ports(cluster):
        port = service.spec.ports[index]
        unknown[str(service.ref)] += unread
        silent = [p for p in places if not p.reachable and not p.loopback_only]
        if not silent:
            continue
        number = silent[0].backend.port
        yield Problem(
            f"nothing listens on {port.protocol} port {number} in {len(silent)} of {len(places)} ready pods",
            service.ref,
            (
                *(_said(p, port.protocol) for p in silent[:4]),
                seen(
                    service.ref,
                    f"spec.ports[{index}].targetPort",
                    port.target_port or port.port,
                    f"port {port.port} goes to {port.target_port or port.port}",
                ),
            ),
            _other_port(service, index, silent),
        )
    yield from _unknown(unknown)


def _said(place: _Place, protocol: str) -> Evidence:
    """What the namespace has: what is on the port, else on which ports something is."""
    if place.here:
        statement = f"listens on port {place.backend.port} of {', '.join(i.ip for i in place.here)} only"
    else:
        ports = sorted({i.port for i in place.listeners if not _loopback(i.ip)})
        shown = ", ".join(map(str, ports[:8])) + (", …" if len(ports) > 8 else "")
        verb = "listens" if protocol == "TCP" else "has sockets"
        statement = f"{verb} on {protocol} port {shown}" if ports else f"{verb} on no {protocol} port"
    value = [f"{i.ip}:{i.port}" for i in place.listeners[:8]]
    return on_node(place.node, statement, value, field="listeners", obj=place.live.ref)


def _other_port(service: Service, index: int, silent: list[_Place]) -> Remedy:
    """Where all silent pods listen on one and the same port, that one."""
    ports = {i.port for p in silent for i in p.listeners if _accepts(i, p.backend.ip)}
    if len(ports) == 1 and service.spec.ports[index].protocol == "TCP" and service.spec.selector:
        change = [{"op": "replace", "path": f"/spec/ports/{index}/targetPort", "value": ports.pop()}]
        return Remedy(
            "Send the Service to the port that the pods listen on.", command=patch(service.ref, change, kind="json")
        )
    pod = silent[0].live.ref
    return Remedy(
        "Compare the server's options with the Service's target port; see its log.",
        command=command("kubectl", "-n", pod.namespace, "logs", f"pod/{pod.name}", "--all-containers", "--tail=50"),
    )


@check(Area.SERVICES, Severity.ERROR, needs=(Need.NODES, "Service", "EndpointSlice", "Pod"))
def listen_loopback(cluster: Cluster) -> Problems:
    """A server behind a Service listens on loopback only.

    Looks in the network namespaces of the ready pods behind each Service port for sockets on the endpoint's port of which
    every one is bound to 127.0.0.0/8 or ::1. Pods with a mesh's sidecar are left out: it may connect over loopback.

    Why: whoever is in the pod reaches the server (a probe by exec, a port-forward), and nobody else. TorchServe,
    llama.cpp's server, Ollama's binary and Chroma listen on 127.0.0.1 unless told otherwise. An error: the requests
    to those pods are refused.

    Source: man 7 ip, https://pytorch.org/serve/configuration.html, https://docs.ollama.com/faq
    """
    unknown: dict[str, list[str]] = defaultdict(list)
    for service, index, places, unread in _ports(cluster):
        port = service.spec.ports[index]
        unknown[str(service.ref)] += unread
        local = [p for p in places if p.loopback_only and not _has_sidecar(cluster, p)]
        if not local:
            continue
        workload = cluster.workload_of(local[0].live.ref)
        stack = cluster.stack(workload) if workload else None
        option = _ADDRESS_OPTION.get(stack.name, "") if stack else ""
        about = workload.ref if workload else local[0].live.ref
        yield Problem(
            f"{len(local)} of {len(places)} ready pods listen on {port.protocol} port {local[0].backend.port} of "
            "loopback only",
            service.ref,
            tuple(_said(p, port.protocol) for p in local[:4]),
            Remedy(
                f"Let it listen on all addresses{f': {option}' if option else ' (mostly an option --host 0.0.0.0)'}.",
                command=kubectl(about, "edit"),
            ),
        )
    yield from _unknown(unknown)


def _has_sidecar(cluster: Cluster, place: _Place) -> bool:
    workload = cluster.workload_of(place.live.ref)
    return workload is not None and mesh_of(cluster, workload)[0] in (Mesh.ISTIO_SIDECAR, Mesh.LINKERD)
