"""The real kube-proxy in a node's network namespace, and the objects that give it something to do."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.cluster.harness.binaries import NEWEST
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import Daemon, NetNs, wait_for

_LISTENS = "Starting node config controller"  # logged after what follows the node's topology labels is registered
_SYNC_BEGINS = re.compile(r'"Syncing (?:iptables|nftables) rules"')


class KubeProxy:
    """A node of its own (network namespace `netns`, Node object `name`) with kube-proxy running in it.

    `config` overrides fields of KubeProxyConfiguration, merged one level deep:
    KubeProxy(control_plane, "n1", {"iptables": {"masqueradeAll": True}, "clusterCIDR": "10.244.0.0/16"}).
    `release` is that of the binary, `zone` the node's; `wait` is for
    its first rules. Use as a context manager.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        name: str,
        config: dict[str, Any] | None = None,
        release: str = NEWEST,
        zone: str = "",
        *,
        wait: bool = True,
    ) -> None:
        self.control_plane, self.name, self.release, self.zone = control_plane, name, release, zone
        self.mode: str = (config or {}).get("mode", "iptables")
        self.netns = NetNs(name)
        self.daemon: Daemon | None = None
        try:
            self.ip, self.ip6 = control_plane.join(self.netns)
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                self.netns.sysctl(key, "1")
            self._create_node()
            self._start(config or {})
            if zone:
                self._label_zone(zone)
            if wait:
                self.wait_for_rules("table ip kube-proxy" if self.mode == "nftables" else "KUBE-SERVICES")
        except BaseException:
            self.stop()
            raise

    def _create_node(self) -> None:
        """kube-proxy reads its own addresses from the Node object, and waits until it is there."""
        api = self.control_plane.api()
        path = f"/api/v1/nodes/{self.name}"
        api.apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}, "spec": {}}])
        addresses = [{"type": "InternalIP", "address": a} for a in (self.ip, self.ip6)]
        api.patch(f"{path}/status", {"status": {"addresses": [*addresses, {"type": "Hostname", "address": self.name}]}})

    def _label_zone(self, zone: str) -> None:
        """Once kube-proxy listens: it can lose labels that its node has before."""
        wait_for(f"{_LISTENS} in the log of {self.name}", lambda: self.daemon and _LISTENS in self.daemon.logged())
        labels = {"topology.kubernetes.io/zone": zone}
        self.control_plane.api().patch(f"/api/v1/nodes/{self.name}", {"metadata": {"labels": labels}})

    def _start(self, overrides: dict[str, Any]) -> None:
        plane = self.control_plane
        config: dict[str, Any] = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": self.name,
            "bindAddress": "0.0.0.0",
            "clientConnection": {"kubeconfig": str(plane.kubeconfig("system:kube-proxy"))},
            "clusterCIDR": "10.244.0.0/16,fd44::/64",
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
            "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }
        for key, value in overrides.items():
            config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
        path = plane.folder / f"kube-proxy-{self.name}.json"
        path.write_text(json.dumps(config))
        argv = ("kube-proxy", f"--config={path}", "--v=2")
        self.daemon = plane.daemon(f"kube-proxy-{self.name}", *argv, netns=self.netns, release=self.release)

    def rules(self, *, ipv6: bool = False) -> str:
        """What `iptables-save -c`, or in nftables mode `nft list ruleset`, prints in the node's namespace."""
        if self.mode == "nftables":
            return self.netns.run("nft", "list", "ruleset", "ip6" if ipv6 else "ip")
        return self.netns.run("ip6tables-save" if ipv6 else "iptables-save", "-c")

    def wait_for_server(self, address: str, timeout: float = 240) -> None:
        """Until IPVS has a virtual server of the address and port (mode ipvs)."""
        try:
            wait_for(
                f"a virtual server of {address}", lambda: f" {address} " in self.netns.run("ipvsadm", "-Sn"), timeout
            )
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.daemon.log_tail() if self.daemon else ''}") from None

    def wait_for_rules(self, text: str, *, ipv6: bool = False, gone: bool = False, timeout: float = 150) -> str:
        """The node's rules once `text` is in them (or, with `gone`, no longer), read while kube-proxy wrote none."""

        def current() -> str:
            if self.daemon is not None:
                self.daemon.check()
            begun, ended = self._syncs()
            rules = self.rules(ipv6=ipv6)
            whole = begun == ended and self._syncs() == (begun, ended)
            return rules if whole and (text in rules) != gone else ""

        try:
            return wait_for(f"{text!r} {'gone from' if gone else 'in'} the rules of {self.name}", current, timeout)
        except TimeoutError as error:
            tail = self.daemon.log_tail() if self.daemon else ""
            raise RuntimeError(f"{error}\n{tail}") from None

    def _syncs(self) -> tuple[int, int]:
        """How often kube-proxy began and ended to write rules, by its log. It writes filter and nat one after the other."""
        log = self.daemon.logged() if self.daemon is not None else ""
        return len(_SYNC_BEGINS.findall(log)), log.count('"SyncProxyRules complete"')

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.control_plane.daemons.pop(self.daemon.name, None)
        self.netns.delete()

    def __enter__(self) -> KubeProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def endpoint_slice(
    service: str,
    addresses: list[str],
    ports: list[dict[str, Any]],
    *,
    namespace: str = "default",
    node: str = "",
    ready: bool = True,
    suffix: str = "1",
) -> dict[str, Any]:
    """An EndpointSlice for a Service without a controller-manager."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{suffix}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": ready},
                **({"nodeName": node} if node else {}),
            }
            for address in addresses
        ],
        "ports": ports,
    }
