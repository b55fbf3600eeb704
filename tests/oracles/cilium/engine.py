"""Cilium's own policy engine as a program (main.go beside this file), and what it says of a cluster."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.oracles.cilium.clusters import API_SERVER_NODE, NODES, OUTSIDE_API_SERVER, Cluster, Raw


@dataclass(frozen=True)
class Answer:
    """One direction of a flow: "allow" or "deny"; `proxied`: layer 7 or authentication decides further."""

    verdict: str
    proxied: bool


@dataclass(frozen=True)
class Answers:
    """`refused` names the policies that are not in force, with the reason."""

    flows: tuple[tuple[Answer, Answer], ...]  # egress, ingress
    refused: dict[str, str]


def ask(binary: str, clusters: list[Cluster]) -> list[Answers]:
    documents = "\n".join(json.dumps(_document(c)) for c in clusters)
    done = subprocess.run([binary], input=documents, capture_output=True, text=True, check=True, timeout=240)
    return [_answers(json.loads(line)) for line in done.stdout.splitlines()]


def _answers(raw: Raw) -> Answers:
    flows = []
    for flow in raw["flows"]:
        assert not flow.get("error"), flow
        flows.append((_answer(flow["egress"]), _answer(flow["ingress"])))
    return Answers(tuple(flows), raw["errors"])


def _answer(raw: Raw) -> Answer:
    return Answer(raw["verdict"], bool(raw.get("l7") or raw.get("auth")))


def _document(cluster: Cluster) -> Raw:
    node_ip = {name: f"192.168.0.{i + 1}" for i, name in enumerate(NODES)}
    namespaces = {
        o["metadata"]["name"]: o["metadata"].get("labels", {}) for o in cluster.objects if o["kind"] == "Namespace"
    }
    return {
        "namespaces": namespaces,
        "nodes": [{"name": name, "ips": [ip]} for name, ip in node_ip.items()],
        "apiServers": [node_ip[API_SERVER_NODE], OUTSIDE_API_SERVER],
        "pods": [_pod(o) for o in cluster.objects if o["kind"] == "Pod"],
        "policies": cluster.policies,
        "flows": [{"from": f, "to": t, "port": p, "protocol": proto} for f, t, p, proto in cluster.flows],
    }


def _pod(raw: Raw) -> Raw:
    meta, spec = raw["metadata"], raw["spec"]
    ports: list[dict[str, Any]] = [
        {"name": p["name"], "port": p["containerPort"], "protocol": p["protocol"]}
        for c in spec["containers"]
        for p in c["ports"]
    ]
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "labels": meta.get("labels", {}),
        "serviceaccount": spec["serviceAccountName"],
        "ips": [raw["status"]["podIP"]],
        "node": spec["nodeName"],
        "hostNetwork": spec["hostNetwork"],
        "ports": ports,
    }
