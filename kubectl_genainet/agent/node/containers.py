"""How often the node's containers were throttled, as their own cgroup says."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from kubectl_genainet.model.node import ContainerCpu

# …/<id> (cgroupfs), …/cri-containerd-<id>.scope, …/crio-<id>.scope, …/docker-<id>.scope (systemd)
_CONTAINER = re.compile(r"(?:/|-)([0-9a-f]{64})(?:\.scope)?$", re.MULTILINE)
# Version 2; version 1 with the names that distributions give the controller's mount.
_CPU_STAT = ("cpu.stat", "cpu/cpu.stat", "cpu,cpuacct/cpu.stat")
_MAX_BYTES = 8192
MAX_CONTAINERS = 1000


def container_cpu(inodes: set[int]) -> tuple[ContainerCpu, ...]:
    """CPU accounts of the containers that run in network namespaces of these inode numbers, in order of their IDs.

    A runtime mounts a container's own cgroup at its /sys/fs/cgroup (OCI runtime specification, "Default Filesystems"),
    where the agent reads it through one of its processes: the node's own mount is not in sight from a container.
    Containers that are unlike that are left out.
    """
    found: dict[str, ContainerCpu] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino not in inodes:
                continue
            with open(f"/proc/{pid}/cgroup") as file:
                match = _CONTAINER.search(file.read(_MAX_BYTES))
        except OSError:  # the process has ended, or may not be looked at
            continue
        if match and match[1] not in found and (read := _cpu_stat(pid, match[1])) is not None:
            found[match[1]] = read
            if len(found) == MAX_CONTAINERS:
                break
    return tuple(found[key] for key in sorted(found))


def _cpu_stat(pid: str, container: str) -> ContainerCpu | None:
    for name in _CPU_STAT:
        text = read_inside(f"/proc/{pid}/root/sys/fs/cgroup/{name}", _MAX_BYTES)
        if (found := parse_cpu_stat(text, container)) is not None:
            return found
    return None


def parse_cpu_stat(text: str, container: str) -> ContainerCpu | None:
    """A cgroup's cpu.stat; None where it does not speak of bandwidth, as that of the root doesn't.

    Source: Documentation/admin-guide/cgroup-v2.rst (throttled_usec, µs), Documentation/scheduler/sched-bwc.rst
    (version 1: throttled_time, ns).
    """
    values = {name: int(value) for name, value in _pairs(text)}
    if "nr_periods" not in values or "nr_throttled" not in values:
        return None
    microseconds = values.get("throttled_usec", values.get("throttled_time", 0) // 1000)
    return ContainerCpu(
        container=container, periods=values["nr_periods"], throttled=values["nr_throttled"], throttled_us=microseconds
    )


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            yield name, value


def read_inside(path: str, limit: int) -> str:
    """The start of a file that a container may have put there; "" where it is no plain file that can be read.

    Never waits: opening a FIFO for reading would, until somebody writes.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        return os.read(fd, limit).decode(errors="replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    except OSError:
        return ""
    finally:
        os.close(fd)
