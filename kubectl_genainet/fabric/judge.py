"""By which way each pod talks with the others of its job, and what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubectl_genainet.fabric.pods import WatchedPod
from kubectl_genainet.fabric.rates import ReportPair
from kubectl_genainet.model.diagnoses.fabric import NCCL_ON_TCP, RDMA_PORT_NOT_ACTIVE, RDMA_TROUBLE
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, counted
from kubectl_genainet.model.results.fabric import FabricDevice, FabricPod, FabricSummary, Transport
from kubectl_genainet.model.units import rate_text

BULK = 12.5e6  # bytes a second, 100 Mbit/s: what is less is no collective at work
STILL = 0.01  # of the other way's rate: what is less stands still


@dataclass(frozen=True, slots=True)
class _Way:
    """What was measured of a pod."""

    rdma: float | None
    tcp: float | None
    devices: tuple[str, ...] = ()
    shared: bool = False
    peers: tuple[str, ...] = ()
    reason: str = ""


def conclude(members: Sequence[WatchedPod], readings: Mapping[str, ReportPair]) -> FabricSummary:
    """`readings` are those of the nodes that answered twice."""
    owners: defaultdict[str, list[WatchedPod]] = defaultdict(list)
    for member in members:
        for ip in member.addresses:
            owners[ip].append(member)
    pods = tuple(_pod(member, readings.get(member.node), owners) for member in members)
    devices = tuple(device for reading in readings.values() for device in reading.devices())
    seconds = max((reading.seconds for reading in readings.values()), default=0.0)
    findings = (*_on_tcp(pods, readings, seconds), *_not_active(pods, devices), *_trouble(devices))
    warnings = tuple(f"node {n}: {text}" for n, r in sorted(readings.items()) for text in r.after.unreadable)
    nodes = tuple(sorted(readings))
    return FabricSummary(seconds=seconds, pods=pods, devices=devices, findings=findings, nodes=nodes, warnings=warnings)


def _pod(member: WatchedPod, reading: ReportPair | None, owners: Mapping[str, list[WatchedPod]]) -> FabricPod:
    way = _Way(None, None, reason="its node did not answer") if reading is None else _way(member, reading, owners)
    return FabricPod(
        namespace=member.namespace,
        name=member.name,
        node=member.node,
        job=member.job,
        gpus=member.gpus,
        transport=transport_of(way.rdma, way.tcp),
        rdma_bytes_s=way.rdma,
        tcp_bytes_s=way.tcp,
        devices=way.devices,
        shared=way.shared,
        peers=way.peers,
        reason=way.reason,
    )


def transport_of(rdma: float | None, tcp: float | None) -> Transport:
    """What is not known leaves the answer open, unless the way that is known is idle and the other one's absence is too."""
    if rdma is None or tcp is None:
        return Transport.UNKNOWN
    by_rdma, by_tcp = rdma >= BULK and rdma > STILL * tcp, tcp >= BULK and tcp > STILL * rdma
    if by_rdma and by_tcp:
        return Transport.BOTH
    return Transport.RDMA if by_rdma else Transport.TCP if by_tcp else Transport.IDLE


def _way(member: WatchedPod, reading: ReportPair, owners: Mapping[str, list[WatchedPod]]) -> _Way:
    inode = next((reading.after.addresses[ip] for ip in member.addresses if ip in reading.after.addresses), None)
    if inode is None:
        return _Way(None, None, reason="no network namespace of its node has its address")
    alone = all(len(owners[ip]) == 1 for ip in member.addresses)
    tcp, peers = _tcp(member, reading, inode, owners) if alone else (None, ())
    reason = "" if alone else "it shares its node's network with other pods that are looked at"
    if member.host_network and alone:
        reason = "it has its node's network: other processes' connections to the same nodes count too"
    users = {device.name: device.users for device in reading.after.fabric.devices}
    if not users:
        return _Way(0.0, tcp, peers=peers, reason=reason or "its node has no RDMA device")
    if any(queue_pairs is None for queue_pairs in users.values()):
        rate = reading.rdma_rate()
        still = rate is not None and rate < BULK
        why = "" if still else "which pods use the RDMA devices is not known"
        return _Way(rate if still else None, tcp, peers=peers, reason=reason or why)
    own = tuple(sorted(name for name, queue_pairs in users.items() if any(i == inode for i, _ in queue_pairs or ())))
    shared = any(len(users[name] or ()) > 1 for name in own)
    if not own:
        return _Way(0.0, tcp, peers=peers, reason=reason or "it holds no queue pair on its node's RDMA devices")
    rate = reading.rdma_rate(frozenset(own))
    why = "" if rate is not None else "its RDMA devices count no bytes"
    return _Way(rate, tcp, own, shared, peers, reason or why)


def _tcp(
    member: WatchedPod, reading: ReportPair, inode: int, owners: Mapping[str, list[WatchedPod]]
) -> tuple[float, tuple[str, ...]]:
    """Bytes a second with other pods of its job, and which these are."""
    total, peers = 0.0, set()
    for connection, rate in reading.connections(inode):
        for other in owners.get(connection.remote, ()):
            if other != member and other.group == member.group and connection.local in member.addresses:
                total += rate
                peers.add(other.name)
                break
    return total, tuple(sorted(peers))


def _on_tcp(pods: Sequence[FabricPod], readings: Mapping[str, ReportPair], seconds: float) -> Iterator[Finding]:
    """Jobs whose pods use TCP on nodes that have an active RDMA port."""
    jobs: defaultdict[tuple[str, str], list[FabricPod]] = defaultdict(list)
    for pod in pods:
        if pod.gpus and pod.transport is Transport.TCP and _has_active_port(readings[pod.node]):
            jobs[pod.namespace, pod.job].append(pod)
    for (namespace, job), slow_pods in jobs.items():
        rate = max(pod.tcp_bytes_s or 0.0 for pod in slow_pods)
        nodes = sorted({pod.node for pod in slow_pods})
        still = [f"{node}: {len(readings[node].after.fabric.devices)}" for node in nodes]
        evidence = [
            Evidence(
                f"{pod.name} moves {rate_text(pod.tcp_bytes_s)} over TCP with {', '.join(pod.peers[:3])}",
                Certainty.OBSERVED,
                ObjectRef("Pod", pod.name, pod.namespace),
                node=pod.node,
            )
            for pod in slow_pods[:5]
        ]
        evidence += [
            Evidence(
                f"its RDMA devices moved {rate_text(readings[node].rdma_rate())} meanwhile",
                Certainty.OBSERVED,
                node=node,
            )
            for node in nodes[:5]
        ]
        evidence.append(Evidence("so the job's collectives run over sockets", Certainty.ASSUMED))
        yield NCCL_ON_TCP.finding(
            f"{counted(len(slow_pods), 'pod')} of {namespace}/{job} move up to {rate_text(rate)} each over kernel TCP; the "
            f"RDMA devices ({'; '.join(still)}) stand still",
            tuple(evidence),
            ObjectRef("Pod", slow_pods[0].name, namespace),
            detail=f"Measured for {seconds:.1f} s.",
        )


def _has_active_port(reading: ReportPair) -> bool:
    return any(port.state == "ACTIVE" for _, port, _ in reading.ports())


def _not_active(pods: Sequence[FabricPod], devices: Sequence[FabricDevice]) -> Iterator[Finding]:
    using = {(pod.node, device): pod for pod in pods for device in pod.devices}
    for port in devices:
        pod = using.get((port.node, port.device))
        if pod is not None and port.state not in ("", "ACTIVE"):
            yield RDMA_PORT_NOT_ACTIVE.finding(
                f"{port.device} port {port.port} of node {port.node} is {port.state}, and {pod.namespace}/{pod.name} uses it",
                (Evidence(f"the state of the port is {port.state}", Certainty.OBSERVED, node=port.node),),
                ObjectRef("Node", port.node),
            )


def _trouble(devices: Sequence[FabricDevice]) -> Iterator[Finding]:
    for port in devices:
        if port.grown:
            grown = ", ".join(f"{name} by {number}" for name, number in port.grown.items())
            yield RDMA_TROUBLE.finding(
                f"{port.device} port {port.port} of node {port.node}: {grown}",
                (Evidence(f"{port.device}: {grown}", Certainty.OBSERVED, node=port.node),),
                ObjectRef("Node", port.node),
            )
