"""A recording of six hours of a lab's Service, made up bucket by bucket around the objects of a real one."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from functools import cache
from typing import Any

from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import Bundle, BundleWriter, new_header, read_bundle
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Event, Hello, Progress
from kubectl_genainet.model.history import (
    Bucket,
    ChangeOf,
    ConnectionSums,
    ConnectionTimes,
    DnsSums,
    NodeChange,
    ObjectChanged,
    histogram_index,
)
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.run.sources.recorded import HISTORY
from kubectl_genainet.wire import PROTOCOL

SECOND = 1_000_000_000
BEGIN = 1_764_381_600 * SECOND  # 2025-11-29 02:00:00 UTC
HOURS = 6
NODE = "node-1"


@cache
def snapshot() -> ClusterSnapshot:
    return read_bundle(recordings() / "healthy.gnb").snapshot


@cache
def service_ip() -> str:
    service = snapshot().service("default", "my-llama-svc")
    assert service is not None
    return service.spec.cluster_ip


@cache
def client_ip() -> str:
    return next(p.ips[0] for p in snapshot().pods if p.metadata.name.startswith("rag-app"))


def buckets(
    failing: Iterable[range] = (), slow: Iterable[range] = (), lost_lookups: Iterable[range] = (), *, seed: int = 1
) -> list[Event]:
    """A bucket every 10 s; the ranges are seconds since the start. What is well has some noise, and a failure now and then."""
    noise = random.Random(seed)
    made: list[Event] = []
    for at_s in range(0, HOURS * 3600, 10):
        is_failing, is_slow = (any(at_s in times for times in all_times) for all_times in (failing, slow))
        is_lost = any(at_s in times for times in lost_lookups)
        failed = noise.randint(8, 16) if is_failing else int(noise.random() < 0.01)
        reply_us = noise.randint(900_000, 1_400_000) if is_slow else noise.randint(20_000, 30_000)
        reply = [0] * (histogram_index(reply_us) + 1)
        reply[-1] = 40
        client, server = client_ip(), service_ip()
        sums = ConnectionSums(
            side="client", client=client, server=server, port=80, opened=40, established=40 - failed, timed_out=failed
        )
        made.append(
            Bucket(
                node=NODE,
                since_ns=BEGIN + at_s * SECOND,
                until_ns=BEGIN + (at_s + 10) * SECOND,
                connections=(sums,),
                times=(ConnectionTimes(client=client, server=server, port=80, followed=40, reply=tuple(reply)),),
                dns=(DnsSums(client=client_ip(), server="10.96.0.10", name="x", rcode="expired", count=6),)
                if is_lost
                else (),
            )
        )
    return made


def policy(at_s: float, name: str = "lock-down", namespace: str = "default") -> ObjectChanged:
    after = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    return ObjectChanged(
        at_ns=BEGIN + int(at_s * SECOND),
        object_kind="NetworkPolicy",
        namespace=namespace,
        name=name,
        api_version="networking.k8s.io/v1",
        after=after,
    )


def rollout(at_s: float, name: str, namespace: str, images: tuple[str, str]) -> list[ObjectChanged]:
    """A Deployment that is there from the start, and gets another image."""

    def deployment(image: str) -> dict[str, Any]:
        template = {"spec": {"containers": [{"name": "main", "image": image}]}}
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}

    return [
        ObjectChanged(
            at_ns=at,
            object_kind="Deployment",
            namespace=namespace,
            name=name,
            api_version="apps/v1",
            after=deployment(image),
        )
        for at, image in ((BEGIN - SECOND, images[0]), (BEGIN + int(at_s * SECOND), images[1]))
    ]


def node_not_ready(at_s: float, node: str) -> ObjectChanged:
    raw = next(copy.deepcopy(o.raw) for o in snapshot().objects if o.kind == "Node" and o.name == node)
    raw["status"] = {**raw.get("status", {}), "conditions": [{"type": "Ready", "status": "Unknown"}]}
    return ObjectChanged(at_ns=BEGIN + int(at_s * SECOND), object_kind="Node", namespace="", name=node, after=raw)


def conntrack_full(at_s: float, node: str) -> NodeChange:
    at_ns = BEGIN + int(at_s * SECOND)
    return NodeChange(
        node=node,
        at_ns=at_ns,
        since_ns=at_ns - SECOND,
        what=ChangeOf.COUNTER,
        subject="conntrack entries",
        before="61204 of 262144",
        after="262144 of 262144",
    )


def bundle(*events: Event | Iterable[Event]) -> Bundle:
    flat: list[Event] = []
    for event in events:
        flat += [event] if not isinstance(event, Iterable) else list(event)
    flat.sort(key=lambda event: getattr(event, "at_ns", 0) or getattr(event, "since_ns", 0))
    until = BEGIN + HOURS * 3600 * SECOND
    greeting = Hello(
        node=NODE,
        protocol=PROTOCOL,
        version="0.1.0",
        kernel="6.18",
        boot_id="b",
        t_ns=SECOND,
        realtime_ns=BEGIN,
        tier="tracepoint",
    )
    attached = Progress(node=NODE, stage="attached", t_ns=SECOND)
    header = new_header(HISTORY, {"since": rfc3339(BEGIN), "until": rfc3339(until)}, rfc3339(until))
    return Bundle(header, snapshot(), (greeting, attached, *flat))


def write(file: str, recording: Bundle) -> None:
    with BundleWriter(file, recording.header, recording.snapshot) as writer:
        for event in recording.events:
            writer.write(event)


def two_incidents() -> Bundle:
    """At 03:12:10 a policy, after an unrelated rollout; at 04:20 a node that goes away and name lookups that are lost."""
    return bundle(
        buckets(
            failing=(range(4330, 4720), range(8400, 9000)), slow=(range(8400, 9000),), lost_lookups=(range(8400, 9000),)
        ),
        rollout(4325, "batch-embed", "research", ("embed:1.4", "embed:1.5")),
        policy(4318),
        node_not_ready(8371, "node-2"),
        conntrack_full(8392, "node-2"),
        rollout(15_000, "dashboards", "monitoring", ("grafana:11", "grafana:12")),
    )
