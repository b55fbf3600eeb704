"""The verbs that read no recording, with what they ask: a cluster, agents and a lab whose names all end with some text."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from kubectl_genainet import wire
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.kube.agents.base import AGENT, NAMESPACE, VERSION_LABEL
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import LabRecord, Memo
from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.fabric import Fabric, FabricReport, RdmaDevice, RdmaPort
from tests.unit.commands.fake_api import fake_api
from tests.unit.commands.fake_lab import NAME, FakeLab, fake_lab
from tests.unit.commands.test_hostile_output import renamed

LIVE = ("fabric", "status", "version", "deploy", "lab status", "lab list")
GPUS = {"resources": {"limits": {"nvidia.com/gpu": 8}}}


@contextmanager
def asked(
    verb: str, behind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """(the verb's words and options, the environment that another process needs to ask the same)."""
    monkeypatch.delenv("GENAINET_NAMESPACE", raising=False)
    if verb == "deploy":
        yield [verb, "--dry-run", "client", "--image", f"r.example/a:1{behind}"], {}
        return
    if verb in ("status", "version"):
        with cluster(behind, folder, monkeypatch) as kubeconfig:
            yield [verb, "--kubeconfig", kubeconfig], {}
        return
    bundle = read_bundle(renamed("healthy", behind, folder, ("Pod", "Node")))
    labs = folder / "labs"
    with fake_lab(labs, bundle, monkeypatch) as lab:
        if verb == "fabric":
            give_gpus(lab, behind)
            words = ["fabric", "-A", f"--lab={NAME}", "--for", "500ms"]
        else:
            break_lab(lab, behind)
            words = [*verb.split(), *(("--lab", NAME) if verb == "lab status" else ())]
        yield words, {"GENAINET_LAB_STATE": str(labs)}


@contextmanager
def cluster(behind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Deployed agents: one answers, one can't start, one node has none."""
    monkeypatch.setattr("tests.unit.commands.fake_api.VERSION", f"v1.33.1{behind}")
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node, behind))
    with fake_api(folder) as (api, kubeconfig):
        made = CliRunner().invoke(cli, ["deploy", "--image", "r.example/a:1", "--no-wait", "--kubeconfig", kubeconfig])
        assert made.exit_code == 0, made.output
        for number in range(3):
            node = {"kind": "Node", "metadata": {"name": f"node-{number}{behind}"}}
            api.put(f"/api/v1/nodes/{number}", node)
        for number, ready in enumerate((True, False)):
            waiting = {"waiting": {"reason": f"Broken{behind}", "message": f"what broke{behind}"}}
            labels = {"app.kubernetes.io/name": AGENT, VERSION_LABEL: f"0.0.{number}{behind}"}
            pod = {
                "kind": "Pod",
                "metadata": {"name": f"{AGENT}-{number}{behind}", "namespace": NAMESPACE, "labels": labels},
                "spec": {"nodeName": f"node-{number}{behind}", "containers": [{"name": "agent"}]},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                    "containerStatuses": [{"name": "agent", "ready": ready, "state": {} if ready else waiting}],
                },
            }
            api.put(f"/api/v1/namespaces/{NAMESPACE}/pods/{number}", pod)
        yield kubeconfig


def answering(node: str, behind: str) -> Callable[[], socket.socket]:
    """An agent whose words are hostile."""
    return saying(
        Hello(
            node=node,
            protocol=wire.PROTOCOL,
            version=f"0.0.1{behind}",
            kernel=f"6.18{behind}",
            boot_id="b",
            t_ns=0,
            realtime_ns=0,
            tier=f"kprobe{behind}",
        )
    )


def saying(hello: Hello) -> Callable[[], socket.socket]:
    """An agent that says who it is."""

    def serve(sock: socket.socket) -> None:
        with sock:
            sock.recv(65536)
            body = wire.encode(hello)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def dial() -> socket.socket:
        here, there = socket.socketpair()
        threading.Thread(target=serve, args=(there,), daemon=True).start()
        return here

    return dial


def give_gpus(lab: FakeLab, behind: str) -> None:
    """GPUs to all pods, and an RDMA device to each node that drops more at each reading."""
    objects = [o.raw for o in lab.bundle.snapshot.objects]
    for pod in (o for o in objects if o["kind"] == "Pod"):
        for container in pod["spec"]["containers"]:
            container |= GPUS
    lab.write_objects(objects)
    readings = itertools.count(1)

    def fabric(node: str) -> FabricReport:
        number = next(readings)
        state, link, rate = (f"{text}{behind}" for text in ("DOWN", "Ethernet", "100 Gb/sec"))
        counters = {"tx_bytes": 1, "rx_bytes": 1, "rx_drops": number, f"rx_drops{behind}": number}
        port = RdmaPort(number=1, state=state, link_layer=link, rate=rate, gids=(behind,), counters=counters)
        device = RdmaDevice(name=f"efa0{behind}", ports=(port,))
        unreadable = (f"who uses the RDMA devices: {behind}",)
        return FabricReport(node=node, t_ns=number * 10**9, fabric=Fabric(devices=(device,)), unreadable=unreadable)

    lab.fabric = fabric


def break_lab(lab: FakeLab, behind: str) -> None:
    """An incident, a process that has ended, and a network namespace that is gone."""
    names = [f"{node}{behind}" for node in ("node-1", "node-2")]
    record = LabRecord(
        id="fake",
        spec=LabSpec(name=NAME),
        up=True,
        nodes=dict.fromkeys(names, "netns"),
        agents=dict.fromkeys(names, "socket"),
        netns=[f"gnlab-fake{behind}"],
        pids={f"dns{behind}": 2**22 + 1},
        incidents={f"incident{behind}": Memo()},
    )
    (lab.folder / "lab.json").write_bytes(msgspec.json.encode(record))
