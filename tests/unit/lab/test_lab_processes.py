"""The lab's processes: what they have of their caller."""

from __future__ import annotations

import os
from pathlib import Path

from kubectl_genainet.lab.programs.processes import spawn

FIRST_THREE = {"0", "1", "2"}


def test_a_process_of_the_lab_keeps_open_nothing_that_its_caller_was_given(tmp_path: Path) -> None:
    """A lock of the caller's parent is inherited: held as long as the lab is up, it would be never free."""
    inherited = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(inherited, True)
    try:
        pid = spawn(["sh", "-c", "ls /proc/self/fd; echo end"], lab_id="t", log=tmp_path / "log")
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        os.close(inherited)
    *listed, end = (tmp_path / "log").read_text().split()
    assert end == "end"
    assert len(set(listed) - FIRST_THREE) == 1, "that of the listing itself"
