"""What moved between two readings of one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.model.fabric import FabricReport, RdmaDevice, RdmaPort, TcpConnection
from kubectl_genainet.model.results.fabric import FabricDevice

# Counters of trouble: EFA's (AWS, "Monitor an Elastic Fabric Adapter"), those of mlx5 and bnxt_re, and InfiniBand's own.
TROUBLE = frozenset(
    {
        *("rx_drops", "retrans_timeout_events", "impaired_remote_conn_events", "unresponsive_remote_events"),
        *("rdma_read_wr_err", "rdma_write_wr_err", "rdma_read_resp_err", "rdma_write_recv_err", "retrans_pkts"),
        *("out_of_sequence", "out_of_buffer", "packet_seq_err", "local_ack_timeout_err", "rnr_nak_retry_err"),
        *("implied_nak_seq_err", "roce_adp_retrans_to", "req_transport_retries_exceeded", "max_retry_exceeded"),
        *("to_retransmits", "rx_roce_drops", "rx_roce_discards", "seq_err_naks_rcvd"),
        *("symbol_error", "link_downed", "link_error_recovery", "port_rcv_errors", "port_xmit_discards"),
        *("local_link_integrity_errors", "excessive_buffer_overrun_errors"),
    }
)


@dataclass(frozen=True, slots=True)
class ReportPair:
    """A node's two reports."""

    before: FabricReport
    after: FabricReport

    @property
    def node(self) -> str:
        return self.after.node

    @property
    def seconds(self) -> float:
        return max(1e-9, (self.after.t_ns - self.before.t_ns) / 1e9)

    def ports(self) -> Iterator[tuple[RdmaDevice, RdmaPort, RdmaPort | None]]:
        """Each port as it is, and as it was (None: it is new)."""
        old = {(d.name, p.number): p for d in self.before.fabric.devices for p in d.ports}
        for device in self.after.fabric.devices:
            for port in device.ports:
                yield device, port, old.get((device.name, port.number))

    def moved(self, port: RdmaPort, before: RdmaPort | None) -> tuple[float, float] | None:
        """(sent, received) bytes a second; None where it is not known (no counter, or one that was set back)."""
        now, then = port.data_bytes, before.data_bytes if before is not None else None
        if now is None or then is None or now[0] < then[0] or now[1] < then[1]:
            return None
        return (now[0] - then[0]) / self.seconds, (now[1] - then[1]) / self.seconds

    def devices(self) -> Iterator[FabricDevice]:
        for device, port, before in self.ports():
            moved = self.moved(port, before)
            old = before.counters if before is not None else port.counters
            growth = {
                n: port.counters[n] - old.get(n, port.counters[n]) for n in sorted(TROUBLE & port.counters.keys())
            }
            yield FabricDevice(
                node=self.node,
                device=device.name,
                port=port.number,
                state=port.state,
                link_layer=port.link_layer,
                rate=port.rate,
                gids=len(port.gids),
                sent_bytes_s=moved[0] if moved else None,
                received_bytes_s=moved[1] if moved else None,
                queue_pairs=None if device.users is None else sum(number for _, number in device.users),
                grown={name: number for name, number in growth.items() if number > 0},
            )

    def rdma_rate(self, devices: frozenset[str] | None = None) -> float | None:
        """Bytes a second of these devices (None: of all) together; None where one of them does not tell."""
        total = 0.0
        for device, port, before in self.ports():
            if devices is not None and device.name not in devices:
                continue
            moved = self.moved(port, before)
            if moved is None:
                return None
            total += sum(moved)
        return total

    def connections(self, inode: int) -> Iterator[tuple[TcpConnection, float]]:
        """The connections of a namespace, with the bytes a second that each carried, both ways together.

        One that began in between has carried all its bytes since.
        """
        then = {_key(c): c.sent + c.received for n in self.before.namespaces if n.inode == inode for c in n.connections}
        for namespace in self.after.namespaces:
            if namespace.inode == inode:
                for connection in namespace.connections:
                    grown = connection.sent + connection.received - then.get(_key(connection), 0)
                    yield connection, max(0, grown) / self.seconds


def _key(connection: TcpConnection) -> tuple[str, int, str, int]:
    return connection.local, connection.local_port, connection.remote, connection.remote_port
