"""What a session takes of the node's CPU time: its processes, and its BPF programs by the kernel's own statistics."""

from __future__ import annotations

import os
import resource
import time

import msgspec

from kubectl_genainet.agent.bpf import syscalls as bpfsys
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.model.events import Tick

SMOOTH = 0.3  # the part of the last measurement in the average


class KernelTime:
    """What the session's BPF programs take, from the kernel's own statistics, switched on for a part of the time only: the
    measuring costs as much as a small program. It is not counted to them. `spent_s` is None where the kernel or the rights do
    not give it; `share` is what they take of a core, on an average of some seconds."""

    def __init__(self, probes: list[LoadedProbe]) -> None:
        self._probes = probes
        self._statistics: int | None = None
        self._began = self._ran = self._asked = 0.0
        self._measuring_ns: int | None = None  # at each run
        self.spent_s: float | None = None
        self.share = 0.0

    def begin(self) -> None:
        """Switches on; `end` soon."""
        self._statistics = bpfsys.enable_statistics()
        if self._statistics is not None and self._measuring_ns is None:
            self._measuring_ns = bpfsys.measuring_ns()
        self._began, self._ran = time.monotonic(), self._run_s()

    def end(self) -> None:
        """Adds what the time since the last measurement took, by the rate within this one."""
        if self._statistics is None:
            return
        ran, now = self._run_s() - self._ran, time.monotonic()
        os.close(self._statistics)
        self._statistics = None
        since = now - (self._asked or self._began)
        self._asked = now
        rate = ran / max(now - self._began, 1e-3)
        self.spent_s = (self.spent_s or 0.0) + rate * since
        self.share += SMOOTH * (rate - self.share)

    def _run_s(self) -> float:
        """Less the measuring. Runs are counted only while they are measured; probes share some programs."""
        by_program = {s.program: s for probe in self._probes for s in probe.statistics().values()}
        return sum(max(0, s.run_ns - s.runs * (self._measuring_ns or 0)) for s in by_program.values()) / 1e9


class Meter:
    """What a session takes, since it began to watch."""

    def __init__(self, probes: list[LoadedProbe]) -> None:
        self.kernel = KernelTime(probes)
        self._began_s = own_s()

    @property
    def own_s(self) -> float:
        """CPU time of this process and of those that it started."""
        return own_s() - self._began_s

    def added_to(self, tick: Tick, budget: float) -> Tick:
        """The tick with what was taken until now; `budget` is in per cent of a core."""
        kernel_ns = int(self.kernel.spent_s * 1e9) if self.kernel.spent_s is not None else None
        return msgspec.structs.replace(tick, cpu_ns=int(self.own_s * 1e9), kernel_ns=kernel_ns, budget=budget)


def own_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
