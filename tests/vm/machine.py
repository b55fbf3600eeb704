"""A virtual machine with one of Debian's kernels: for what this machine's own kernel lacks (IPVS, kprobes), and for arm64.

The kernel package is unpacked, never installed. The machine's root is this machine's, or, where its processor is another
one, a folder of Debian's packages (scripts/machine-root.sh); it is read-only over 9p, under a tmpfs. A script runs there with
the same packages as here, and its files are gone with it, but for what agents keep of a kernel, which the next machine of that
kind finds. Run as a program, it fetches what the machines are made of, and has each compile the probes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.vm.kept import CACHE, KeptRun, drop_old, tree_key

ROOT = Path(__file__).parents[2]
COMPILE = "python tests/vm/guest_compile.py"
COMPILE_S = 3600.0  # of a machine that only compiles; what it has compiled by then is kept
SHOWN = 160  # characters of a line of the console
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|c)")
TOOLS = ("apt-get", "apt-cache", "dpkg", "busybox", "depmod")
BOOT_MODULES = ("9p", "9pnet_virtio", "overlay", "virtio_pci", "crc32c_generic")  # the last: by a softdep of libcrc32c
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /top /root
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sysfs /sys; /bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module || echo "insmod $module failed"; done
share() { /bin/busybox mkdir -p $2; /bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144,$3 $1 $2; }
share root /host ro
/bin/busybox mount -t tmpfs top /top; /bin/busybox mkdir /top/up /top/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/top/up,workdir=/top/work overlay /root
cd /root
for d in proc sys dev; do /bin/busybox mount -o move /$d /root/$d; done
/bin/busybox mount -t tmpfs run /root/run
/bin/busybox mount -t tmpfs tmp /root/tmp
/bin/busybox mkdir -p /root/dev/shm; /bin/busybox mount -t tmpfs shm /root/dev/shm
/bin/busybox mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
/bin/busybox mkdir -p /root/run/netns
share modules /root/usr/lib/modules/$(/bin/busybox uname -r) ro
share tree /root/tree rw
share images /root/tmp/kubectl-genainet rw,cache=none
/bin/busybox mount -t bpf bpf /root/sys/fs/bpf; /bin/busybox mount -t tracefs tracefs /root/sys/kernel/tracing
exec /bin/busybox switch_root /root /bin/sh -c 'export PATH=PYTHON:/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/tree; cd /tree; ip link set lo up; GUEST; echo "exit status $?"; echo o > /proc/sysrq-trigger; while :; do :; done'
"""  # noqa: E501


@dataclass(frozen=True)
class Emulator:
    program: str
    processor: tuple[str, ...]
    console: str
    threads: str = "multi"


OWN = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)  # Debian's name
EMULATORS = {
    # The kernel patches its code behind an int3. With a thread for each processor one may meet that int3 when it is gone already,
    # and no longer known: "Oops: int3" (sched_clock_cpu and bpf_trace_run1 on 6.12).
    "amd64": Emulator("qemu-system-x86_64", ("-cpu", "max"), "ttyS0", threads="single"),
    "arm64": Emulator("qemu-system-aarch64", ("-M", "virt", "-cpu", "max,pauth-impdef=on"), "ttyAMA0"),
}


@dataclass(frozen=True)
class Machine:
    version: str = "6.1"  # of its kernel
    architecture: str = OWN

    def __str__(self) -> str:
        return f"{self.version}-{self.architecture}"  # `-k 6.1-amd64` is not 6.12

    @property
    def emulator(self) -> Emulator:
        return EMULATORS[self.architecture]

    @property
    def images(self) -> Path:
        """The folder of this machine that outlives the one that runs: what its agents have compiled, by kernel, source and
        settings."""
        folder = CACHE / str(self) / "images"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


MACHINES = (Machine("5.10", "amd64"), Machine("6.1", "amd64"), Machine("6.12", "amd64"), Machine("6.1", "arm64"))


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
def kernel(machine: Machine = Machine()) -> Kernel:
    """One of Debian's kernels (scripts/kernels.sh). Skips the test where it can't be had."""
    if missing := [tool for tool in (machine.emulator.program, *TOOLS) if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    root = _prepared("kernels.sh", f"{machine.version}:{machine.architecture}")
    (image,) = (root / "boot").glob("vmlinuz-*")
    found = Kernel(image.name.removeprefix("vmlinuz-"), root)
    if not (found.modules / "modules.dep").exists():
        subprocess.run(["depmod", "-b", str(root), found.release], check=True, timeout=120)
    return found


def _prepared(script: str, argument: str) -> Path:
    """The folder that a script prints, which made it where it was missing."""
    done = subprocess.run([ROOT / "scripts" / script, argument], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.skip(f"scripts/{script} {argument} can't fetch it")
    return Path(done.stdout.strip())


def _root_and_python(machine: Machine) -> tuple[Path, str]:
    """The folder that is the machine's root, and where in it the Python is that has what the tests import."""
    if machine.architecture == OWN:
        return Path("/"), str(Path(sys.executable).parent)
    return _prepared("machine-root.sh", machine.architecture), "/opt/venv/bin"


def run_in_vm(
    command: str,
    modules: Sequence[str] = (),
    *,
    machine: Machine = Machine(),
    memory: int = 1024,
    timeout: float = 240,
    network: bool = False,
    probes: bool = False,
) -> str:
    """The console's text of a machine that loads the modules, runs the command, and powers off. It is printed as it comes.

    The command begins in a copy of this tree, which no change meanwhile reaches; its `python` has what the tests import. With
    `network` the machine has an eth0 by which it reaches this one's loopback as 10.0.2.2, and nothing else is needed. modprobe
    finds the kernel's other modules. With `probes` those that are not compiled yet are, before the command begins.

    A run whose command ended well is kept, and is not repeated for the same command, kernel and tree (tests/vm/kept.py).
    """
    found = kernel(machine)
    root, python = _root_and_python(machine)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as copy:
        _copy_tree(Path(copy))
        initramfs = Path(folder) / "initramfs"
        modules = [*modules, *(["virtio_net"] if network else [])]
        init = INIT.replace("GUEST", f"{COMPILE} && {command}" if probes else command).replace("PYTHON", python, 1)
        kept = KeptRun(str(machine), command, (found.release, init, *modules, tree_key(Path(copy))))
        if text := kept.text():
            _show(machine, f"{command}: {text.splitlines()[-1]}, in {kept.file}")
            return text
        _initramfs(
            Path(folder) / "tree", root / "bin/busybox", found.closure([*BOOT_MODULES, *modules]), init, initramfs
        )
        argv = [
            machine.emulator.program,
            *machine.emulator.processor,
            *(
                "-accel",
                f"tcg,thread={machine.emulator.threads}",
                "-smp",
                "2",
                "-m",
                str(memory),
                "-nographic",
                "-no-reboot",
            ),
            *("-nic", "user,model=virtio-net-pci" if network else "none"),
            *("-kernel", str(found.image), "-initrd", str(initramfs)),
            # A busy host may leave it without a tick at its start.
            *("-append", f"console={machine.emulator.console} quiet panic=-1 mitigations=off no_timer_check"),
            *_share("root", root, ",readonly=on"),
            *_share("modules", found.modules, ",readonly=on"),
            *_share("tree", Path(copy)),
            *_share("images", machine.images),
        ]
        _show(machine, command)
        text = _console(machine, argv, timeout)
        if "\nexit status 0\n" in text:
            kept.keep(text)
        return text


def _console(machine: Machine, argv: Sequence[str], timeout: float) -> str:
    """The text of the console of the machine, which runs now; its last line says how long it took."""
    started, lines = time.monotonic(), list[str]()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        late = threading.Timer(timeout, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                # What the firmware sends to clear the screen would stand before the first line.
                lines.append(_ESCAPES.sub("", line).rstrip())
                if lines[-1]:
                    _show(machine, f"{time.monotonic() - started:4.0f} s  {lines[-1]}")
        finally:
            late.cancel()
            process.kill()
    in_time = time.monotonic() - started < timeout
    lines.append(
        f"the machine ran {time.monotonic() - started:.1f} s"
        if in_time
        else f"the machine had not powered off after {timeout:.0f} s"
    )
    return "\n".join(lines).lstrip() + "\n"


def _show(machine: Machine, text: str) -> None:
    """A line of progress; pytest shows it at once with -s."""
    print(f"{machine}  {text[:SHOWN]}", file=sys.stderr, flush=True)


def _share(tag: str, folder: Path, more: str = "") -> tuple[str, str]:
    return "-virtfs", f"local,path={folder},mount_tag={tag},security_model=none,multidevs=remap{more}"


def _copy_tree(target: Path) -> None:
    left_out = [f"--exclude=./{name}" for name in (".venv", ".git", "build", ".mypy_cache", ".ruff_cache")]
    with subprocess.Popen(["tar", "-C", str(ROOT), *left_out, "-c", "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-C", str(target), "-x"], stdin=packing.stdout, check=True)
    # In there it would take longer than what is then run.
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "kubectl_genainet", "tests/kernel"], cwd=target, check=False
    )


def _initramfs(tree: Path, busybox: Path, modules: Sequence[Path], init: str, target: Path) -> None:
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    for file in modules:
        shutil.copy(file, tree / "modules" / file.name)
    (tree / "modules" / "order").write_text(" ".join(file.name for file in modules))
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    names = "\n".join(
        ["init", "bin", "bin/busybox", "modules", "modules/order", *(f"modules/{f.name}" for f in modules)]
    )
    with target.open("wb") as out:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=tree,
            input=names.encode(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            check=True,
        )


if __name__ == "__main__":
    for each in MACHINES:
        _show(each, f"Linux {kernel(each).release}, root {_root_and_python(each)[0]}")
        drop_old(each.images)
        console = run_in_vm("true", machine=each, memory=3072, timeout=COMPILE_S, probes=True)
        if "\nexit status 0\n" not in console:
            sys.exit(f"{each}: the probes were not compiled (run again: what was compiled is kept)")
