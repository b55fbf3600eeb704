"""Whether a row's client is the one that really asked: a node gives its own address to packets of others (source NAT); and
whether it is an agent, of which no row is made."""

from __future__ import annotations

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.drops.groups import EventGroup, GroupKind
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.packet import AGENT, AGENT_PORT, FiveTuple, is_observers, parse_address

_UNTRANSLATED = (
    "INPUT",
    "FORWARD",
    "OUTPUT",
)  # hooks in which a node's own address stands for itself: POSTROUTING comes after


def hidden_client(group: EventGroup, identity: Identity) -> Evidence | None:
    """That it is not known who asked, where the client's address is a node's; None where the packet was seen before the node's
    source NAT, or the node's own socket had it."""
    ip = group.request.src
    node = identity.party(ip, None).node if identity.snapshot.pod_at(ip) is None else None
    if node is None or not group.oriented:
        return None
    at_home = group.node == node and identity.is_host(node, group.netns)
    if at_home and (
        group.kind is not GroupKind.DROP or (group.sample is not None and group.sample.hook in _UNTRANSLATED)
    ):
        return None
    statement = (
        f"{ip} is an address of {node}: whether the node itself asked, or a pod or another client that it gives its address to "
        "(source NAT), is not known"
    )
    return Evidence(statement, Certainty.UNKNOWN, node=node)


def is_agents_own(flow: FiveTuple, pod: Pod | None) -> bool:
    """Whether the packet, in the network namespace of a pod or of none, says nothing of the node's traffic: an agent's questions
    to its node's programs, and its own port, which its probes try before it listens and who asks it reaches by the kubelet."""
    if is_observers(flow):
        return True
    if AGENT_PORT not in (flow.sport, flow.dport) or pod is None:
        return False
    is_agent = pod.metadata.labels.get("app.kubernetes.io/name") == AGENT
    return is_agent and all(parse_address(ip).is_loopback for ip in (flow.src, flow.dst))
