"""NetworkPolicy against what was seen on the wire."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, derived, on_node
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import sh
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.events import PacketDropped, PacketSeen, PacketSighting
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import PolicyFlow, PolicyVerdict, pod_endpoint


def _pods_of(cluster: Cluster, packet: PacketSighting) -> tuple[ObjectRef, ObjectRef] | None:
    client, server = cluster.snapshot.pod_at(packet.flow.src), cluster.snapshot.pod_at(packet.flow.dst)
    if (
        client is None
        or server is None
        or not (cluster.in_scope(client.metadata.namespace) or cluster.in_scope(server.metadata.namespace))
    ):
        return None
    return client.ref, server.ref


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod", Need.PACKETS))
def policy_against_traffic(cluster: Cluster) -> Problems:
    """What was seen on the wire contradicts the policies.

    Looks at recorded packets between pods: a first packet (TCP SYN) that netfilter or a tc program dropped although
    the policies admit it, and one that arrived in the pod's network namespace although they do not.

    Why: the enforcer lags, does not run on that node, or another one has rules of its own; the API no longer tells
    what happens. An error: users reach what they should not, or not what they should.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#pod-lifecycle
    """
    netns_of = {
        canonical_ip(a): n.inode for r in cluster.reports for n in r.namespaces if not n.host for a in n.addresses
    }
    judged: set[tuple[ObjectRef, ObjectRef, int]] = set()
    for packet in cluster.packets:
        dropped = isinstance(packet, PacketDropped)
        if not (packet.tcp and packet.tcp.syn and not packet.tcp.is_ack):
            continue
        arrived = isinstance(packet, PacketSeen) and packet.netns == netns_of.get(packet.flow.dst)
        by_policy = isinstance(packet, PacketDropped) and packet.reason in ("NETFILTER_DROP", "TC_INGRESS", "TC_EGRESS")
        pods = _pods_of(cluster, packet)
        if pods is None or not (by_policy if dropped else arrived) or (*pods, packet.flow.dport) in judged:
            continue
        flow = PolicyFlow(
            pod_endpoint(pods[0].namespace, pods[0].name),
            pod_endpoint(pods[1].namespace, pods[1].name),
            packet.flow.protocol.value,
            packet.flow.dport,
        )
        verdict = cluster.policy.explain(flow).verdict
        if verdict is (PolicyVerdict.ALLOW if dropped else PolicyVerdict.DENY):
            judged.add((*pods, packet.flow.dport))
            what = "was dropped, and the policies admit it" if dropped else "arrived, and the policies do not admit it"
            reason = packet.reason if isinstance(packet, PacketDropped) else "delivered"
            yield Problem(
                f"{pods[0]} → {pods[1]} TCP {packet.flow.dport} {what}",
                pods[1],
                (
                    on_node(
                        packet.node,
                        f"{packet.flow} {reason} at {packet.device or 'no device'}",
                        reason,
                        field="verdict",
                    ),
                    derived(pods[1], "metadata.labels", verdict.value, f"the policies say {verdict.value}"),
                ),
                Remedy(
                    "Look at the policy agent of that node.",
                    command=f"kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={sh(packet.node)}",
                ),
            )
