"""Whose pod a network namespace is: real processes in real cgroups, laid out as the kubelet and the runtimes do it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.agent.node.inventory import _candidates

UID = "0a1b2c3d-1111-4222-8333-444455556666"
OTHER = "9f8e7d6c-aaaa-4bbb-8ccc-ddddeeeeffff"
ID = "c0ffee" * 10 + "c0ff"


def systemd_slice(uid: str, qos: str = "burstable") -> str:
    pod = uid.replace("-", "_")
    return f"kubepods.slice/kubepods-{qos}.slice/kubepods-{qos}-pod{pod}.slice"


SLICE_OF = f"kubepods-pod{UID.replace('-', '_')}.slice"
LAYOUTS = {
    "containerd, cgroupfs": f"kubepods/burstable/pod{UID}/{ID}",
    "containerd, cgroupfs, guaranteed": f"kubepods/pod{UID}/{ID}",
    "containerd, systemd": f"{systemd_slice(UID)}/cri-containerd-{ID}.scope",
    "containerd, systemd, guaranteed": f"kubepods.slice/{SLICE_OF}/cri-containerd-{ID}.scope",
    "CRI-O, cgroupfs": f"kubepods/besteffort/pod{UID}/crio-{ID}",
    "CRI-O, systemd": f"{systemd_slice(UID, 'besteffort')}/crio-{ID}.scope",
    "CRI-O, systemd, crun": f"{systemd_slice(UID)}/crio-{ID}.scope/container",
    "kind": f"kubelet.slice/kubelet-kubepods.slice/kubelet-{SLICE_OF}/cri-containerd-{ID}.scope",
}


def roots() -> dict[str, Path]:
    """Where this machine lets cgroups be made: one hierarchy of v1, and v2 (alone, or beside v1: hybrid)."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found["v2"] = Path(place)
        elif kind == "cgroup" and "pids" in options.split(","):
            found["v1"] = Path(place)
    return found


ROOTS = roots()


@contextlib.contextmanager
def pod_process(version: str, layout: str) -> Iterator[int]:
    """A process in a network namespace of its own and in a new cgroup; gives its PID, and removes both."""
    if version not in ROOTS:
        pytest.skip(f"no cgroup {version} is mounted here")
    top = f"k8s-{os.getpid()}"  # the layout below a parent of ours: nothing of the machine's own is touched
    path = ROOTS[version] / top / layout
    try:
        path.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"a cgroup can't be made: {error}")
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        (path / "cgroup.procs").write_text(str(process.pid))
        yield process.pid
    finally:
        process.kill()
        process.wait()
        while path != ROOTS[version]:
            path.rmdir()
            path = path.parent


def netns_of(pid: int) -> int:
    own, inode = os.stat("/proc/self/ns/net").st_ino, 0
    while inode in (0, own):  # until unshare has done its work
        inode = os.stat(f"/proc/{pid}/ns/net").st_ino
    return inode


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_namespace_is_of_the_pod_whose_cgroup_its_processes_are_in(version: str, layout: str) -> None:
    with pod_process(version, layout) as pid:
        netns = netns_of(pid)  # first: what is read before unshare has done its work lacks the namespace
        candidate = _candidates()[netns]
        assert candidate.pod_uids == {UID}
        assert candidate.container_pids == [str(pid)]


def test_a_service_of_the_node_is_of_no_pod() -> None:
    with pod_process("v2" if "v2" in ROOTS else "v1", "system.slice/podman.service") as pid:
        netns = netns_of(pid)
        assert _candidates()[netns].pod_uids == set()


IN_A_CGROUP_NAMESPACE = """
import sys
from kubectl_genainet.agent.node.inventory import _candidates
pid, inode = sys.argv[1:]
print(open(f"/proc/{pid}/cgroup").read())
print(sorted(_candidates()[int(inode)].pod_uids))
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_agent_in_a_cgroup_namespace_of_its_own_sees_the_other_pods(version: str) -> None:
    """As a container with cgroup v2 does: paths begin with /../ there."""
    with pod_process(version, LAYOUTS["containerd, systemd"]) as pid:
        agent = ROOTS[version] / f"k8s-{os.getpid()}" / systemd_slice(OTHER) / f"cri-containerd-{ID}.scope"
        agent.mkdir(parents=True)
        try:
            script = f'echo $$ > {agent}/cgroup.procs && exec unshare --cgroup "$@"'
            argv = [sys.executable, "-c", IN_A_CGROUP_NAMESPACE, str(pid), str(netns_of(pid))]
            done = subprocess.run(
                ["sh", "-c", script, "sh", *argv], capture_output=True, text=True, timeout=60, check=True
            )
        finally:
            agent.rmdir()
            agent.parent.rmdir()
    assert "/../" in done.stdout
    assert done.stdout.splitlines()[-1] == str([UID])
