"""What a recorder wrote arrives at a collector, and what arrived gives the records back.

The collector is a receiver of the tests; its log records are taken as the ClickHouse exporter inserts them (its columns), and
put together again without an engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from kubectl_genainet import wire
from kubectl_genainet.agent.always.otlp import LogExporter, OtlpEndpoint
from kubectl_genainet.agent.always.shipping import POSITION, Shipper
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.history.names import SnapshotNames
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.rows import COVER, Nobody, Rebuilt
from kubectl_genainet.history.select import Selection
from tests.otlptest import Collector, collecting
from tests.tabletest import segments_of

NODE = "node-3"


def attributes(values: list[dict[str, Any]]) -> dict[str, str]:
    """As the exporter has them: strings."""
    return {item["key"]: str(next(iter(item["value"].values()))) for item in values}


def received(server: Collector) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """(node, log record, its attributes) of all that arrived."""
    records = []
    for path, _, body in server.requests:
        assert path == "/v1/logs"
        for resource in json.loads(body)["resourceLogs"]:
            node = attributes(resource["resource"]["attributes"])["k8s.node.name"]
            for scope in resource["scopeLogs"]:
                records += [(node, r, attributes(r["attributes"])) for r in scope["logRecords"]]
    return records


def shipped(folder: Path, times: int = 1) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    names = SnapshotNames(read_bundle(recordings() / "policy-service-port.gnb").snapshot)
    with collecting() as server:
        endpoint = OtlpEndpoint.parse(f"http://127.0.0.1:{server.server_port}")
        with LogExporter(endpoint, CollectorRegistry(), NODE, interval_s=0.02) as exporter:
            shipper = Shipper(folder, NODE, exporter, names)
            sent = sum(shipper.ship() for _ in range(times))
            while (
                sum(len(json.loads(b)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) for *_, b in server.requests)
                < sent
            ):
                server.arrived.wait(10)
                server.arrived.clear()
        return received(server)


def test_what_arrives_gives_the_nodes_recording_back(tmp_path: Path) -> None:
    begin, end = segments_of(read_bundle(recordings() / "policy-service-port.gnb"), tmp_path)
    rebuilt = Rebuilt()
    for node, record, given in [*shipped(tmp_path / NODE)] * 2:  # a collector may give a record twice
        body = record["body"]["stringValue"]
        if given["genainet.part"] == COVER:
            rebuilt.cover(node, body)
        else:
            session, block, position = (int(given[f"genainet.{name}"]) for name in ("session", "block", "record"))
            rebuilt.record(node, session, block, position, int(record["timeUnixNano"]), body)
    again = rebuilt.range(NODE, begin, end, Selection())
    direct = node_range(NODE, RangeReader(tmp_path / NODE, NODE, begin, end).blocks())

    def texts(blocks: Any) -> list[str]:
        return [repr(part) for block in blocks for record in block.records() for part in wire.expand(record)]

    assert sorted(texts(again.blocks)) == sorted(texts(direct.blocks))


def test_attributes_say_what_a_record_is_selected_by(tmp_path: Path) -> None:
    segments_of(read_bundle(recordings() / "policy-service-port.gnb"), tmp_path)
    of_service = [given for _, _, given in shipped(tmp_path / NODE) if given.get("genainet.service")]
    assert {given["genainet.service"] for given in of_service} == {"default/my-llama-svc"}
    one = of_service[0]
    assert {"source.address", "destination.address", "destination.port", "network.transport"} <= one.keys()
    assert one["source.address"] in one["genainet.addresses"].split()


def test_what_was_sent_is_not_sent_again_by_the_next_agent(tmp_path: Path) -> None:
    segments_of(read_bundle(recordings() / "policy-service-port.gnb"), tmp_path)
    assert len(shipped(tmp_path / NODE)) > 10
    assert (tmp_path / NODE / POSITION).exists()
    assert shipped(tmp_path / NODE) == []


def test_a_queue_without_room_is_waited_for(tmp_path: Path) -> None:
    segments_of(read_bundle(recordings() / "policy-service-port.gnb"), tmp_path)

    class Full:
        room = 0
        taken = 0

        def put(self, record: object) -> None:
            self.taken += 1

    sink = Full()
    shipper = Shipper(tmp_path / NODE, NODE, sink, Nobody())
    shipper._stop.set()
    assert shipper.ship() == 0 and sink.taken == 0
    sink.room = 10_000
    assert shipper.ship() == sink.taken > 10
