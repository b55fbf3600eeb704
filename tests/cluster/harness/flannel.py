"""flannel on the nodes, and the reference CNI plugins in the chain that kube-flannel's manifest has, with bandwidth and firewall.

flannel's own CNI plugin is a module that is not served: what it hands to `bridge` (documented there: the subnet and MTU of
subnet.env) is written here as the configuration itself. Source: flannel-io/cni-plugin, README.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import Daemon, wait_for

NETWORK = "10.250.0.0/16"
OTHER_NETWORK = "10.251.0.0/24"  # of the pods on another bridge
_KEY = "/coreos.com/network/config"
_PORT = 2389  # of an etcd of flannel's own


class Flannel:
    """flanneld on each node, by leases in an etcd of its own. The pods that start meanwhile are flannel's."""

    def __init__(self, plane: ControlPlane, nodes: list[KubeNode], backend: str) -> None:
        self.plane, self.nodes = plane, nodes
        self._endpoint = f"http://{plane.ip}:{_PORT}"
        self._etcd = plane.daemon(
            "etcd-flannel",
            "etcd",
            f"--data-dir={plane.folder / 'etcd-flannel'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={self._endpoint}",
            f"--advertise-client-urls={self._endpoint}",
            "--listen-peer-urls=http://127.0.0.1:2390",
            "--initial-advertise-peer-urls=http://127.0.0.1:2390",
            "--initial-cluster=default=http://127.0.0.1:2390",
        )
        self._running: dict[str, Daemon] = {}
        self.run(backend)
        self._former = {node.name: node.pods_conflist.read_text() for node in nodes}
        for node in nodes:
            node.pods_conflist.write_text(json.dumps(self._chain(node)))

    def run(self, backend: str) -> None:
        """Starts flanneld with this backend, in the place of the one that runs; leases stay."""
        self.backend = backend
        self._put(json.dumps({"Network": NETWORK, "EnableIPv4": True, "Backend": {"Type": backend}}))
        for node in self.nodes:
            self._stop(node)
            node.run("mkdir", "-p", str(node.folder / "flannel"))
            self._running[node.name] = node.daemon(
                "flannel",
                "flannel",
                f"--etcd-endpoints={self._endpoint}",
                "--iface=eth0",
                "--ip-masq",
                f"--subnet-file={self._subnet_file(node)}",
            )
        for node, other in itertools.permutations(self.nodes, 2):
            wait_for(f"{node.name}'s route to {other.name}", partial(self._routes, node, other, backend), 240)

    def _put(self, config: str) -> None:
        """By etcd's JSON gateway, since no etcdctl is built."""
        script = """
import base64, json, sys, urllib.request
endpoint, key, value = sys.argv[1:]
body = json.dumps({"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()})
print(urllib.request.urlopen(endpoint + "/v3/kv/put", body.encode(), timeout=30).read().decode())
"""

        def answer() -> str:
            self._etcd.check()
            return self.plane.netns.run("python3", "-c", script, self._endpoint, _KEY, config)

        wait_for("flannel's etcd", answer)

    def _routes(self, node: KubeNode, other: KubeNode, backend: str) -> bool:
        self._running[node.name].check()
        if not self._subnet_file(other).exists():
            return False
        subnet = self.subnet(other)
        via = "flannel.1" if backend == "vxlan" else f"via {other.ip} dev eth0"
        network = subnet.rpartition(".")[0] + ".0/24"
        return via in node.run("ip", "route", "show", network)

    def _subnet_file(self, node: KubeNode) -> Path:
        return node.folder / "flannel" / "subnet.env"

    def _environment(self, node: KubeNode) -> dict[str, str]:
        lines = self._subnet_file(node).read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def subnet(self, node: KubeNode) -> str:
        return self._environment(node)["FLANNEL_SUBNET"].partition("/")[0]

    def _chain(self, node: KubeNode) -> dict[str, Any]:
        environment = self._environment(node)
        return {
            "cniVersion": "0.4.0",
            "name": "cbr0",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "mtu": int(environment["FLANNEL_MTU"]),
                    "isDefaultGateway": True,
                    "hairpinMode": True,
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self.subnet(node).rpartition(".")[0] + ".0/24"}]],
                        "routes": [{"dst": NETWORK}],
                        "dataDir": f"{node.folder}/flannel-ipam",
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
                {"type": "bandwidth", "capabilities": {"bandwidth": True}},
                {"type": "firewall", "ingressPolicy": "same-bridge"},
            ],
        }

    @contextlib.contextmanager
    def another_bridge(self, node: KubeNode) -> Iterator[None]:
        """The pods that start on the node meanwhile are on the bridge cni1, with addresses that no other node has a route to."""
        chain = self._chain(node)
        bridge = chain["plugins"][0]
        bridge["bridge"], bridge["ipam"]["ranges"] = "cni1", [[{"subnet": OTHER_NETWORK}]]
        former = node.pods_conflist.read_text()
        node.pods_conflist.write_text(json.dumps(chain))
        try:
            yield
        finally:
            node.pods_conflist.write_text(former)

    def _stop(self, node: KubeNode) -> None:
        running = self._running.pop(node.name, None)
        if running is not None:
            running.kill()
            node.daemons.remove(running)

    def stop(self) -> None:
        """Puts the nodes back as they were, once no pod of flannel's is left."""
        for node in self.nodes:
            node.pods_conflist.write_text(self._former[node.name])
            self._stop(node)
            kept = [
                line for line in node.run("iptables-save").splitlines() if "FLANNEL" not in line and "CNI-" not in line
            ]
            node.run("bash", "-c", 'iptables-restore <<< "$1"', "restore", "\n".join(kept) + "\n")
            for device in ("cni0", "cni1", "flannel.1"):
                node.run("ip", "link", "delete", device, check=False)
            for route in node.run("ip", "route", "show", "root", NETWORK).splitlines():
                node.run("ip", "route", "delete", *route.split()[:1])
        self._etcd.kill()
        self.plane.daemons.pop("etcd-flannel")
