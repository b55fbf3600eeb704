"""Names that kube-proxy and Calico derive for their chains and sets, and what can be read back from them.

Sources: kubernetes pkg/proxy/iptables/proxier.go (portProtoHash, servicePortEndpointChainName),
pkg/proxy/nftables/proxier.go (servicePortChainNameBase, hashAndTruncate), projectcalico felix rules/naming.go.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef

SERVICE_CHAINS = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-", "KUBE-EXT-", "KUBE-FW-")  # of iptables
ENDPOINT_CHAINS = "KUBE-SEP-"
NFTABLES_PREFIXES = ("service-", "local-", "external-", "firewall-", "endpoint-", "affinity-")

_NFT_BASE_MAX = 256 - 16  # knftables.NameLengthMax less the room that kube-proxy leaves for a prefix


def service_port_name(namespace: str, name: str, port_name: str) -> str:
    """kube-proxy's own text for a Service port: "ns/name:port", or "ns/name" where the port has no name."""
    return f"{namespace}/{name}:{port_name}" if port_name else f"{namespace}/{name}"


def _base32_sha256(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def iptables_service_chain(service_port: str, protocol: str, prefix: str = SERVICE_CHAINS[0]) -> str:
    """The iptables chain of a Service port: `service_port` as `service_port_name` gives it, protocol "TCP" or "tcp"."""
    return prefix + _base32_sha256(service_port + protocol.lower(), 16)


def iptables_endpoint_chain(service_port: str, protocol: str, endpoint: str) -> str:
    """The KUBE-SEP- chain of an endpoint written "10.0.0.1:80" or "[fd00::1]:80"."""
    return ENDPOINT_CHAINS + _base32_sha256(service_port + protocol.lower() + endpoint, 16)


def _nft_base(name: str) -> str:
    name = f"{_base32_sha256(name, 8)}-{name}"
    return name if len(name) <= _NFT_BASE_MAX else name[: _NFT_BASE_MAX - 3] + "..."


def nftables_service_chain(namespace: str, name: str, port_name: str, protocol: str, prefix: str = "service-") -> str:
    """The nftables chain of a Service port; `prefix` is service-, local-, external- or firewall-."""
    return prefix + _nft_base(f"{namespace}/{name}/{protocol.lower()}/{port_name}")


def nftables_endpoint_chain(
    namespace: str, name: str, port_name: str, protocol: str, ip: str, port: int, prefix: str = "endpoint-"
) -> str:
    """The nftables chain (or, with `prefix` affinity-, the set) of one endpoint. IPv6 colons become dots."""
    endpoint = f"{ip.replace(':', '.')}/{port}"
    return prefix + _nft_base(f"{namespace}/{name}/{protocol.lower()}/{port_name}__{endpoint}")


class NftName(NamedTuple):
    """What an nftables chain name of kube-proxy says. `endpoint` is the text after "__" ("10.0.0.1/80") or empty."""

    prefix: str
    service_port: str  # "ns/name:port"
    protocol: str  # "tcp", "udp", "sctp"
    endpoint: str


def parse_nftables_chain(chain: str) -> NftName | None:
    """Reads a chain's (or affinity set's) name back; None where it is not kube-proxy's. A name cut short has "..."."""
    prefix = next((p for p in NFTABLES_PREFIXES if chain.startswith(p)), None)
    if prefix is None:
        return None
    digest, dash, base = chain[len(prefix) :].partition("-")
    base, _, endpoint = base.partition("__")
    parts = base.split("/")
    if not dash or len(digest) != 8 or len(parts) != 4:
        return None
    namespace, name, protocol, port_name = parts
    return NftName(prefix, service_port_name(namespace, name, port_name), protocol, endpoint)


def calico_policy_chain(namespace: str, policy: str, direction: str, *, tier_name: str = "default") -> str:
    """Calico's chain of a Kubernetes NetworkPolicy; `direction` is "ingress" or "egress".

    "cali-pi-" or "cali-po-", then the policy's name in the datastore, hashed where it does not fit a chain's 28
    characters (felix rules/naming.go: hashutils.GetLengthLimitedID).
    """
    prefix = "cali-pi-" if direction == "ingress" else "cali-po-"
    name = f"{namespace}/knp.{tier_name}.{policy}"
    if len(prefix + name) <= 28 and not name.startswith("_"):
        return prefix + name
    digest = base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode()
    return f"{prefix}_{digest[: 28 - len(prefix) - 1]}"


# The Service port at the start of a comment of kube-proxy: "ns1/svc1:p80 cluster IP", "ns1/svc1 has no endpoints".
_SERVICE = re.compile(
    r"^(?:masquerade traffic for |pod traffic for |(?:masquerade|route) LOCAL traffic for |Redirect )?"
    r"([a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*(?::[a-z0-9][a-z0-9-]*)?)(?=$| )"
)


def service_of(rules: Iterable[RuleRef]) -> str | None:
    """ "ns/name:port" of the Service that the rules are for: from kube-proxy's comments and chain names."""
    for rule in rules:
        parsed = parse_nftables_chain(rule.chain)
        if parsed is not None:
            return parsed.service_port
        service = service_in_comment(rule.comment) if rule.table != "ipvs" else None
        if service is not None:
            return service
    return None


def service_in_comment(comment: str) -> str | None:
    match = _SERVICE.match(comment)
    return match.group(1) if match else None
