"""`--exact`: has the kernel tell which rules the packets of a chosen flow meet, and leaves nothing behind.

nftables and iptables-nft: a table of our own sets nftrace on the flow's packets. The table belongs to an `nft -i`
process (flags owner, Linux 5.12): the kernel removes it when that process ends, and it ends when we do, even by
kill -9. iptables-legacy: a TRACE rule in the raw table, removed at the end, or by its comment at the next start.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec
from pyroute2 import netns as pyroute2_netns

from kubectl_genainet.agent.exact.messages import (
    ADD_MEMBERSHIP,
    GROUP_NFTRACE,
    NETLINK_NETFILTER,
    SOL_NETLINK,
    TraceMessage,
    decode_log,
    decode_trace,
    log_bind,
)
from kubectl_genainet.agent.exact.rules import TABLE, exact_filters, legacy_rules, nft_commands
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.exact import IPTABLES_TABLES, RuleHit
from kubectl_genainet.wire import FilterEntry

T = TypeVar("T")
COMMENT = "genainet-exact"
LOG_GROUP = 0  # the kernel sends TRACE records to this NFLOG group
RUN_S = 20.0  # a command's; listing the rules of a large node takes seconds
AGAIN_S = 2.0  # a chain that changes all the time is listed no more often
_RECEIVE_BUFFER = 8 << 20


class Node:
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


class _ListedRule(msgspec.Struct):
    family: str
    table: str
    chain: str
    handle: int


class _Item(msgspec.Struct):
    rule: _ListedRule | None = None


class _Listing(msgspec.Struct):
    """The parts of nft's JSON that tell where rules stand."""

    nftables: list[_Item]


class ExactTracer:
    """Traces the flows of `filters` while it is entered; `hits` gives what the kernel says.

    A filter's address is the destination as the packet has it before NAT, a Service's address. Raises
    GenainetError where the node can trace neither way.
    """

    def __init__(self, node_name: str, filters: Sequence[FilterEntry], *, netns: str = "") -> None:
        self.node_name, self.filters, self.node = node_name, exact_filters(filters), Node(netns)
        self.lost = 0  # datagrams that the kernel could not deliver, at least
        self._sockets: dict[socket.socket, Callable[[bytes], Iterator[TraceMessage]]] = {}
        self._undo: list[Callable[[], None]] = []
        self._packets: dict[int, int] = {}
        self._positions: dict[tuple[str, str, str], dict[int, int]] = {}
        self._listed: dict[tuple[str, str, str], float] = {}  # when a chain was listed anew

    def __enter__(self) -> ExactTracer:
        remove_leftovers(self.node.netns)
        try:
            if shutil.which("nft"):
                self._start_nftrace()
            if _legacy_rules(self.node, "iptables-legacy-save") or _legacy_rules(self.node, "ip6tables-legacy-save"):
                self._start_legacy()
        except BaseException:
            self.close()
            raise
        if not self._sockets:
            raise GenainetError("this node can't trace rules", hint="It has neither nft nor iptables-legacy rules.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Undoes everything; what fails does not keep the rest from being undone."""
        while self._undo:
            with contextlib.suppress(GenainetError, OSError, subprocess.SubprocessError):
                self._undo.pop()()
        for sock in self._sockets:
            sock.close()
        self._sockets = {}

    def hits(self, seconds: float) -> Iterator[RuleHit]:
        """What the kernel says in the next `seconds`, in its order."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(self._sockets), [], [], left)
            for sock in ready:
                try:
                    data = sock.recv(1 << 16)
                except OSError:  # ENOBUFS: more was said than the buffer holds
                    self.lost += 1
                    continue
                for message in self._sockets[sock](data):
                    if message.kind in ("rule", "policy") and not self._is_own(message):
                        yield self._hit(message)

    def _is_own(self, message: TraceMessage) -> bool:
        """Whether the rule is one that tracing added: they stand first in the raw table."""
        if message.index is None or message.table != "raw":
            return message.table == TABLE
        return 0 < message.index <= self._own_raw_rules(message.family)

    def _own_raw_rules(self, family: str) -> int:
        rules = legacy_rules(self.filters, "")
        return sum(1 for tool, chain, *_ in rules if (tool[:3] == "ip6", chain) == (family == "ip6", "OUTPUT"))

    def _hit(self, message: TraceMessage) -> RuleHit:
        index = message.index
        if index and message.table == "raw":
            index -= self._own_raw_rules(message.family)
        if index is None:
            # The end of a chain is told as a rule without a handle.
            index = self._position(message) if message.kind == "rule" and message.handle else 0
        own = message.table in IPTABLES_TABLES and message.family in ("ip", "ip6")
        return RuleHit(
            node=self.node_name,
            t_ns=time.monotonic_ns(),
            trace=self._trace(message),
            engine="nftrace" if message.index is None else "TRACE",
            family=6 if message.family == "ip6" or (message.flow and ":" in message.flow.dst) else 4,
            table=message.table if own else f"{message.family} {message.table}",
            chain=message.chain,
            index=index,
            verdict=message.verdict,
            flow=message.flow,
            mark=message.mark,
        )

    def _trace(self, message: TraceMessage) -> int:
        if message.packet is not None:
            self._packets[message.trace] = message.packet
        return message.trace << 32 | self._packets.get(message.trace, 0)

    def _position(self, message: TraceMessage) -> int | None:
        """The rule's place in its chain, from 1; a chain that has changed since the start is listed again."""
        key = (message.family, message.table, message.chain)
        now = time.monotonic()
        if message.handle not in self._positions.get(key, {}) and now - self._listed.get(key, -AGAIN_S) >= AGAIN_S:
            with contextlib.suppress(GenainetError):  # it is gone
                self._list("chain", *key)
            self._listed[key] = time.monotonic()
        return self._positions.get(key, {}).get(message.handle)

    def _list(self, *what: str) -> None:
        """Learns the places of the rules; all at the start, so that no packet has to wait for them."""
        found: dict[tuple[str, str, str], dict[int, int]] = {}
        try:
            listing = msgspec.json.decode(self.node.run("nft", "-j", "list", *what), type=_Listing)
        except (msgspec.DecodeError, RecursionError) as error:
            raise GenainetError(f"nft's list can't be read: {error}") from None
        for item in listing.nftables:
            if item.rule is not None:
                places = found.setdefault((item.rule.family, item.rule.table, item.rule.chain), {})
                places[item.rule.handle] = len(places) + 1
        self._positions.update(found)

    def _start_nftrace(self) -> None:
        self._list("ruleset")
        self._listen(decode_trace, group=GROUP_NFTRACE)
        script = "".join(f"{line}\n" for line in nft_commands(self.filters))
        nft = subprocess.Popen(
            self.node.argv("nft", "-j", "-i"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._undo.append(lambda: _end(nft))
        assert nft.stdin is not None
        nft.stdin.write(script)
        nft.stdin.flush()
        _wait_until(lambda: TABLE in self.node.run("nft", "list", "tables"), nft)

    def _start_legacy(self) -> None:
        before = _log_backends(self.node)
        self._undo.append(lambda: _set_log_backends(self.node, before))
        _set_log_backends(self.node, dict.fromkeys(before, "nfnetlink_log"))
        sock = self._listen(decode_log)
        sock.send(log_bind(LOG_GROUP))
        mark = f"{COMMENT} {' '.join(f'{k}={v}' for k, v in before.items())}"
        for rule in legacy_rules(self.filters, mark):
            tool, *rest = rule
            self._undo.append(lambda tool=tool, rest=rest: self._delete_legacy(tool, rest))  # type: ignore[misc]
            self.node.run(tool, "-t", "raw", "-I", *rest)

    def _delete_legacy(self, tool: str, rule: Sequence[str]) -> None:
        self.node.run(tool, "-t", "raw", "-D", *rule)

    def _listen(self, decode: Callable[[bytes], Iterator[TraceMessage]], group: int = 0) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            sock.bind((0, 0))
            if group:
                sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
            return sock

        sock = self.node.inside(make)
        self._sockets[sock] = decode
        return sock


def remove_leftovers(netns: str = "") -> list[str]:
    """Removes what a tracer that was killed left: our nft table, our TRACE rules, the log backend they needed.

    Returns what it removed. Not while a tracer runs in this namespace: its rules would be taken for left over.
    """
    node, removed = Node(netns), []
    with contextlib.suppress(GenainetError):
        if TABLE in node.run("nft", "list", "tables").split():
            node.run("nft", "delete", "table", "inet", TABLE)
            removed.append(f"the nftables table {TABLE}")
    for family in ("iptables", "ip6tables"):
        if "raw" in _legacy_tables(node, family):
            removed += _remove_legacy(node, family)
    return removed


def _remove_legacy(node: Node, family: str) -> list[str]:
    removed: list[str] = []
    with contextlib.suppress(GenainetError):
        for line in node.run(f"{family}-legacy-save", "-t", "raw").splitlines():
            match = re.search(rf'--comment "{COMMENT} ([^"]*)"', line)
            if match and line.startswith("-A ") and line.endswith("-j TRACE"):
                backends = dict(part.split("=", 1) for part in match.group(1).split() if "=" in part)
                words = [w.strip('"') for w in re.findall(r'"[^"]*"|\S+', line)]
                with contextlib.suppress(GenainetError):
                    _set_log_backends(node, backends)
                node.run(f"{family}-legacy", "-t", "raw", "-D", *words[1:])
                removed.append(f"{family}-legacy: {' '.join(words[1:])}")
    return removed


def _legacy_rules(node: Node, tool: str) -> bool:
    """Whether legacy tables hold rules."""
    if not shutil.which(tool) or not _legacy_tables(node, tool):
        return False
    try:
        return "\n-A " in node.run(tool)
    except GenainetError:
        return False


def _legacy_tables(node: Node, tool: str) -> list[str]:
    """The legacy tables that there are, as the kernel lists them: the tools themselves would create them."""
    names = "ip6_tables_names" if tool.startswith("ip6") else "ip_tables_names"
    return node.inside(lambda: _proc_words(f"/proc/thread-self/net/{names}"))


def _proc_words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def _log_backends(node: Node) -> dict[str, str]:
    """The log backend of IPv4 (2) and IPv6 (10)."""
    return {family: node.run("cat", f"/proc/sys/net/netfilter/nf_log/{family}").strip() for family in ("2", "10")}


def _set_log_backends(node: Node, backends: dict[str, str]) -> None:
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


def _end(process: subprocess.Popen[str]) -> None:
    """Ends `nft -i` by closing its input; its table goes with it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise GenainetError("nft could not make the tracing table", hint="Exact tracing needs Linux 5.12 or later.")
        time.sleep(0.02)
