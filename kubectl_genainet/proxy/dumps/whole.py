"""Whether a list of virtual servers is whole: ipvsadm marks no end, but kube-proxy keeps sets of the same addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_genainet.proxy.evaluator.packet.state import address_number
from kubectl_genainet.proxy.iptables.ipset import IpSet
from kubectl_genainet.proxy.ipvs.read import VirtualServer

ServerKey = tuple[str, int, int]  # protocol, address, port
# Sets of hash:ip,port in which kube-proxy puts each Service's addresses. Source: pkg/proxy/ipvs/ipset.go.
_OF_ADDRESSES = ("KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-LOAD-BALANCER")
_CLUSTER_IPS = ("KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP")
_NAMES = {name for base in _OF_ADDRESSES for name in (base, base.replace("KUBE-", "KUBE-6-"))}


def is_proven_whole(sets: Sequence[IpSet]) -> bool:
    """Whether the sets among the dumps tell every address that a Service has in the cluster."""
    return any(ip_set.name in _CLUSTER_IPS and ip_set.members and not ip_set.unread for ip_set in sets)


def servers_left_out(sets: Iterable[IpSet], servers: Sequence[VirtualServer]) -> frozenset[ServerKey]:
    """Addresses in kube-proxy's sets that no virtual server has: the list of servers is cut, or an excerpt."""
    if not servers:
        return frozenset()
    named = {_key(member) for ip_set in sets if ip_set.name in _NAMES for member in ip_set.members}
    return frozenset(
        key for key in named - {server.key for server in servers if server.fwmark is None} if key is not None
    )


def _key(member: str) -> ServerKey | None:
    """Of "10.96.0.1,tcp:443 comment …"."""
    address, _, protocol_and_port = member.split(maxsplit=1)[0].partition(",")
    protocol, _, port = protocol_and_port.partition(":")
    try:
        return protocol.upper(), address_number(address), int(port)
    except ValueError:
        return None
