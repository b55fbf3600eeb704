"""Network namespaces and long-running processes that end with the test run, also when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PREFIX = "gnk"


def run(*argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """Runs a command, gives its standard output; a failure carries its standard error."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], T | None], timeout: float = 150, interval: float = 0.1) -> T:
    """The first true value of `condition`; TimeoutError with the last exception or value after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Exception as error:  # the reason is told when the time is up
            last = error
        time.sleep(interval)
    raise TimeoutError(f"{what}: not within {timeout:.0f} s; last: {last!r}")


class NetNs:
    """A named network namespace with lo up. `call` prefixes a command so that it runs inside."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{name}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.name)

    @property
    def inode(self) -> int:
        return self.path.stat().st_ino

    def call(self, *argv: str) -> list[str]:
        # Not `ip netns exec`, which mounts a new /sys: kube-proxy and kubelet need the one there is.
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return run(*self.call(*argv), stdin=stdin, check=check, timeout=timeout)

    def ip(self, *argv: str) -> str:
        return run("ip", "-n", self.name, *argv)

    def sysctl(self, key: str, value: str) -> None:
        self.run("sh", "-c", f"echo {value} > /proc/sys/{key.replace('.', '/')}")

    def delete(self) -> None:
        run("ip", "netns", "del", self.name, check=False)


def veth(left: NetNs, left_device: str, right: NetNs, right_device: str) -> None:
    """A veth pair, one end in each namespace, both up; never in the machine's own."""
    left.ip("link", "add", left_device, "type", "veth", "peer", "name", right_device, "netns", right.name)
    left.ip("link", "set", left_device, "up")
    right.ip("link", "set", right_device, "up")


def remove_leftovers() -> None:
    """Removes the namespaces of test runs that no longer exist."""
    for path in Path("/run/netns").glob(f"{PREFIX}[0-9]*-*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            run("ip", "netns", "del", path.name, check=False)


def _running(group: int) -> bool:
    """Whether a thread of the process group runs still. Of a process that nobody has waited for, none does; where only its
    first thread has ended, which makes it a zombie too, the others hold what it has open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()  # proc_pid_stat(5), from the third
                state, its_group, threads = fields[0], int(fields[2]), int(fields[17])
                if its_group == group and (state not in "ZX" or threads > 1):
                    return True
    return False


class Daemon:
    """A long-running process; its output goes to a log file, and it dies when the test run does."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        netns: NetNs | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name, self.log = name, log
        self.argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        if netns is not None:
            self.argv = netns.call(*self.argv)
        self.env = {**os.environ, **(env or {})}
        self.pass_fds = tuple(pass_fds)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises RuntimeError with the end of the log when the process is gone."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")

    def logged(self) -> str:
        """What this process wrote; the file may hold what those before it wrote."""
        return self.log.read_bytes()[self._log_begins :].decode(errors="replace")

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """Until nothing of it runs: what `nsenter --pid` started ends after nsenter, and holds its ports until then. What has
        a process group of its own, as containerd's shims do, runs on."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        wait_for(f"the end of {self.name}", lambda: not _running(self.pid), 120, interval=0.01)
