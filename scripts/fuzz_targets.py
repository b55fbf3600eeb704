"""Every parser and decoder of the project, as a function of bytes, with inputs that it takes."""

from __future__ import annotations

import gzip
import http.client
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.dns.stream import TcpStreams
from kubectl_genainet.agent.dns.wire import decode_message
from kubectl_genainet.agent.exact.messages import decode_log, decode_trace
from kubectl_genainet.agent.exact.rules import exact_filters, nft_commands
from kubectl_genainet.agent.fabric import netlink
from kubectl_genainet.agent.node.containers import parse_cpu_stat
from kubectl_genainet.agent.node.fields import resolv_conf_fields
from kubectl_genainet.agent.node.inventory import pod_uids
from kubectl_genainet.agent.node.kubeproxy import parse_metrics
from kubectl_genainet.agent.node.segments import parse_segment
from kubectl_genainet.agent.serve.limits import checked_request
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.credentials import CredentialPlugin, PluginSettings
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.dns import parse_resolv_conf
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.domains import MAX_DOMAIN, domain_matches
from kubectl_genainet.policy.matching.expressions import parse_selector
from kubectl_genainet.policy.matching.selectors import check_label_key, check_label_value
from kubectl_genainet.policy.where import Where
from kubectl_genainet.proxy import Packet, evaluate, proxy_modes, service_rules
from kubectl_genainet.proxy.ruleset import parse_ruleset
from kubectl_genainet.run.rules import saved_dumps
from kubectl_genainet.stream import AgentConnection
from scripts import fuzz_answers, fuzz_doctor, fuzz_history, fuzz_judged, fuzz_replay, fuzz_values
from scripts.fuzz_damage import Mutate, mutations
from scripts.fuzz_seeds import (
    ANNOTATED,
    CGROUP,
    CONNTRACK,
    EXEC_CREDENTIAL,
    EXEC_KUBECONFIG,
    IPVSADM,
    KUBECONFIG,
    KUSTOMIZATION,
    METRICS,
    NFT_TEXT,
    POLICIES,
    QUERY,
)
from scripts.fuzz_structure import structured

_ROOT = Path(__file__).parents[1]
_PLUGIN = CredentialPlugin("a", PluginSettings("client.authentication.k8s.io/v1", "x"), "/", {})
_WHERE = Where(KubeObject({"apiVersion": "v1", "kind": "NetworkPolicy", "metadata": {"name": "fuzz"}}, "fuzz"))


@dataclass
class Target:
    """`parse` may raise GenainetError. `prepare` gets a folder for those that read files."""

    name: str
    parse: Callable[[bytes], object]
    seeds: list[bytes]
    most: int = 64 << 10  # bytes of an input
    mutate: Mutate = mutations

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


def _rules(source: str) -> Callable[[bytes], object]:
    """Chains are compiled when a packet meets them: so one does, of each kind."""

    def parse(data: bytes) -> object:
        ruleset = parse_ruleset(
            [RulesetDump(node="n", t_ns=0, source=source, text=_text(data))], node_ips=["192.168.0.2"]
        )
        answers = [evaluate(ruleset, packet).verdict for packet in _PACKETS]
        return answers, service_rules(ruleset), proxy_modes(ruleset)

    return parse


_PACKETS = [
    Packet(src="10.0.0.2", dst="10.96.0.1", dport=443, protocol=Protocol.TCP),
    Packet(src="10.0.0.2", dst="10.96.0.10", dport=53, protocol=Protocol.UDP),
    Packet(src="192.168.0.2", dst="10.0.0.1", dport=80, protocol=Protocol.TCP),
]


def _dump(data: bytes) -> object:
    return saved_dumps([("a", _text(data))])


def _kustomization(data: bytes) -> object:
    first, _, objects = data.partition(b"\n---\n")
    folder = _folder / "kustomized"
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_bytes(first)
    (folder / "objects.yaml").write_bytes(objects)
    return load_manifests([str(folder)])


def _json_kustomization(data: bytes) -> object:
    """The kustomization on the first line, the objects on the others."""
    first, _, objects = data.partition(b"\n")
    return _kustomization(first + b"\n---\n" + objects)


def _doctor(data: bytes) -> object:
    """What people may write into objects (annotations, ConfigMaps, arguments) is read by checks: one has its own parsers."""
    return examine(Cluster(load_manifests([_file(data, "objects.yaml")])), all_checks())


class _Response:
    """A body as http.client gives it, in parts of odd sizes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read1(self, size: int) -> bytes:
        part = self._data[self._at : self._at + min(size, 1 + len(self._data) // 7)]
        self._at += len(part)
        return part


def _lines(data: bytes) -> object:
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(AgentConnection("n", lambda: ours)) as agent:
        return [agent.decode(line) for line in agent.lines(cast(http.client.HTTPResponse, _Response(data)))]


def _segments(data: bytes) -> object:
    """TCP segments of DNS: each a length, a sequence number and so many bytes."""
    streams, at = TcpStreams(), 0
    found: list[object] = []
    while at + 6 <= len(data):
        size, seq = struct.unpack_from("!HI", data, at)
        payload = data[at + 6 : at + 6 + size]
        found += [decode_message(m, len(m)) for m in streams.feed("a", seq, payload, size)]
        found += [parse_segment(payload, size)] if payload else []
        at += 6 + len(payload)
    return found


def _rdma(data: bytes) -> object:
    bodies = [body for _, body in netlink.messages(data)] + [data]
    return [(netlink.device_of(b), netlink.queue_pairs_of(b), netlink.netns_mode_of(b)) for b in bodies]


def _identities(data: bytes) -> object:
    owners = Owners(_file(data, "identities"))
    owners.reload()
    return owners.error, owners.at("10.0.0.1")


def _connect(data: bytes) -> object:
    return connect(kubeconfig=_file(data, "config"), may_ask=False).headers()


def _policies(data: bytes) -> object:
    return PolicyEngine(load_manifests([_file(data, "policy.yaml")]))


def _judged(data: bytes) -> object:
    return fuzz_judged.judge(Path(_file(data, "judged.yaml")))


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

_KUSTOMIZATIONS = [b"\n".join(fuzz_values.as_json([KUSTOMIZATION, *POLICIES]))]

TARGETS = [
    Target(
        "wire",
        lambda data: [wire.decode(line) for line in data.split(b"\n")],
        _recorded(("packet", "drop", "bye", "hello"), 3),
    ),
    Target("node report", wire.decode, _recorded(("node",), 1)),
    Target("bundle", _bundle, [gzip.decompress(p.read_bytes())[:60_000] for p in sorted(recordings().glob("*.gnb"))]),
    Target("replay", fuzz_replay.replay, fuzz_replay.seeds(), most=128 << 10, mutate=structured),
    Target("request", _request, [msgspec.json.encode(_REQUEST)]),
    Target("iptables-save", _rules("iptables-nft"), _files("tests/data/proxy", "iptables.txt", "iptables-nft.txt")),
    Target("nft JSON", _rules("nft"), _files("tests/data/proxy", ".nft.json", most=1 << 20)),
    Target("nft text", _rules("nft"), [NFT_TEXT]),
    Target("saved dump", _dump, [NFT_TEXT, CONNTRACK, IPVSADM, *_files("tests/data/proxy", "ipset.txt", "ipvs.txt")]),
    Target("ipset", _ruleset("ipset"), _files("tests/data/proxy", "ipset.txt")),
    Target("listing", fuzz_judged.listing, [fuzz_judged.LISTING]),
    Target("conntrack", fuzz_judged.conntrack, [CONNTRACK]),
    Target("ipvsadm", _ruleset("ipvs"), _files("tests/data/proxy", "ipvs.txt")),
    Target(
        "manifests",
        lambda data: load_manifests([_file(data, "objects.yaml")]),
        [*POLICIES, b"\n---\n".join(POLICIES)],
    ),
    Target("kustomization", _kustomization, [KUSTOMIZATION + b"\n---\n" + b"\n---\n".join(POLICIES)]),
    Target("doctor", _doctor, [*_files("kubectl_genainet/lab/manifests", ".yaml"), ANNOTATED], most=8 << 10),
    Target("checks", fuzz_doctor.examine_objects, fuzz_doctor.worlds(every=4), most=80 << 10, mutate=structured),
    Target("list and watch", fuzz_doctor.list_and_watch, [fuzz_doctor.list_and_watch_seed()], mutate=structured),
    Target("policies", _policies, POLICIES),
    Target(
        "judged policies", _judged, [b"\n---\n".join((policy, fuzz_judged.CILIUM)) for policy in POLICIES], most=8 << 10
    ),
    Target("kubeconfig", _connect, [KUBECONFIG, EXEC_KUBECONFIG], most=8 << 10),
    Target("credential", _PLUGIN.credential_of, [EXEC_CREDENTIAL]),
    Target("calico selector", _selector, [b"(app == 'x' || has(y)) && !(z in {'a', 'b'})", b"a starts with 'b'"]),
    Target("label", _label, [b"app.kubernetes.io/name", b"x"]),
    Target("domain pattern", _domain, [b"*a*b.example.com\nxaxb.example.com", b"**.x.com\na.b.x.com"]),
    Target(
        "target", lambda data: parse_target(_text(data)), [b"svc/a:80", b"10.0.0.1:80", b"[fd00::1]:80", b"deploy/x"]
    ),
    Target("dns", _dns, [QUERY]),
    Target("dns over tcp", _segments, [struct.pack("!HIH", len(QUERY) + 2, 1, len(QUERY)) + QUERY]),
    Target("rdma netlink", _rdma, [_message(5 << 10 | 10, (1, bytes(4)), (19, bytes([8, 0, 28, 0, 7, 0, 0, 0])))]),
    Target("stream", _lines, _recorded(("packet", "drop", "bye", "hello"), 3)),
    Target(
        "identities",
        _identities,
        [b'{"true_at": 1, "uids": {"a": {"namespace": "b", "workload": "c"}}, "addresses": {}}'],
    ),
    Target("nftrace and NFLOG", lambda data: [*decode_trace(data), *decode_log(data)], [_TRACE, _LOG]),
    Target("kube-proxy metrics", _metrics, [METRICS]),
    Target("cgroup files", _cgroup, [CGROUP]),
    Target("resolv.conf", _resolv, [b"nameserver 10.96.0.10\nsearch a.b c\noptions ndots:5 edns0\n"]),
    Target("flows file", fuzz_answers.judge_flows, [fuzz_answers.FLOWS]),
    Target("HTTP head", fuzz_answers.read_heads, list(fuzz_answers.HEADS)),
    Target("HTTP/2 frames", fuzz_answers.count_streams, list(fuzz_answers.FRAMES)),
    Target("jsonpath", fuzz_answers.fill_template, list(fuzz_answers.TEMPLATES)),
    Target("go-template", fuzz_answers.fill_go_template, list(fuzz_answers.GO_TEMPLATES)),
    Target("MCP arguments", fuzz_answers.call_tool, list(fuzz_answers.CALLS)),
    Target("history request", fuzz_history.read_request, [fuzz_history.REQUEST]),
    Target("history blocks", fuzz_history.read_answer, [b"".join(fuzz_history.blocks_of(fuzz_history.frames()))]),
    Target("segment", fuzz_history.read_segment, [b"".join(fuzz_history.blocks_of(fuzz_history.frames()))]),
    Target("segment's records", fuzz_history.segment, [fuzz_history.frames()]),
    Target("timeline", fuzz_history.draw_timeline, [fuzz_history.frames()]),
    Target("table rows", fuzz_history.read_rows, [fuzz_history.rows()]),
    Target("baseline", fuzz_judged.baseline, [fuzz_judged.BASELINE]),
    Target("collector's answer", fuzz_judged.collectors_answer, [fuzz_judged.ANSWER]),
    Target("chart", fuzz_judged.chart, [fuzz_judged.CHART]),
    Target("options", fuzz_values.read_options, list(fuzz_values.OPTIONS)),
    Target(
        "values of nft JSON", _rules("nft"), _files("tests/data/proxy", ".nft.json", most=1 << 20), mutate=structured
    ),
    Target("values of policies", _policies, fuzz_values.as_json(POLICIES), mutate=structured),
    Target("values of a kustomization", _json_kustomization, _KUSTOMIZATIONS, mutate=structured),
    Target("values of MCP arguments", fuzz_answers.call_tool, list(fuzz_answers.CALLS), mutate=structured),
    Target("values of a request", _request, [msgspec.json.encode(_REQUEST)], mutate=structured),
]
