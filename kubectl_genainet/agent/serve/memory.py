"""How many sessions the agent's memory holds: one too many would have the kernel end all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# MiB of a worker and of its maps, measured with two CPUs on Linux 6.18; what a session adds with each probe.
_WORKER = 45
_PROBES = {"packet": 25, "connections": 20, "drops": 35, "dns": 90}
_SERVER = 100  # the server, a node's rules in its hands, and queues of slow clients
# cgroup v2, v1: the container's own limit (OCI runtime specification, "Default Filesystems")
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def limit_mib(files: Iterable[Path] = _LIMITS) -> int | None:
    """The memory limit of the agent's container; None where there is none that can be read."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            return int(text) >> 20
    return None


def cost_mib(probes: Iterable[str]) -> int:
    return _WORKER + sum(_PROBES.get(name, max(_PROBES.values())) for name in probes)


def fits(running: Iterable[Iterable[str]], wanted: Iterable[str], limit: int | None) -> bool:
    """Whether a session with the probes `wanted` has room beside those that run. A first one always has."""
    taken = [cost_mib(probes) for probes in running]
    return limit is None or not taken or sum(taken) + cost_mib(wanted) <= limit - _SERVER
