"""Bring-up and tear-down: nothing is left behind, nothing else is touched, whatever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab import cluster
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs import processes
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import ROOT, LabFolder, lab_agents, lab_names, lab_snapshot
from tests.lab.labtest import fresh_name, running

COMMAND = [sys.executable, "-m", "kubectl_genainet", "lab"]


def lab_command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=180, **options)  # type: ignore[call-overload, no-any-return]


def namespaces_of(lab: str) -> list[str]:
    return sorted(p.name for p in netns.RUN_NETNS.glob(f"gnlab-{lab}-*"))


def left_behind(lab: str, lab_id: str = "") -> list[str]:
    """All traces of a lab that is down."""
    processes_left = processes.processes_of(lab_id, []) if lab_id else []
    return [*namespaces_of(lab), *map(str, processes_left), *map(str, ROOT.glob(f"*{lab}*"))]


@pytest.fixture
def foreign() -> Iterator[tuple[str, int]]:
    """A network namespace and a process in it that are no lab's."""
    name = f"foreign{os.getpid()}"
    netns.create([name])
    with netns.inside(name):
        process = subprocess.Popen(["sleep", "300"])
    yield name, process.pid
    process.kill()
    process.wait()
    netns.remove(name)


def test_down_removes_every_process_namespace_and_file(foreign: tuple[str, int]) -> None:
    name = fresh_name()
    host_before = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    with running(LabSpec(name=name)) as lab:
        pids = list(lab.record.pids.values())
        assert len(namespaces_of(name)) == 1 + 3 + 10
        assert all(processes.alive(pid) for pid in pids)
        # A shell that a user left open in a pod ends too.
        with netns.inside(lab.pod_netns(lab.pods("qdrant")[0])):
            shell = subprocess.Popen(["sleep", "300"])
    shell.wait(5)
    assert left_behind(name, lab.record.id) == []
    assert not any(processes.alive(pid) for pid in pids)
    assert subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout == host_before
    space, pid = foreign
    assert processes.alive(pid)
    assert netns.inode(space)


@pytest.mark.parametrize("moment", ["netns", "wiring", "processes", "rules"])
def test_down_cleans_up_after_up_was_killed(moment: str) -> None:
    # On a busy machine `lab up` may have come to its end before the signal.
    name = next(name for name in (fresh_name() for _ in range(5)) if killed_on_its_way_up(name, moment))
    lab_id = LabFolder(name).read().id
    with pytest.raises(GenainetError, match=r"not .*whole"):
        lab_snapshot(name)
    assert lab_command("down", "--name", name).returncode == 0
    assert left_behind(name, lab_id) == []


def killed_on_its_way_up(name: str, moment: str) -> bool:
    """`lab up` gets SIGKILL when the first trace of a stage shows; one that was quicker is taken down."""
    process = subprocess.Popen([*COMMAND, "up", "--name", name], stderr=subprocess.DEVNULL)
    stages: dict[str, Callable[[], object]] = {
        "netns": lambda: len(namespaces_of(name)) >= 5,
        "wiring": lambda: netns.inode(f"gnlab-{name}-qdrant-0") and _has_device(f"gnlab-{name}-node-2"),
        "processes": lambda: (ROOT / name / "log" / "workload.log").exists(),
        "rules": lambda: b'"workload"' in _read(ROOT / name / "lab.json"),
    }
    seen = stages[moment]
    while not seen() and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    status = process.wait()
    if status == 0:
        cluster.down(name)
    return status == -signal.SIGKILL


def _has_device(namespace: str) -> bool:
    with netns.inside(namespace):
        return "eth0" in Path("/proc/thread-self/net/dev").read_text()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_down_works_again_after_down_was_killed() -> None:
    name = fresh_name()
    cluster.up(LabSpec(name=name))
    lab_id = LabFolder(name).read().id
    process = subprocess.Popen([*COMMAND, "down", "--name", name], stderr=subprocess.DEVNULL)
    while len(namespaces_of(name)) == 14 and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if name in lab_names():  # it may have been quicker than the signal
        cluster.down(name)
    assert left_behind(name, lab_id) == []


def test_up_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh_name()
    monkeypatch.setattr(programs, "wait_until_ready", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cluster.up(LabSpec(name=name))
    assert left_behind(name) == []


def test_two_labs_run_side_by_side() -> None:
    first, second = fresh_name(), fresh_name()
    with running(LabSpec(name=first, nodes=2)) as lab:
        with running(LabSpec(name=second, nodes=2)) as other:
            ip = other.service("my-llama-svc").cluster_ips[0]
            assert other.get(other.pods("chatbot-ui")[0], ip, 80)[0] == 200
            assert set(lab_names()) >= {first, second}
        assert all(processes.alive(pid) for pid in lab.record.pids.values())
        assert lab.get(lab.pods("chatbot-ui")[0], lab.service("my-llama-svc").cluster_ips[0], 80)[0] == 200
    assert left_behind(first) == left_behind(second) == []


def test_errors_say_what_to_do() -> None:
    name = fresh_name()
    with running(LabSpec(name=name, nodes=1)) as lab:
        again = lab_command("up", "--name", name)
        assert again.returncode == 2
        assert f"the lab '{name}' is already up" in again.stderr
        assert f"kubectl genainet lab down --lab {name}" in again.stderr
        other = lab_command("status", "--name", "nosuch")
        assert other.returncode == 2
        assert "there is no lab 'nosuch'" in other.stderr and name in other.stderr
        with pytest.raises(GenainetError) as error:
            lab_snapshot("nosuch")
        assert name in error.value.hint
        assert set(lab_agents(name)) <= set(lab.record.nodes)
    assert lab_command("down", "--name", name).returncode == 2
    assert lab_command("up", "--name", "not-a-name").returncode == 2


def test_up_refuses_names_that_are_taken_by_others() -> None:
    name = fresh_name()
    netns.create([f"gnlab-{name}-node-1"])
    try:
        with pytest.raises(GenainetError, match=f"gnlab-{name}-node-1"):
            cluster.up(LabSpec(name=name))
        assert netns.inode(f"gnlab-{name}-node-1")
    finally:
        netns.remove(f"gnlab-{name}-node-1")


def test_without_root_the_error_is_kind() -> None:
    result = lab_command("up", "--name", fresh_name(), preexec_fn=lambda: os.setresuid(65534, 65534, 65534))
    if "Permission denied" in result.stderr or "No module named" in result.stderr:
        pytest.skip("another user can't read this checkout")
    assert result.returncode == 2
    assert "needs root" in result.stderr and "Traceback" not in result.stderr


def test_exec_gives_the_commands_own_exit_status_and_the_pods_resolv_conf() -> None:
    name = fresh_name()
    with running(LabSpec(name=name, nodes=1)) as lab:
        host = Path("/etc/resolv.conf").read_text()
        ran = lab_command("exec", "--name", name, "deploy/chatbot-ui", "--", "sh", "-c", "cat /etc/resolv.conf; exit 7")
        assert ran.returncode == 7
        assert ran.stdout.splitlines() == [
            "search default.svc.cluster.local svc.cluster.local cluster.local",
            "nameserver 10.96.0.10",
            "options ndots:5",
        ]
        assert Path("/etc/resolv.conf").read_text() == host
        pod = lab.pods("qdrant")[0]
        shown = lab_command("exec", "--name", name, "qdrant-0", "ip", "-br", "addr", "show", "eth0")
        assert pod.ips[0] in shown.stdout
        wrong = lab_command("exec", "--name", name, "qdrant", "true")
        assert wrong.returncode == 2 and "qdrant-0" in wrong.stderr
        assert lab_command("exec", "--name", name, "qdrant-0", "no-such-command").returncode == 2


def test_status_tells_when_something_of_the_lab_has_died() -> None:
    import json

    name = fresh_name()
    with running(LabSpec(name=name, nodes=1)) as lab:
        good = lab_command("status", "--name", name, "-o", "json")
        assert good.returncode == 0
        assert json.loads(good.stdout)["state"] == "up"
        assert "not a product's" in json.loads(good.stdout)["policy_enforcer"]
        processes.end([lab.record.pids["workload"]])
        bad = lab_command("status", "--name", name, "-o", "json")
        assert bad.returncode == 1
        assert json.loads(bad.stdout)["problems"] == ["the process of workload has ended"]


def test_other_manifests_are_run(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("""
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: web}}
spec:
  containers: [{name: web, ports: [{name: http, containerPort: 8000}]}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec: {containers: [{name: web, ports: [{containerPort: 9000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: each}, ports: [{port: 9000}]}
""")
    with running(LabSpec(name=fresh_name(), manifests=str(tmp_path))) as lab:
        snapshot = lab.snapshot
        each = [p for p in snapshot.pods if p.metadata.labels.get("app") == "each"]
        assert {p.spec.node_name for p in each} == {"node-1", "node-2", "node-3"}
        web = lab.service("web")
        assert web.spec.ports[0].node_port
        assert lab.get(each[0], web.cluster_ips[0], 80) == (200, "default/alone")
        assert lab.get(each[0], snapshot.nodes[1].ips[0], web.spec.ports[0].node_port) == (200, "default/alone")
        headless = lab.service("headless")
        assert headless.cluster_ips == ()
        assert {b.ip for b in snapshot.backends(headless, headless.spec.ports[0])} == {p.ips[0] for p in each}
