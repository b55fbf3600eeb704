"""Compiles, loads and attaches a probe with BCC. The only place that imports bcc.

Nothing is pinned: programs and maps belong to this process's file descriptors, so that they are gone when it is,
however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kubectl_genainet.agent import bpfsys
from kubectl_genainet.agent.headers import header_tree, kernel_facts
from kubectl_genainet.agent.probes.declare import DecodeContext, Probe
from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.wire import FilterEntry

RING_PAGES = 1024  # 4 MiB
FLOW_BYTES = 16 << 20  # what the flow table may take in all, over all CPUs
EVENTS_PER_SECOND = 20_000  # a second and CPU; what is over is counted as lost
ACCOUNT_NAMES = ("emitted", "ring buffer", "event budget", "flows created", "flow table")
_PROTOCOLS = tuple(p for p in Protocol if p.number)
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


def _source(name: str) -> str:
    """The probe's C behind the shared header; BCC rewrites map operations in the main file only."""
    parts = (asset_dir("probes") / "include" / "genainet.h", asset_dir("probes") / name)
    return "\n".join(f'#line 1 "{part.name}"\n{part.read_text()}' for part in parts)


class LoadedProbe:
    """A probe in the kernel. `missing` says what this kernel can't give. Use as a context manager."""

    def __init__(self, probe: Probe, node: str, cache: Path, options: Mapping[str, str] | None = None) -> None:
        try:
            import bcc
        except ImportError as error:
            raise GenainetError(
                f"the agent's Python can't import bcc: {error}",
                hint="Install python3-bpfcc and use the distribution's Python (make setup does both).",
            ) from None
        self.probe = probe
        facts = kernel_facts(probe.views, cache, probe.enums, [a.tracepoint for a in probe.attachments])
        os.environ["BCC_KERNEL_SOURCE"] = str(header_tree(facts, cache))
        cpus = bpfsys.possible_cpus()
        flags = [
            f"-I{os.environ['BCC_KERNEL_SOURCE']}/include",
            f"-DRING_PAGES={RING_PAGES}", f"-DFLOW_ENTRIES={max(1024, min(16384, FLOW_BYTES // probe.entry_bytes(cpus)))}",
            *(["-DHAS_DROP_REASON"] if self._has_drop_reason(facts.drop_reasons) else []),
            *(f"-DARGS_{name}={count}" for name, count in facts.tracepoints.items()),
        ]  # fmt: skip
        try:
            self.bpf = bcc.BPF(text=_source(probe.source).encode(), cflags=flags)
        except Exception as error:  # bcc raises plain Exception
            raise GenainetError(
                f"the probe {probe.name} can't be compiled: {error}",
                hint="Loading BPF needs root, or CAP_BPF and CAP_PERFMON; the compiler's own words are above.",
            ) from None
        self._context = DecodeContext(node, facts.drop_reasons, self._symbol, facts.enums, options or {})
        for name, words in (probe.words(self._context, options or {}) if probe.words else {}).items():
            for i, word in enumerate(words):
                self.bpf[name.encode()][ctypes.c_int(i)] = ctypes.c_uint64(word)
        self.missing: list[str] = []
        self._attached: list[str] = []
        self._programs: dict[str, int] = {}
        self._bits = [0] * 1024  # port_bits as they are in the kernel

    @staticmethod
    def _has_drop_reason(names: dict[int, str]) -> bool:
        # Linux 5.17 (c504e5c2f964) gave kfree_skb its reason; distributions backport it, so ask the format file.
        fields = tracepoint_fields("skb", "kfree_skb")
        return "reason" in fields if fields is not None else bool(names)

    def _symbol(self, address: int) -> str:
        name = self.bpf.ksym(address)
        return "" if name == b"[unknown]" else str(name.decode(errors="replace"))

    def attach(self) -> None:
        """Attaches every tracepoint; what is not required and not there is named in `missing`."""
        import bcc

        for attachment in self.probe.attachments:
            try:
                self._programs[attachment.function] = self.bpf.load_func(
                    attachment.function.encode(), bcc.BPF.RAW_TRACEPOINT
                ).fd
                self.bpf.attach_raw_tracepoint(attachment.tracepoint.encode(), attachment.function.encode())
                self._attached.append(attachment.tracepoint)
            except Exception as error:  # bcc raises plain Exception
                where = f"{attachment.group}:{attachment.tracepoint}"
                if attachment.required:
                    raise GenainetError(
                        f"the probe {self.probe.name} can't be attached to {where}: {error}",
                        hint="It needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE, and a kernel of 5.8 or later.",
                    ) from None
                self.missing.append(f"{where}: {attachment.without}")

    def on_event(self, handle: Callable[[Any], None]) -> None:
        """Calls `handle` with each decoded event, from `consume`."""
        decode, context = self.probe.decode, self._context

        def callback(_: object, data: int, size: int) -> None:
            handle(decode(ctypes.string_at(data, size), context))

        self.bpf[b"ring"].open_ring_buffer(callback)

    def consume(self) -> None:
        """Handles all events that are in the ring buffer now."""
        self.bpf.ring_buffer_consume()

    def configure(self, filters: Iterable[FilterEntry], own: Iterable[int] | None, budget: int) -> None:
        """Sets what is matched, while running. `own` are the namespaces of this node, None for all of the kernel's."""
        wanted = {key for entry in filters for key in self._keys(entry)}
        any_port = any(not port for _, port, _ in wanted)
        self._sync("filter", {addr + port.to_bytes(2, "little") + bytes([proto, 0]) for addr, port, proto in wanted})
        self._sync("own", {inode.to_bytes(4, "little") for inode in own or ()})
        bits = [(1 << 64) - 1 if any_port else 0] * 1024
        for _, port, _ in wanted:
            bits[port >> 6] |= 1 << (port & 63)
        table = self.bpf[b"port_bits"]
        for i, word in enumerate(bits):
            if self._bits[i] != word:
                table[ctypes.c_int(i)] = ctypes.c_uint64(word)
                self._bits[i] = word
        config = self.bpf[b"config"]
        config[ctypes.c_int(0)] = config.Leaf(any_port, own is not None, max(1, budget), bool(wanted))

    @staticmethod
    def _keys(entry: FilterEntry) -> Iterable[tuple[bytes, int, int]]:
        protocols = [p for p in _PROTOCOLS if not entry.protocol or p.value.upper() == entry.protocol.upper()]
        for protocol in protocols:
            icmp = protocol in (Protocol.ICMP, Protocol.ICMPV6)
            if not (icmp and entry.port):
                yield _mapped(entry.ip), entry.port, protocol.number

    def _sync(self, table_name: str, wanted: set[bytes]) -> None:
        table = self.bpf[table_name.encode()]
        have = {bytes(memoryview(key).cast("B")) for key in table}
        for raw in have - wanted:
            del table[table.Key.from_buffer_copy(raw)]
        for raw in wanted - have:
            table[table.Key.from_buffer_copy(raw)] = table.Leaf(1)

    def accounts(self) -> dict[str, int]:
        """Totals since the start, by ACCOUNT_NAMES."""
        table = self.bpf[b"account"]
        return {name: int(table.sum(i).value) for i, name in enumerate(ACCOUNT_NAMES)}

    def statistics(self) -> dict[str, bpfsys.ProgramStatistics]:
        """What the kernel counts for each program, by function. `missed` are packets that no probe has looked at."""
        return {name: bpfsys.program_statistics(fd) for name, fd in self._programs.items()}

    def drain(self, state: dict[bytes, int], now: int) -> Iterable[Event]:
        """What the probe has counted in the kernel and not reported before; `state` is the caller's to keep."""
        return self.probe.drain(self, self._context, state, now) if self.probe.drain else ()

    def take(self, name: str, key_size: int, value_size: int, *, delete: bool = False) -> Iterable[tuple[bytes, bytes]]:
        size = value_size * bpfsys.possible_cpus()
        return bpfsys.entries(self.bpf[name.encode()].map_fd, key_size, size, delete=delete)

    def sweep(self, now: int, *, final: bool = False) -> Iterable[Event]:
        """What no packet will complete any more; everything that is open where the session is at its end."""
        return self.probe.sweep(self, self._context, now, final) if self.probe.sweep else ()

    def pairs(self, name: str, key_size: int, value_size: int) -> Iterable[tuple[bytes, bytes]]:
        return bpfsys.entries(self.bpf[name.encode()].map_fd, key_size, value_size, batch=256)

    def delete(self, name: str, key: bytes) -> None:
        table = self.bpf[name.encode()]
        with contextlib.suppress(KeyError):
            del table[table.Key.from_buffer_copy(key)]

    def set_word(self, name: str, index: int, value: int) -> None:
        self.bpf[name.encode()][ctypes.c_int(index)] = ctypes.c_uint64(value)
        bpfsys.wait_for_programs()

    def detach(self) -> None:
        for tracepoint in self._attached:
            self.bpf.detach_raw_tracepoint(tracepoint.encode())
        self._attached.clear()

    def close(self) -> None:
        self.detach()
        self.bpf.cleanup()

    def __enter__(self) -> LoadedProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
