"""Measured DNS: whose sample is large enough, and what is said of the others."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.inputs import DnsStats
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import NotChecked

MIN_QUERIES = 20  # below it a share of them says little
RESOLVER_S = 5.0  # a resolver asks again after this time (man 5 resolv.conf, timeout)


def judged(cluster: Cluster) -> list[DnsStats]:
    """The clients that sent enough queries."""
    return [s for s in cluster.dns if s.queries >= MIN_QUERIES]


def too_few(cluster: Cluster) -> Iterator[NotChecked]:
    """One record for all clients whose shares can't be judged."""
    names = sorted(s.client for s in cluster.dns if s.queries < MIN_QUERIES)
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield NotChecked("", f"fewer than {MIN_QUERIES} DNS queries{_within(cluster)} by {shown}: measure longer")


def too_short(cluster: Cluster) -> Iterator[NotChecked]:
    """Where the measurement was over before any resolver would have asked again."""
    seconds = cluster.measured.seconds
    if seconds is not None and seconds <= RESOLVER_S:
        yield NotChecked(
            "",
            f"DNS was measured for {seconds:.1f} s, and resolvers ask again after {RESOLVER_S:.0f} s: measure longer",
        )


def client_of(cluster: Cluster, stats: DnsStats) -> Workload | None:
    """The workload that asked; None where the snapshot has none of its name."""
    namespace, _, name = stats.client.partition("/")
    return next((w for w in cluster.workloads_in.get(namespace, ()) if w.name == name), None)


def _within(cluster: Cluster) -> str:
    return f" within {cluster.measured.seconds:.0f} s" if cluster.measured.seconds is not None else ""
