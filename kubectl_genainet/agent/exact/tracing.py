"""`--exact`: has the kernel tell which rules the packets of a chosen flow meet, and leaves nothing behind.

nftables and iptables-nft: a table of our own sets nftrace on the flow's packets. The table belongs to an `nft -i`
process (flags owner, Linux 5.12): the kernel removes it when that process ends, and it ends when we do, even by
kill -9. iptables-legacy: a TRACE rule in the raw table, removed at the end, or by its comment at the next start.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import msgspec

from kubectl_genainet.agent.exact.messages import (
    ADD_MEMBERSHIP,
    GROUP_NFTRACE,
    NETLINK_NETFILTER,
    SOL_NETLINK,
    TraceMessage,
    bind_log_group,
    decode_log,
    decode_trace,
)
from kubectl_genainet.agent.exact.node import (
    COMMENT,
    Netns,
    exclusively,
    legacy_rules_in,
    log_backends,
    remove_leftovers_of,
    set_log_backends,
)
from kubectl_genainet.agent.exact.rules import TABLE, exact_filters, legacy_rules, nft_commands
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.exact import IPTABLES_TABLES, RuleHit
from kubectl_genainet.wire import FilterEntry

LOG_GROUP = 0  # the kernel sends TRACE records to this NFLOG group
AGAIN_S = 2.0  # a chain that changes all the time is listed no more often
_RECEIVE_BUFFER = 8 << 20


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
    GenainetError where the node can trace neither way, and where another tracer runs in this network namespace: each would
    get the other's hits. `session` names it in what it writes on the node; `removed` is what it found there of killed ones.
    """

    def __init__(self, node_name: str, filters: Sequence[FilterEntry], *, netns: str = "", session: str = "") -> None:
        self.node_name, self.filters, self.node = node_name, exact_filters(filters), Netns(netns)
        self.session, self.removed = session, list[str]()
        self.lost = 0  # datagrams that the kernel could not deliver, at least
        self._sockets: dict[socket.socket, Callable[[bytes], Iterator[TraceMessage]]] = {}
        self._undo: list[Callable[[], None]] = []
        self._packets: dict[int, int] = {}
        self._positions: dict[tuple[str, str, str], dict[int, int]] = {}
        self._listed: dict[tuple[str, str, str], float] = {}  # when a chain was listed anew

    def __enter__(self) -> ExactTracer:
        lock = exclusively(self.node)
        if lock is None:
            raise GenainetError("another exact trace runs on this node: each would get the other's rules")
        self._undo.append(lock.close)
        self.removed = remove_leftovers_of(self.node)
        try:
            if shutil.which("nft"):
                self._start_nftrace()
            if legacy_rules_in(self.node, "iptables-legacy-save") or legacy_rules_in(
                self.node, "ip6tables-legacy-save"
            ):
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
        while (remaining_s := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(self._sockets), [], [], remaining_s)
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
        positions: dict[tuple[str, str, str], dict[int, int]] = {}
        try:
            listing = msgspec.json.decode(self.node.run("nft", "-j", "list", *what), type=_Listing)
        except DECODE_ERRORS as error:
            raise GenainetError(f"nft's list can't be read: {error}") from None
        for item in listing.nftables:
            if item.rule is not None:
                places = positions.setdefault((item.rule.family, item.rule.table, item.rule.chain), {})
                places[item.rule.handle] = len(places) + 1
        self._positions.update(positions)

    def _start_nftrace(self) -> None:
        # nft may cut a listing short: chains are listed as packets meet them.
        with contextlib.suppress(GenainetError):
            self._list("ruleset")
        self._listen(decode_trace, group=GROUP_NFTRACE)
        script = "".join(f"{line}\n" for line in nft_commands(self.filters))
        nft = subprocess.Popen(
            self.node.argv("nft", "-j", "-i"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # a pipe that nobody reads would hold it up where it has many errors to say
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._undo.append(lambda: _end(nft))
        assert nft.stdin is not None
        nft.stdin.write(script)
        nft.stdin.flush()
        _wait_until(self._has_chains, nft)

    def _has_chains(self) -> bool:
        """The table is made before its chains and rules, which come together."""
        tables = self.node.run("nft", "list", "tables")
        return TABLE in tables and "chain output" in self.node.run("nft", "list", "table", "inet", TABLE)

    def _start_legacy(self) -> None:
        before = log_backends(self.node)

        def restore() -> None:
            set_log_backends(self.node, before)

        self._undo.append(restore)
        set_log_backends(self.node, dict.fromkeys(before, "nfnetlink_log"))
        sock = self._listen(decode_log)
        try:
            bind_log_group(sock, LOG_GROUP)
        except OSError as error:
            raise GenainetError(
                f"the kernel's TRACE records can't be read: NFLOG group {LOG_GROUP} is refused ({error.strerror})",
                hint="Another program on the node, ulogd for one, may read this group.",
            ) from None
        mark = f"{COMMENT} {' '.join(f'{k}={v}' for k, v in before.items())} session={self.session}"
        for number, rule in enumerate(legacy_rules(self.filters, mark)):
            tool, *specification = rule
            self._undo.append(lambda tool=tool, specification=specification: self._delete_legacy(tool, specification))  # type: ignore[misc]
            self.node.run(tool, "-t", "raw", "-I", *specification)
            if not number:
                self._undo.append(restore)  # before the last rule goes: after a kill its comment says what was before

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


def _end(process: subprocess.Popen[str]) -> None:
    """Ends `nft -i` by closing its input; its table goes with it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise GenainetError("nft could not make the tracing table", hint="Exact tracing needs Linux 5.12 or later.")
        time.sleep(0.02)
