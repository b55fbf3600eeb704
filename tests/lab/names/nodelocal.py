"""NodeLocal DNSCache on a lab's nodes, as its manifest has it: CoreDNS on the host's network with `bind`, `cache` and `forward`,
a device with the link-local address and the one of kube-dns, and rules that keep its packets from connection tracking.

The module k8s.io/dns, whose node-cache makes the device and the rules before it runs CoreDNS, is not served: they are made here.
Source: kubernetes cluster/addons/dns/nodelocaldns/nodelocaldns.yaml and k8s.io/dns cmd/node-cache/app/cache_app.go.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.processes import wait_for
from tests.lab.labtest import RunningLab

LOCAL, KUBE_DNS, UPSTREAM = "169.254.20.10", "10.96.0.10", "10.96.0.53"
COREFILE = f"""\
cluster.local:53 {{
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    reload
    bind {LOCAL} {KUBE_DNS}
    forward . {UPSTREAM} {{
        force_tcp
    }}
}}
.:53 {{
    errors
    cache 30
    reload
    bind {LOCAL} {KUBE_DNS}
    forward . {UPSTREAM}
}}
"""
UPSTREAM_SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kube-dns-upstream", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
    "spec": {
        "clusterIP": UPSTREAM,
        "selector": {"k8s-app": "kube-dns"},
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        ],
    },
}
COMMENT = ("-m", "comment", "--comment", "NodeLocal DNS Cache: skip conntrack")


def rules() -> Iterator[list[str]]:
    for address in (LOCAL, KUBE_DNS):
        for protocol in ("udp", "tcp"):
            to, back = (
                ["-d", address, "-p", protocol, "--dport", "53"],
                ["-s", address, "-p", protocol, "--sport", "53"],
            )
            yield ["-t", "raw", "-A", "PREROUTING", *to, *COMMENT, "-j", "NOTRACK"]
            yield ["-t", "filter", "-A", "INPUT", *to, *COMMENT, "-j", "ACCEPT"]
            yield ["-t", "raw", "-A", "OUTPUT", *back, *COMMENT, "-j", "NOTRACK"]
            yield ["-t", "filter", "-A", "OUTPUT", *back, *COMMENT, "-j", "ACCEPT"]
            yield ["-t", "raw", "-A", "OUTPUT", *to, *COMMENT, "-j", "NOTRACK"]


@contextlib.contextmanager
def nodelocal(lab: RunningLab, folder: Path) -> Iterator[None]:
    """Has the cache on every node while it is entered."""
    binaries, corefile = Binaries.built(), folder / "nodelocal.Corefile"
    corefile.write_text(COREFILE)
    running = []
    try:
        for node in lab.record.nodes:
            # A bridge without ports where the kernel has no dummy device: either answers for what it has, and no more.
            if subprocess.run(
                _inside(lab, node, "ip", "link", "add", "nodelocaldns", "type", "dummy"), stderr=subprocess.DEVNULL
            ).returncode:
                lab.node_output(node, "ip", "link", "add", "nodelocaldns", "type", "bridge")
            for address in (LOCAL, KUBE_DNS):
                lab.node_output(node, "ip", "address", "add", f"{address}/32", "dev", "nodelocaldns")
            for rule in rules():
                lab.node_output(node, "iptables", "-w", *rule)
            command = _inside(lab, node, str(binaries.path("coredns")), "-conf", str(corefile))
            with (folder / f"{node}.log").open("w") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        for node in lab.record.nodes:
            wait_for(f"the cache of {node}", partial(_listens, lab, node))
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
        for node in lab.record.nodes:
            lab.node_output(node, "ip", "link", "delete", "nodelocaldns")
            for rule in rules():
                lab.node_output(node, "iptables", "-w", *["-D" if word == "-A" else word for word in rule])


def _listens(lab: RunningLab, node: str) -> bool:
    listening = lab.node_output(node, "ss", "-Hlun")
    return all(f"{address}:53" in listening for address in (LOCAL, KUBE_DNS))


def _inside(lab: RunningLab, node: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{lab.record.nodes[node]}", "--", *command]
