"""Which end of a flow is the server's: a packet may be a request or an answer, and counters keep no connections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import ServiceRef

FIRST_CLIENT_PORT = 32768  # of net.ipv4.ip_local_port_range, as the kernel sets it


@dataclass(frozen=True, slots=True)
class Oriented:
    """A flow in the client's direction; `reply` says that the packet itself went the other way. `sure`: the API's objects tell
    which end serves, or only one port is of those that Linux gives to clients; else it is a guess."""

    request: FiveTuple
    reply: bool
    sure: bool


class KnownServers:
    """Knows the servers of a snapshot: addresses of Services, their endpoints, the ports that containers declare."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        self._declared: dict[str, frozenset[tuple[int, str]]] = {}  # by pods, of the addresses that were asked for

    def service(self, ip: str, port: int, protocol: str) -> ServiceRef | None:
        """The Service that has this address and port: as its own, or as an endpoint's."""
        resolved = self._snapshot.service_at(ip, port, protocol)
        if resolved is not None:
            meta = resolved.service.metadata
            return ServiceRef(meta.namespace, meta.name, resolved.port.port, resolved.port.name, resolved.ip)
        ip = canonical_ip(ip)
        behind = self._snapshot.endpoints.get((ip, port, protocol))
        if behind is None:
            return None
        meta = behind[0].metadata
        return ServiceRef(meta.namespace, meta.name, behind[1].port, behind[1].name, ip)

    def _declares(self, ip: str, port: int, protocol: str) -> bool:
        """Whether a container of the pod, or of those of the node's network, with this address declares the port."""
        declared = self._declared.get(ip)
        if declared is None:
            pod = self._snapshot.pod_at(ip)
            pods = (pod,) if pod is not None else self._host_pods.get(ip, ())
            declared = frozenset((p.container_port, p.protocol) for pod in pods for p in pod.ports)
            if pods:  # those outside the cluster are without number
                self._declared[ip] = declared
        return (port, protocol) in declared

    @cached_property
    def _host_pods(self) -> Mapping[str, Sequence[Pod]]:
        by_ip: dict[str, list[Pod]] = defaultdict(list)
        for pod in self._snapshot.host_pods:
            if not pod.finished:
                for ip in pod.ips:
                    by_ip[canonical_ip(ip)].append(pod)
        return by_ip

    def _known(self, ip: str, port: int, protocol: str) -> int:
        """How surely the end is a server: 2 by a Service, 1 by a container's declaration, else 0."""
        if self.service(ip, port, protocol) is not None:
            return 2
        return int(self._declares(ip, port, protocol))

    def orient(self, flow: FiveTuple) -> Oriented:
        """What is a server by the API's objects is one; else the lower port is taken for the server's."""
        protocol = flow.protocol.value
        towards, back = self._known(flow.dst, flow.dport, protocol), self._known(flow.src, flow.sport, protocol)
        reply = 0 < flow.sport < flow.dport if towards == back else back > towards
        told_by_ports = (flow.sport < FIRST_CLIENT_PORT) != (flow.dport < FIRST_CLIENT_PORT)
        return Oriented(flow.reversed if reply else flow, reply, towards != back or told_by_ports)
