"""A whole node: containerd, kubelet and kube-proxy in a network, mount and PID namespace of their own.

To its pods it is what a machine is: PID 1 is the node's own init, whose network namespace is the node's, as in kind.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tests.cluster.harness.binaries import NEWEST
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.image import PAUSE
from tests.cluster.harness.processes import Daemon, NetNs, run, wait_for

_INIT = """
set -e
mount --make-rprivate /
mkdir -p {folder}/var-lib {folder}/var-log
mount -t tmpfs tmpfs /run
mount --bind {folder}/var-lib /var/lib
mount --bind {folder}/var-log /var/log
mount --make-rshared /
touch {folder}/up
trap : TERM
while :; do sleep 1000 & wait $!; done
"""
_CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{folder}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""


# Root on a test machine may lack a capability that a node's root has; runc refuses a container that asks for it.
_RUNC = """#!/bin/sh
for word; do
  case $previous in
    --bundle) sed -i {expressions} "$word/config.json" ;;
    --process) sed -i {expressions} "$word" ;;
  esac
  previous=$word
done
exec {binaries}/bin/runc "$@"
"""


class KubeNode:
    """A node; see `start_nodes`. `number` gives its pods 10.244.NUMBER.0/24."""

    def __init__(self, plane: ControlPlane, number: int, images: Path) -> None:
        self.plane, self.number, self.name = plane, number, f"node-{number}"
        self.folder = plane.folder / self.name
        self.folder.mkdir()
        self.pod_cidr = f"10.244.{number}.0/24"
        self.pods_conflist = self.folder / "cni" / "pods.conflist"
        self.netns = NetNs(self.name)
        self.daemons: list[Daemon] = []
        self.proxy_mode = self.proxy_release = ""
        self._kubelet_began = 0.0
        try:
            self._join()
            self._boot()
            self._containerd()
            self._import(images)
        except BaseException:
            self.stop()
            raise

    def _join(self) -> None:
        self.ip, _ = self.plane.join(self.netns)
        self.netns.sysctl("net.ipv4.ip_forward", "1")
        # No default route: kubelet would ask a cloud's metadata service for credentials.
        self.route_services()
        self.plane.netns.ip("route", "add", self.pod_cidr, "via", self.ip)

    def route_services(self, *, nowhere: bool = False) -> None:
        """Service addresses need a route before kube-proxy's rules see the node's own packet.

        One to `nowhere` while there are no rules: a packet that none of them took is refused then at once. With the other it
        waits 3 s for a neighbour, and its connection, sent again with the rules there, is not translated.
        """
        self.netns.ip(
            "route", "replace", *(["unreachable", "10.96.0.0/16"] if nowhere else ["10.96.0.0/16", "dev", "eth0"])
        )

    def route_to(self, other: KubeNode) -> None:
        """Native routing: the other node's pods by way of that node."""
        self.netns.ip("route", "replace", other.pod_cidr, "via", other.ip)

    def _boot(self) -> None:
        script = _INIT.format(folder=self.folder)
        argv = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "bash", "-c"]
        self.init = Daemon("init", [*argv, script], self.folder / "init.log", netns=self.netns)
        self.daemons.append(self.init)
        wait_for("the node's init", (self.folder / "up").exists)
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        self.init_pid = children[0]

    def call(self, *argv: str) -> list[str]:
        """The command, to be run inside the node."""
        return ["nsenter", "--target", self.init_pid, "--mount", "--pid", "--net", "--ipc", "--", *argv]

    def run(self, *argv: str, check: bool = True, timeout: float = 120) -> str:
        return run(*self.call(*argv), check=check, timeout=timeout)

    def daemon(self, name: str, *argv: str, release: str = NEWEST, env: Mapping[str, str] | None = None) -> Daemon:
        tools = self.plane.binaries.tools
        path = f"{tools}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inner = ["setpriv", "--pdeathsig", "KILL", "--", str(self.plane.binaries.path(argv[0], release)), *argv[1:]]
        started = Daemon(name, self.call(*inner), self.folder / f"{name}.log", env={"PATH": path, **(env or {})})
        self.daemons.append(started)
        return started

    def _containerd(self) -> None:
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                # Not bridge: without br_netfilter the answer of a backend on the same node would bypass conntrack.
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self.pod_cidr}]],
                        "dataDir": f"{self.folder}/ipam",
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        self.pods_conflist.parent.mkdir()
        self.pods_conflist.write_text(json.dumps(network))
        runc = self.folder / "runc"
        drop = " ".join(f"""-e 's/"{c}",//g' -e 's/,"{c}"//g'""" for c in missing_capabilities())
        runc.write_text(_RUNC.format(expressions=drop or "-e ''", binaries=self.plane.binaries.tools))
        runc.chmod(0o755)
        config = self.folder / "containerd.toml"
        plugins = self.plane.binaries.path("bridge", "cni-plugins").parent
        config.write_text(_CONTAINERD.format(pause=PAUSE, plugins=plugins, folder=self.folder))
        self.containerd = self.daemon("containerd", "containerd", "--config", str(config))

        def answers() -> str:
            self.containerd.check()
            return self.run(f"{self.plane.binaries.tools}/bin/ctr", "version")

        wait_for("containerd", answers)

    def _import(self, images: Path) -> None:
        """In the background: it takes ten seconds and a core."""
        ctr = [f"{self.plane.binaries.tools}/bin/ctr", "--namespace", "k8s.io", "images", "import", str(images)]
        self._importing = Daemon("import", self.call(*ctr), self.folder / "import.log")

    def start(self) -> None:
        """kubelet and kube-proxy, once the images are there."""
        if self._importing.process.wait(900):
            raise RuntimeError(f"importing the images: {self._importing.log_tail()}")
        self._kubelet()
        self.run_kube_proxy(self.plane.proxy_mode)

    def _kubelet(self) -> None:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "failCgroupV1": False,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDomain": "cluster.local",
            "clusterDNS": ["10.96.0.10"],
            "resolvConf": "",
            "evictionHard": {"memory.available": "50Mi"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "3s",
            "syncFrequency": "5s",
        }
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(config))
        kubeconfig = self.plane.kubeconfig(f"system:node:{self.name}")
        self.kubelet = self.daemon(
            "kubelet",
            "kubelet",
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.ip}",
            f"--cert-dir={self.folder}/pki",
            "--v=2",
        )

    def restart_kubelet(self) -> None:
        """It registers the node anew, with the API server that there is by now; the pods run on. See `wait_ready`."""
        self.kubelet.kill()
        self._kubelet_began = time.time()
        self.kubelet.start()

    def run_kube_proxy(self, mode: str, release: str = NEWEST) -> None:
        """Starts kube-proxy, in the place of the one that runs; what another mode has left it cleans up itself."""
        for running in [daemon for daemon in self.daemons if daemon.name == "kube-proxy"]:
            running.kill()
            self.daemons.remove(running)
            if mode == self.proxy_mode:
                self._forget_services()
        self.proxy_mode, self.proxy_release = mode, release
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode,
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": str(self.plane.kubeconfig("system:kube-proxy"))},
            "clusterCIDR": "10.244.0.0/16",
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
            "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }
        path = self.folder / "kube-proxy.json"
        path.write_text(json.dumps(config))
        self.kube_proxy = self.daemon("kube-proxy", "kube-proxy", f"--config={path}", release=release)

    def _forget_services(self) -> None:
        """Takes out where a kube-proxy's rules begin: what is there again is its successor's."""
        if self.proxy_mode == "nftables":
            for family in ("ip", "ip6"):
                self.run("nft", "delete", "table", family, "kube-proxy", check=False)
        else:
            for command in ("iptables", "ip6tables"):
                self.run(command, "-w", "-t", "nat", "-F", "KUBE-SERVICES", check=False)

    def proxy_rules(self) -> str:
        """What kube-proxy has programmed, as the node's own tool prints it."""
        nftables = self.proxy_mode == "nftables"
        return self.run(*(("nft", "list", "table", "ip", "kube-proxy") if nftables else ("iptables-save", "-t", "nat")))

    def wait_ready(self, timeout: float = 240) -> None:
        """Until the kubelet that runs now has said so: what one before it said may be taken back."""

        def ready() -> bool:
            self.kubelet.check()
            status = self.plane.api().get(f"/api/v1/nodes/{self.name}")["status"]
            (condition,) = [c for c in status["conditions"] if c["type"] == "Ready"]
            told = datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()  # in whole seconds
            return condition["status"] == "True" and told >= self._kubelet_began

        try:
            wait_for(f"{self.name} Ready", ready, timeout)
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.kubelet.log_tail()}") from None

    def allocate_pod_cidr(self) -> None:
        """As the controller-manager does; this one is told not to, so that a node's number says which it has."""
        cidrs = {"podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr]}
        self.plane.api().patch(f"/api/v1/nodes/{self.name}", {"spec": cidrs})

    def stop(self) -> None:
        """The node's init takes every process of the node with it."""
        for daemon in reversed(self.daemons):
            daemon.kill()
        self.netns.delete()


def missing_capabilities() -> list[str]:
    """What the agent asks for and this machine's root can't give."""
    mask = int(re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)  # type: ignore[index]
    return [] if mask >> 24 & 1 else ["CAP_SYS_RESOURCE"]  # include/uapi/linux/capability.h


def start_nodes(plane: ControlPlane, count: int, images: Path) -> list[KubeNode]:
    """Nodes node-1, node-2, … with native routing between their pods; all of them Ready."""
    nodes: list[KubeNode] = []
    try:
        for number in range(1, count + 1):
            nodes.append(KubeNode(plane, number, images))
        for node in nodes:
            node.start()
            for other in nodes:
                if other is not node:
                    node.route_to(other)
        for node in nodes:
            node.wait_ready()
            node.allocate_pod_cidr()
    except BaseException:
        for node in nodes:
            node.stop()
        raise
    return nodes
