"""/proc/PID/cgroup as kernels and runtimes write it: which pod a process is of."""

from __future__ import annotations

import pytest

from kubectl_genainet.agent.node.inventory import pod_uids

UID = "0a1b2c3d-1111-4222-8333-444455556666"
SLICE = "kubepods-burstable-pod0a1b2c3d_1111_4222_8333_444455556666.slice"
ID = "c0ffee" * 10 + "c0ff"

V1 = f"""12:pids:/kubepods/burstable/pod{UID}/{ID}
11:memory:/kubepods/burstable/pod{UID}/{ID}
3:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}
1:name=systemd:/kubepods/burstable/pod{UID}/{ID}
"""
V1_SYSTEMD = f"""12:pids:/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope
1:name=systemd:/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope
"""
V2 = f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope\n"
# A cgroup namespace of the reader's own: relative to it.
V2_FROM_A_CONTAINER = f"0::/../../{SLICE}/cri-containerd-{ID}.scope\n"
V2_CGROUPFS = f"0::/../../pod{UID}/{ID}\n"
# systemd's hybrid: controllers of v1, and the tree of v2 without a controller, which runtimes leave alone.
HYBRID = V1_SYSTEMD + f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-{ID}.scope\n"
HYBRID_ROOT = V1 + "0::/\n"
# containerd names the cgroup of a pod of systemd so where its own driver is cgroupfs.
MIXED = f"0::/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}\n"
CONMON = f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-conmon-{ID}.scope\n"


@pytest.mark.parametrize(
    "text", [V1, V1_SYSTEMD, V2, V2_FROM_A_CONTAINER, V2_CGROUPFS, HYBRID, HYBRID_ROOT, MIXED, CONMON]
)
def test_the_pods_uid_is_in_the_cgroup(text: str) -> None:
    assert pod_uids(text) == {UID}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/\n",
        "0::/user.slice/user-0.slice/session-1.scope\n",
        "0::/system.slice/kubelet.service\n",
        f"4:memory:/docker/{ID}\n",
        f"0::/machine.slice/libpod-{ID}.scope\n",
        f"0::/../cri-containerd-{ID}.scope\n",  # the reader's own pod: only its address says whose it is
        # A static pod: the hash of its manifest, which is no UID of the API.
        f"0::/kubepods/burstable/pod1f2e3d4c5b6a79880123456789abcdef/{ID}\n",
    ],
)
def test_what_is_of_no_pod_of_the_api_has_no_uid(text: str) -> None:
    assert pod_uids(text) == set()
