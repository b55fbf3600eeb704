"""CPU weights as the kubelet gives them to pods, by what they request: a lab's processes have none of their own, and would
weigh as much as the load."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import yaml

from kubectl_genainet.assets import asset_dir

CGROUPS = Path("/sys/fs/cgroup")
LOAD_MILLICORES = 1000  # requested by the pods of the load together


def agents_millicores() -> int:
    """What an agent's pod requests."""
    for manifest in yaml.safe_load_all((asset_dir("daemonset") / "manifests" / "daemonset.yaml").read_text()):
        if manifest["kind"] == "DaemonSet":
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            return int(container["resources"]["requests"]["cpu"].removesuffix("m"))
    raise ValueError("the manifests have no DaemonSet")


class Weights:
    """Groups of processes, by the kernel's CPU controller (cgroup v1 or v2); none where it is not to be had, which is said.
    Use as a context manager, around the processes' lives."""

    def __init__(self) -> None:
        self._groups: dict[str, Path] = {}
        self._cpu = CGROUPS / "cpu"
        self._has_shares = (self._cpu / "cpu.shares").exists()
        if not self._has_shares:
            self._cpu = CGROUPS
        weighs = self._has_shares or self._enable()
        what = f"an agent {agents_millicores()}m, the load {LOAD_MILLICORES}m" if weighs else "none on this machine"
        self._weighs = weighs
        print(f"CPU weights, as of pods that request as much: {what}", flush=True)

    def _enable(self) -> bool:
        with contextlib.suppress(OSError):
            (self._cpu / "cgroup.subtree_control").write_text("+cpu")
            return True
        return False

    def _group(self, name: str, millicores: int) -> Path:
        if name not in self._groups:
            group = self._cpu / f"genainet-bench-{os.getpid()}-{name.replace('/', '-')}"
            group.mkdir()
            self._groups[name] = group
            shares = max(2, millicores * 1024 // 1000)
            if self._has_shares:
                (group / "cpu.shares").write_text(str(shares))
            else:
                (group / "cpu.weight").write_text(str(1 + (shares - 2) * 9999 // 262142))  # as runc converts them
        return self._groups[name]

    def put(self, name: str, millicores: int, pid: int) -> None:
        """A process, and those that it has started, into the group of that name."""
        if not self._weighs:
            return
        group = self._group(name, millicores)
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
        for each in (pid, *map(int, children.split())):
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(each))

    def put_last(self, name: str, pid: int) -> None:
        """A process into a group that runs where nothing else wants to: as near as one machine comes to it being elsewhere.
        Raises OSError where the kernel (5.15) or its CPU controller knows no such group."""
        group = self._group(name, 2)
        (group / "cpu.idle").write_text("1")
        (group / "cgroup.procs").write_text(str(pid))

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups.values():
            with contextlib.suppress(
                OSError
            ):  # a process of it has not ended yet: the group is empty soon, and costs nothing
                group.rmdir()
