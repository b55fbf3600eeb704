"""The node's namespaces as they are, though devices and routes are not read at every look."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.node import namespace as looked_into
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.node import NetNs

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
