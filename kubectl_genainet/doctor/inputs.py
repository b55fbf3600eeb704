"""What the checks are given besides the cluster's objects."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.results.fabric import FabricSummary


class DnsStats(msgspec.Struct, frozen=True):
    """DNS as measured for one client workload and one name. Times in ns; None where nothing was answered.

    `name` may be hashed or empty (all names). `server` is the address asked. `servfail` counts every response code that is
    neither NOERROR nor NXDOMAIN. `stalled` are queries that the resolver had to send again after its timeout (5 s by
    default), `races` those lost to the conntrack race of A and AAAA; `silent` names the servers that did not answer.
    `searched` counts queries that only tried a search domain (NXDOMAIN).
    """

    client: str  # "namespace/workload"
    name: str
    server: str
    queries: int
    timeouts: int = 0
    nxdomain: int = 0
    servfail: int = 0
    stalled: int = 0
    races: int = 0
    searched: int = 0
    p50_ns: int | None = None
    p99_ns: int | None = None
    node: str = ""
    silent: tuple[str, ...] = ()


class DnsMeasurement(msgspec.Struct, frozen=True):
    """What was measured of DNS, how long (None: not known), and why there is nothing where there is nothing."""

    clients: tuple[DnsStats, ...] = ()
    seconds: float | None = None
    absent: str = ""


NOTHING_MEASURED = DnsMeasurement()


class FabricMeasurement(msgspec.Struct, frozen=True):
    """By which way GPU pods talk, as measured; why it was not measured where it was not."""

    summary: FabricSummary | None = None
    absent: str = ""


NO_FABRIC = FabricMeasurement()
