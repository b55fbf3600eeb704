"""Names for addresses, as a file: what an agent, which never asks the API, is told of the cluster (see docs/metrics.md)."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.packet import FiveTuple, Protocol

UNKNOWN = "unknown"
AMBIGUOUS = "ambiguous"


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Whose an address or a pod's UID is."""

    namespace: str
    workload: str


class Identities(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is who at the moment `taken_at` (seconds since 1970, 0: nothing is known).

    `uids` and `addresses` name the pods' workloads; `addresses` has no pod that shares its node's address. `backends`
    maps "ADDRESS PORT PROTOCOL" of an endpoint to the Services ("NAMESPACE/NAME") that it serves.
    """

    taken_at: float = 0.0
    uids: dict[str, Owner] = {}
    addresses: dict[str, Owner] = {}
    backends: dict[str, tuple[str, ...]] = {}

    def service_of(self, flow: FiveTuple) -> str:
        """The Service whose endpoint is the flow's destination; AMBIGUOUS where it serves several."""
        services = self.backends.get(backend_key(flow.dst, flow.dport, flow.protocol), ())
        return services[0] if len(services) == 1 else AMBIGUOUS if services else UNKNOWN


def backend_key(ip: str, port: int, protocol: Protocol) -> str:
    return f"{ip} {port} {protocol.value}"
