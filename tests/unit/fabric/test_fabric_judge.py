"""Who talks by RDMA and who by kernel TCP, from two readings of each node."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet import wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.fabric.judge import conclude, transport_of
from kubectl_genainet.fabric.pods import members
from kubectl_genainet.fabric.rates import TROUBLE
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.results.fabric import FabricSummary, Transport
from kubectl_genainet.model.units import rate_text
from kubectl_genainet.model.workload_kinds.accelerators import gpus_of
from kubectl_genainet.records import RECORDS
from kubectl_genainet.render.fabric import print_fabric
from kubectl_genainet.run.fabric import status_of
from tests.unit.fabric.fabric_nodes import POD, reading, worker

G = 10**9
PAIR = (worker("node-a"), worker("node-b"))
HELD = {node: ((inode, 8),) for node, (inode, _) in POD.items()}


def concluded(**ways: object) -> FabricSummary:
    return conclude(PAIR, {node: reading(node, **ways) for node in POD})  # type: ignore[arg-type]


def test_bulk_over_tcp_beside_devices_that_stand_still_is_named() -> None:
    found = concluded(tcp=(G, G))
    assert [p.transport for p in found.pods] == [Transport.TCP] * 2
    assert [(p.tcp_bytes_s, p.rdma_bytes_s, p.peers) for p in found.pods] == [
        (2 * G, 0.0, ("worker-node-b",)),
        (2 * G, 0.0, ("worker-node-a",)),
    ]
    (finding,) = found.findings
    assert finding.check == "nccl-on-tcp"
    assert finding.title.startswith("2 pods of ml/train move up to 16.0 Gbit/s each over kernel TCP")
    certainties = [e.certainty for e in finding.evidence]
    assert certainties == [Certainty.OBSERVED] * 4 + [Certainty.ASSUMED]  # what it is that moves nobody has seen
    assert status_of(found, failed=False) == 1


def test_rdma_is_told_by_the_devices_on_which_the_pod_holds_queue_pairs() -> None:
    found = conclude(PAIR, {node: reading(node, rdma=(G, G), tcp=(1000, 0), users=HELD[node]) for node in POD})
    assert [(p.transport, p.devices, p.shared) for p in found.pods] == [(Transport.RDMA, ("efa0",), False)] * 2
    assert found.findings == () and status_of(found, failed=True) == 2


def test_a_node_without_rdma_has_no_fallback() -> None:
    found = concluded(rdma=None, tcp=(G, 0))
    assert {(p.transport, p.reason) for p in found.pods} == {(Transport.TCP, "its node has no RDMA device")}
    assert found.findings == ()


def test_a_port_that_is_down_is_no_way_that_was_not_taken() -> None:
    assert concluded(tcp=(G, 0), state="DOWN").findings == ()


def test_pods_without_a_queue_pair_are_told_from_busy_devices_of_others() -> None:
    found = concluded(rdma=(G, G), tcp=(G, G), users=((999, 4),))
    assert {(p.transport, p.rdma_bytes_s) for p in found.pods} == {(Transport.TCP, 0.0)}
    assert {p.reason for p in found.pods} == {"it holds no queue pair on its node's RDMA devices"}


def test_where_users_are_not_known_only_devices_that_stand_still_tell() -> None:
    assert {p.transport for p in concluded(tcp=(G, 0), users=None).pods} == {Transport.TCP}
    busy = concluded(rdma=(G, 0), tcp=(G, 0), users=None)
    assert {(p.transport, p.reason) for p in busy.pods} == {
        (Transport.UNKNOWN, "which pods use the RDMA devices is not known")
    }
    assert busy.findings == ()


def test_devices_that_others_use_too_are_said_to_be_shared() -> None:
    shared = {node: (*HELD[node], (999, 1)) for node in POD}
    found = conclude(PAIR, {node: reading(node, rdma=(G, G), users=shared[node]) for node in POD})
    assert all(p.shared for p in found.pods)


def test_traffic_with_pods_of_another_job_is_not_the_jobs() -> None:
    pair = (worker("node-a"), worker("node-b", job="another"))
    found = conclude(pair, {node: reading(node, tcp=(G, G)) for node in POD})
    assert {(p.transport, p.tcp_bytes_s) for p in found.pods} == {(Transport.IDLE, 0.0)}
    outside = conclude(PAIR, {node: reading(node, tcp=(G, G), to="203.0.113.7") for node in POD})
    assert {p.transport for p in outside.pods} == {Transport.IDLE}


def test_pods_that_share_their_nodes_network_are_not_told_apart() -> None:
    pods = (*PAIR, worker("node-a", "second", host_network=True))
    found = conclude(pods, {node: reading(node, tcp=(G, G)) for node in POD})
    by_name = {p.name: p for p in found.pods}
    assert by_name["second"].transport is Transport.UNKNOWN
    assert by_name["second"].reason == "it shares its node's network with other pods that are looked at"


def test_a_node_that_did_not_answer_leaves_its_pods_unknown() -> None:
    found = conclude(PAIR, {"node-a": reading("node-a", tcp=(G, G))})
    assert [(p.transport, p.reason) for p in found.pods if p.node == "node-b"] == [
        (Transport.UNKNOWN, "its node did not answer")
    ]


def test_counters_of_trouble_that_grew_are_named_and_old_ones_are_not() -> None:
    found = conclude(PAIR, {"node-a": reading("node-a", grown={"unresponsive_remote_events": 3, "rx_drops": 0})})
    (finding,) = found.findings
    assert (finding.check, finding.title) == (
        "rdma-trouble",
        "efa0 port 1 of node node-a: unresponsive_remote_events by 3",
    )
    assert {"retrans_timeout_events", "impaired_remote_conn_events", "rdma_read_wr_err"} <= TROUBLE


def test_a_port_that_a_pod_uses_and_that_is_not_active_is_named() -> None:
    found = conclude(PAIR, {node: reading(node, state="INIT", users=HELD[node]) for node in POD})
    assert {f.check for f in found.findings} == {"rdma-port-not-active"}


def test_a_counter_that_was_set_back_is_no_rate() -> None:
    found = conclude(PAIR, {node: reading(node, rdma=(-10, 0), users=HELD[node]) for node in POD})
    assert {(p.rdma_bytes_s, p.transport) for p in found.pods} == {(None, Transport.UNKNOWN)}


@pytest.mark.parametrize(
    ("rdma", "tcp", "way"),
    [
        (0.0, 0.0, Transport.IDLE),
        (1e9, 1e6, Transport.RDMA),
        (1e9, 1e9, Transport.BOTH),
        (1e6, 1e9, Transport.TCP),
        (None, 1e9, Transport.UNKNOWN),
        (1e9, None, Transport.UNKNOWN),
    ],
)
def test_ways_by_their_rates(rdma: float | None, tcp: float | None, way: Transport) -> None:
    assert transport_of(rdma, tcp) is way


def test_rates_are_in_bits() -> None:
    assert [rate_text(r) for r in (None, 0, 1.25e3, 12.5e6, 5e10)] == [
        "?",
        "0 bit/s",
        "10.0 kbit/s",
        "100.0 Mbit/s",
        "400.0 Gbit/s",
    ]


def _pod(name: str, labels: dict[str, str], limits: object, phase: str = "Running") -> KubeObject:
    return KubeObject(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ml", "labels": labels},
            "spec": {"nodeName": "node-a", "containers": [{"name": "c", "resources": {"limits": limits}}]},
            "status": {"phase": phase, "podIP": "10.0.0.9"},
        }
    )


def test_jobs_are_known_by_their_labels_and_gpus_by_their_limits() -> None:
    snapshot = ClusterSnapshot(
        (
            _pod("a", {"jobset.sigs.k8s.io/jobset-name": "big"}, {"nvidia.com/gpu": "8"}),
            _pod("b", {}, {"nvidia.com/mig-1g.5gb": 2}),
            _pod("done", {}, {"nvidia.com/gpu": 1}, "Succeeded"),
        )
    )
    assert [(m.name, m.job, m.gpus) for m in members(snapshot, snapshot.pods)] == [("a", "big", 8), ("b", "b", 2)]
    strange: list[object] = [{"nvidia.com/gpu": "²"}, {"nvidia.com/gpu": "9" * 5000}, [], None, {"cpu": 8}]
    for limits in strange:
        assert gpus_of(_pod("x", {}, limits).raw) == 0
    assert gpus_of({"spec": {"containers": 7}}) == 0


def test_what_is_printed_is_what_the_schema_says_and_the_table_names_it() -> None:
    found = concluded(tcp=(G, G))
    (record,) = RECORDS["fabric"]
    value = json.loads(msgspec.json.encode(found))
    assert json.loads(json.dumps(record.roundtrip(value))) == value
    console = Console(width=200, record=True, file=io.StringIO())
    print_fabric(console, found, wide=True)
    text = console.export_text()
    for part in (
        "worker-node-a",
        "tcp",
        "16.0 Gbit/s",
        "efa0/1",
        "ACTIVE",
        "over kernel TCP",
        "2 nodes, measured for 1.0 s",
    ):
        assert part in text


@pytest.mark.parametrize("number", [10**400, 1 << 63, -1], ids=["400 digits", "64 bits", "negative"])
@pytest.mark.parametrize("place", ["counter", "queue pairs", "connection", "port"])
def test_a_number_that_no_kernel_counts_is_no_record(place: str, number: int) -> None:
    """A float can't hold it: the command ended in a traceback."""
    value = json.loads(wire.encode(reading("node-a", users=HELD["node-a"]).after))
    device = value["fabric"]["devices"][0]
    if place == "counter":
        device["ports"][0]["counters"]["tx_bytes"] = number
    elif place == "queue pairs":
        device["users"] = [[101, number]]
    elif place == "connection":
        value["namespaces"][0]["connections"][0]["sent"] = number
    else:
        device["ports"][0]["number"] = number
    with pytest.raises(GenainetError):
        wire.decode(json.dumps(value).encode())
