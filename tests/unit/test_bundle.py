"""Bundles: what is written is read back; what is damaged or newer says so."""

import gzip
from pathlib import Path

import msgspec
import pytest

from kubectl_genainet.bundle import BundleWriter, new_header, read_bundle
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.events import LostEvents
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.run.session import check_recorded_by

POD = KubeObject({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}})
LOST = LostEvents(node="n1", probe="packet", count=3, where="ring buffer")


def write(path: Path) -> None:
    snapshot = ClusterSnapshot((POD,), (LeftOut("Node", "forbidden"),), "2026-01-01T00:00:00Z")
    with BundleWriter(path, new_header("trace", {"target": "svc/x"}, "2026-01-01T00:00:00Z"), snapshot) as bundle:
        bundle.write(LOST)


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    assert bundle.header.arguments == {"target": "svc/x"}
    assert bundle.snapshot.objects == (POD,)
    assert bundle.snapshot.left_out == (LeftOut("Node", "forbidden"),)
    assert bundle.events == (LOST,)


def test_a_bundle_of_another_command_is_refused_and_names_the_one_that_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    check_recorded_by(bundle, "trace")
    with pytest.raises(
        GenainetError, match="recorded by `trace`: it has none of the events that `drops` reads"
    ) as raised:
        check_recorded_by(bundle, "drops")
    assert raised.value.hint == "kubectl genainet trace --from FILE"


def test_a_bundle_cut_short_is_called_damaged(tmp_path: Path) -> None:
    write(tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GenainetError, match="damaged or cut short"):
        read_bundle(tmp_path / "b")


def test_a_newer_bundle_names_both_schemas(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "b", "wb") as file:
        file.write(msgspec.json.encode({"kind": "bundle", "schema": 99, "tool": "9.0", "created": ""}) + b"\n{}\n")
    with pytest.raises(GenainetError, match=r"schema 99 \(by version 9.0\); this version reads up to 1"):
        read_bundle(tmp_path / "b")


def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "b", "wb") as file:
        file.write(b"hello\n")
    with pytest.raises(GenainetError, match="is not a bundle"):
        read_bundle(tmp_path / "b")
