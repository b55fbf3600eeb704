"""What a fault is, and what several modules of them share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.model.events import TcpFlags
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.doctor.worlds.clusters import eks, training
from tests.unit.doctor.worlds.knowledge import knowledge
from tests.unit.doctor.worlds.world import World, each, proxy_conf

AWS = "service.beta.kubernetes.io/aws-load-balancer-"
N1 = "ip-10-0-1-10.ec2.internal"
GPU1 = "ip-10-0-1-20.ec2.internal"
MODEL = "Deployment chatbot/my-llama-finetuned"


@dataclass(frozen=True)
class Case:
    """One fault: the cluster it is made in, and what the finding must name. `also` are checks that follow from it."""

    check: str
    base: Callable[[], World]
    fault: Callable[[World], None]
    object: str
    field: str
    also: frozenset[str] = frozenset()
    severity: Severity | None = None
    name: str = ""


def fault(
    check: str,
    base: Callable[[], World],
    obj: str,
    path: str,
    *,
    also: tuple[str, ...] = (),
    severity: Severity | None = None,
) -> Callable[[Callable[[World], None]], Case]:
    """Makes a case of a function that breaks a world."""

    def decorate(function: Callable[[World], None]) -> Case:
        return Case(check, base, function, obj, path, frozenset(also), severity, function.__name__)

    return decorate


@functools.cache
def known(base: Callable[[], World], mtu: int = 1500) -> Callable[[], World]:
    def build() -> World:
        world = base()
        knowledge(world, mtu)
        return world

    return build


def eks_training() -> World:
    world = eks()
    training(world)
    return world


def aws_env(world: World, name: str, value: str) -> None:
    env = world.spec("DaemonSet", "aws-node", "kube-system")["containers"][0]["env"]
    found = next((e for e in env if e["name"] == name), None)
    if found is None:
        env.append({"name": name, "value": value})
    else:
        found["value"] = value


def pod_netns(world: World, name: str) -> tuple[int, int]:
    uid = world.pods(name)[0]["metadata"]["uid"]
    return next(
        (r, n) for r, report in enumerate(world.reports) for n, ns in enumerate(report.namespaces) if uid in ns.pod_uids
    )


def packet(world: World, client: str, server: str, port: int, cls: Any, **more: Any) -> Any:
    source, target = world.pods(client)[0], world.pods(server)[0]
    flow = FiveTuple(source["status"]["podIP"], 40000, target["status"]["podIP"], port, Protocol.TCP)
    seen = {
        "node": target["spec"]["nodeName"],
        "t_ns": 1,
        "netns": 0,
        "ifindex": 3,
        "device": "eth0",
        "skb": 1,
        "flow": flow,
        "length": 60,
        "payload": 0,
        "ip_id": 1,
        "tcp": TcpFlags(1, 0, 2),
    }
    return cls(**{**seen, **more})


def openai(world: World) -> None:
    for spec in each(world, "Deployment", "rag-app"):
        spec["containers"][0]["env"].append({"name": "FALLBACK_URL", "value": "https://api.openai.com/v1"})
        spec["dnsConfig"] = {"options": [{"name": "ndots", "value": "2"}]}


def kube_proxy_conf(world: World, **changes: str) -> None:
    world.get("ConfigMap", "kube-proxy", "kube-system")["data"]["config.conf"] = proxy_conf(**changes)
