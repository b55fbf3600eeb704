"""Bundles: what is written is read back; what is damaged or newer says so."""

import errno
import gzip
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from kubectl_genainet import bundle as bundle_module
from kubectl_genainet import wire
from kubectl_genainet.bundle import BundleWriter, new_header, read_bundle
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.events import LostEvents
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.run.session import check_recorded_by
from kubectl_genainet.run.sources.bundle import BundleSource

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
    source = BundleSource(tmp_path / "b", namespace="prod")
    check_recorded_by(source, bundle, "trace")
    with pytest.raises(
        GenainetError, match="recorded by `trace`: it has none of the events that `drops` reads"
    ) as raised:
        check_recorded_by(source, bundle, "drops")
    assert raised.value.hint == f"kubectl genainet trace --from {tmp_path / 'b'} -n prod"


def test_a_bundle_cut_short_is_called_damaged(tmp_path: Path) -> None:
    write(tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GenainetError, match="damaged or cut short"):
        read_bundle(tmp_path / "b")


def test_a_damaged_bundle_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    write(tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            assert read_bundle(tmp_path / "b").events == (LOST,), "only what gzip's header says of times may be another"
        except GenainetError:
            continue


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), gzip.compress(b"{}\n", mtime=0), b"no gzip"])
def test_a_file_without_a_header_or_objects_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(GenainetError, match=r"is not a bundle|is damaged"):
        read_bundle(tmp_path / "b")


def test_a_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(GenainetError, match="Is a directory"):
        read_bundle(tmp_path)


def test_a_bundle_goes_through_a_pipe_and_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write(tmp_path / "pipe")
    reader.join(10)
    (tmp_path / "b").write_bytes(read[0])
    assert read_bundle(tmp_path / "b").events == (LOST,)


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


def test_a_bundle_is_its_owners_only(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("was there, for everybody")
    (tmp_path / "b").chmod(0o644)
    for name in ("a", "b"):
        write(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_it_is_so_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its mode is set, and on a file system where none can be."""

    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuses)
    write(tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_after_a_full_disk_nothing_is_written_behind_the_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room again: what follows would look like a recording without a loss."""
    really, calls = os.write, [0]

    def full_once(fd: int, data: bytes) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(fd, data)

    monkeypatch.setattr(bundle_module, "_MEMBER", 1000)
    monkeypatch.setattr(os, "write", full_once)
    with BundleWriter(tmp_path / "b", new_header("trace", {}, ""), ClusterSnapshot((POD,))) as bundle:
        for number in range(100):
            bundle.write(msgspec.structs.replace(LOST, count=number))
    monkeypatch.undo()
    counts = [event.count for event in read_bundle(tmp_path / "b").events if isinstance(event, LostEvents)]
    assert bundle.problem and counts == list(range(len(counts))) and 0 < len(counts) < 100


def test_a_full_disk_leaves_a_bundle_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [2]
    really = os.write

    def write_until_full(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        return really(fd, data if room[0] else bytes(data[: len(data) // 2]))

    monkeypatch.setattr(bundle_module, "_MEMBER", 1000)
    monkeypatch.setattr(os, "write", write_until_full)
    with BundleWriter(tmp_path / "b", new_header("trace", {}, ""), ClusterSnapshot((POD,))) as bundle:
        for _ in range(100):
            bundle.write(LOST)
    monkeypatch.undo()
    assert bundle.problem == f"the bundle {tmp_path / 'b'} ends early: No space left on device"
    found = read_bundle(tmp_path / "b")
    assert found.snapshot.objects == (POD,) and 0 < len(tuple(found.events)) < 100


FILL = """
import sys, tests.unit.test_bundle as these
from kubectl_genainet.bundle import *
folder = sys.argv[1]
with BundleWriter(f"{folder}/b", new_header("trace", {}, ""), these.ClusterSnapshot((these.POD,))) as bundle:
    for number in range(40_000):
        bundle.write(these.msgspec.structs.replace(these.LOST, where=str(hash((number, "x")))))
print(bundle.problem, len(read_bundle(f"{folder}/b").events), oct(these.os.stat(f"{folder}/b").st_mode & 0o777))
"""


def test_a_real_file_system_that_is_full_leaves_a_bundle_that_can_be_read(tmp_path: Path) -> None:
    mounted = f'mount -t tmpfs -o size=256k none {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, sys.executable, FILL],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    problem, _, rest = done.stdout.partition(" ends early: No space left on device ")
    count, mode = rest.split()
    assert problem == f"the bundle {tmp_path}/b" and 0 < int(count) < 40_000 and mode == "0o600", done.stderr


def test_a_bundle_that_unpacks_without_end_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "b")
    with gzip.open(tmp_path / "b", "ab") as file:
        for _ in range(200):
            file.write(b'{"kind":"lost","node":"' + b"0" * 1_000_000 + b'","probe":"","count":1,"where":""}\n')
    begun = time.process_time()  # of this process: others may keep the machine busy
    with pytest.raises(GenainetError, match="unpacks to more than"):
        read_bundle(tmp_path / "b")
    assert time.process_time() - begun < 2


def test_no_more_of_a_record_is_unpacked_than_it_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RECORD", 1 << 10)
    (tmp_path / "b").write_bytes(gzip.compress(b'{"schema": 1}' + b" " * (3 << 20) + b"\n"))
    tracemalloc.start()
    try:
        with pytest.raises(GenainetError, match="unpacks to more"):
            read_bundle(tmp_path / "b")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_record_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RECORD", 2000)
    write(tmp_path / "b")
    with gzip.open(tmp_path / "b", "ab") as file:
        file.write(b'{"kind":"lost","node":"' + b"0" * 3000 + b'","probe":"","count":1,"where":""}\n')
    with pytest.raises(GenainetError, match="unpacks to more than"):
        read_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    "line", [b'{"kind":"lost","node":' + b"[" * 100_000, b"[" * 100_000, b"\xff\n", b"{}\n", b"1\n"]
)
def test_a_record_that_is_none_is_named(tmp_path: Path, line: bytes) -> None:
    write(tmp_path / "b")
    with gzip.open(tmp_path / "b", "ab") as file:
        file.write(line)
    with pytest.raises(GenainetError):
        read_bundle(tmp_path / "b")
