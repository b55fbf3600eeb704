"""Targets of scripts/fuzz.py for what is written by hand: options, flows, baselines; and YAML seeds as JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import click
import yaml

from kubectl_genainet.agent.always.otlp import OtlpEndpoint, headers_from
from kubectl_genainet.agent.always.session import listen_address
from kubectl_genainet.commands.options import parse_seconds
from kubectl_genainet.commands.options.when import moment
from kubectl_genainet.context.selector import parse_selector
from kubectl_genainet.doctor.accept import parse_ignore, read_baseline
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.base import parse_node_selector, parse_tolerations
from kubectl_genainet.kube.failures import api_error
from kubectl_genainet.model.units import quantity
from kubectl_genainet.proxy.batch import flow_of_words, read_flows
from kubectl_genainet.run.doctor.doctor import parse_override

_READERS: tuple[Callable[[str], object], ...] = (
    OtlpEndpoint.parse,
    headers_from,
    listen_address,
    parse_seconds,
    lambda text: moment(text, 1e9),
    parse_selector,
    parse_node_selector,
    parse_tolerations,
    parse_override,
    quantity,
    lambda text: parse_ignore(text, ("dns-search",)),
    lambda text: flow_of_words(text.split()),
    lambda text: list(read_flows(text.splitlines(), "flows")),
    lambda text: read_baseline(text.encode(errors="replace"), "baseline"),
    lambda text: api_error(403, text.encode(errors="replace"), "list pods"),
)
OPTIONS = (
    b"https://collector.example:4318/x",
    b"a=b,c=%20d",
    b"[::1]:9913",
    b"1h30m",
    b"2026-01-02T03:04:05Z",
    b"03:00",
    b"app=rag,tier!=gpu,env in (prod, qa),!x",
    b"gpu=true:NoSchedule,b",
    b"deploy/x=model-server",
    b"1.5Gi",
    b"dns-search:Pod/a/b",
    b"10.0.0.1 10.96.0.1:80/TCP",
    b'{"sourceIP":"10.0.0.2","destIP":"10.96.0.10","destPort":53,"protocol":"UDP","mark":1}',
    b'{"schema":1,"accepted":[{"check":"a","object":"b","field":"c"}]}',
    b'{"message":"x","reason":"Forbidden","details":{"causes":[{"message":"m","field":"f"}]}}',
)


def read_options(data: bytes) -> None:
    text = data.decode(errors="replace")
    for read in _READERS:
        with contextlib.suppress(GenainetError, click.UsageError):
            read(text)


def as_json(documents: list[bytes]) -> list[bytes]:
    """The documents of YAML texts, as JSON on a line each."""
    return [
        b"\n".join(json.dumps(value).encode() for value in yaml.safe_load_all(text) if value is not None)
        for text in documents
    ]
