"""Loads and attaches a probe: the image that BCC compiled it to, once a kernel (agent/bpf/image.py).

Nothing is pinned: programs and maps belong to this process's file descriptors, so that they are gone when it is,
however it ends.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from kubectl_genainet.agent.bpf import kprobes
from kubectl_genainet.agent.bpf import syscalls as bpfsys
from kubectl_genainet.agent.bpf.compile_job import compile_job
from kubectl_genainet.agent.bpf.headers import KernelFacts, header_tree, kernel_facts
from kubectl_genainet.agent.bpf.image import Image, image_of, loadable, private_folder
from kubectl_genainet.agent.bpf.symbols import Symbols
from kubectl_genainet.agent.node.tunnels import Tunnels
from kubectl_genainet.agent.probes.declare import Attachment, DecodeContext, Probe
from kubectl_genainet.agent.probes.layout import enums, layout
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.wire import FilterEntry

FLOW_BYTES = 16 << 20  # what the flow table may take in all, over all CPUs
NO_REASONS = (
    "this kernel gives no reasons of drops (Linux has them from 5.17): those that the function which freed the packet "
    "leaves no doubt about are named"
)
FEW_KEYS = 200  # that are looked up one by one, rather than by reading the whole table
LATE_NS = 10_000_000_000  # how long after a connection's end its last packets may still be delivered
STREAM_ENTRIES = 8192  # of about 1 KB each, of all CPUs
MOST_TUNNELS = 4096  # entries of the tables of genainet.h
_PROTOCOLS = tuple(p for p in Protocol if p.number)
_ANY_TCP = 2  # genainet.h
_ALL_OF_TCP = (bytes(16), 0, Protocol.TCP.number)  # the address :: without a port
_HEADER = "include/genainet.h"
# What became of the events, by the members of enum account.
_ACCOUNTS = {
    "ACCOUNT_EMITTED": "emitted",
    "ACCOUNT_RING_FULL": "ring buffer",
    "ACCOUNT_BUDGET": "event budget",
    "ACCOUNT_FLOWS_CREATED": "flows created",
    "ACCOUNT_FLOWS_FULL": "flow table",
}
_ACCOUNT_NUMBERS = enums(_HEADER)["account"]
_CONFIG = layout(_HEADER, "config")
_FILTER_KEY, _TUNNEL_DEVICE = layout(_HEADER, "filter_key"), layout(_HEADER, "tunnel_device")
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def tracepoint_fields(group: str, name: str) -> str | None:
    """The format file of a tracepoint; None where the kernel has no such tracepoint or tracefs is not mounted."""
    for root in _TRACEFS:
        try:
            return (root / "events" / group / name / "format").read_text()
        except OSError:
            continue
    return None


def _mapped(ip: str) -> bytes:
    address = ipaddress.ip_address(ip)
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def _word(number: int) -> bytes:
    return number.to_bytes(4, "little")


class LoadedProbe:
    """A probe in the kernel. `missing` says what this kernel can't give. Use as a context manager."""

    def __init__(
        self,
        probe: Probe,
        node: str,
        cache: Path,
        options: Mapping[str, str] | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        compiling: Callable[[], None] = lambda: None,
        others: Sequence[LoadedProbe] = (),
    ) -> None:
        """`compiling` is called where the probe must be compiled first: on a slow node that takes tens of seconds. `others` are
        the session's other probes: of those that are closed after this one, it uses the maps that they share,
        and their names of functions."""
        self.probe, self.budget, self._compiling = probe, budget, compiling
        cache = private_folder(cache)
        facts = kernel_facts(probe.views, cache, probe.enums, [a.tracepoint for a in probe.attachments])
        self._symbols: Symbols = next((other._symbols for other in others), None) or Symbols()
        self._drained: dict[bytes, int] = {}  # what the tables held when they were read last
        self._context = DecodeContext(node, facts.drop_reasons, self._symbols.name, facts.enums, options or {})
        self._has_reasons = self._has_drop_reason(facts.drop_reasons)
        self.missing = [] if self._has_reasons else [NO_REASONS]
        self._gives_less = [a for a in probe.attachments if a.gives_less(facts.tracepoints)]
        self._attached: list[int] = []
        self._ring: bpfsys.RingBuffer | None = None
        self._evicted = self._taken_out = self.followed_packets = 0
        self.taken = 0  # events, out of the ring buffer
        self._lately: dict[bytes, int] = {}  # the flows that were taken out of the table, and when
        self._bits = [0] * 1024  # port_bits as they are in the kernel
        self._generation = 0  # of filters, likewise
        self.maps: dict[str, bpfsys.BpfMap] = {}
        self._borrowed = {
            name: other.maps[name] for other in others for name in probe.shared_maps if name in other.maps
        }
        self._programs: dict[str, int] = {}
        self._code: dict[str, bytes] = {}  # of the programs, as the kernel took it
        self._joined: set[str] = set()  # tracepoints on which another program calls this probe's
        self._refused: dict[str, OSError] = {}
        # A verifier that does not take the typed loads gets the copies.
        for self.typed_loads in (True, False) if facts.typed_cast else (False,):
            self._load(self._image(facts, cache), facts.typed_cast)
            if not self._refused:
                break
        for name, contents in (probe.words(self._context, options or {}) if probe.words else {}).items():
            for i, word in enumerate(contents):
                self.maps[name].set(_word(i), word.to_bytes(8, "little"))

    def _image(self, facts: KernelFacts, cache: Path) -> Image:
        entries = FLOW_BYTES // self.probe.entry_bytes(bpfsys.possible_cpus())
        flags = (
            f"-DRING_PAGES={self.budget.ring_pages}",
            f"-DFLOW_ENTRIES={max(1024, min(16384, entries))}",
            f"-DSTREAM_ENTRIES={STREAM_ENTRIES}",
            f"-DTICK_NS={bpfsys.tick_ns()}",
            *(["-DHAS_DROP_REASON"] if self._has_reasons else []),
        )
        job = compile_job(self.probe, facts, header_tree(facts, cache), flags, typed_loads=self.typed_loads)
        return image_of(self.probe.name, job, cache, self._compiling)

    def _load(self, image: Image, typed_cast: int) -> None:
        """Makes the maps and loads the programs; `_refused` has those that the kernel does not take."""
        self.close()
        self.maps, self._refused = self._make_maps(image), {}
        descriptors = [self.maps[m.name].fd for m in image.maps]
        at_entries = {a.kprobe.function for a in self._gives_less if a.kprobe}
        for function, code in image.programs.items():
            kind = bpfsys.KPROBE if function in at_entries else bpfsys.RAW_TRACEPOINT
            if kind == bpfsys.KPROBE and not kprobes.available():
                continue
            program = loadable(code, descriptors, typed_cast)
            try:
                self._programs[function] = bpfsys.load_program(program, function, kind)
                self._code[function] = program
            except OSError as error:
                self._refused[function] = error

    def _make_maps(self, image: Image) -> dict[str, bpfsys.BpfMap]:
        # Before Linux 5.11 the memory of maps counted against this limit.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        maps: dict[str, bpfsys.BpfMap] = {}
        try:
            for m in image.maps:
                if m.name not in self._borrowed:
                    maps[m.name] = bpfsys.BpfMap(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.flags)
        except OSError as error:
            for table in maps.values():
                table.close()
            raise GenainetError(
                f"the probe {self.probe.name} can't make its maps: {error}",
                hint="Loading BPF needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.",
            ) from None
        return maps | self._borrowed

    @staticmethod
    def _has_drop_reason(names: dict[int, str]) -> bool:
        # Linux 5.17 (c504e5c2f964) gave kfree_skb its reason; distributions backport it, so ask the format file.
        fields = tracepoint_fields("skb", "kfree_skb")
        return "reason" in fields if fields is not None else bool(names)

    @property
    def joinable(self) -> dict[str, bytes]:
        """The instructions of the programs for tracepoints, by tracepoint."""
        loaded = [a for a in self.probe.attachments if a.function in self._code]
        return {a.tracepoint: self._code[a.function] for a in loaded}

    def join(self, tracepoint: str, program: int, link: int) -> None:
        """Another program, which is attached there, calls the probe's: it counts as the probe's own. The descriptors are the
        probe's from now on."""
        function = next(a.function for a in self.probe.attachments if a.tracepoint == tracepoint)
        os.close(self._programs[function])
        self._programs[function] = program
        self._attached.append(link)
        self._joined.add(tracepoint)

    def attach(self) -> None:
        """Attaches every tracepoint; what is not required and not there is named in `missing`. All begin at one moment."""
        if any(attachment.tracepoint == "kfree_skb" for attachment in self.probe.attachments):
            self._symbols.read()  # a drop has functions to name
        for attachment in self.probe.attachments:
            if attachment.tracepoint in self._joined:
                continue
            try:
                if attachment.function in self._refused:
                    raise self._refused[attachment.function]
                program = self._programs[attachment.function]
                self._attached.append(bpfsys.attach_raw_tracepoint(program, attachment.tracepoint))
            except OSError as error:
                where = f"{attachment.group}:{attachment.tracepoint}"
                if attachment.required:
                    raise GenainetError(
                        f"the probe {self.probe.name} can't be attached to {where}: {error}",
                        hint="It needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE, and a kernel of 5.8 or later.",
                    ) from None
                self.missing.append(f"{where}: {attachment.without}")
        for attachment in self._gives_less:
            self.missing += [f"{where}: {attachment.with_fewer}" for where in self._without_kprobe(attachment)]
        self._set_live(True)

    def _without_kprobe(self, a: Attachment) -> list[str]:
        """Attaches what gives the rest where a tracepoint gives less; returns the places where that can't be done."""
        if a.kprobe is None or a.kprobe.function not in self._programs:
            return [f"{a.group}:{a.tracepoint}"]
        attached = kprobes.attach_where_whole(self._programs[a.kprobe.function], a.kprobe.symbols, self._symbols)
        self._attached += attached.values()
        return [symbol for symbol in a.kprobe.symbols if symbol not in attached]

    def on_event(self, handle: Callable[[Event], None], undecoded: Callable[[bytes], None] | None = None) -> None:
        """Calls `handle` with each decoded event, from `consume`; `undecoded`, if given, with those that travel as they are."""
        decode, context, travels = self.probe.decode, self._context, self.probe.travels

        def take(data: bytes) -> None:
            self.taken += 1
            if undecoded is not None and travels(data):
                undecoded(data)
            else:
                handle(decode(data, context))

        if "ring" in self.maps:
            self._ring = bpfsys.RingBuffer(self.maps["ring"], take)

    def consume(self) -> None:
        """Handles all events that are in the ring buffer now."""
        if self._ring is not None:
            self._ring.consume()

    def configure(
        self,
        filters: Iterable[FilterEntry],
        own: Iterable[int] | None,
        tunnels: Tunnels = Tunnels(),  # noqa: B008 - frozen
    ) -> None:
        """Sets what is matched, while running. `own` are the namespaces of this node, None for all of the kernel's."""
        wanted = {key for entry in filters for key in self._keys(entry)}
        any_port = _ANY_TCP if _ALL_OF_TCP in wanted else any(not port for _, port, _ in wanted)
        self._sync("filter", {_FILTER_KEY.pack(addr=addr, port=port, proto=proto) for addr, port, proto in wanted})
        self._sync("own", {_word(inode) for inode in own or ()})
        self._sync(
            "tunnel_devices", {_TUNNEL_DEVICE.pack(netns=n, ifindex=i) for n, i in tunnels.devices}, MOST_TUNNELS
        )
        self._sync("tunnel_ends", {_mapped(ip) for ip in tunnels.ends}, MOST_TUNNELS)
        bits = [(1 << 64) - 1 if any_port else 0] * 1024
        for _, port, _ in wanted:
            bits[port >> 6] |= 1 << (port & 63)
        for i, word in enumerate(bits):
            if self._bits[i] != word:
                self.maps["port_bits"].set(_word(i), word.to_bytes(8, "little"))
                self._bits[i] = word
        self._generation += 1
        self._change_config(
            any_port=any_port, own_netns=own is not None, filtered=bool(wanted), generation=self._generation
        )
        self.limit_events(self.budget.events_per_second)

    def limit_events(self, per_second: int) -> None:
        """Has the kernel report at most so many events a second on each CPU, from now on."""
        self.budget = msgspec.structs.replace(self.budget, events_per_second=max(1, per_second))
        self._change_config(budget=self.budget.events_per_second)

    def _change_config(self, **fields: int) -> None:
        now = _CONFIG.read(self.maps["config"].get(_word(0)) or b"")
        self.maps["config"].set(_word(0), _CONFIG.pack(**(now._asdict() | fields)))

    def _set_live(self, live: bool) -> None:
        self._change_config(live=live)

    @staticmethod
    def _keys(entry: FilterEntry) -> Iterable[tuple[bytes, int, int]]:
        protocols = [p for p in _PROTOCOLS if not entry.protocol or p.value.upper() == entry.protocol.upper()]
        for protocol in protocols:
            icmp = protocol in (Protocol.ICMP, Protocol.ICMPV6)
            if not (icmp and entry.port):
                yield _mapped(entry.ip), entry.port, protocol.number

    def _sync(self, name: str, wanted: set[bytes], most: int | None = None) -> None:
        table = self.maps[name]
        wanted = set(sorted(wanted)[:most])
        have = set(table.keys())
        for key in have - wanted:
            table.delete(key)
        for key in wanted - have:
            table.set(key, b"\x01")

    def accounts(self) -> dict[str, int]:
        """Totals since the start, by the names of _ACCOUNTS, over all CPUs."""
        totals = {}
        for member, name in _ACCOUNTS.items():
            values = self.maps["account"].get(_word(_ACCOUNT_NUMBERS[member])) or b""
            totals[name] = sum(struct.unpack(f"={len(values) // 8}Q", values))
        totals["flow table"] += self._evicted
        return totals

    def evicted(self, flows: int) -> None:
        self._evicted = max(self._evicted, flows - self._taken_out)

    def took_out(self, flows: Collection[bytes], now: int) -> None:
        self._taken_out += len(flows)
        self._lately.update(dict.fromkeys(flows, now))
        while self._lately and now - next(iter(self._lately.values())) > LATE_NS:
            del self._lately[next(iter(self._lately))]

    def took_out_lately(self, flow: bytes, now: int) -> bool:
        return now - self._lately.get(flow, -LATE_NS) < LATE_NS

    def followed(self, packets: int) -> None:
        self.followed_packets += packets

    def sampling(self) -> bool:
        return "sampling" in self.maps and any((self.maps["sampling"].get(_word(0)) or b"")[:4])

    def statistics(self) -> dict[str, bpfsys.ProgramStatistics]:
        """What the kernel counts for each program, by function. `missed` are packets that no probe has looked at."""
        return {name: bpfsys.program_statistics(fd) for name, fd in self._programs.items()}

    def drain(self, now: int) -> Iterable[Event]:
        """What the probe has counted in the kernel and not reported before."""
        return self.probe.drain(self, self._context, self._drained, now) if self.probe.drain else ()

    def take(self, name: str, key_size: int, value_size: int, *, delete: bool = False) -> Iterable[tuple[bytes, bytes]]:
        size = value_size * bpfsys.possible_cpus()
        return bpfsys.entries(self.maps[name].fd, key_size, size, delete=delete)

    def sweep(self, now: int, *, final: bool = False) -> Iterable[Event]:
        """What no packet will complete any more; everything that is open where the session is at its end."""
        return self.probe.sweep(self, self._context, now, final) if self.probe.sweep else ()

    def pairs(
        self, name: str, key_size: int, value_size: int, *, delete: bool = False
    ) -> Iterable[tuple[bytes, bytes]]:
        return bpfsys.entries(self.maps[name].fd, key_size, value_size, batch=256, delete=delete)

    def values_of(self, name: str, keys: Collection[bytes], value_size: int) -> dict[bytes, bytes]:
        if len(keys) > FEW_KEYS:
            return {k: v for k, v in self.pairs(name, len(next(iter(keys))), value_size) if k in keys}
        return {key: value for key in keys if (value := self.maps[name].get(key)) is not None}

    def delete(self, name: str, key: bytes) -> None:
        self.maps[name].delete(key)

    def delete_all(self, name: str, keys: list[bytes]) -> None:
        bpfsys.delete_entries(self.maps[name].fd, keys)

    def put(self, name: str, key: bytes, value: bytes) -> None:
        self.maps[name].set(key, value)

    def set_word(self, name: str, index: int, value: int) -> None:
        self.maps[name].set(_word(index), value.to_bytes(8, "little"))
        bpfsys.wait_for_programs()

    def detach(self) -> None:
        """Detaches every tracepoint. All end at one moment, and what they saw is in the maps then."""
        if self._attached:
            self._set_live(False)
            bpfsys.wait_for_programs()
        for descriptor in self._attached:
            os.close(descriptor)
        self._attached.clear()

    def close(self) -> None:
        """Detaches, and gives back every program and map."""
        self.detach()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        for descriptor in self._programs.values():
            os.close(descriptor)
        self._programs.clear()
        self._code.clear()
        for name, table in self.maps.items():
            if name not in self._borrowed:
                table.close()
        self.maps.clear()

    def __enter__(self) -> LoadedProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
