"""The fabric of a node: RDMA devices, who uses them, and the TCP connections of chosen pods."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kubectl_genainet.agent.fabric.connections import connections
from kubectl_genainet.agent.fabric.netlink import RdmaNetlink
from kubectl_genainet.agent.fabric.sysfs import CLASS, read_devices
from kubectl_genainet.agent.node.netns import inside_path
from kubectl_genainet.model.fabric import Fabric, FabricReport, NamespaceConnections, RdmaDevice

REPORT_S = 20.0


def read_fabric(root: Path = CLASS) -> Fabric:
    """The RDMA devices of the node. Without any, nothing more is asked: most nodes have none."""
    devices = read_devices(root)
    if not devices:
        return Fabric()
    unreadable = []
    mode = ""
    try:
        with RdmaNetlink() as netlink:
            with contextlib.suppress(OSError):
                mode = netlink.netns_mode()
            indices = netlink.devices()
            devices = tuple(_with_users(device, netlink, indices) for device in devices)
    except OSError as error:
        unreadable.append(f"who uses the RDMA devices: {error.strerror or error}")
    if mode == "exclusive":
        unreadable.append("RDMA devices that were given to other network namespaces: they are seen inside these only")
    return Fabric(devices=devices, netns_mode=mode, unreadable=tuple(unreadable))


def _with_users(device: RdmaDevice, netlink: RdmaNetlink, indices: Mapping[str, int]) -> RdmaDevice:
    if device.name not in indices:
        return device
    return msgspec.structs.replace(device, users=users_of(netlink.queue_pairs(indices[device.name])))


def users_of(pids: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """(inode of the network namespace, queue pairs) of the processes that are still there."""
    users: Counter[int] = Counter()
    for pid, number in pids.items():
        with contextlib.suppress(OSError):
            users[os.stat(f"/proc/{pid}/ns/net").st_ino] += number
    return tuple(sorted(users.items()))


def fabric_report(node: str, paths: Mapping[str, tuple[int, str]], root: Path = CLASS) -> FabricReport:
    """`paths`: for each address that was asked for, the inode and the path of the namespace that has it."""
    deadline = time.monotonic() + REPORT_S
    by_inode = dict(paths.values())
    reports: list[NamespaceConnections] = []
    unreadable = []
    t_ns = time.monotonic_ns()
    fabric = read_fabric(root)
    for inode, path in by_inode.items():
        if time.monotonic() > deadline:
            unreadable.append(f"TCP connections of {len(by_inode) - len(reports)} network namespaces: no time left")
            break
        try:
            reports.append(inside_path(path, lambda inode=inode: connections(inode)))  # type: ignore[misc]
        except Exception as error:
            unreadable.append(f"TCP connections of network namespace {inode}: {error}"[:200])
    return FabricReport(
        node=node,
        t_ns=t_ns,
        fabric=fabric,
        namespaces=tuple(reports),
        addresses={ip: inode for ip, (inode, _) in paths.items()},
        unreadable=(*fabric.unreadable, *unreadable),
    )
