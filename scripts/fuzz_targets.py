"""Every parser and decoder of the project, as a function of bytes, with inputs that it takes."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.agent.dns.wire import decode_message
from kubectl_genainet.agent.exact.messages import decode_log, decode_trace
from kubectl_genainet.agent.exact.rules import exact_filters, nft_commands
from kubectl_genainet.agent.node.containers import parse_cpu_stat
from kubectl_genainet.agent.node.fields import resolv_conf_fields
from kubectl_genainet.agent.node.inventory import pod_uids
from kubectl_genainet.agent.node.kubeproxy import parse_metrics
from kubectl_genainet.agent.serve.limits import checked_request
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.dns.resolv import parse_resolv_conf
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.numbers import whole_number
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy.dialects.calico_selector import parse_selector
from kubectl_genainet.policy.domains import MAX_DOMAIN, domain_matches
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.selectors import check_label_key, check_label_value
from kubectl_genainet.policy.where import Where
from kubectl_genainet.proxy.ruleset import parse_ruleset

_ROOT = Path(__file__).parents[1]
_WHERE = Where(KubeObject({"apiVersion": "v1", "kind": "NetworkPolicy", "metadata": {"name": "fuzz"}}, "fuzz"))


@dataclass
class Target:
    """`parse` may raise GenainetError. `prepare` gets a folder for those that read files."""

    name: str
    parse: Callable[[bytes], object]
    seeds: list[bytes]
    most: int = 64 << 10  # bytes of an input

    def prepare(self, folder: Path) -> None:
        global _folder
        _folder = folder


_folder = Path()


def _file(data: bytes, name: str) -> str:
    path = _folder / name
    path.write_bytes(data)
    return str(path)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _ruleset(source: str) -> Callable[[bytes], object]:
    return lambda data: parse_ruleset([RulesetDump(node="n", t_ns=0, source=source, text=_text(data))])


def _policies(data: bytes) -> object:
    return PolicyEngine(load_manifests([_file(data, "policy.yaml")]))


def _stream(data: bytes) -> object:
    return [wire.decode(line) for line in data.split(b"\n")]


def _bundle(data: bytes) -> object:
    return read_bundle(_file(gzip.compress(data, 1), "bundle"))


def _request(data: bytes) -> object:
    try:
        request = msgspec.json.decode(data, type=wire.TraceRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the server's own words for these
        return None
    return list(nft_commands(exact_filters(checked_request(request).filters)))


def _selector(data: bytes) -> object:
    return parse_selector(_text(data), _WHERE).matches({"app": "rag"})


def _label(data: bytes) -> None:
    check_label_key(_text(data), _WHERE)
    check_label_value(_text(data), _WHERE)


def _domain(data: bytes) -> bool:
    pattern, _, name = _text(data).partition("\n")
    return domain_matches(pattern[:MAX_DOMAIN], name[:MAX_DOMAIN])


def _metrics(data: bytes) -> object:
    text, _, mode = _text(data).rpartition("\n")
    return msgspec.json.encode(parse_metrics(text, mode))


def _cgroup(data: bytes) -> object:
    text = _text(data)
    return msgspec.json.encode([parse_cpu_stat(text, "a" * 64)]), pod_uids(text), whole_number(text)


def _resolv(data: bytes) -> object:
    return parse_resolv_conf(resolv_conf_fields(_text(data))), parse_resolv_conf(_text(data))


def _dns(data: bytes) -> object:
    return decode_message(data, answers=True), decode_message(data, len(data) + 100)


def _files(folder: str, *endings: str, most: int = 1 << 16) -> list[bytes]:
    found = [p for p in sorted((_ROOT / folder).rglob("*")) if p.is_file() and p.name.endswith(endings)]
    return [p.read_bytes()[:most] for p in found]


def _recorded(kinds: tuple[str, ...], most: int) -> list[bytes]:
    """Records of the recordings that are shipped, of each kind a few."""
    found: list[bytes] = []
    for path in sorted(recordings().glob("*.gnb")):
        lines = gzip.decompress(path.read_bytes()).splitlines()
        for kind in kinds:
            found += [line for line in lines if line.startswith(b'{"kind":"%s"' % kind.encode())][:most]
    return found


def _message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"\2\0\0\0" + b"".join(struct.pack("=HH", 4 + len(v), k) + v + bytes(-len(v) % 4) for k, v in attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


_KUBECONFIG = b"""apiVersion: v1
kind: Config
current-context: a
clusters: [{name: a, cluster: {server: "https://10.0.0.1:6443", insecure-skip-tls-verify: true}}]
contexts: [{name: a, context: {cluster: a, user: a, namespace: x}}]
users: [{name: a, user: {token: abc}}]
"""
_POLICIES = [
    b"""apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [x, y]}]}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {namespaceSelector: {}}], ports: [{port: 80}]}]
""",
    b"""apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a, namespace: b}
spec:
  endpointSelector: {matchLabels: {app: x}}
  egress: [{toFQDNs: [{matchPattern: "*.a*.example.com"}], toPorts: [{ports: [{port: "443"}]}]}, {toEntities: [world]}]
""",
    b"""apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a}
spec:
  order: 10
  selector: (app == 'x' || has(y)) && !(z in {'a', 'b'})
  ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/8], notPorts: ["80:90", 443]}}]
""",
    b"""apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: a}
spec:
  priority: 5
  subject: {namespaces: {}}
  egress: [{name: r, action: Deny, to: [{domainNames: ["*.example.com"]}], ports: [{portNumber: {protocol: TCP, port: 80}}]}]
""",
]
_METRICS = b"""kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.512"} 90
kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 12
iptables"""
_CGROUP = b"""0::/kubepods-burstable-pod01234567_89ab_cdef_0123_456789abcdef.slice/cri-containerd-aa.scope
nr_periods 4100
nr_throttled 900
throttled_usec 61000
"""
_QUERY = (
    struct.pack("!6H", 1, 0x100, 1, 1, 0, 1)
    + b"\3app\7example\3com\0\0\1\0\1"
    + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\n\0\0\1"
)
_NFT_TEXT = b"""table ip kube-proxy {
\tchain services {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t\tip saddr 10.0.0.0/8 tcp dport { 80, 443 } log prefix "x y" counter packets 1 bytes 2 dnat to 10.0.0.1:80
\t}
}
"""
_REQUEST: dict[str, Any] = {
    "filters": [{"ip": "10.0.0.1", "port": 80, "protocol": "TCP"}, {"ip": "fd00::1"}],
    "probes": ["packet"],
    "timeout_s": 5,
    "probe": {"from_ip": "10.0.0.1", "host": "10.0.0.2", "port": 80, "path": "/v1"},
}
_TRACE = _message(
    10 << 8 | 17, (1, b"t\0"), (2, b"c\0"), (3, bytes(8)), (4, b"\0\0\0\3"), (6, b"\0\0\0\1"), (8, b"E" + bytes(40))
)
_LOG = _message(4 << 8, (10, b"TRACE: raw:PREROUTING:rule:1 \0"), (9, b"E" + bytes(40)), (2, b"\0\0\0\1"))

TARGETS = [
    Target(
        "wire",
        lambda data: [wire.decode(line) for line in data.split(b"\n")],
        _recorded(("packet", "drop", "bye", "hello"), 3),
    ),
    Target("node report", wire.decode, _recorded(("node",), 1)),
    Target("bundle", _bundle, [gzip.decompress(p.read_bytes())[:60_000] for p in sorted(recordings().glob("*.gnb"))]),
    Target("request", _request, [msgspec.json.encode(_REQUEST)]),
    Target("iptables-save", _ruleset("iptables-nft"), _files("tests/data/proxy", "iptables.txt", "iptables-nft.txt")),
    Target("nft JSON", _ruleset("nft"), _files("tests/data/proxy", ".nft.json", most=1 << 20)),
    Target("nft text", _ruleset("nft"), [_NFT_TEXT]),
    Target("ipset", _ruleset("ipset"), _files("tests/data/proxy", "ipset.txt")),
    Target("ipvsadm", _ruleset("ipvs"), _files("tests/data/proxy", "ipvs.txt")),
    Target(
        "manifests",
        lambda data: load_manifests([_file(data, "objects.yaml")]),
        [*_POLICIES, b"\n---\n".join(_POLICIES)],
    ),
    Target("policies", _policies, _POLICIES),
    Target("kubeconfig", lambda data: connect(kubeconfig=_file(data, "config")), [_KUBECONFIG], most=8 << 10),
    Target("calico selector", _selector, [b"(app == 'x' || has(y)) && !(z in {'a', 'b'})", b"a starts with 'b'"]),
    Target("label", _label, [b"app.kubernetes.io/name", b"x"]),
    Target("domain pattern", _domain, [b"*a*b.example.com\nxaxb.example.com", b"**.x.com\na.b.x.com"]),
    Target(
        "target", lambda data: parse_target(_text(data)), [b"svc/a:80", b"10.0.0.1:80", b"[fd00::1]:80", b"deploy/x"]
    ),
    Target("dns", _dns, [_QUERY]),
    Target("nftrace and NFLOG", lambda data: [*decode_trace(data), *decode_log(data)], [_TRACE, _LOG]),
    Target("kube-proxy metrics", _metrics, [_METRICS]),
    Target("cgroup files", _cgroup, [_CGROUP]),
    Target("resolv.conf", _resolv, [b"nameserver 10.96.0.10\nsearch a.b c\noptions ndots:5 edns0\n"]),
]
