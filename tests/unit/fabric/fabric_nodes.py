"""A tree of /sys/class/infiniband as documentation shows it, netlink answers as nldev.c lays them out, and reports."""

from __future__ import annotations

import struct
from pathlib import Path

from kubectl_genainet.agent.fabric.netlink import attribute
from kubectl_genainet.fabric.pods import WatchedPod
from kubectl_genainet.fabric.rates import ReportPair
from kubectl_genainet.model.fabric import (
    Fabric,
    FabricReport,
    NamespaceConnections,
    RdmaDevice,
    RdmaPort,
    TcpConnection,
)

# AWS, "Monitor an Elastic Fabric Adapter": the names of EFA's hw_counters.
EFA = {
    "tx_bytes": 6000,
    "rx_bytes": 7000,
    "tx_pkts": 60,
    "rx_pkts": 70,
    "rx_drops": 0,
    "send_bytes": 10,
    "recv_bytes": 20,
    "rdma_read_bytes": 30,
    "rdma_write_bytes": 40,
    "rdma_read_wr_err": 0,
    "rdma_write_wr_err": 0,
    "retrans_bytes": 0,
    "retrans_pkts": 0,
    "retrans_timeout_events": 2,
    "impaired_remote_conn_events": 1,
    "unresponsive_remote_events": 0,
}
# Linux, sysfs-class-infiniband, and NVIDIA's "Understanding mlx5 counters".
MLX5 = {"port_xmit_data": 1000, "port_rcv_data": 2000, "port_xmit_packets": 9, "symbol_error": 0, "link_downed": 1}
MLX5_HW = {"out_of_sequence": 5, "packet_seq_err": 0, "local_ack_timeout_err": 0, "out_of_buffer": 0}


def write_tree(root: Path) -> Path:
    """One EFA device and one port of a ConnectX whose link is down."""
    _device(root / "rdmap0s6", "4: ACTIVE", "Unspecified", "100 Gb/sec (4X EDR)", {"hw_counters": EFA})
    _device(root / "mlx5_0", "1: DOWN", "InfiniBand", "400 Gb/sec (4X NDR)", {"counters": MLX5, "hw_counters": MLX5_HW})
    return root


def _device(path: Path, state: str, link: str, rate: str, counters: dict[str, dict[str, int]]) -> None:
    port = path / "ports" / "1"
    for folder in ("gids", *counters):
        (port / folder).mkdir(parents=True)
    for name, text in (("state", state), ("link_layer", link), ("rate", rate)):
        (port / name).write_text(f"{text}\n")
    (port / "gids" / "0").write_text("fe80:0000:0000:0000:0a70:1eff:fe03:0001\n")
    (port / "gids" / "1").write_text("0000:0000:0000:0000:0000:0000:0000:0000\n")
    for group, values in counters.items():
        for name, value in values.items():
            (port / group / name).write_text(f"{value}\n")


def word(value: int) -> bytes:
    return struct.pack("=I", value)


def device_answer(index: int, name: str) -> bytes:
    return attribute(1, word(index)) + attribute(2, name.encode() + b"\0") + attribute(3, word(1))


def queue_pair_answer(index: int, *pids: int) -> bytes:
    """As RDMA_NLDEV_CMD_RES_QP_GET answers: device, then a nested table of entries; pid 0 is one of the kernel's."""
    nested = 1 << 15
    entries = b"".join(
        attribute(20 | nested, attribute(21, word(7)) + (attribute(28, word(pid)) if pid else attribute(29, b"nvme\0")))
        for pid in pids
    )
    return attribute(1, word(index)) + attribute(19 | nested, entries)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


GPUS = 8
POD = {"node-a": (101, "10.0.1.5"), "node-b": (202, "10.0.2.5")}


def worker(node: str, name: str = "", job: str = "train", *, ip: str = "", host_network: bool = False) -> WatchedPod:
    return WatchedPod("ml", name or f"worker-{node}", node, job, GPUS, (ip or POD[node][1],), host_network)


def port(sent: int, received: int, state: str = "ACTIVE", **more: int) -> RdmaPort:
    return RdmaPort(
        number=1, state=state, link_layer="Ethernet", counters={"tx_bytes": sent, "rx_bytes": received, **more}
    )


def reading(
    node: str,
    *,
    rdma: tuple[int, int] | None = (0, 0),
    tcp: tuple[int, int] = (0, 0),
    users: tuple[tuple[int, int], ...] | None = (),
    seconds: float = 1.0,
    state: str = "ACTIVE",
    grown: dict[str, int] | None = None,
    to: str = "",
) -> ReportPair:
    """A node with one RDMA device (None: without), which moved so many bytes, and one TCP connection of its pod."""
    inode, ip = POD[node]
    other = to or next(address for name, (_, address) in POD.items() if name != node)

    def report(t_ns: int, moved: tuple[int, int], carried: tuple[int, int], more: dict[str, int]) -> FabricReport:
        devices = () if rdma is None else (RdmaDevice(name="efa0", ports=(port(*moved, state, **more),), users=users),)
        connection = TcpConnection(ip, 40000, other, 50000, *carried)
        return FabricReport(
            node=node,
            t_ns=t_ns,
            fabric=Fabric(devices=devices),
            namespaces=(NamespaceConnections(inode, (connection,)),),
            addresses={ip: inode},
        )

    base = 10**6
    moved = rdma or (0, 0)
    begin = report(0, (base, base), (base, base), dict.fromkeys(grown or {}, 5))
    return ReportPair(
        begin,
        report(
            int(seconds * 1e9),
            (base + moved[0], base + moved[1]),
            (base + tcp[0], base + tcp[1]),
            {name: 5 + number for name, number in (grown or {}).items()},
        ),
    )
