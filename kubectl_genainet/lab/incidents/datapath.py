"""Incidents of nodes: MTU, reverse-path filter, connection tracking."""

from __future__ import annotations

import contextlib

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.api.objects import Object
from kubectl_genainet.lab.change import Lab
from kubectl_genainet.lab.cluster import wires
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.datapath.conntrack import delete_marked, end_connections, fill_table
from kubectl_genainet.lab.datapath.iptables import comment
from kubectl_genainet.lab.datapath.wiring import vxlan_device
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident
from kubectl_genainet.lab.incidents.policies import CHATBOT, LLAMA
from kubectl_genainet.lab.spec import AddressFamily, Overlay
from kubectl_genainet.lab.state import ExtraRule, Memo
from kubectl_genainet.model.results.path import Verdict

SMALL_MTU = 1300
SECOND_DEVICE = "eth1"


def _node_of(pod: Object) -> str:
    return str(pod["spec"]["nodeName"])


def _backend_away_from(lab: Lab, node: str) -> Object:
    """A pod of the model on another node than the given one."""
    for pod in lab.pods_of(LLAMA):
        if _node_of(pod) != node:
            return pod
    raise GenainetError("this incident needs a lab of two nodes or more", "Bring one up: lab up --nodes 3")


def _way_between_nodes(lab: Lab) -> str:
    """The device by which packets for other nodes' pods leave a node."""
    return "eth0" if lab.record.spec.overlay is Overlay.NONE else vxlan_device(AddressFamily.IPV4)


def _clear_mtu(lab: Lab, memo: Memo) -> None:
    if memo.notes:
        with wires(lab.record) as wired:
            namespace, device = lab.record.nodes[memo.notes["node"]], memo.notes["device"]
            wired.at(namespace).link("set", index=wired.index_of(namespace, device), mtu=memo.notes["mtu"])


@incident(
    "mtu-blackhole",
    Expected(Verdict.DROPPED, reason="PKT_TOO_BIG", location="ip_forward"),
    Cause("mtu-blackhole", "larger than the MTU"),
    felt=Symptom.CUT_SHORT,
    clear=_clear_mtu,
)
def mtu_blackhole(lab: Lab, memo: Memo) -> None:
    """Full-size packets of one node vanish, and nobody is told.

    Fault: on the node of one backend, the device towards the other nodes has an MTU of 1300 while the pods have 1500
    (1450 with VXLAN), and a firewall rule of the node drops the ICMP "fragmentation needed" that should tell them.
    Diagnosis: the handshake succeeds, then the backend's answer is retransmitted without end: PKT_TOO_BIG in ip_forward
    on the backend's node, no netfilter hook; the ICMP error is dropped in OUTPUT of the same node.
    """
    node = _node_of(_backend_away_from(lab, _node_of(lab.pods_of(CHATBOT)[0])))
    device = _way_between_nodes(lab)
    with wires(lab.record) as wired:
        ipr, index = wired.at(lab.record.nodes[node]), wired.index_of(lab.record.nodes[node], device)
        memo.notes = {"node": node, "device": device, "mtu": ipr.get_links(index)[0].get_attr("IFLA_MTU")}
        rule = f"-p icmp --icmp-type fragmentation-needed {comment('hardening: no icmp errors')} -j DROP"
        lab.add_rule(ExtraRule(incident="mtu-blackhole", node=node, table="filter", chain="OUTPUT", rule=rule))
        lab.save()
        ipr.link("set", index=index, mtu=SMALL_MTU)
    lab.sync()


def _clear_rp_filter(lab: Lab, memo: Memo) -> None:
    if not memo.notes:
        return
    node, peer, device = (memo.notes[k] for k in ("node", "peer", "device"))
    nodes = list(lab.record.nodes)
    with netns.inside(lab.record.nodes[node]):
        netns.write_sysctls({f"net/ipv4/conf/{device}/rp_filter": memo.notes["rp_filter"]})
    with wires(lab.record) as wired:
        wired.route_to_peer(nodes.index(node) + 1, nodes.index(peer) + 1, AddressFamily.IPV4)
        with contextlib.suppress(LookupError):
            namespace = lab.record.nodes[node]
            wired.at(namespace).link("del", index=wired.index_of(namespace, SECOND_DEVICE))


@incident(
    "rp-filter",
    Expected(Verdict.DROPPED, reason="IP_RPFILTER", location="ip_rcv_finish_core"),
    Cause("rp-filter", "reverse path filter of node"),
    felt=Symptom.HANGS,
    clear=_clear_rp_filter,
)
def rp_filter(lab: Lab, memo: Memo) -> None:
    """Packets arrive by one device, the way back is another, and the reverse-path filter is strict.

    Fault: the node of one backend has a second device, and its route to the pods of a client's node goes by that one;
    rp_filter of the device by which they come in is 1 (strict).
    Diagnosis: packets of that node's chatbot-ui are dropped when they arrive on the backend's node: IP_RPFILTER,
    before any forwarding, no netfilter hook, no rule.
    """
    peer = _node_of(lab.pods_of(CHATBOT)[0])
    node = _node_of(_backend_away_from(lab, peer))
    nodes, device = list(lab.record.nodes), _way_between_nodes(lab)
    index, namespace = nodes.index(node) + 1, lab.record.nodes[node]
    memo.notes = {"node": node, "peer": peer, "device": device, "rp_filter": "2"}
    lab.save()
    with wires(lab.record) as wired:
        wired.add_second_uplink(index, SECOND_DEVICE)
        wired.at(namespace).route(
            "replace",
            dst=AddressFamily.IPV4.pod_cidr(nodes.index(peer) + 1),
            oif=wired.index_of(namespace, SECOND_DEVICE),
            gateway=AddressFamily.IPV4.node_ip(nodes.index(peer) + 1),
            flags=4,
        )
    with netns.inside(namespace):
        netns.write_sysctls({f"net/ipv4/conf/{device}/rp_filter": "1"})


def _clear_conntrack(lab: Lab, memo: Memo) -> None:
    if memo.notes:
        with netns.inside(lab.record.nodes[memo.notes["node"]]):
            delete_marked()
        # The table had evicted entries of some connections, whose packets are INVALID from now on.
        for namespace in lab.record.pods.values():
            with netns.inside(namespace):
                end_connections()


@incident(
    "conntrack-full",
    Expected(Verdict.DROPPED, "NETFILTER_DROP", "prerouting", "nf_hook_slow"),
    Cause("conntrack-full", "connection tracking table of node"),
    felt=Symptom.ONE_NODE,
    clear=_clear_conntrack,
)
def conntrack_full(lab: Lab, memo: Memo) -> None:
    """A node's connection tracking table is full.

    Fault: the table of a client's node holds as many established connections as nf_conntrack_max allows (entries made
    through ctnetlink, with a mark of their own; the limit itself belongs to the whole machine and is not touched).
    Diagnosis: packets of new connections that enter the node are dropped in PREROUTING, by connection tracking itself:
    NETFILTER_DROP, no rule; nf_conntrack_count equals nf_conntrack_max and the "drop" column of conntrack -S grows.
    Known connections go on.
    """
    node = _node_of(lab.pods_of(CHATBOT)[0])
    memo.notes = {"node": node}
    lab.save()
    with netns.inside(lab.record.nodes[node]):
        memo.notes["entries"] = fill_table()
