"""Runs inside the machine: kube-proxy in ipvs mode against the API server of the machine's host, real packets.

Prints one JSON line: what each flow came to, beside what our evaluation of the node's own rules says of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy import evaluate, parse_ruleset, service_rules
from tests.cluster.harness.binaries import NEWEST, Binaries
from tests.cluster.harness.kubeproxy import KubeProxy
from tests.cluster.harness.processes import Daemon, NetNs, run
from tests.cluster.harness.services import KUBELET
from tests.proxy_services import NODE, all_flows, disagreement, endpoints, from_another_node, packet_of
from tests.proxy_traffic import Traffic, inside

IPVS = {"mode": "ipvs", "ipvs": {"scheduler": "rr", "minSyncPeriod": "0s", "syncPeriod": "5s"}}
NODE_IPS = ("10.0.2.15", "fd31::2")


class HostsPlane:
    """The control plane that runs on the host, as far as kube-proxy needs one."""

    def __init__(self, kubeconfig: str) -> None:
        self.binaries, self.config = Binaries.built(), Path(kubeconfig)
        self.folder = Path(tempfile.mkdtemp())

    def join(self, node: NetNs) -> tuple[str, str]:
        run("ip", "link", "set", "eth0", "netns", node.name)
        node.ip("address", "add", f"{NODE_IPS[0]}/24", "dev", "eth0")
        node.ip("address", "add", f"{NODE_IPS[1]}/64", "dev", "eth0", "nodad")
        node.ip("link", "set", "eth0", "up")
        return NODE_IPS

    def kubeconfig(self, user: str) -> Path:
        return self.config

    def daemon(self, name: str, *argv: str, netns: NetNs, release: str = NEWEST) -> Daemon:
        return Daemon(
            name, [str(self.binaries.path(argv[0], release)), *argv[1:]], self.folder / f"{name}.log", netns=netns
        )


class IpvsProxy(KubeProxy):
    """kube-proxy, whose Node object the host has made."""

    def _create_node(self) -> None:
        self.netns.sysctl("net.ipv4.vs.conntrack", "1")


def report(proxy: KubeProxy, services: dict[str, Any], traffic: Traffic) -> dict[str, Any]:
    dumps = list(read_rulesets(NODE, str(proxy.netns.path)))
    ruleset = parse_ruleset(dumps, node_ips=traffic.node_ips())
    flows = [flow for flow in all_flows(services, *NODE_IPS) if not from_another_node(flow)]
    came = traffic.send(flows)
    said = [evaluate(ruleset, packet_of(flow)) for flow in flows]
    return {
        "sources": [d.source for d in dumps],
        "errors": [d.error for d in dumps if d.error],
        "programmed": {
            f"{rules.protocol} {address_text(address.ip, address.port)}": sorted(b.address for b in address.backends)
            for rules in service_rules(ruleset)
            for address in rules.addresses
        },
        "node_ips": traffic.node_ips(),
        "flows": flows,
        "came": came,
        "wrong": [
            f"{flow}: {result['end']}, {problem}"
            for flow, result, evaluation in zip(flows, came, said, strict=True)
            if (problem := disagreement(flow, evaluation, result))
        ],
        "ends": sorted({result["end"] for result in came}),
        "verdicts": sorted({evaluation.verdict.value for evaluation in said}),
        "dumps": {d.source: d.text for d in dumps},
    }


def main(kubeconfig: str, services_file: str) -> None:
    services = json.loads(Path(services_file).read_text())
    with (
        IpvsProxy(cast(Any, HostsPlane(kubeconfig)), NODE, IPVS) as proxy,
        Traffic(proxy.netns.name, endpoints()) as traffic,
    ):
        # The addresses of the node that came with the traffic's devices are taken up at the next turn.
        node_port = services["dual-node-port"]["spec"]["ports"][0]["nodePort"]
        for ip in (*NODE_IPS, "192.0.2.1"):
            proxy.wait_for_server(address_text(ip, node_port))
        proxy.wait_for_rules("--match-set KUBE-CLUSTER-IP", timeout=120)
        proxy.wait_for_rules("--match-set KUBE-6-CLUSTER-IP", ipv6=True, timeout=120)
        inside(proxy.netns.name, "iptables-restore", "--noflush", stdin=KUBELET)
        print("RESULT " + json.dumps(report(proxy, services, traffic)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
