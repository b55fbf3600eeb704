"""How far a watch's connections came: what nothing came as far as was not looked at, so it can't be called fine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Verdict


@dataclass(frozen=True, slots=True)
class Reach:
    """Counts of connections, each a part of the one before; `met_pod` those whose packets were seen in a backend's pod.

    A datagram's flow has no handshake: where it was not stopped it counts as one that carried data. `flows` are those between
    clients and the backends that were chosen for them, whatever the client's port.
    """

    seen: int = 0
    met_pod: int = 0
    established: int = 0
    carried: int = 0
    answered: int = 0
    flows: frozenset[FiveTuple] = frozenset()


def reach_of(paths: Iterable[PacketPath]) -> Reach:
    seen = met_pod = established = carried = answered = 0
    flows: set[FiveTuple] = set()
    for path in paths:
        seen += 1
        come_about, with_data, with_reply = _is_established(path), _has_data(path), _has_reply(path)
        met_pod += come_about or _met_pod(path)
        established += come_about
        carried += with_data
        answered += with_reply
        flows |= _flow_of(path)
    return Reach(seen, met_pod, established, carried, answered, frozenset(flows))


def _flow_of(path: PacketPath) -> set[FiveTuple]:
    backend = path.backend
    if backend is None or backend.port is None:
        return set()
    return {FiveTuple(path.flow.client.ip, 0, backend.ip, backend.port, path.flow.protocol)}


def _met_pod(path: PacketPath) -> bool:
    """Whether a packet of it was seen in the pod that it was for: whatever judges on the way had let it pass."""
    pod = path.backend.pod if path.backend is not None else None
    return pod is not None and any(hop.pod == pod for hop in path.hops)


def _is_established(path: PacketPath) -> bool:
    return bool(path.established) or path.outcome is ConnectionOutcome.ANSWERED or _has_data(path)


def _has_data(path: PacketPath) -> bool:
    if path.flow.protocol is Protocol.TCP:
        return path.stream is not None or path.response_ns is not None
    return path.verdict is Verdict.FORWARDED


def _has_reply(path: PacketPath) -> bool:
    if path.flow.protocol is Protocol.TCP:
        return path.response_ns is not None or (path.stream is not None and path.stream.reply_bytes > 0)
    return path.outcome is ConnectionOutcome.ANSWERED
