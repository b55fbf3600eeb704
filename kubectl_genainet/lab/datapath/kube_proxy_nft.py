"""Writes a node's rules as kube-proxy's nftables mode does, as one transaction for `nft -f`.

Source: kubernetes pkg/proxy/nftables/proxier.go, v1.37 (setupNFTables, syncProxyRules). tests/cluster/plane/test_lab_rules.py
compares with what the real kube-proxy of that version leaves in the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode, ProxyPort, proxy_ports
from kubectl_genainet.lab.spec import AddressFamily
from kubectl_genainet.model.cluster import Backend, ClusterSnapshot
from kubectl_genainet.proxy.names import nftables_endpoint_chain, nftables_service_chain

_MARK = "mark set mark or 0x4000"
_SETS = """\
add set {t} hairpin-connections {{ type {a} . {a} . inet_proto . inet_service ; comment "service hairpin \
connections" ; }}
add set {t} cluster-ips {{ type {a} ; comment "Active ClusterIPs" ; }}
add set {t} nodeport-ips {{ type {a} ; comment "IPs that accept NodePort traffic" ; }}
add map {t} firewall-ips {{ type {a} . inet_proto . inet_service : verdict ; comment "destinations that are subject to \
LoadBalancerSourceRanges" ; }}
add map {t} no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; comment "vmap to drop or reject \
packets to service nodeports with no endpoints" ; }}
add map {t} no-endpoint-services {{ type {a} . inet_proto . inet_service : verdict ; comment "vmap to drop or reject \
packets to services with no endpoints" ; }}
add map {t} service-ips {{ type {a} . inet_proto . inet_service : verdict ; comment "ClusterIP, ExternalIP and \
LoadBalancer IP traffic" ; }}
add map {t} service-nodeports {{ type inet_proto . inet_service : verdict ; comment "NodePort traffic" ; }}
"""
_CHAINS = """\
add chain {t} cluster-ips-check
add chain {t} filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110 ; }}
add chain {t} filter-output-pre-dnat {{ type filter hook output priority -110 ; }}
add chain {t} filter-forward {{ type filter hook forward priority 0 ; }}
add chain {t} filter-input {{ type filter hook input priority 0 ; }}
add chain {t} filter-output {{ type filter hook output priority 0 ; }}
add chain {t} firewall-check
add chain {t} masquerading
add chain {t} nat-output {{ type nat hook output priority -100 ; }}
add chain {t} nat-postrouting {{ type nat hook postrouting priority 100 ; }}
add chain {t} nat-prerouting {{ type nat hook prerouting priority -100 ; }}
add chain {t} nodeport-endpoints-check
add chain {t} reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }}
add chain {t} services
add chain {t} service-endpoints-check
"""
_RULES = """\
add rule {t} cluster-ips-check {f} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
add rule {t} cluster-ips-check {f} daddr {{ {service_cidr} }} drop comment "Drop traffic to unallocated ClusterIPs"
add rule {t} filter-prerouting-pre-dnat ct state new jump firewall-check
add rule {t} filter-forward ct state new jump service-endpoints-check
add rule {t} filter-forward ct state new jump cluster-ips-check
add rule {t} filter-input ct state new jump nodeport-endpoints-check
add rule {t} filter-input ct state new jump service-endpoints-check
add rule {t} filter-output ct state new jump service-endpoints-check
add rule {t} filter-output-pre-dnat ct state new jump firewall-check
add rule {t} filter-output ct state new jump cluster-ips-check
add rule {t} firewall-check {f} daddr . meta l4proto . th dport vmap @firewall-ips
add rule {t} masquerading mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
add rule {t} masquerading ct status dnat {f} saddr . {f} daddr . meta l4proto . th dport @hairpin-connections \
masquerade fully-random
add rule {t} nat-output jump services
add rule {t} nat-postrouting jump masquerading
add rule {t} nat-prerouting jump services
add rule {t} nodeport-endpoints-check {f} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule {t} reject-chain reject
{outside}add rule {t} services {f} daddr . meta l4proto . th dport vmap @service-ips
add rule {t} services {f} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
{nodeport_ips}
add rule {t} service-endpoints-check {f} daddr . meta l4proto . th dport vmap @no-endpoint-services
"""


def write_nftables(snapshot: ClusterSnapshot, node: ProxyNode, *, replace: bool = True) -> str:
    """The transaction for one address family; with `replace` it first removes what an earlier one made."""
    f = "ip" if node.family is AddressFamily.IPV4 else "ip6"
    t = f"{f} kube-proxy"
    values = {
        "t": t,
        "f": f,
        "a": "ipv4_addr" if node.family is AddressFamily.IPV4 else "ipv6_addr",
        "service_cidr": node.service_cidr,
        "outside": _outside(t, f, node.cluster_cidr) if node.cluster_cidr else "",
        "nodeport_ips": f"add element {t} nodeport-ips {{ {', '.join(node.node_ips)} }}",
    }
    head = f"add table {t}\ndelete table {t}\n" if replace else ""
    head += f'add table {t} {{ comment "rules for kube-proxy" ; }}\n'
    lines: list[str] = []
    elements: list[str] = []
    for port in proxy_ports(snapshot, node):
        _Port(lines, elements, node, port, f, t).write()
    text = head + "".join(part.format(**values) for part in (_SETS, _CHAINS, _RULES))
    return text + "\n".join((*lines, *dict.fromkeys(elements), ""))


def _outside(table: str, family: str, cluster_cidr: str) -> str:
    """The rule that marks what is not a pod's on its way to a ClusterIP."""
    return (
        f"add rule {table} services {family} daddr @cluster-ips {family} saddr != {cluster_cidr} {_MARK} "
        'comment "masquerade clusterIP traffic from outside cluster"\n'
    )


class _Port:
    """Writes the chains and map elements of one Service port."""

    def __init__(
        self, lines: list[str], elements: list[str], node: ProxyNode, port: ProxyPort, family: str, table: str
    ) -> None:
        self.lines, self.elements, self.node, self.port, self.f, self.t = lines, elements, node, port, family, table
        names = (port.namespace, port.service.metadata.name, port.port.name, port.protocol)
        self.cluster, self.local, self.external, self.firewall = (
            nftables_service_chain(*names, prefix) for prefix in ("service-", "local-", "external-", "firewall-")
        )
        self.names = names
        self.uses_firewall = bool(port.has_endpoints and port.balancer_ips and port.source_ranges)

    def write(self) -> None:
        port = self.port
        endpoints = port.all_endpoints if port.affinity_seconds else ()
        for endpoint in endpoints:
            type_ = "ipv4_addr" if self.node.family is AddressFamily.IPV4 else "ipv6_addr"
            self.lines.append(
                f"add set {self.t} {self._affinity(endpoint)} {{ type {type_} ; flags dynamic,timeout ; "
                f"timeout {port.affinity_seconds}s ; }}"
            )
        has_external_chain = port.has_endpoints and port.external
        chains = [self._endpoint(e) for e in endpoints]
        chains += [self.cluster] if port.cluster_endpoints else []
        chains += [self.external] if has_external_chain else []
        chains += [self.local] if port.local_endpoints else []
        self.lines += [f"add chain {self.t} {chain}" for chain in chains]
        self._write_choice(self.cluster, port.cluster_endpoints)
        if has_external_chain:
            self._write_external()
        self._write_choice(self.local, port.local_endpoints)
        for endpoint in endpoints:
            self._write_endpoint(endpoint)
        if self.uses_firewall:
            self._write_firewall()
        self._write_elements()

    def _rule(self, chain: str, text: str) -> None:
        self.lines.append(f"add rule {self.t} {chain} {text}")

    def _element(self, container: str, text: str) -> None:
        self.elements.append(f"add element {self.t} {container} {{ {text} }}")

    def _endpoint(self, endpoint: Backend) -> str:
        return nftables_endpoint_chain(*self.names, endpoint.ip, endpoint.port)

    def _affinity(self, endpoint: Backend) -> str:
        return nftables_endpoint_chain(*self.names, endpoint.ip, endpoint.port, "affinity-")

    def _write_choice(self, chain: str, endpoints: tuple[Backend, ...]) -> None:
        """One endpoint is a plain dnat, several are a map of them; with affinity each has a chain."""
        if not endpoints:
            return
        count = len(endpoints)
        if self.port.affinity_seconds:
            for endpoint in endpoints:
                self._rule(chain, f"{self.f} saddr @{self._affinity(endpoint)} goto {self._endpoint(endpoint)}")
            choices = " , ".join(f"{n} : goto {self._endpoint(e)}" for n, e in enumerate(endpoints))
            self._rule(chain, f"numgen random mod {count} vmap {{ {choices} }}")
        elif count == 1:
            self._write_dnat(chain, endpoints[0])
        else:
            choices = " , ".join(f"{n} : {e.ip} . {e.port}" for n, e in enumerate(endpoints))
            to = f"dnat {self.f} to numgen random mod {count} map {{ {choices} }}"
            self._rule(chain, f"meta l4proto {self.port.protocol} {to}")

    def _write_external(self) -> None:
        port = self.port
        if not port.external_local:
            self._rule(self.external, f'{_MARK} comment "masquerade"')
        else:
            if self.node.cluster_cidr:
                self._rule(
                    self.external,
                    f'{self.f} saddr {self.node.cluster_cidr} goto {self.cluster} comment "short-circuit pod traffic"',
                )
            local = "fib saddr type local"
            self._rule(self.external, f'{local} {_MARK} comment "masquerade local traffic"')
            self._rule(self.external, f'{local} goto {self.cluster} comment "short-circuit local traffic"')
        if port.has_external_endpoints:
            self._rule(self.external, f"goto {self.local if port.external_local else self.cluster}")

    def _write_endpoint(self, endpoint: Backend) -> None:
        chain = self._endpoint(endpoint)
        self._rule(chain, f"update @{self._affinity(endpoint)} {{ {self.f} saddr }}")
        self._write_dnat(chain, endpoint)

    def _write_dnat(self, chain: str, endpoint: Backend) -> None:
        to = f"[{endpoint.ip}]" if ":" in endpoint.ip else endpoint.ip
        self._rule(chain, f"meta l4proto {self.port.protocol} dnat to {to}:{endpoint.port}")

    def _write_firewall(self) -> None:
        sources: Iterable[str] = self.port.source_ranges
        networks = [ipaddress.ip_network(r, strict=False) for r in sources]
        if any(ipaddress.ip_address(ip) in network for network in networks for ip in self.node.node_ips):
            sources = (*sources, *self.port.balancer_ips)
        self.lines.append(f"add chain {self.t} {self.firewall}")
        self._rule(self.firewall, f"{self.f} saddr != {{ {', '.join(sources)} }} drop")

    def _write_elements(self) -> None:
        port, proto = self.port, self.port.protocol
        number, name = port.port.port, f'comment "{port.name}"'
        refusal = "drop" if port.has_endpoints else "goto reject-chain"
        self._element("cluster-ips", port.cluster_ip)
        for endpoint in port.all_endpoints:
            if endpoint.node == self.node.name:
                self._element("hairpin-connections", f"{endpoint.ip} . {endpoint.ip} . {proto} . {endpoint.port}")
        if port.has_internal_endpoints:
            chain = self.local if port.internal_local else self.cluster
            self._element("service-ips", f"{port.cluster_ip} . {proto} . {number} : goto {chain}")
        else:
            self._element("no-endpoint-services", f"{port.cluster_ip} . {proto} . {number} {name} : {refusal}")
        for ip in (*port.external_ips, *port.balancer_ips):
            if port.has_endpoints:
                self._element("service-ips", f"{ip} . {proto} . {number} : goto {self.external}")
            if not port.has_external_endpoints:
                self._element("no-endpoint-services", f"{ip} . {proto} . {number} {name} : {refusal}")
        if port.port.node_port:
            node_port = f"{proto} . {port.port.node_port}"
            if port.has_endpoints:
                self._element("service-nodeports", f"{node_port} : goto {self.external}")
            if not port.has_external_endpoints:
                self._element("no-endpoint-nodeports", f"{node_port} {name} : {refusal}")
        for ip in port.balancer_ips if self.uses_firewall else ():
            self._element("firewall-ips", f"{ip} . {proto} . {number} : goto {self.firewall}")
