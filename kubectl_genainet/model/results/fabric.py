"""What `fabric` says: by which way GPU pods talk, at what rate, and what their nodes' RDMA devices do."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Finding


class Transport(Enum):
    """By which way a pod's bulk traffic with the others of its job goes."""

    RDMA = "rdma"
    TCP = "tcp"
    BOTH = "both"
    IDLE = "idle"  # less than BULK by either way while it was measured
    UNKNOWN = "unknown"


class FabricPod(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="fabric-pod"):
    """A pod. Rates are bytes a second, sent and received together; null: not known, `reason` says why.

    `devices` are the RDMA devices on which it holds queue pairs; where `shared`, other namespaces hold some on them too, and
    the rate is of all. `tcp_bytes_s` is with `peers`, the other pods of its job.
    """

    namespace: str
    name: str
    node: str
    job: str
    gpus: int
    transport: Transport
    rdma_bytes_s: float | None = None
    tcp_bytes_s: float | None = None
    devices: tuple[str, ...] = ()
    shared: bool = False
    peers: tuple[str, ...] = ()
    reason: str = ""


class FabricDevice(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="fabric-device"):
    """A port of an RDMA device. `grown` are the counters of trouble that grew while it was measured, by how much."""

    node: str
    device: str
    port: int
    state: str
    link_layer: str
    rate: str
    gids: int
    sent_bytes_s: float | None
    received_bytes_s: float | None
    queue_pairs: int | None
    grown: dict[str, int]


class FabricSummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="fabric-summary"):
    """All of it. `seconds` is the time between the two readings."""

    seconds: float
    pods: tuple[FabricPod, ...]
    devices: tuple[FabricDevice, ...]
    findings: tuple[Finding, ...]
    nodes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
