"""Fixtures of the lab's tests, which need root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.lab.api.manifests import SHIPPED, read_folder
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.spec import LabSpec
from tests.lab.labtest import PROGRAM, TRACEFS, DropWatch, RunningLab, fresh_name, read_drops, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.lab)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="the lab needs root"))


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    """The shipped application with its own load: it is what an operator has."""
    with running(LabSpec(name=fresh_name())) as found:
        yield found


@pytest.fixture(scope="session")
def quiet_manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped application without its load, so that counters say exactly what a test did."""
    folder = tmp_path_factory.mktemp("quiet")
    for number, obj in enumerate(read_folder(SHIPPED / "app")):
        template = obj.get("spec", {}).get("template", {})
        for metadata in (obj["metadata"], template.get("metadata", {})):
            for note in (programs.CALLS, programs.FROM_OUTSIDE):
                metadata.get("annotations", {}).pop(note, None)
        (folder / f"{number:02}.json").write_text(json.dumps(obj))
    return folder


def _wait_until_attached(watch: DropWatch) -> None:
    """bpftrace says that it attaches its programs before it does: until a drop of this process's own is in what it has seen."""
    deadline = time.monotonic() + 60
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        nobody.close()
        while not any(drop.reason == "NO_SOCKET" for drop in list(watch.drops)):
            if time.monotonic() > deadline:
                pytest.fail("bpftrace sees no drop")
            sock.sendto(b"?", ("127.0.0.1", port))  # unconnected: the error that comes back is nobody's
            time.sleep(0.1)


@pytest.fixture(scope="module")
def drop_watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DropWatch]:
    """The kernel's own account of drops, by bpftrace in a mount namespace that has tracefs."""
    if shutil.which("bpftrace") is None:
        pytest.skip("bpftrace is not installed")
    program = tmp_path_factory.mktemp("bpftrace") / "drops.bt"
    program.write_text(PROGRAM)
    script = (
        "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; "
        f"cat {TRACEFS}/format; echo begin; ulimit -l 8192; exec bpftrace {program}"
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    watch, ready = DropWatch(), threading.Event()
    thread = threading.Thread(target=read_drops, args=(process, watch, ready), daemon=True)
    thread.start()
    try:
        if not ready.wait(30):
            pytest.fail("bpftrace did not start")
        _wait_until_attached(watch)
        yield watch
    finally:
        process.terminate()
        process.wait(10)
        thread.join(10)
        if process.stdout:
            process.stdout.close()
