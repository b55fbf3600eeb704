"""What a probe declares about itself; `agent.loader` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kubectl_genainet.agent.bpf.headers import StructView
from kubectl_genainet.model.events import Event


class Maps(Protocol):
    """The maps of a loaded probe, for what it counts in them."""

    def take(self, name: str, key_size: int, value_size: int, *, delete: bool = False) -> Iterable[tuple[bytes, bytes]]:
        """Every entry of a per-CPU map: key, and the values of all CPUs. `delete` empties the map."""

    def pairs(
        self, name: str, key_size: int, value_size: int, *, delete: bool = False
    ) -> Iterable[tuple[bytes, bytes]]:
        """Every entry of a map that is not per-CPU. `delete` empties the map."""

    def values_of(self, name: str, keys: Collection[bytes], value_size: int) -> dict[bytes, bytes]:
        """The values of some keys of such a map, of those that are there."""

    def accounts(self) -> dict[str, int]:
        """Totals since the start, by cause."""

    def evicted(self, flows: int) -> None:
        """Tells how many flows the kernel has put out of the table for others; their last counts are lost."""

    def delete_all(self, name: str, keys: list[bytes]) -> None:
        """Removes many entries of a map, whichever are there."""

    def took_out(self, flows: Collection[bytes], now: int) -> None:
        """Tells which flows were taken out of the table, their counts being reported."""

    def took_out_lately(self, flow: bytes, now: int) -> bool:
        """Whether the flow was taken out so short a time ago that its last packets may still come."""

    def followed(self, packets: int) -> None:
        """Tells how many packets of followed flows were counted since the last time."""

    def sampling(self) -> bool:
        """Whether connections are left out to keep within the budget."""

    def delete(self, name: str, key: bytes) -> None:
        """Removes an entry of a map; one that is gone already is no error."""

    def put(self, name: str, key: bytes, value: bytes) -> None:
        """Sets an entry of a map that is not per-CPU."""

    def set_word(self, name: str, index: int, value: int) -> None:
        """Sets one __u64 of an array, and waits until no program runs that may have seen the old value."""


@dataclass(frozen=True, slots=True)
class Kprobe:
    """One C function where functions of the kernel begin, each of which is told by its symbol."""

    function: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """One C function on one raw tracepoint. `group` and `tracepoint` name it as tracefs does.

    A kernel whose tracepoint has fewer than `arguments` gives less: `with_fewer` says what. `kprobe` gives that too, where the
    kernel has kprobes; it is not attached elsewhere.
    """

    group: str
    tracepoint: str
    function: str
    required: bool = True
    without: str = ""  # what the user misses where the kernel lacks it
    arguments: int = 0
    with_fewer: str = ""
    kprobe: Kprobe | None = None

    def gives_less(self, tracepoints: Mapping[str, int]) -> bool:
        """Whether that is so on a kernel whose tracepoints have these numbers of arguments."""
        return tracepoints.get(self.tracepoint, self.arguments) < self.arguments


@dataclass(frozen=True, slots=True)
class DecodeContext:
    """What decoding needs to know of the node."""

    node: str
    drop_reasons: dict[int, str]
    symbol: Callable[[int], str]  # kernel address -> symbol name, "" if unknown
    enums: Mapping[str, dict[int, str]] = field(default_factory=dict)  # those that the probe asks for, from BTF
    options: Mapping[str, str] = field(default_factory=dict)  # the client's


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe: `source` below probes/, the views it reads, where it attaches, and `decode` (ring bytes -> event).

    `enums` are names of kernel enums whose values `decode` and `drain` need to name. `drain` turns what the probe
    counts in maps into events; it gets the maps, a memory of its own and the time. `sweep` takes out of the maps what no
    packet will complete any more; it gets the maps, the time, and whether the session is at its end. `words` gives the
    first contents of arrays of __u64, by map; it gets the client's options. `entry_bytes` is what an entry of its flow
    table takes on so many CPUs: the loader bounds the table's memory by the number of entries, FLOW_ENTRIES in the source.
    `travels` says of which ring bytes the client does the decoding. `shared_maps` are maps that probes of one session have
    in common, by name.
    """

    name: str
    source: str
    views: tuple[StructView, ...]
    attachments: tuple[Attachment, ...]
    decode: Callable[[bytes, DecodeContext], Event]
    drain: Callable[[Maps, DecodeContext, dict[bytes, int], int], Iterable[Event]] | None = None
    sweep: Callable[[Maps, DecodeContext, int, bool], Iterable[Event]] | None = None
    enums: tuple[str, ...] = ()
    words: Callable[[DecodeContext, Mapping[str, str]], Mapping[str, Sequence[int]]] | None = None
    entry_bytes: Callable[[int], int] = lambda cpus: 256 * cpus
    travels: Callable[[bytes], bool] = lambda _: False
    shared_maps: tuple[str, ...] = ()


# What genainet.h reads; every probe declares them.
COMMON_VIEWS = (
    StructView("skb_sk", "sk_buff", ("sk",)),
    StructView("skb_cb", "sk_buff", ("cb",)),
    StructView("skb_conntrack", "sk_buff", ("_nfct",), optional=True),  # a kernel without connection tracking has none
    StructView("dev_place", "net_device", ("nd_net.net", "ifindex", "name")),
    StructView("net_ino", "net", ("ns.inum",)),
    StructView("sock_net", "sock", ("__sk_common.skc_net.net",)),
    StructView(
        "sock_tuple",
        "sock",
        tuple(f"__sk_common.skc_{field}" for field in ("daddr", "rcv_saddr", "dport", "num", "family", "state")),
    ),
    StructView("sock_tuple6", "sock", ("__sk_common.skc_v6_daddr", "__sk_common.skc_v6_rcv_saddr")),
)
SKB_HEAD = StructView("skb_head", "sk_buff", ("protocol", "network_header", "tail", "head", "data"))
WAYS = "ways"  # the map of genainet.h in which the packet probe notes where SYNs went
SKB_PLACE = StructView("skb_place", "sk_buff", ("dev", "len"))
