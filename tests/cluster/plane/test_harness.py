"""The harness itself: the API server answers, roles hold, and kube-proxy writes rules."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.harness.api import ApiError
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy, endpoint_slice
from tests.cluster.harness.processes import Daemon, wait_for

pytestmark = pytest.mark.cluster

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: my-llama-svc, namespace: default}
spec:
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
"""


def test_the_api_server_answers_and_refuses(control_plane: ControlPlane) -> None:
    assert control_plane.api().get("/version")["gitVersion"].startswith("v1.")
    with pytest.raises(ApiError, match="forbidden") as refused:
        control_plane.api("nobody").get("/api/v1/pods")
    assert refused.value.status == 403


def test_kube_proxy_writes_rules_for_both_families(
    control_plane: ControlPlane, kube_proxy: Callable[..., KubeProxy]
) -> None:
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    control_plane.api().apply(SERVICE)
    control_plane.api().apply(
        [
            endpoint_slice("my-llama-svc", ["10.244.1.10", "10.244.2.10"], [port]),
            endpoint_slice("my-llama-svc", ["fd44::10"], [port], suffix="6"),
        ]
    )
    proxy = kube_proxy("harness-node")
    rules = proxy.wait_for_rules("--to-destination 10.244.2.10:8080")
    assert "--to-destination 10.244.1.10:8080" in rules
    assert 'default/my-llama-svc:http cluster IP" -m tcp --dport 80' in rules
    assert "[fd44::10]:8080" in proxy.wait_for_rules("[fd44::10]:8080", ipv6=True)
    control_plane.api().delete("/api/v1/namespaces/default/services/my-llama-svc")
    proxy.wait_for_rules("default/my-llama-svc", gone=True)


# As a Go program's, its threads are alike: another than the first may hold what it listens on. Its memory is given back, which
# takes a while, before its port is.
LISTENER = """
import ctypes, socket, sys, threading
def listen():
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    held = b"x" * (256 << 20)
    print("listens", flush=True)
    server.accept()
threading.Thread(target=listen).start()
if sys.argv[2] == "ended":
    ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.parametrize("first_thread", ["runs", "ended"])
def test_the_port_of_a_daemon_that_was_killed_is_free(tmp_path: Path, first_thread: str) -> None:
    """Also where it is not the process that was started, but that one's child."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    wrapper = ("sh", "-c", '"$@" & wait', "sh")
    daemon = Daemon("listener", [*wrapper, sys.executable, "-c", LISTENER, str(port), first_thread], tmp_path / "log")
    wait_for("the listener", lambda: "listens" in daemon.logged())
    daemon.kill()
    socket.create_server(("127.0.0.1", port)).close()


def test_what_has_a_process_group_of_its_own_outlives_the_daemon(tmp_path: Path) -> None:
    script = "setsid sleep 600 & echo $!; wait"
    daemon = Daemon("parent", ["sh", "-c", script], tmp_path / "log")
    child = int(wait_for("the child", daemon.logged))
    wait_for("its group", lambda: os.getpgid(child) == child)
    daemon.kill()
    os.kill(child, signal.SIGKILL)  # ProcessLookupError if it had ended
