"""What a node's own settings and rules do to packets: reverse-path filter, rules of nobody's, queues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, derived, on_node
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import RouteTable, host_of, netns_of, pods_on_reported_nodes, rp_filter
from kubectl_genainet.doctor.objects.raw import command, kubectl, sh
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.node import NetNs
from kubectl_genainet.proxy.enforcers import policy_behind
from kubectl_genainet.proxy.evaluator.ir import Act, Chain, Rule
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.ruleset import Ruleset

# Chains whose authors are known and that other checks (or their own tools) speak for.
OWNED = ("KUBE-", "cali-", "CILIUM_", "LAB-", "AWS-", "WEAVE", "FLANNEL", "ANTREA-", "DOCKER", "CNI-", "LIBVIRT_")
OWNED_TABLES = ("kube-proxy", "kube-network-policies", "calico", "cilium", "antrea")
_ONLY_INVALID = re.compile(r"--ctstate INVALID\b|--state INVALID\b|ct state invalid\b", re.I)
_TOO_BIG = re.compile(
    r"-p icmp\b(?!.*--icmp-type (?!fragmentation-needed|destination-unreachable|any|3(?:/4)?\b))"
    r"|-p (?:ipv6-icmp|icmpv6)\b(?!.*--icmpv6-type (?!packet-too-big|any|2\b))"
    r"|icmp type (?:\{[^}]*)?destination-unreachable|icmp code (?:\{[^}]*)?frag-needed"
    r"|icmpv6 type (?:\{[^}]*)?packet-too-big"
    r"|(?:ip protocol|meta l4proto) (?:icmp|ipv6-icmp|icmpv6)\b(?!.*icmp)",
    re.I,
)


def _pod_addresses(cluster: Cluster) -> dict[str, str]:
    """An address of a pod with a network namespace of its own, IPv4, for each node."""
    addresses: dict[str, str] = {}
    for workload in cluster.workloads:
        for live in workload.pods:
            if live.node and live.node not in addresses and not live.pod.spec.host_network and not live.terminating:
                ip = next((canonical_ip(i) for i in live.pod.ips if ":" not in i), "")
                if ip:
                    addresses[live.node] = ip
    return addresses


@check(Area.POD_IP, Severity.ERROR, needs=(Need.NODES, "Pod"))
def reverse_path(cluster: Cluster) -> Problems:
    """A node's strict reverse-path filter drops what other nodes send it.

    Looks, where rp_filter is 1 (the larger of the device's value and that of "all"), at the device by which packets of
    another node's pods come in (from that node's routes) and at the device by which this node would send to them.

    Why: strict filtering drops a packet that comes in by another device than the way back (IP_RPFILTER): one node's
    clients are not served by this node's pods. A second interface, a second ENI or a route of a VPN makes it so. An
    error: the clients behind one node get no answer.

    Source: https://docs.kernel.org/networking/ip-sysctl.html (rp_filter), RFC 3704 section 2.2
    """
    hosts = {r.node: h for r in cluster.reports if (h := host_of(r)) is not None}
    strict = [n for n, host in hosts.items() if any(rp_filter(host, d.name) == 1 for d in host.devices if d.up)]
    if not strict:
        return
    pods = _pod_addresses(cluster)
    tables = {n: RouteTable(host.routes) for n, host in hosts.items() if host.routes is not None}
    for node in strict:
        if node not in tables:
            yield NotChecked(f"node {node}", "its routes were not read")
            continue
        by_way: dict[tuple[str, str], list[str]] = {}
        for peer, address in pods.items():
            if peer == node or node not in pods or peer not in tables:
                continue
            arrives = _arrives_by(hosts[node], tables[peer], pods[node])
            back = tables[node].lookup(address)
            if arrives and back is not None and back.device != arrives and rp_filter(hosts[node], arrives) == 1:
                by_way.setdefault((arrives, back.device), []).append(peer)
        for (arrives, leaves), peers in by_way.items():
            name = f"net.ipv4.conf.{arrives}.rp_filter"
            yield Problem(
                f"it drops what comes from pods on {', '.join(sorted(peers)[:5])}: it arrives by {arrives}, "
                f"the way back is {leaves}",
                ObjectRef("Node", node),
                (
                    on_node(node, f"the reverse-path filter of {arrives} is 1 (strict)", 1, field=name),
                    on_node(node, f"{pods[peers[0]]} is routed by {leaves}", leaves, field="routes"),
                    derived(
                        ObjectRef("Node", peers[0]),
                        "",
                        arrives,
                        f"{peers[0]} sends to {pods[node]} by a gateway that is {arrives} of {node}",
                    ),
                ),
                Remedy(
                    "Make the filter loose (2), or the routes symmetric.",
                    command=f"sysctl -w net.ipv4.conf.all.rp_filter=2   # on node {sh(node)}; and in /etc/sysctl.d/",
                ),
            )


def _arrives_by(host: NetNs, sender: RouteTable, pod: str) -> str:
    """The device of the host that owns the gateway by which a sender reaches one of its pods; "" if not known."""
    route = sender.lookup(pod)
    if route is None or not route.via:
        return ""
    gateway = canonical_ip(route.via)
    return next((d.name for d in host.devices if gateway in d.addresses and d.up), "")


@check(Area.HEALTH, Severity.WARNING, needs=("Pod", Need.NODES))
def listen_queue(cluster: Cluster) -> Problems:
    """A pod did not accept connections fast enough, and some were dropped.

    Looks at ListenOverflows and ListenDrops of the pod's network namespace, counted since the pod's start.

    Why: the kernel drops the first packet of a connection for which the queue between handshake and accept() has no
    room; the client repeats it after 1, 3, 7 s. A model server whose event loop is busy with a prompt does that
    while its health check may still pass. A warning: connections take a second or more, and succeed.

    Source: man 2 listen (backlog), https://docs.kernel.org/networking/snmp_counter.html (TcpExtListenOverflows)
    """
    for report, live in pods_on_reported_nodes(cluster):
        netns = netns_of(report, live)
        overflows = netns.counters.get("ListenOverflows", 0) if netns else 0
        if netns is None or not overflows:
            continue
        yield Problem(
            f"its listen queue was full {overflows} times since it started",
            live.ref,
            (
                on_node(
                    report.node,
                    f"TcpExt ListenOverflows is {overflows}",
                    overflows,
                    field="ListenOverflows",
                    obj=live.ref,
                ),
                on_node(
                    report.node,
                    f"net.core.somaxconn is {netns.sysctls.get('net.core.somaxconn', 'unknown')}",
                    netns.sysctls.get("net.core.somaxconn"),
                    field="net.core.somaxconn",
                    obj=live.ref,
                ),
            ),
            Remedy(
                "See what the server does meanwhile; then more workers, a longer backlog (the server's own setting, up "
                "to net.core.somaxconn) or more replicas.",
                command=kubectl(live.ref, "logs", "--tail=100"),
            ),
        )


@check(Area.POLICY, Severity.WARNING, needs=(Need.RULESETS,))
def rule_of_nobody(cluster: Cluster) -> Problems:
    """A rule that neither kube-proxy nor a policy stands behind drops the pods' packets.

    Looks on each node at DROP and REJECT rules on the way of forwarded packets (FORWARD and the chains that it jumps to,
    of iptables and of nftables) outside the chains of kube-proxy, the CNI, policy enforcers and Docker, that have counted
    packets; and at the policy of FORWARD. Rules for packets of no connection (INVALID) are left out.

    Why: every object of the API says that the packet may pass. A hardening script, a load test of last year or a
    host firewall says otherwise on some nodes, and nobody looks there. A warning: what the rule drops is lost, and
    may be meant.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/, iptables-extensions(8)
    """
    for node, ruleset in cluster.rules.parsed.items():
        for rule in _foreign_drops(ruleset, Hook.FORWARD, Hook.PRE_ROUTING, Hook.POST_ROUTING):
            ref = rule.ref
            if not ref.packets or _ONLY_INVALID.search(ref.bare_text) or policy_behind(ref, ruleset) is not None:
                continue
            comment = f" ({ref.comment})" if ref.comment else ""
            yield Problem(
                f"rule {ref.index} of {ref.chain} has dropped {ref.packets} packets{comment}",
                ObjectRef("Node", node),
                (on_node(node, ref.text, ref.packets, field=f"{ref.table}/{ref.chain}[{ref.index}]"),),
                Remedy("Find out who wrote it; then take it away there, or it comes back.", command=_show(rule, node)),
            )
        for dump in cluster.rules.by_node[node]:
            match = re.search(r"^:FORWARD DROP \[([1-9]\d*):", dump.text, re.MULTILINE)
            if match and dump.source.startswith(("iptables", "ip6tables")):
                yield Problem(
                    f"the policy of FORWARD is DROP, and {match[1]} packets met it",
                    ObjectRef("Node", node),
                    (
                        on_node(
                            node,
                            f"chain FORWARD (policy DROP, {match[1]} packets)",
                            int(match[1]),
                            field="filter/FORWARD",
                        ),
                    ),
                    Remedy(
                        "Forwarded packets need a rule that accepts them; Docker and host firewalls set this policy.",
                        command=f"{dump.source} -P FORWARD ACCEPT   # on node {sh(node)}",
                    ),
                )


@check(Area.CNI, Severity.WARNING, needs=(Need.RULESETS,))
def icmp_blocked(cluster: Cluster) -> Problems:
    """A rule drops the ICMP errors that path MTU discovery needs.

    Looks on each node for DROP and REJECT rules of any hook that match ICMP "fragmentation needed" (type 3 code 4) or
    ICMPv6 "packet too big" (type 2), outside the chains of kube-proxy, the CNI and policy enforcers; whether they
    have counted packets or not.

    Why: where one link has a smaller MTU, the sender is not told. Handshakes and short answers pass; long prompts
    and token batches vanish and are sent again without end. A warning: it hurts only where a link with a smaller
    MTU is on the way.

    Source: RFC 1191, RFC 8201, RFC 2923 section 2.1 (black hole)
    """
    for node, ruleset in cluster.rules.parsed.items():
        for rule in _foreign_drops(ruleset, *Hook):
            ref = rule.ref
            if _TOO_BIG.search(ref.bare_text):
                counted = "" if ref.packets is None else f", {ref.packets} packets so far"
                yield Problem(
                    f'rule {ref.index} of {ref.chain} drops "packet too big"{counted}',
                    ObjectRef("Node", node),
                    (on_node(node, ref.text, ref.packets, field=f"{ref.table}/{ref.chain}[{ref.index}]"),),
                    Remedy("Let these errors pass.", command=_show(rule, node)),
                )


def _foreign_drops(ruleset: Ruleset, *hooks: Hook) -> Iterator[Rule]:
    """The rules that drop or reject, reached from the hooks without entering a chain whose author is known."""
    visited: set[int] = set()
    for family in (4, 6):
        waiting = [c for hook in hooks for c in ruleset.chains_at(family, hook)]
        while waiting:
            chain = waiting.pop()
            if id(chain) in visited or _owned(chain):
                continue
            visited.add(id(chain))
            for rule in chain.rules:
                kinds = {a.kind for a in rule.actions}
                if kinds & {Act.DROP, Act.REJECT}:
                    yield rule
                waiting += [t for a in rule.actions if (t := chain.table.chains.get(a.chain)) is not None]


def _owned(chain: Chain) -> bool:
    title = chain.table.title
    return chain.name.startswith(OWNED) or any(name in title for name in OWNED_TABLES)


def _show(rule: Rule, node: str) -> str:
    ref, source = rule.ref, rule.chain.table.source
    if source.startswith(("iptables", "ip6tables")):
        tool = ("iptables" if source.startswith("iptables") else "ip6tables") + source[source.index("-") :]
        return f"{tool} -t {sh(ref.table)} -vnL {sh(ref.chain)} --line-numbers   # on node {sh(node)}"
    return f"nft -a list chain {command(*ref.table.split(' ', 1), ref.chain)}   # on node {sh(node)}"
