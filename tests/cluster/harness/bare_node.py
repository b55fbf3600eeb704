"""A node without kubelet and runtime, for policy enforcers: its pods are network namespaces, and their objects say that they
run. The packets of `reached` are real."""

from __future__ import annotations

import ctypes
import hashlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import NetNs, run

_CLONE_NEWNET = 0x40000000
_QUIET = 3.0  # seconds without an answer after which what has not answered is taken for dropped
_GATEWAY4, _GATEWAY6 = "169.254.1.1", "fe80::1"


@dataclass(frozen=True)
class Packets:
    """One connection or, with UDP, one request: from an address of a namespace to an address and port."""

    source: NetNs
    source_address: str
    address: str
    port: int
    protocol: str


@dataclass
class BareNode:
    """A Node object of this name, its namespace on the underlay, and another namespace for what is outside the cluster."""

    plane: ControlPlane
    name: str
    outside_addresses: Sequence[str] = ()
    pods: dict[str, NetNs] = field(default_factory=dict)  # by namespace/name

    def __post_init__(self) -> None:
        self.netns, self.outside = NetNs(self.name), NetNs(f"{self.name}-outside")
        self.ip, self.ip6 = self.plane.join(self.netns)
        outside_ip, outside_ip6 = self.plane.join(self.outside)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.netns.sysctl(key, "1")
        for address in self.outside_addresses:
            six = ":" in address
            self.outside.ip("address", "add", f"{address}/{128 if six else 32}", "dev", "lo")
            self.netns.ip("route", "add", address, "via", outside_ip6 if six else outside_ip)
        self.plane.api().apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}, "spec": {}}])
        addresses = [{"type": "InternalIP", "address": a} for a in (self.ip, self.ip6)]
        self.plane.api().patch(f"/api/v1/nodes/{self.name}/status", {"status": {"addresses": addresses}})

    def run_pods(self, objects: Iterable[dict[str, Any]]) -> None:
        """Makes the namespaces of these pods and creates the objects, with their status."""
        objects = list(objects)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._run_pod, objects))

    def _run_pod(self, pod: dict[str, Any]) -> None:
        meta, addresses = pod["metadata"], [entry["ip"] for entry in pod["status"]["podIPs"]]
        key = f"{meta['namespace']}/{meta['name']}"
        inside = self.pods[key] = NetNs(f"{self.name}-{meta['namespace']}-{meta['name']}")
        device = host_device(meta["namespace"], meta["name"])
        self.netns.ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", inside.name)
        host = [f"link set {device} up", f"address add {_GATEWAY4}/32 dev {device}"]
        host += [f"address add {_GATEWAY6}/64 dev {device} nodad"]
        own = ["link set eth0 up"]
        for address in addresses:
            six = ":" in address
            length, gateway = (128, _GATEWAY6) if six else (32, _GATEWAY4)
            host.append(f"route add {address}/{length} dev {device}")
            own.append(f"address add {address}/{length} dev eth0" + (" nodad" if six else ""))
            own.append(f"route add {'::/0' if six else 'default'} via {gateway} dev eth0 onlink")
            outside_gateway = self.ip6 if six else self.ip
            self.outside.ip("route", "replace", f"{address}/{length}", "via", outside_gateway)
        run("ip", "-n", self.netns.name, "-batch", "-", stdin="\n".join(host) + "\n")
        run("ip", "-n", inside.name, "-batch", "-", stdin="\n".join(own) + "\n")
        api = self.plane.api()
        containers = [{"image": "none", **container} for container in pod["spec"]["containers"]]
        spec = {**pod["spec"], "nodeName": self.name, "containers": containers}
        api.create({**pod, "spec": spec})
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        api.patch(f"{path}/status", {"status": {**pod["status"], "hostIP": self.ip}})

    def remove_pods(self) -> None:
        api = self.plane.api()
        for key, netns in self.pods.items():
            namespace, name = key.split("/")
            api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")
            self.netns.ip("link", "delete", host_device(namespace, name))  # its namespace's end takes a while
            netns.delete()
        self.pods.clear()

    def stop(self) -> None:
        self.remove_pods()
        self.plane.api().delete(f"/api/v1/nodes/{self.name}")
        for netns in (self.netns, self.outside):
            netns.delete()


def host_device(namespace: str, name: str) -> str:
    """The host's end of a pod's veth pair, named as Calico names it."""
    return "cali" + hashlib.sha1(f"{namespace}.{name}".encode(), usedforsecurity=False).hexdigest()[:11]


def reached(flows: Sequence[Packets], servers: Iterable[NetNs], ports: Sequence[int]) -> list[bool]:
    """Whether each flow was answered; all are under way at once. The servers listen on the ports, with TCP and UDP."""
    result: list[bool] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            result.extend(_Exchange(servers, ports).of(flows))
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=work)  # which may go to other network namespaces; the test run stays
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result


class _Exchange:
    """Servers and clients of many namespaces in one thread."""

    def __init__(self, servers: Iterable[NetNs], ports: Sequence[int]) -> None:
        self._selector = selectors.DefaultSelector()
        for netns in servers:
            _enter(netns)
            for port in ports:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    self._listen(kind, port)

    def _listen(self, kind: socket.SocketKind, port: int) -> None:
        server = socket.socket(socket.AF_INET6, kind)
        server.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(256)
        self._selector.register(server, selectors.EVENT_READ, None)

    def of(self, flows: Sequence[Packets]) -> list[bool]:
        answered = [False] * len(flows)
        for number, flow in enumerate(flows):
            self._start(number, flow)
        last_news = time.monotonic()
        while not all(answered) and time.monotonic() - last_news < _QUIET:
            for key, _ in self._selector.select(0.2):
                if key.data is None:
                    self._serve(key.fileobj)  # type: ignore[arg-type]
                elif self._is_answer(key.fileobj):  # type: ignore[arg-type]
                    answered[key.data] = True
                    last_news = time.monotonic()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        return answered

    def _start(self, number: int, flow: Packets) -> None:
        _enter(flow.source)
        family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
        kind = socket.SOCK_STREAM if flow.protocol == "TCP" else socket.SOCK_DGRAM
        client = socket.socket(family, kind)
        client.setblocking(False)
        client.bind((flow.source_address, 0))
        client.connect_ex((flow.address, flow.port))
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        event = selectors.EVENT_WRITE if kind == socket.SOCK_STREAM else selectors.EVENT_READ
        self._selector.register(client, event, number)

    @staticmethod
    def _serve(server: socket.socket) -> None:
        if server.type == socket.SOCK_STREAM:
            server.accept()[0].close()
        else:
            data, peer = server.recvfrom(16)
            server.sendto(data, peer)

    def _is_answer(self, client: socket.socket) -> bool:
        """Whether a client's event is the answer that it waits for; either way, it has no further one."""
        self._selector.unregister(client)
        try:
            if client.type == socket.SOCK_DGRAM:
                return client.recv(16) == b"?"
            return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        except ConnectionRefusedError:
            return False
        finally:
            client.close()


def _enter(netns: NetNs) -> None:
    fd = os.open(netns.path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {netns.name}")
    finally:
        os.close(fd)
