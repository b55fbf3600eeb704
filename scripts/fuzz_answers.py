"""Targets of scripts/fuzz.py for what people and other programs ask, and for the pages that are made of it."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from kubectl_genainet.agent.http.frames import PREFACE, StreamCount, read_frames
from kubectl_genainet.agent.http.head import read_head
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.mcp.worker import ToolCall, perform
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.render.gotemplate.evaluate import GoTemplate
from kubectl_genainet.render.jsonpath import JsonPathTemplate
from kubectl_genainet.run.policies.flow_lines import explain_lines
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.choice import SourceChoice

_MANIFESTS = str(Path(__file__).parents[1] / "kubectl_genainet/lab/manifests")
RECORD = {"flow": {"client": {"pod": "a", "labels": {"app.kubernetes.io/name": "x"}}}, "hops": [{"n": 1}, {"n": 2.5}]}


class _Given(Source):
    live = False

    def _read(self) -> ClusterSnapshot:
        return _snapshot()

    def __str__(self) -> str:
        return "the objects"


@functools.cache
def _snapshot() -> ClusterSnapshot:
    return read_bundle(recordings() / "healthy.gnb").snapshot


def judge_flows(data: bytes) -> object:
    return list(explain_lines(_Given(), data.decode(errors="replace").splitlines(), "flows"))


def read_heads(data: bytes) -> object:
    return [read_head(data), *map(read_head, data.split(b"\0"))]


def count_streams(data: bytes) -> object:
    streams, seq = StreamCount(0), 0
    for segment in data.split(b"|"):
        frames = read_frames(segment)
        if frames is not None:
            streams.take(seq, frames)
        seq += len(segment)
    return streams.known, streams.last


def fill_template(data: bytes) -> object:
    return JsonPathTemplate(data.decode(errors="replace")).text_of(RECORD)


def fill_go_template(data: bytes) -> object:
    return GoTemplate(data.decode(errors="replace")).text_of(RECORD)


def call_tool(data: bytes) -> object:
    """A tool's arguments as a model writes them; of those that read objects only."""
    name, _, arguments = data.partition(b"\n")
    try:
        given = msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the protocol's library refuses it
        return None
    tool = (
        name.decode(errors="replace") if name in (b"explain", b"doctor", b"rules", b"trace", b"timeline") else "explain"
    )
    choice = SourceChoice(manifests=(_MANIFESTS,))
    answer = perform(ToolCall(tool=tool, arguments=given, choice=choice, max_bytes=100_000, max_s=10))
    return msgspec.json.encode(answer)


FLOWS = b"""default/rag-app 10.96.0.10:53 UDP
{"from": "svc/my-llama-svc", "to": "example.com", "port": 443}
10.0.0.1 [fd00::1]:80 TCP
"""
FRAMES = (
    PREFACE + b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d",
    PREFACE
    + b"|\0\0\x05\x01\x04\0\0\0\x01\x83\x86\x84A\x8a\0\0\x01\0\x01\0\0\0\x01x|\0\0\x03\x01\x05\0\0\0\x03\x83\x86\x84",
    b"\0\0\x08\x06\x01\0\0\0\0........|\0\0\x04\x08\0\0\0\0\0\0\0\x01\0",
)
HEADS = (
    b"POST /v1/chat/completions?key=x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=x\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x",
    b"GET http://u:p@h/x#y HTTP/1.0\r\n\r\n",
)
TEMPLATES = (
    b"{.flow.client.pod}",
    b'{range .hops[*]}{.n}{"\\t"}{end}',
    b"{.flow.client.labels.app\\.kubernetes\\.io/name}",
    b"{.hops[?(@.n > 1)].n}",
    b"{..n}{.hops[-1:].n}{$.flow.*}",
)
GO_TEMPLATES = (
    b'{{range $i, $hop := .hops}}{{if gt $hop.n 1.0}}{{printf "%5.2f %v" $hop.n $i}}{{else}}{{"x" | len}}{{end}}{{end}}',
    b'{{with .flow.client}}{{.pod}}{{index .labels "app.kubernetes.io/name"}}{{end}}{{- /* x */ -}}',
)
CALLS = (
    b'explain\n{"client": "deploy/rag-app", "destination": "svc/my-llama-svc:80", "protocol": "TCP"}',
    b'doctor\n{"only": ["dns"], "namespace": "default"}',
    b'timeline\n{"since_minutes": 5, "until_minutes": 1}',
    b'trace\n{"target": "svc/x", "seconds": 5, "verdicts": ["dropped"], "last": 3}',
)
