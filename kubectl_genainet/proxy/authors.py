"""Who wrote a rule, from what programs name their tables and chains and put into comments. A name, not a proof."""

from __future__ import annotations

import re

from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef

# Chains, then tables of nft, then comments. Sources: each program's own code.
_CHAINS = (
    ("kube-router", re.compile(r"^(?:KUBE-ROUTER-|KUBE-NWPLCY-|KUBE-POD-FW-|KUBE-NW-)")),
    ("portmap", re.compile(r"^(?:CNI-HOSTPORT-|CNI-DN-|CNI-SN-)")),
    ("CNI bridge or ptp", re.compile(r"^CNI-[0-9a-f]{20,}")),
    ("CNI firewall", re.compile(r"^CNI-(?:FORWARD|ADMIN|ISOLATION)")),
    ("Calico", re.compile(r"^(?:filter-|nat-|mangle-|raw-)?cali-|^felix-")),  # felix-: its first versions
    ("OVN-Kubernetes", re.compile(r"^OVN-KUBE-")),
    ("Cilium", re.compile(r"^(?:OLD_)?CILIUM_")),
    ("Antrea", re.compile(r"^ANTREA-")),
    ("Weave Net", re.compile(r"^WEAVE")),
    ("flannel", re.compile(r"^FLANNEL-")),
    ("VPC CNI", re.compile(r"^AWS-")),
    ("Istio", re.compile(r"^ISTIO_")),
    ("Linkerd", re.compile(r"^PROXY_INIT_")),
    ("Docker", re.compile(r"^DOCKER")),
    ("Podman", re.compile(r"^(?:NETAVARK|nv_)")),
    ("libvirt", re.compile(r"^LIBVIRT_")),
    ("ufw", re.compile(r"^ufw6?-")),
    ("fail2ban", re.compile(r"^f2b-")),
    ("firewalld", re.compile(r"^(?:IN|FWD[IO]?|FWO|PRE|POST)_\w+(?:_(?:log|deny|allow|pre|post))?$")),
    (
        "firewalld",
        re.compile(r"_(?:direct|ZONES|ZONES_SOURCE|POLICIES_pre|POLICIES_post)$|^filter_|^(?:nat|mangle|raw)_PRE"),
    ),
    ("ip-masq-agent", re.compile(r"^IP-MASQ")),
    ("tailscale", re.compile(r"^ts-")),
    ("kubelet", re.compile(r"^KUBE-(?:FIREWALL|KUBELET-CANARY)$")),
)
_TABLES = (
    ("kube-proxy", "kube-proxy"),
    ("kube-router", "kube-router"),
    ("portmap", "cni_hostport"),
    ("CNI firewall", "cni_plugins_masquerade"),
    ("firewalld", "firewalld"),
    ("Calico", "calico"),
    ("Cilium", "cilium"),
    ("kube-network-policies", "kube-network-policies"),
    ("kindnet", "kindnet"),
    ("flannel", "flannel"),
    ("Docker", "docker-bridges"),
    ("libvirt", "libvirt_network"),
    ("Podman", "netavark"),
    ("Istio", "istio"),
    ("fail2ban", "f2b-table"),
)
_COMMENTS = (
    ("NodeLocal DNSCache", re.compile(r"^NodeLocal DNS Cache")),
    ("flannel", re.compile(r"^flanneld ")),
    ("kube-router", re.compile(r"kube-router|nw policy|network policy", re.I)),
    ("kindnet", re.compile(r"^kind-masq-agent")),
    ("ip-masq-agent", re.compile(r"^ip-masq")),
    ("VPC CNI", re.compile(r"^AWS, ")),
    ("portmap", re.compile(r"^dnat name: |CNI portfwd")),
    ("Calico", re.compile(r"^cali:")),
    ("Cilium", re.compile(r"^cilium: ")),
    ("genainet lab", re.compile(r"^genainet lab:")),
)
_KUBE_PROXY = re.compile(
    r"^KUBE-(?:SERVICES|SVC-|SVL-|SEP-|EXT-|XLB-|FW-|NODEPORTS|MARK-|POSTROUTING|PROXY-|FORWARD|EXTERNAL-"
    r"|NODE-PORT|LOAD-|IPVS-|SOURCE-)"
)


def is_kube_proxys(rule: RuleRef) -> bool:
    """Whether kube-proxy wrote the rule, in whichever mode. kube-router's chains begin with KUBE- too."""
    return rule.table.endswith(" kube-proxy") or _KUBE_PROXY.match(rule.chain) is not None


def author_of(rule: RuleRef) -> str:
    """The program that writes such rules; empty where it is nobody's that is known."""
    if is_kube_proxys(rule):
        return "kube-proxy"
    for author, table in _TABLES:
        if " " in rule.table and table in rule.table:
            return author
    for author, pattern in _COMMENTS:
        if pattern.search(rule.comment):
            return author
    return next((author for author, pattern in _CHAINS if pattern.search(rule.chain)), "")
