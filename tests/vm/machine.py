"""A virtual machine with one of Debian's kernels, for what the test machine's own kernel lacks (IPVS, kprobes).

The kernel package is unpacked, never installed. The machine's root is this machine's, read-only over 9p, under a
tmpfs: a script runs there with the same interpreter and the same packages, and its files are gone with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("5.10", "6.1", "6.12")
VERSION_IDS = [f"{version}-debian" for version in VERSIONS]  # `-k 6.1-debian` is not 6.12
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|c)")
TOOLS = ("qemu-system-x86_64", "apt-get", "apt-cache", "dpkg", "busybox", "depmod")
BOOT_MODULES = ("9p", "9pnet_virtio", "overlay", "virtio_pci", "crc32c_generic")  # the last: by a softdep of libcrc32c
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /top /root
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sysfs /sys; /bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module || echo "insmod $module failed"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
/bin/busybox mount -t tmpfs top /top; /bin/busybox mkdir /top/up /top/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/top/up,workdir=/top/work overlay /root
cd /root
for d in proc sys dev; do /bin/busybox mount -o move /$d /root/$d; done
/bin/busybox mount -t tmpfs run /root/run
/bin/busybox mount -t tmpfs tmp /root/tmp
/bin/busybox mkdir -p /root/dev/shm; /bin/busybox mount -t tmpfs shm /root/dev/shm
/bin/busybox mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
/bin/busybox mkdir -p /root/run/netns /root/usr/lib/modules
/bin/busybox ln -s MODULES /root/usr/lib/modules/
/bin/busybox mount -t bpf bpf /root/sys/fs/bpf; /bin/busybox mount -t tracefs tracefs /root/sys/kernel/tracing
exec /bin/busybox switch_root /root /bin/sh -c 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin; ip link set lo up; GUEST; echo "exit status $?"; echo o > /proc/sysrq-trigger; while :; do :; done'
"""  # noqa: E501


@dataclass(frozen=True)
class Kernel:
    release: str
    root: Path  # of the unpacked package

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.release

    def closure(self, names: Sequence[str]) -> list[Path]:
        """The modules' files, each after those it needs."""
        depends: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, needed = line.partition(":")
            depends[file] = needed.split()
        by_name = {Path(file).name.partition(".")[0].replace("-", "_"): file for file in depends}
        found: list[str] = []

        def add(file: str) -> None:
            for needed in depends[file]:
                add(needed)
            if file not in found:
                found.append(file)

        for name in names:
            if name in by_name:  # else it is built in
                add(by_name[name])
        return [self.modules / file for file in found]


@cache
def kernel(version: str = "6.1") -> Kernel:
    """One of Debian's kernels (scripts/kernels.sh). Skips the test where it can't be had."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run([ROOT / "scripts/kernels.sh", version], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Linux {version} can't be fetched")
    root = Path(done.stdout.strip()) / version
    (image,) = (root / "boot").glob("vmlinuz-*")
    found = Kernel(image.name.removeprefix("vmlinuz-"), root)
    if not (found.modules / "modules.dep").exists():
        subprocess.run(["depmod", "-b", str(root), found.release], check=True, timeout=120)
    return found


def run_in_vm(
    command: str,
    modules: Sequence[str] = (),
    *,
    version: str = "6.1",
    memory: int = 1024,
    timeout: float = 240,
    network: bool = False,
) -> str:
    """The console's text of a machine that loads the modules, runs the command, and powers off.

    With `network` it has an eth0 by which it reaches this machine's loopback as 10.0.2.2, and nothing else is needed.
    modprobe finds the kernel's other modules. The machine runs a copy of this tree: a change meanwhile changes no test.
    """
    found = kernel(version)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=_cache(), prefix="vm-") as copy:
        _copy_tree(Path(copy))
        command = f"export PYTHONPATH={copy}; " + re.sub(rf"{re.escape(str(ROOT))}(?!/\.venv)", copy, command)
        initramfs = Path(folder) / "initramfs"
        modules = [*modules, *(["virtio_net"] if network else [])]
        _initramfs(Path(folder) / "tree", found, modules, command, initramfs)
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            str(memory),
            "-nographic",
            "-no-reboot",
            "-nic",
            "user,model=virtio-net-pci" if network else "none",
            "-kernel",
            str(found.image),
            "-initrd",
            str(initramfs),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",  # a busy host may leave it without a tick at its start
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ]
        started = time.monotonic()
        console = Path(folder) / "console"
        with console.open("wb") as out:
            try:
                subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout, check=False)
                end = f"the machine ran {time.monotonic() - started:.1f} s"
            except subprocess.TimeoutExpired:
                end = f"the machine had not powered off after {timeout:.0f} s"
        # What the firmware sends to clear the screen would stand before the first line.
        return f"{_ESCAPES.sub('', console.read_text(errors='replace')).lstrip()}\n{end}\n"


def _cache() -> Path:
    """What the machine sees of this one; its own /tmp is empty."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubectl-genainet"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy_tree(target: Path) -> None:
    left_out = [f"--exclude=./{name}" for name in (".venv", ".git", "build", ".mypy_cache", ".ruff_cache")]
    with subprocess.Popen(["tar", "-C", str(ROOT), *left_out, "-c", "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-C", str(target), "-x"], stdin=packing.stdout, check=True)


def _initramfs(tree: Path, found: Kernel, modules: Sequence[str], command: str, target: Path) -> None:
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin" / "busybox")
    files = found.closure([*BOOT_MODULES, *modules])
    for file in files:
        shutil.copy(file, tree / "modules" / file.name)
    (tree / "modules" / "order").write_text(" ".join(file.name for file in files))
    init = tree / "init"
    init.write_text(INIT.replace("GUEST", command).replace("MODULES", str(found.modules)))
    init.chmod(0o755)
    names = "\n".join(["init", "bin", "bin/busybox", "modules", "modules/order", *(f"modules/{f.name}" for f in files)])
    with target.open("wb") as out:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=tree,
            input=names.encode(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            check=True,
        )
