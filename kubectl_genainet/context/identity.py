"""Who is who: network namespaces, addresses and ports as pods, nodes and Services."""

from __future__ import annotations

import ipaddress

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.node import NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import Party, ServiceRef

_HASHED_OWNERS = {"ReplicaSet"}  # named DEPLOYMENT-HASH


def workload_of(pod: Pod) -> str | None:
    """The workload behind a pod: its controller; a ReplicaSet's name without its hash (so a Deployment's)."""
    for owner in pod.metadata.owner_references:
        if owner.kind in _HASHED_OWNERS and "-" in owner.name:
            return owner.name.rpartition("-")[0]
        return owner.name
    return None


class Identity:
    """Answers from the cluster's objects and from what the nodes report of themselves."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._pods: dict[tuple[str, int], Pod | None] = {}
        self._hosts: dict[str, int] = {}
        self._addresses_of_hosts: dict[str, frozenset[str]] = {}  # node -> those of its own devices
        self._hosts_with: dict[str, set[str]] = {}  # the same the other way
        self.namespaces: dict[tuple[str, int], NetNs] = {}
        self._first_counters: dict[tuple[str, int], dict[str, int]] = {}
        self.reported_ns: dict[str, int] = {}  # node -> when it last reported its namespaces, on its clock
        self._followed: dict[tuple[str, int], tuple[int, int]] = {}  # the first and the last report that had it
        self.update(snapshot)

    def update(self, snapshot: ClusterSnapshot) -> None:
        """The objects have changed. Namespaces keep the pods that they had: packets seen before were theirs. One whose pod was
        not known when it was reported may have it now."""
        self.snapshot = snapshot
        for key in [key for key, pod in self._pods.items() if pod is None and not self.namespaces[key].host]:
            self._pods[key] = self._pod_of(self.namespaces[key])

    def learn(self, report: NodeReport) -> None:
        """Takes in a node's namespaces: a pod is found by its containers' cgroup, else by its address."""
        self.reported_ns[report.node] = report.t_ns
        for netns in report.namespaces:
            key = (report.node, netns.inode)
            self.namespaces[key] = netns
            self._first_counters.setdefault(key, netns.counters)
            self._followed[key] = (self._followed.get(key, (report.t_ns, 0))[0], report.t_ns)
            if netns.host:
                self._hosts[report.node] = netns.inode
                self._learn_host_addresses(report.node, frozenset(netns.addresses))
                self._pods[key] = None
                continue
            self._pods[key] = self._pod_of(netns)

    def _pod_of(self, netns: NetNs) -> Pod | None:
        by_uid = map(self.snapshot.pod_with, netns.pod_uids)
        by_address = (self.snapshot.pod_at(ip) for ip in netns.addresses)
        return next((p for p in (*by_uid, *by_address) if p is not None), None)

    def _learn_host_addresses(self, node: str, addresses: frozenset[str]) -> None:
        """Several nodes have the loopback addresses, those of NodeLocal DNSCache, and with IPVS every Service's."""
        before = self._addresses_of_hosts.get(node, frozenset())
        self._addresses_of_hosts[node] = addresses
        for address in before - addresses:
            self._hosts_with[address].discard(node)
        for address in addresses - before:
            self._hosts_with.setdefault(address, set()).add(node)

    def _host_with(self, address: str) -> str | None:
        """The node that has the address, if it is the only one."""
        hosts = self._hosts_with.get(address, set())
        return next(iter(hosts)) if len(hosts) == 1 else None

    def pod_in(self, node: str, netns: int) -> Pod | None:
        return self._pods.get((node, netns))

    def place(self, node: str, netns: int) -> str:
        """The pod, or else the node, in whose namespace something was. It may be one that no pod is known of."""
        pod = self.pod_in(node, netns)
        if pod is not None:
            return f"pod {pod.metadata.namespace}/{pod.metadata.name}"
        host = self._hosts.get(node)
        return f"a network namespace of node {node}" if netns and host not in (None, netns) else f"node {node}"

    def grown(self, node: str, netns: int, counter: str) -> int:
        """By how much a counter of the namespace has grown since it was first reported."""
        now, first = self.namespaces.get((node, netns)), self._first_counters.get((node, netns), {})
        if now is None or counter not in now.counters or counter not in first:
            return 0
        return now.counters[counter] - first[counter]

    def device(self, node: str, netns: int, ifindex: int) -> str:
        """Name of a device; "" where it is not known (it came and went between two reports)."""
        namespace = self.namespaces.get((node, netns))
        return next((d.name for d in namespace.devices if d.ifindex == ifindex), "") if namespace is not None else ""

    def resolv_conf(self, pod: Pod) -> str:
        """The resolv.conf that its node read in the pod, "" where it read none."""
        for key, owner in self._pods.items():
            if owner is not None and (owner.metadata.namespace, owner.metadata.name) == (
                pod.metadata.namespace,
                pod.metadata.name,
            ):
                return self.namespaces[key].resolv_conf
        return ""

    def owns(self, node: str, netns: int, ip: str) -> bool:
        """Whether the namespace has the address."""
        namespace = self.namespaces.get((node, netns))
        return namespace is not None and canonical_ip(ip) in namespace.addresses

    def homes(self, ip: str) -> list[tuple[str, int]]:
        """(node, namespace) of the namespaces that have the address, gone ones too."""
        wanted = canonical_ip(ip)
        return [key for key, netns in self.namespaces.items() if wanted in netns.addresses]

    def followed(self, node: str, netns: int, begin_ns: int, end_ns: int) -> bool:
        """Whether the namespace was reported before and after a time, on the node's clock: its agent followed it meanwhile."""
        first_ns, last_ns = self._followed.get((node, netns), (end_ns + 1, 0))
        return first_ns <= begin_ns and last_ns >= end_ns

    def next_hop(self, node: str, netns: int, ip: str) -> str | None:
        """The address whose link address the namespace needs to send to `ip`: the gateway's of the longest matching route,
        else `ip` itself; None where its routes are not known, or none matches."""
        namespace = self.namespaces.get((node, netns))
        if namespace is None or namespace.routes is None:
            return None
        address = ipaddress.ip_address(ip)
        matching = [
            (network.prefixlen, route)
            for route in namespace.routes
            if (network := ipaddress.ip_network(route.dst, strict=False)).version == address.version
            and address in network
        ]
        best = max(matching, key=lambda m: m[0], default=None)
        return None if best is None else best[1].via or ip

    def ready_endpoints(self, service: ServiceRef) -> int:
        """How many endpoints of the Service's port are ready; 0 for one that is not known."""
        return sum(backend.ready for backend in self._backends_of(service))

    def endpoints(self, service: ServiceRef) -> set[tuple[str, int]]:
        """(address, port) of the endpoints of the Service's port, ready or not; none for one that is not known."""
        return {(canonical_ip(backend.ip), backend.port) for backend in self._backends_of(service)}

    def _backends_of(self, reference: ServiceRef) -> list[Backend]:
        service = self.snapshot.service(reference.namespace, reference.name)
        if service is None:
            return []
        ports = [p for p in service.spec.ports if (p.port, p.name) == (reference.port, reference.port_name)]
        return [backend for port in ports for backend in self.snapshot.backends(service, port)]

    def is_endpoint(self, ip: str, port: int, protocol: Protocol) -> bool:
        """Whether a Service has the address and port as an endpoint."""
        return (canonical_ip(ip), port, protocol.value) in self.snapshot.endpoints

    def host_of(self, node: str) -> NetNs | None:
        inode = self._hosts.get(node)
        return self.namespaces.get((node, inode)) if inode is not None else None

    def party(self, ip: str, port: int | None) -> Party:
        """An address as a pod or a node; an address that is neither stays an address."""
        pod = self.snapshot.pod_at(ip)
        if pod is not None:
            return Party(
                ip, port, pod.metadata.namespace, pod.metadata.name, pod.spec.node_name or None, workload_of(pod)
            )
        node = self.snapshot.node_at(ip)
        return Party(ip, port, node=node.metadata.name if node else self._host_with(ip))

    def party_at(self, node: str, netns: int, ip: str, port: int | None) -> Party:
        """The end that a packet reached in a namespace which has the address: the node itself, where it is the host's."""
        return Party(ip, port, node=node) if self.owns_as_host(node, netns, ip) else self.party(ip, port)

    def party_within(self, node: str, netns: int, ip: str, port: int | None) -> Party:
        """An end that was seen in a namespace: a loopback address is of the pod, or the node, whose namespace that is."""
        if not ip.startswith("127.") and ip != "::1":
            return self.party(ip, port)
        pod = self.pod_in(node, netns)
        if pod is None:
            return Party(ip, port, node=node if self.is_host(node, netns) else None)
        meta = pod.metadata
        return Party(ip, port, meta.namespace, meta.name, pod.spec.node_name or None, workload_of(pod))

    def is_host(self, node: str, netns: int) -> bool:
        return self._hosts.get(node) == netns

    def owns_as_host(self, node: str, netns: int, ip: str) -> bool:
        return self.is_host(node, netns) and self.owns(node, netns, ip)

    def service(self, flow: FiveTuple) -> ServiceRef | None:
        """The Service port that the destination is an address of."""
        resolved = self.snapshot.service_at(flow.dst, flow.dport, flow.protocol.value)
        if resolved is None:
            return None
        meta = resolved.service.metadata
        return ServiceRef(meta.namespace, meta.name, resolved.port.port, resolved.port.name, resolved.ip)
