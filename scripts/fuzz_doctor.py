"""Targets of scripts/fuzz.py for live objects: what the API server answers, and a cluster's objects under every check."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.resources import POD, Served, discover
from kubectl_genainet.kube.snapshot import list_objects
from kubectl_genainet.kube.watch import Expired, Selection, watch_once
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.render.doctor.data import records_of, sarif
from kubectl_genainet.render.doctor.html import html
from kubectl_genainet.render.doctor.table import print_report
from kubectl_genainet.render.text import make_console
from tests.unit.doctor.faults.cases import CASES

_SERVED = Served(POD, "v1")


class _Server:
    """Answers every request with the same bytes, and every watch with their lines."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def request(self, method: str, path: str, **_: Any) -> bytes:
        return self._data

    @contextmanager
    def lines(self, path: str, query: Any, **_: Any) -> Iterator[Iterator[bytes]]:
        yield iter(self._data.split(b"\n"))


def list_and_watch(data: bytes) -> object:
    client = cast(KubeClient, _Server(data))
    answers: list[object] = []
    for ask in (
        lambda: discover(client),
        lambda: list_objects(client, _SERVED),
        lambda: list(watch_once(client, Selection(_SERVED), "1")),
    ):
        with contextlib.suppress(GenainetError, Expired):
            answers.append(ask())
    return answers


def list_and_watch_seed() -> bytes:
    """Lines: an answer of each kind, and the events of a watch."""
    pod = {
        "metadata": {"name": "a", "resourceVersion": "7", "annotations": {"x": "y"}},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    apps = {"name": "apps", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}
    answers: list[dict[str, Any]] = [
        {"metadata": {"resourceVersion": "7", "continue": ""}, "items": [pod, pod]},
        {"groups": [apps], "resources": [{"name": "deployments"}]},
        *({"type": kind, "object": pod} for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")),
        {"type": "ERROR", "object": {"code": 500, "message": "x"}},
    ]
    return b"\n".join(map(msgspec.json.encode, answers))


def examine_objects(data: bytes) -> object:
    """Every check, and its findings in every form. An object a line."""
    objects = []
    for line in data.split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            objects.append(KubeObject(msgspec.json.decode(line, type=dict[str, Any])))
    checks = all_checks()
    report = examine(Cluster(ClusterSnapshot(tuple(objects), (), "2026-01-01T00:00:00Z")), checks)
    print_report(make_console(io.StringIO()), report, wide=True)
    return html(report), sarif(report, checks, {}), msgspec.json.encode(list(records_of(report)))


def worlds(every: int) -> list[bytes]:
    """Clusters with a fault each."""
    seeds = []
    for case in CASES[::every]:
        world = case.base()
        case.fault(world)
        seeds.append(b"\n".join(map(msgspec.json.encode, world.objects.values())))
    return seeds
