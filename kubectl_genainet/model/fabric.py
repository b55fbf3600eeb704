"""What a node's RDMA devices and NICs say of themselves, and its pods' TCP connections: facts, without a verdict."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.units import Count, Nanoseconds


class RdmaPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port as /sys/class/infiniband/DEVICE/ports/NUMBER shows it. `counters` are those of counters/ and hw_counters/.

    `state` is the kernel's word (ACTIVE, DOWN, …), `link_layer` InfiniBand, Ethernet or Unspecified (EFA), `gids` those that
    are set. Each is empty where it could not be read.
    """

    number: Count
    state: str = ""
    link_layer: str = ""
    rate: str = ""
    gids: tuple[str, ...] = ()
    counters: dict[str, Count] = {}

    @property
    def data_bytes(self) -> tuple[int, int] | None:
        """(sent, received); None where the device counts no bytes.

        EFA and others count bytes (tx_bytes), InfiniBand words of four (port_xmit_data): IBTA specification, PortCounters.
        """
        for sent, received, unit in (("tx_bytes", "rx_bytes", 1), ("port_xmit_data", "port_rcv_data", 4)):
            if sent in self.counters and received in self.counters:
                return unit * self.counters[sent], unit * self.counters[received]
        return None


class RdmaDevice(msgspec.Struct, frozen=True, kw_only=True):
    """An RDMA device. `users` are (inode of a network namespace, queue pairs that its processes hold); None: not known."""

    name: str
    ports: tuple[RdmaPort, ...] = ()
    users: tuple[tuple[int, Count], ...] | None = None


class Fabric(msgspec.Struct, frozen=True, kw_only=True):
    """The RDMA devices of a node. `netns_mode` is "shared" (every namespace may use every device), "exclusive", or ""."""

    devices: tuple[RdmaDevice, ...] = ()
    netns_mode: str = ""
    unreadable: tuple[str, ...] = ()


class TcpConnection(msgspec.Struct, frozen=True):
    """An established connection, from the end that the namespace has. Bytes are payload: acknowledged, and received."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    sent: Count
    received: Count


class NamespaceConnections(msgspec.Struct, frozen=True):
    """The connections of a network namespace; `left_out` are those beyond the bound."""

    inode: int
    connections: tuple[TcpConnection, ...]
    left_out: Count = 0


class FabricReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="fabric"):
    """The node's fabric at one moment, and the TCP connections of the namespaces that were asked for."""

    node: str
    t_ns: Nanoseconds
    fabric: Fabric
    namespaces: tuple[NamespaceConnections, ...] = ()
    addresses: dict[str, int] = {}  # of those that were asked for: the inode of the namespace that has each
    unreadable: tuple[str, ...] = ()
