"""What the agents' own pods and packets are known by."""

from __future__ import annotations

from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.packet import FiveTuple, is_observers, parse_address

AGENT = "genainet-agent"  # name of the DaemonSet, and its pods' app.kubernetes.io/name
AGENT_PORT = 9912  # on the loopback of an agent's network namespace


def is_agents_own(flow: FiveTuple, pod: Pod | None) -> bool:
    """Whether the packet, in the network namespace of a pod or of none, says nothing of the node's traffic: an agent's questions
    to its node's programs, and its own port, which its probes try before it listens and who asks it reaches by the kubelet."""
    if is_observers(flow):
        return True
    if AGENT_PORT not in (flow.sport, flow.dport) or pod is None:
        return False
    is_agent = pod.metadata.labels.get("app.kubernetes.io/name") == AGENT
    return is_agent and all(parse_address(ip).is_loopback for ip in (flow.src, flow.dst))
