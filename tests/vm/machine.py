"""A virtual machine with the distribution's kernel, for what the test machine's own kernel lacks (IPVS, kprobes).

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
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kubectl-genainet" / "vm"
TOOLS = ("qemu-system-x86_64", "apt-get", "apt-cache", "dpkg", "busybox")
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
/bin/busybox mkdir -p /root/run/netns /root/lib/modules
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


def kernel() -> Kernel:
    """Debian's kernel of this release, unpacked once into the cache. Skips the test where it can't be had."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    listed = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False
    ).stdout
    package = re.search(r"Depends: (linux-image-(\S+))", listed)
    if package is None:
        pytest.skip("apt knows no package linux-image-amd64")
    root = CACHE / package.group(1)
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                ["apt-get", "download", "-qq", package.group(1)], cwd=folder, check=False, timeout=300
            )
            files = list(Path(folder).glob("*.deb"))
            if done.returncode or not files:
                pytest.skip(f"{package.group(1)} can't be downloaded")
            subprocess.run(["dpkg", "-x", str(files[0]), str(root)], check=True, timeout=300)
        found = Kernel(package.group(2), root)
        subprocess.run(["busybox", "depmod", "-b", str(root), found.release], check=True, timeout=120)
        (root / "done").touch()
    return Kernel(package.group(2), root)


def run_in_vm(
    script: Path, arguments: str, modules: Sequence[str], *, python: str, timeout: float = 240, network: bool = False
) -> str:
    """The console's text of a machine that loads the modules, runs the script with the interpreter, and powers off.

    With `network` it has an eth0 by which it reaches this machine's loopback as 10.0.2.2, and nothing else is needed.
    """
    found = kernel()
    with tempfile.TemporaryDirectory() as folder:
        initramfs = Path(folder) / "initramfs"
        modules = [*modules, *(["virtio_net"] if network else [])]
        _initramfs(Path(folder) / "tree", found, modules, f"{python} {script} {arguments}", initramfs)
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
            "-nographic",
            "-no-reboot",
            "-nic",
            "user,model=virtio-net-pci" if network else "none",
            "-kernel",
            str(found.image),
            "-initrd",
            str(initramfs),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off",
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ]
        started = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        return done.stdout + done.stderr + f"\nthe machine ran {time.monotonic() - started:.1f} s\n"


def _initramfs(tree: Path, found: Kernel, modules: Sequence[str], command: str, target: Path) -> None:
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin" / "busybox")
    files = found.closure([*BOOT_MODULES, *modules])
    for file in files:
        shutil.copy(file, tree / "modules" / file.name)
    (tree / "modules" / "order").write_text(" ".join(file.name for file in files))
    init = tree / "init"
    init.write_text(INIT.replace("GUEST", command))
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
