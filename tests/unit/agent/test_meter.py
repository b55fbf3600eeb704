"""What a session's BPF programs take."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from kubectl_genainet.agent.bpf import syscalls
from kubectl_genainet.agent.bpf.syscalls import ProgramStatistics
from kubectl_genainet.agent.session import meter
from kubectl_genainet.agent.session.meter import KernelTime


class Kernel:
    """A second of which a half is measured, in which a program ran 1,000 times, 150 ns each, of which the measuring took 50."""

    def __init__(self) -> None:
        self.now = 0.0
        self.program = ProgramStatistics(program=7, run_ns=0, runs=0, missed=0)

    def statistics(self) -> dict[str, ProgramStatistics]:
        return {"on_receive": self.program}

    def second(self, programs: KernelTime) -> None:
        programs.begin()
        run_ns, runs = self.program.run_ns + 150_000, self.program.runs + 1000
        self.program = ProgramStatistics(program=7, run_ns=run_ns, runs=runs, missed=0)
        self.now += 0.5
        programs.end()
        self.now += 0.5


def test_the_measuring_is_not_counted_to_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(syscalls, "enable_statistics", lambda: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(syscalls, "measuring_ns", lambda: 50)
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: kernel.now))
    programs = KernelTime([kernel])  # type: ignore[list-item]
    for _ in range(20):
        kernel.second(programs)
    assert programs.spent_s == pytest.approx((1000 * 100e-9 / 0.5) * 19.5)
    assert programs.share == pytest.approx(1000 * 100e-9 / 0.5, rel=0.01)
