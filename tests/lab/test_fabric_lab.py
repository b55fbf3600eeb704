"""`fabric` on a lab: real TCP between pods of a workload is seen with its rate; without RDMA devices nothing is wrong with it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kubectl_genainet.fabric.judge import BULK
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.kube import Pod
from tests.lab.labtest import RunningLab

PORT = 29500  # torch.distributed's


@contextmanager
def stream(lab: RunningLab, source: Pod, target: Pod) -> Iterator[None]:
    """One pod sends the other as much as it takes."""
    with netns.inside(lab.pod_netns(target)):
        listener = socket.create_server((target.ips[0], PORT))
    with netns.inside(lab.pod_netns(source)):
        client = socket.create_connection((target.ips[0], PORT), timeout=10)
    server, _ = listener.accept()
    stopped = threading.Event()

    def send() -> None:
        block = bytes(1 << 16)
        with suppress(OSError):
            while not stopped.wait(0.001):  # at most 65 MB a second: it shares the machine
                client.sendall(block)

    def receive() -> None:
        with suppress(OSError):
            while server.recv(1 << 20):
                pass

    threads = [threading.Thread(target=f, daemon=True) for f in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for sock in (client, server, listener):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join(10)


def fabric(lab: RunningLab, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "kubectl_genainet", "fabric", "--lab", lab.name, "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_tcp_between_pods_of_a_workload_is_seen_on_both_ends(lab: RunningLab) -> None:
    first, second = lab.pods("chatbot-ui")[:2]
    with stream(lab, first, second):
        status, found = fabric(lab, "deploy/chatbot-ui", "--for", "3s")
    pods = {pod["name"]: pod for pod in found["pods"]}
    assert status == 0 and found["findings"] == [] and found["devices"] == []  # no RDMA device: TCP is all there is
    for one, other in ((first, second), (second, first)):
        row = pods[one.metadata.name]
        assert row["peers"] == [other.metadata.name] and row["node"] == one.spec.node_name
        assert row["tcp_bytes_s"] > 0 and row["rdma_bytes_s"] == 0
        assert row["transport"] == ("tcp" if row["tcp_bytes_s"] >= BULK else "idle")  # on a machine that is busy
        assert row["reason"] == "its node has no RDMA device"
    idle = [pod for name, pod in pods.items() if name not in (first.metadata.name, second.metadata.name)]
    assert all(pod["transport"] == "idle" for pod in idle)
