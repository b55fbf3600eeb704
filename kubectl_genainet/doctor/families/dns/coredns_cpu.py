"""CoreDNS's CPU limit, and how often it stopped CoreDNS."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.families.dns.coredns import no_coredns
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, kubectl, patch, text
from kubectl_genainet.doctor.objects.workloads import LivePod
from kubectl_genainet.model.finding import Evidence, ObjectRef, Remedy, Severity
from kubectl_genainet.model.node import ContainerCpu

CONTAINERS = ("coredns", "kubedns", "dnsmasq")
OFTEN = 0.05  # of the periods in which it ran


@dataclass(frozen=True, slots=True)
class _Account:
    """A DNS container's own cgroup, as its node's agent read it."""

    pod: ObjectRef
    node: str
    cpu: ContainerCpu

    @property
    def share(self) -> float:
        return self.cpu.throttled / self.cpu.periods if self.cpu.periods else 0.0

    @property
    def evidence(self) -> Evidence:
        cpu = self.cpu
        statement = (
            f"stopped in {cpu.throttled} of {cpu.periods} periods ({100 * self.share:.1f} %), "
            f"{cpu.throttled_us / 1e6:.1f} s in all"
            if cpu.throttled
            else f"stopped in none of {cpu.periods} periods"
        )
        return on_node(self.node, statement, cpu.throttled, field="cpu.stat[nr_throttled]", obj=self.pod)


def _accounts(cluster: Cluster, pods: tuple[LivePod, ...]) -> list[_Account]:
    """One a DNS container that an agent found, the most throttled first."""
    known = {(r.node, c.container): c for r in cluster.reports for c in r.containers}
    accounts = [
        _Account(live.ref, live.node, cpu)
        for live in pods
        for status in items(live.obj.raw, "status", "containerStatuses")
        if text(status, "name") in CONTAINERS
        and (cpu := known.get((live.node, text(status, "containerID").rpartition("//")[2]))) is not None
    ]
    return sorted(accounts, key=lambda a: (-a.share, a.pod.name))


@check(Area.COREDNS, Severity.WARNING, needs=("Deployment",), applies=no_coredns)
def coredns_cpu_limit(cluster: Cluster) -> Problems:
    """CoreDNS is throttled by a CPU limit, or has one.

    Looks at resources.limits.cpu of the coredns container; where agents tell, at cpu.stat in the containers' own cgroups:
    in how many periods the limit has stopped CoreDNS since it started. An error from 5 % of them; information only
    where every replica is known and none was ever stopped.

    Why: DNS comes in bursts; stopped for the rest of a 100 ms period, CoreDNS answers late or not at all, and
    resolvers wait 5 s. The upstream manifests set no CPU limit. A warning: lookups are answered, late in bursts.

    Source: https://github.com/coredns/deployment/blob/master/kubernetes/coredns.yaml.sed,
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    coredns = cluster.coredns
    workload = cluster.workload(coredns.ref) if coredns else None
    if coredns is None or workload is None:
        return
    accounts = _accounts(cluster, workload.pods)
    throttled = [a for a in accounts if a.cpu.throttled]
    calm = bool(accounts) and not throttled and {a.pod for a in accounts} == {p.ref for p in workload.pods}
    severity = Severity.INFO if calm else Severity.ERROR if any(a.share >= OFTEN for a in throttled) else None
    evidence = tuple(a.evidence for a in (throttled or accounts)[:4])
    for index, container in enumerate(items(coredns.raw, "spec", "template", "spec", "containers")):
        limit = at(container, "resources", "limits", "cpu")
        if limit is None or text(container, "name") not in CONTAINERS:
            continue
        path = f"spec/template/spec/containers/{index}/resources/limits/cpu"
        field = f"spec.template.spec.containers[{index}].resources.limits.cpu"
        yield Problem(
            f"its limit of {limit} CPU stops it: {_worst(throttled)}"
            if throttled
            else f"it is stopped beyond {limit} CPU",
            coredns.ref,
            (seen(coredns.ref, field, limit, f"limits.cpu is {limit}"), *evidence),
            Remedy(
                "Keep the request, drop the limit.",
                command=patch(coredns.ref, [{"op": "remove", "path": f"/{path}"}], kind="json"),
            ),
            severity=severity,
        )
        return
    if throttled:
        yield Problem(
            f"a CPU limit that is not its own stops it: {_worst(throttled)}",
            coredns.ref,
            evidence,
            Remedy(
                "See where its limit comes from: a LimitRange of kube-system, or the node.",
                command="kubectl -n kube-system get limitrange\n" + kubectl(throttled[0].pod, "get", "-o", "yaml"),
            ),
            severity=severity,
        )


def _worst(throttled: list[_Account]) -> str:
    return f"{100 * throttled[0].share:.0f} % of the periods in {throttled[0].pod.name}"
