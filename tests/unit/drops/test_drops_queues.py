"""A queue without room: its rate, and the annotation or configuration that asks for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport, Queue
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.drops import DropRow
from tests.unit.drops.droprows import HOST, LLAMA, NODE, REQUEST, UI, objects, sampled

TBF = Queue(kind="tbf", rate=2_500_000, limit=64_000)
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


def row(queue: Queue | None, annotations: dict[str, str], kind: str = "veth", flow: FiveTuple = REQUEST) -> DropRow:
    """A packet to my-llama that a queue of node-1 had no room for; both pods have the annotations."""
    node = Device(name="eth0", ifindex=2, mtu=1500, kind=kind, addresses=(NODE,), queue=queue)
    report = NodeReport(node="node-1", t_ns=1, namespaces=(NetNs(inode=HOST, host=True, devices=(node,)),))
    made: list[dict[str, Any]] = objects()
    for one in made:
        if one["kind"] == "Pod":
            one["metadata"]["annotations"] = annotations
    correlator = DropCorrelator(ClusterSnapshot(tuple(KubeObject(o) for o in made)))
    for event in (report, *sampled("QDISC_DROP", flow=flow, location="__dev_queue_xmit")):
        correlator.feed(event)
    (built,) = Rows(correlator).build()
    assert (built.check, built.drop is not None) == ("queue-full", True)
    return built


@pytest.mark.parametrize(
    ("kind", "annotation", "pod"), [("veth", INGRESS, "default/my-llama"), ("ifb", EGRESS, "default/chatbot-ui")]
)
def test_annotation_of_the_pod_that_is_held_back_is_named(kind: str, annotation: str, pod: str) -> None:
    found = row(TBF, {annotation: "20M"}, kind)
    assert found.drop is not None and found.drop.certainty is Certainty.DERIVED
    assert found.title == (
        "the queue of eth0 (tbf, 20.0 Mbit/s, at most 64,000 bytes waiting) in node node-1 has no room: more is sent than that "
        f"rate lets through, which the annotation {annotation}: 20M of pod {pod} asks for: raise it there, and start the pod anew"
    )
    named = next(e for e in found.evidence if e.object is not None)
    assert (str(named.object), named.field, named.value) == (f"Pod {pod}", f"metadata.annotations[{annotation}]", "20M")
    assert named.certainty is Certainty.ASSUMED


@pytest.mark.parametrize("annotations", [{}, {EGRESS: "20M"}, {INGRESS: "30M"}, {INGRESS: "much"}])
def test_limit_that_no_annotation_asks_for_is_the_network_plugins(annotations: dict[str, str]) -> None:
    found = row(TBF, annotations)
    assert found.drop is not None and found.drop.certainty is Certainty.OBSERVED
    assert "which no annotation of pod default/my-llama asks for: look at the network plugin's" in found.title


def test_annotation_of_a_pod_of_another_node_is_not_blamed() -> None:
    """The queue of a veth pair that leads to it by other nodes is none of its own."""
    elsewhere = msgspec.structs.replace(REQUEST, dst="198.51.100.9")
    assert row(TBF, {INGRESS: "20M"}, flow=elsewhere).title.endswith("more is sent than that rate lets through")


@pytest.mark.parametrize("kind", ["", "bond"])
def test_device_of_the_node_is_held_back_for_no_pod(kind: str) -> None:
    assert "annotation" not in row(TBF, {INGRESS: "20M", EGRESS: "20M"}, kind).title


def test_queue_without_a_rate_is_named_by_its_kind() -> None:
    title = "the queue of eth0 (fq_codel) in node node-1 has no room: more is sent than the device takes"
    assert row(Queue(kind="fq_codel"), {INGRESS: "20M"}).title == title


def test_queue_that_was_not_read_is_called_no_kind() -> None:
    title = row(None, {INGRESS: "20M"}).title
    assert (
        title == "the queue of eth0 in node node-1 has no room: more is sent than the device (or its rate limit) takes"
    )


def test_packet_back_is_held_back_by_its_own_ends_limit() -> None:
    back = FiveTuple(LLAMA, 8080, UI, 40000, REQUEST.protocol)
    assert "20M of pod default/chatbot-ui asks for" in row(TBF, {INGRESS: "20M"}, flow=back).title
