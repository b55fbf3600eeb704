"""The node that is traced: its commands and sockets, what a tracer changes there, and what one that was killed left."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns as pyroute2_netns

from kubectl_genainet.agent.exact.messages import NETLINK_NETFILTER, bind_log_group
from kubectl_genainet.agent.exact.rules import TABLE
from kubectl_genainet.errors import GenainetError

T = TypeVar("T")
COMMENT = "genainet-exact"
LOCK_GROUP = 0x676E
RUN_S = 20.0  # a command's; listing the rules of a large node takes seconds


class Netns:
    """Where commands and sockets belong: this process's network namespace, or the one at `netns` (a path)."""

    def __init__(self, netns: str = "") -> None:
        self.netns = netns

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net={self.netns}", "--", *argv] if self.netns else list(argv)

    def run(self, *argv: str) -> str:
        """The command's output; raises GenainetError with its own words where it fails."""
        try:
            done = subprocess.run(self.argv(*argv), capture_output=True, errors="replace", timeout=RUN_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GenainetError(f"{argv[0]} failed: {error}") from None
        if done.returncode:
            raise GenainetError(f"{argv[0]} failed: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def inside(self, make: Callable[[], T]) -> T:
        """`make()` in the namespace: in a thread of its own, which alone enters it."""
        if not self.netns:
            return make()
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                pyroute2_netns.setns(self.netns)
                results.append(make())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def exclusively(node: Netns) -> socket.socket | None:
    """A lock on tracing in the node's network namespace; None where somebody has it. It is gone with its process.

    An NFLOG group that no rule uses: groups belong to the namespace, so agents that know nothing of each other see it, and
    the kernel gives one only to who may administer the network. What any process of the host's network could take (a name,
    a port, a lock on a file that it can open) would let each of them end exact tracing. Raises GenainetError where there is
    none to be had.
    """
    try:
        with contextlib.suppress(PermissionError):
            return log_group(node, LOCK_GROUP)
        log_group(node, LOCK_GROUP + 1).close()  # refused too where it is the agent that may not
    except OSError as error:
        raise GenainetError(f"this node can't trace rules: NFLOG is refused ({error.strerror})") from None
    return None


def log_group(node: Netns, group: int) -> socket.socket:
    """A socket that has an NFLOG group of the node's network namespace. Raises OSError."""
    sock = node.inside(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
    try:
        sock.bind((0, 0))
        bind_log_group(sock, group)
    except OSError:
        sock.close()
        raise
    return sock


def remove_leftovers(netns: str = "") -> list[str]:
    """Removes what a tracer that was killed left, and returns it. Nothing while a tracer runs: its rules are not left over."""
    node = Netns(netns)
    try:
        lock = exclusively(node)
    except GenainetError:  # who may not trace can't have left anything, nor remove it
        return []
    if lock is None:
        return []
    with lock:
        return remove_leftovers_of(node)


def remove_leftovers_of(node: Netns) -> list[str]:
    """Our nft table, our TRACE rules, the log backend that they needed. For who has the lock."""
    removed = []
    with contextlib.suppress(GenainetError):
        if TABLE in node.run("nft", "list", "tables").split():
            node.run("nft", "delete", "table", "inet", TABLE)
            removed.append(f"the nftables table {TABLE}")
    for family in ("iptables", "ip6tables"):
        if "raw" in _legacy_tables(node, family):
            removed += _remove_legacy(node, family)
    return removed


def _remove_legacy(node: Netns, family: str) -> list[str]:
    removed: list[str] = []
    with contextlib.suppress(GenainetError):
        for line in node.run(f"{family}-legacy-save", "-t", "raw").splitlines():
            match = re.search(rf'--comment "{COMMENT} ([^"]*)"', line)
            if match and line.startswith("-A ") and line.endswith("-j TRACE"):
                backends = dict(part.split("=", 1) for part in match.group(1).split() if "=" in part)
                arguments = [w.strip('"') for w in re.findall(r'"[^"]*"|\S+', line)]
                with contextlib.suppress(GenainetError):
                    set_log_backends(node, backends)
                node.run(f"{family}-legacy", "-t", "raw", "-D", *arguments[1:])
                removed.append(f"{family}-legacy: {' '.join(arguments[1:])}")
    return removed


def legacy_rules_in(node: Netns, tool: str) -> bool:
    """Whether legacy tables hold rules."""
    if not shutil.which(tool) or not _legacy_tables(node, tool):
        return False
    try:
        return "\n-A " in node.run(tool)
    except GenainetError:
        return False


def _legacy_tables(node: Netns, tool: str) -> list[str]:
    """The legacy tables that there are, as the kernel lists them: the tools themselves would create them."""
    names = "ip6_tables_names" if tool.startswith("ip6") else "ip_tables_names"
    return node.inside(lambda: _proc_words(f"/proc/thread-self/net/{names}"))


def _proc_words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def log_backends(node: Netns) -> dict[str, str]:
    """The log backend of IPv4 (2) and IPv6 (10)."""
    return {family: node.run("cat", f"/proc/sys/net/netfilter/nf_log/{family}").strip() for family in ("2", "10")}


def set_log_backends(node: Netns, backends: dict[str, str]) -> None:
    for family, name in backends.items():
        if name and family in ("2", "10") and re.fullmatch(r"\w+", name):
            done = subprocess.run(
                node.argv("tee", f"/proc/sys/net/netfilter/nf_log/{family}"),
                input=name,
                text=True,
                capture_output=True,
                check=False,
                timeout=RUN_S,
            )
            if done.returncode:
                raise GenainetError(f"can't set the netfilter log backend: {done.stderr.strip()}")
