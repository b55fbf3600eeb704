"""How often the node's containers were throttled, as their own cgroup says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from kubectl_genainet.agent.node.inroot import Process
from kubectl_genainet.model.node import ContainerCpu
from kubectl_genainet.model.units import whole_number

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
    accounts: dict[str, ContainerCpu] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with Process(pid) as process:
                if process.network_namespace not in inodes:
                    continue
                match = _CONTAINER.search(process.read("cgroup", _MAX_BYTES))
                if match and match[1] not in accounts and (account := _cpu_stat(process, match[1])) is not None:
                    accounts[match[1]] = account
        except OSError:  # the process has ended, or may not be looked at
            continue
        if len(accounts) == MAX_CONTAINERS:
            break
    return tuple(accounts[key] for key in sorted(accounts))


def _cpu_stat(process: Process, container: str) -> ContainerCpu | None:
    files = (process.read_in_root(f"/sys/fs/cgroup/{name}", _MAX_BYTES) for name in _CPU_STAT)
    return next((cpu_stat for text in files if (cpu_stat := parse_cpu_stat(text, container)) is not None), None)


def parse_cpu_stat(text: str, container: str) -> ContainerCpu | None:
    """A cgroup's cpu.stat; None where it does not speak of bandwidth, as that of the root doesn't.

    Source: Documentation/admin-guide/cgroup-v2.rst (throttled_usec, µs), Documentation/scheduler/sched-bwc.rst
    (version 1: throttled_time, ns).
    """
    values = dict(_pairs(text))
    if "nr_periods" not in values or "nr_throttled" not in values:
        return None
    microseconds = values.get("throttled_usec", values.get("throttled_time", 0) // 1000)
    return ContainerCpu(
        container=container, periods=values["nr_periods"], throttled=values["nr_throttled"], throttled_us=microseconds
    )


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if (number := whole_number(value)) is not None:
            yield name, number
