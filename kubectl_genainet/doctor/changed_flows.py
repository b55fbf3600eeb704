"""The flows between workloads that a change of policies closes or opens."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping
from kubectl_genainet.doctor.objects.workloads import LivePod, Workload
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.model import PolicyEndpoint as End
from kubectl_genainet.policy.model import PolicyFlow, PolicyVerdict, pod_endpoint

MOST_FLOWS = 50_000


class FlowKey(NamedTuple):
    """A flow by the names of its ends."""

    client: str
    server: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.client} → {self.server} {self.protocol} {self.port}"


def name_of(end: str) -> str:
    """The name alone of a flow's end ("Deployment shop/web")."""
    return end.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class ChangedFlows:
    """The flows of which a change turns the verdict, and whether all that it may concern were compared."""

    closed: tuple[FlowKey, ...] = ()
    opened: tuple[FlowKey, ...] = ()
    complete: bool = True


def changed_flows(before: Cluster, after: Cluster) -> ChangedFlows:
    """Between workloads, on the ports that the servers declare; those with an end in a namespace whose policies differ."""
    was, now = _deciding(before), _deciding(after)
    namespaces = {key[1].namespace for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    if not namespaces:
        return ChangedFlows()
    old, new = _verdicts(before, namespaces), _verdicts(after, namespaces)
    turned = [(flow, (verdict, new.get(flow))) for flow, verdict in old.items()]
    return ChangedFlows(
        tuple(flow for flow, verdicts in turned if verdicts == (PolicyVerdict.ALLOW, PolicyVerdict.DENY)),
        tuple(flow for flow, verdicts in turned if verdicts == (PolicyVerdict.DENY, PolicyVerdict.ALLOW)),
        len(old) < MOST_FLOWS,
    )


def _deciding(cluster: Cluster) -> dict[tuple[str, ObjectRef], Any]:
    """What verdicts hang on: the policies, and the labels by which they choose namespaces."""
    return {
        (o.group, o.ref): o.raw if o.kind.endswith("NetworkPolicy") else mapping(o.raw, "metadata", "labels")
        for o in cluster.snapshot.objects
        if o.kind.endswith("NetworkPolicy") or o.kind == "Namespace"
    }


def _verdicts(cluster: Cluster, namespaces: Collection[str]) -> dict[FlowKey, PolicyVerdict]:
    """By flow, up to a number. A cluster-wide object ("" among the namespaces) concerns all."""
    flows = (
        (FlowKey(str(client.ref), str(server.ref), protocol, port), PolicyFlow(*ends, protocol, port))
        for client, server, ends in _pairs(cluster, namespaces)
        for protocol, port in _ports(server)
    )
    return {key: cluster.policy.verdict(flow) for key, flow in islice(flows, MOST_FLOWS)}


def _pairs(cluster: Cluster, namespaces: Collection[str]) -> Iterator[tuple[Workload, Workload, tuple[End, End]]]:
    """Two workloads and a pod of each, for all their pods have the same labels."""
    pods = [(w, [_end(p) for p in w.pods if not p.terminating][:2]) for w in cluster.workloads]
    for client, own in pods:
        for server, theirs in pods:
            if "" in namespaces or client.namespace in namespaces or server.namespace in namespaces:
                other = [end for end in theirs if end != own[0]] if own else []
                if other:
                    yield client, server, (own[0], other[0])


def _end(pod: LivePod) -> End:
    return pod_endpoint(pod.ref.namespace, pod.ref.name)


def _ports(workload: Workload) -> set[tuple[str, int]]:
    return {(protocol, number) for c in workload.containers for number, _, protocol in c.ports if number}
