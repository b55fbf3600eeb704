"""Writes a node's rules as kube-proxy's iptables mode does, chain by chain and comment by comment.

Source: kubernetes pkg/proxy/iptables/proxier.go, v1.37 (syncProxyRules, iptablesJumpChains).
tests/cluster/plane/test_lab_rules.py compares with what the real kube-proxy of that version leaves in the kernel. Its counting
rules (-m nfacct) are left out: kube-proxy writes them only where the kernel has accounting objects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kubectl_genainet.lab.datapath.iptables import Tables, comment
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode, ProxyPort, endpoint_text, proxy_ports
from kubectl_genainet.lab.spec import AddressFamily
from kubectl_genainet.model.cluster import Backend, ClusterSnapshot
from kubectl_genainet.proxy.names import iptables_endpoint_chain, iptables_service_chain

_NEW = "-m conntrack --ctstate NEW"
_PORTALS = "kubernetes service portals"
_VISIBLE = "kubernetes externally-visible service portals"
_BALANCER = "kubernetes load balancer firewall"
# (table, chain, condition, comment, target), in the order in which they stand in the chains.
_JUMPS = (
    ("filter", "INPUT", _NEW, _BALANCER, "KUBE-PROXY-FIREWALL"),
    ("filter", "INPUT", "", "kubernetes health check service ports", "KUBE-NODEPORTS"),
    ("filter", "INPUT", _NEW, _VISIBLE, "KUBE-EXTERNAL-SERVICES"),
    ("filter", "FORWARD", _NEW, _BALANCER, "KUBE-PROXY-FIREWALL"),
    ("filter", "FORWARD", "", "kubernetes forwarding rules", "KUBE-FORWARD"),
    ("filter", "FORWARD", _NEW, _PORTALS, "KUBE-SERVICES"),
    ("filter", "FORWARD", _NEW, _VISIBLE, "KUBE-EXTERNAL-SERVICES"),
    ("filter", "OUTPUT", _NEW, _BALANCER, "KUBE-PROXY-FIREWALL"),
    ("filter", "OUTPUT", _NEW, _PORTALS, "KUBE-SERVICES"),
    ("nat", "PREROUTING", "", _PORTALS, "KUBE-SERVICES"),
    ("nat", "OUTPUT", "", _PORTALS, "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
)


def write_iptables(
    tables: Tables, snapshot: ClusterSnapshot, node: ProxyNode, *, random_fully: bool = True, kubelet: bool = True
) -> None:
    """Adds kube-proxy's chains of one address family to `tables`.

    `random_fully`: as on kernels that have it. `kubelet`: with the KUBE-FIREWALL chain, which kubelet made before
    1.28 and kube-proxy keeps since.
    """
    for table, chain, condition, text, target in _JUMPS:
        tables.append(table, chain, *filter(None, (condition, comment(text))), "-j", target)
        tables.chain(table, target)
    for table in ("mangle", "nat", "filter"):
        tables.chain(table, "KUBE-PROXY-CANARY")  # kube-proxy watches it: where it is gone, somebody flushed the tables
    _write_constant_chains(tables, random_fully)
    if kubelet:
        write_kubelet_firewall(tables, node.family)
    for port in proxy_ports(snapshot, node):
        _Port(tables, node, port).write()
    # The tail call comes after all other rules of the chain.
    loopback = "! -d ::1/128 " if node.family is AddressFamily.IPV6 else ""
    last = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    tables.append("nat", "KUBE-SERVICES", comment(last), f"-m addrtype --dst-type LOCAL {loopback}-j KUBE-NODEPORTS")
    tables.chain("nat", "KUBE-NODEPORTS")


def _write_constant_chains(tables: Tables, random_fully: bool) -> None:
    forward = ("filter", "KUBE-FORWARD")
    rules = comment("kubernetes forwarding rules")
    tables.append(*forward, "-m conntrack --ctstate INVALID -j DROP")
    tables.append(*forward, rules, "-m mark --mark 0x4000/0x4000 -j ACCEPT")
    related = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    tables.append(*forward, comment("kubernetes forwarding conntrack rule"), related)
    tables.append("nat", "KUBE-MARK-MASQ", "-j MARK --or-mark 0x4000")
    post = ("nat", "KUBE-POSTROUTING")
    tables.append(*post, "-m mark ! --mark 0x4000/0x4000 -j RETURN")
    tables.append(*post, "-j MARK --xor-mark 0x4000")
    masquerade = "-j MASQUERADE --random-fully" if random_fully else "-j MASQUERADE"
    tables.append(*post, comment("kubernetes service traffic requiring SNAT"), masquerade)


def write_kubelet_firewall(tables: Tables, family: AddressFamily) -> None:
    """KUBE-FIREWALL: nothing from outside may use route_localnet to reach the node's loopback."""
    tables.chain("filter", "KUBE-FIREWALL")
    if family is AddressFamily.IPV4:
        tables.append(
            "filter",
            "KUBE-FIREWALL",
            comment("block incoming localnet connections"),
            "-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        )
    for chain in ("INPUT", "OUTPUT"):
        tables.prepend("filter", chain, "-j KUBE-FIREWALL")


class _Port:
    """Writes all rules of one Service port."""

    def __init__(self, tables: Tables, node: ProxyNode, port: ProxyPort) -> None:
        self.tables, self.node, self.port = tables, node, port
        chains = {
            prefix: iptables_service_chain(port.name, port.protocol, f"KUBE-{prefix}-")
            for prefix in ("SVC", "SVL", "EXT", "FW")
        }
        self.cluster, self.local, self.external, self.firewall = chains.values()
        self.proto = f"-m {port.protocol} -p {port.protocol}"
        self.uses_firewall = bool(port.has_endpoints and port.balancer_ips and port.source_ranges)

    def write(self) -> None:
        self._capture_cluster_ip()
        self._capture_external()
        self._capture_node_port()
        if self.port.has_internal_endpoints and self.node.cluster_cidr:
            not_local = f"! -s {self.node.cluster_cidr}"
            internal = self.local if self.port.internal_local else self.cluster
            self._nat(
                internal,
                comment(f"{self.port.name} cluster IP"),
                self._to(self.port.cluster_ip),
                not_local,
                "-j KUBE-MARK-MASQ",
            )
        if self.port.has_endpoints and self.port.external:
            self._write_external_chain()
        if self.uses_firewall:
            self._write_firewall_chain()
        if self.port.cluster_endpoints:
            self._write_choice(self.cluster, self.port.cluster_endpoints)
        if self.port.local_endpoints:
            self._write_choice(self.local, self.port.local_endpoints)
        for endpoint in self.port.all_endpoints:
            self._write_endpoint(endpoint)

    def _nat(self, chain: str, *arguments: str) -> None:
        self.tables.append("nat", chain, *arguments)

    def _filter(self, chain: str, *arguments: str) -> None:
        self.tables.append("filter", chain, *arguments)

    def _to(self, ip: str) -> str:
        return f"{self.proto} -d {ip} --dport {self.port.port.port}"

    def _refusal(self) -> str:
        """Comment and target for traffic without an endpoint: none at all is rejected, none on this node dropped."""
        if not self.port.has_endpoints:
            return comment(f"{self.port.name} has no endpoints") + " {match} -j REJECT"
        return comment(f"{self.port.name} has no local endpoints") + " {match} -j DROP"

    def _capture_cluster_ip(self) -> None:
        to = self._to(self.port.cluster_ip)
        if self.port.has_internal_endpoints:
            chain = self.local if self.port.internal_local else self.cluster
            self._nat("KUBE-SERVICES", comment(f"{self.port.name} cluster IP"), to, "-j", chain)
        else:
            self._filter("KUBE-SERVICES", self._refusal().format(match=to))

    def _capture_external(self) -> None:
        port = self.port
        balancer = self.firewall if self.uses_firewall else self.external
        for ip in port.external_ips:
            if port.has_endpoints:
                self._nat("KUBE-SERVICES", comment(f"{port.name} external IP"), self._to(ip), "-j", self.external)
        for ip in port.balancer_ips:
            if port.has_endpoints:
                self._nat("KUBE-SERVICES", comment(f"{port.name} loadbalancer IP"), self._to(ip), "-j", balancer)
            if self.uses_firewall:
                text = f"{port.name} traffic not accepted by {self.firewall}"
                self._filter("KUBE-PROXY-FIREWALL", comment(text), self._to(ip), "-j DROP")
        if not port.has_external_endpoints:
            for ip in (*port.external_ips, *port.balancer_ips):
                self._filter("KUBE-EXTERNAL-SERVICES", self._refusal().format(match=self._to(ip)))

    def _capture_node_port(self) -> None:
        port = self.port
        if port.port.node_port:
            to = f"{self.proto} --dport {port.port.node_port}"
            if port.has_endpoints:
                self._nat("KUBE-NODEPORTS", comment(port.name), to, "-j", self.external)
            if not port.has_external_endpoints:
                match = f"-m addrtype --dst-type LOCAL {to}"
                self._filter("KUBE-EXTERNAL-SERVICES", self._refusal().format(match=match))
        if port.service.spec.health_check_node_port:
            self._filter(
                "KUBE-NODEPORTS",
                comment(f"{port.name} health check node port"),
                f"-m tcp -p tcp --dport {port.service.spec.health_check_node_port} -j ACCEPT",
            )

    def _write_external_chain(self) -> None:
        name = f"{self.port.name} external destinations"
        if not self.port.external_local:
            self._nat(self.external, comment(f"masquerade traffic for {name}"), "-j KUBE-MARK-MASQ")
        else:
            if self.node.cluster_cidr:
                short_cut = f"-s {self.node.cluster_cidr} -j {self.cluster}"
                self._nat(self.external, comment(f"pod traffic for {name}"), short_cut)
            local = "-m addrtype --src-type LOCAL -j"
            self._nat(self.external, comment(f"masquerade LOCAL traffic for {name}"), local, "KUBE-MARK-MASQ")
            self._nat(self.external, comment(f"route LOCAL traffic for {name}"), local, self.cluster)
        if self.port.has_external_endpoints:
            self._nat(self.external, "-j", self.local if self.port.external_local else self.cluster)

    def _write_firewall_chain(self) -> None:
        sources: Iterable[str] = self.port.source_ranges
        if _admits_node(self.port.source_ranges, self.node.node_ips):
            # Where the balancer's address is the node's own too, the node's connections come from it.
            sources = (*sources, *self.port.balancer_ips)
        for source in sources:
            text = comment(f"{self.port.name} loadbalancer IP")
            self._nat(self.firewall, text, f"-s {source} -j {self.external}")
        self._nat(self.firewall, comment(f"other traffic to {self.port.name} will be dropped by KUBE-PROXY-FIREWALL"))

    def _write_choice(self, chain: str, endpoints: tuple[Backend, ...]) -> None:
        seconds = self.port.affinity_seconds
        for endpoint in endpoints if seconds else ():
            target = self._endpoint_chain(endpoint)
            recent = f"-m recent --name {target} --rcheck --seconds {seconds} --reap -j {target}"
            self._nat(chain, self._arrow(endpoint), recent)
        for number, endpoint in enumerate(endpoints):
            remaining = len(endpoints) - number
            chance = f"-m statistic --mode random --probability {1 / remaining:.10f} " if remaining > 1 else ""
            self._nat(chain, self._arrow(endpoint), f"{chance}-j {self._endpoint_chain(endpoint)}")

    def _write_endpoint(self, endpoint: Backend) -> None:
        chain = self._endpoint_chain(endpoint)
        text = comment(self.port.name)
        self._nat(chain, text, f"-s {endpoint.ip} -j KUBE-MARK-MASQ")
        recent = f"-m recent --name {chain} --set " if self.port.affinity_seconds else ""
        self._nat(chain, text, f"{recent}{self.proto} -j DNAT --to-destination {endpoint_text(endpoint)}")

    def _endpoint_chain(self, endpoint: Backend) -> str:
        return iptables_endpoint_chain(self.port.name, self.port.protocol, endpoint_text(endpoint))

    def _arrow(self, endpoint: Backend) -> str:
        return comment(f"{self.port.name} -> {endpoint_text(endpoint)}")


def _admits_node(source_ranges: tuple[str, ...], node_ips: tuple[str, ...]) -> bool:
    networks = [ipaddress.ip_network(r, strict=False) for r in source_ranges]
    return any(ipaddress.ip_address(ip) in network for network in networks for ip in node_ips)
