"""The node's namespaces as they are, though devices and routes are not read at every look."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from kubectl_genainet.agent.node import inventory
from kubectl_genainet.agent.node import namespace as looked_into
from kubectl_genainet.agent.node.cpu_time import spent_s
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.netns import inside_path
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.node import NetNs, Queue

NAME = f"gnk-inventory-{os.getpid()}"


@pytest.fixture
def namespace() -> Iterator[str]:
    netns.create([NAME])
    try:
        yield NAME
    finally:
        netns.remove(NAME)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", NAME, *arguments], check=True, timeout=10)


def looked_at(node: Inventory) -> NetNs:
    (found,) = [n for n in node.report(fresh=False).namespaces if n.name == NAME]
    return found


def test_an_address_that_comes_after_the_first_look_is_seen_by_the_next(namespace: str) -> None:
    node = Inventory("node")
    assert looked_at(node).addresses == ()
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    ip("addr", "add", "10.99.0.1/24", "dev", "eth0")
    assert looked_at(node).addresses == ("10.99.0.1",)


def test_a_settled_namespace_is_read_again_after_its_time(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Inventory("node")
    assert looked_at(node).addresses == () and looked_at(node).addresses == ()
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    ip("addr", "add", "10.99.0.1/24", "dev", "eth0")
    assert looked_at(node).addresses == ()  # as it was, for LINKS_S
    monkeypatch.setattr(looked_into, "LINKS_S", 0.0)
    assert looked_at(node).addresses == ("10.99.0.1",)


def test_a_new_namespace_is_not_taken_for_an_old_one_of_the_same_name_or_inode(namespace: str) -> None:
    node = Inventory("node")
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    ip("addr", "add", "10.99.0.1/24", "dev", "eth0")
    before = [looked_at(node), looked_at(node), looked_at(node)]
    assert {n.addresses for n in before} == {("10.99.0.1",)}
    inodes = {before[0].inode}
    for number in range(2, 12):  # the kernel gives the number of a namespace that is gone to the next
        netns.remove(NAME)
        netns.create([NAME])
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
        ip("addr", "add", f"10.99.0.{number}/24", "dev", "eth0")
        now = looked_at(node)
        assert now.addresses == (f"10.99.0.{number}",)
        inodes.add(now.inode)


@pytest.fixture
def two_nodes(namespace: str) -> Iterator[tuple[str, str]]:
    """Two nodes' namespaces on one kernel, beside `namespace`, which has no link yet."""
    nodes = f"{NAME}-a", f"{NAME}-b"
    netns.create(list(nodes))
    try:
        yield nodes
    finally:
        for node in nodes:
            netns.remove(node)


def links_to(node: str) -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", f"v{NAME[-8:]}", "netns", node)


def test_another_nodes_pod_is_told_from_ones_own_and_looked_at_once(
    two_nodes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = two_nodes
    node = Inventory("node", f"/run/netns/{own}")
    inode = os.stat(f"/run/netns/{NAME}").st_ino
    assert node.shared and inode not in node.own_inodes()
    links_to(other)
    assert inode not in node.own_inodes()
    read: list[int] = []

    def reader() -> IPRoute:
        read.append(os.stat("/proc/thread-self/ns/net").st_ino)
        return IPRoute()

    monkeypatch.setattr(inventory, "IPRoute", reader)
    assert inode not in node.own_inodes() and inode not in read
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "other")
    assert inode not in node.own_inodes() and inode in read


def test_a_pod_with_the_inode_number_of_another_nodes_is_ones_own(two_nodes: tuple[str, str]) -> None:
    own, other = two_nodes
    node = Inventory("node", f"/run/netns/{own}")
    links_to(other)
    assert os.stat(f"/run/netns/{NAME}").st_ino not in node.own_inodes()
    netns.remove(NAME)
    netns.create([NAME])  # the kernel gives the lowest number that is free
    links_to(own)
    assert os.stat(f"/run/netns/{NAME}").st_ino in node.own_inodes()


def test_what_looking_into_namespaces_takes_is_counted(namespace: str) -> None:
    def work() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    before = spent_s()
    inside_path(f"/run/netns/{NAME}", work)
    assert spent_s() - before >= 0.02


def test_a_tunnel_that_a_program_sends_by_and_the_mtu_of_a_route_are_told(namespace: str) -> None:
    ip("link", "add", "flow", "type", "vxlan", "dstport", "8472", "external")
    ip("link", "add", "fixed", "type", "vxlan", "id", "7", "remote", "192.0.2.1", "dstport", "4789")
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    ip("addr", "add", "10.99.0.1/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("route", "add", "default", "via", "10.99.0.2", "mtu", "1450")
    seen = looked_at(Inventory("node"))
    assert {d.name: d.external for d in seen.devices if d.kind == "vxlan"} == {"flow": True, "fixed": False}
    assert {r.dst: r.mtu for r in seen.routes or ()} == {"0.0.0.0/0": 1450, "10.99.0.0/24": 0}


def test_what_a_device_sends_by_is_told(namespace: str) -> None:
    ip("link", "add", "held", "type", "veth", "peer", "name", "other")
    ip("link", "set", "held", "up")
    ip("link", "set", "other", "up")
    ip("link", "add", "plain", "type", "ifb")
    ip("link", "set", "plain", "up")
    for words in ("held root tbf rate 20mbit burst 32kb limit 64000", "plain root bfifo limit 9000"):
        subprocess.run(["tc", "-n", NAME, "qdisc", "add", "dev", *words.split()], check=True, timeout=10)
    seen = looked_at(Inventory("node"))
    queues = {device.name: device.queue for device in seen.devices}
    assert queues == {
        "lo": None,
        "other": None,  # a veth sends at once
        "held": Queue(kind="tbf", rate=2_500_000, limit=64_000),
        "plain": Queue(kind="bfifo"),
    }
