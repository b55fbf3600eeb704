"""Numbers of the kernel as names, and entries of its table as events."""

from __future__ import annotations

from kubectl_genainet.agent.bpf.headers import SUBSYSTEMS
from kubectl_genainet.agent.probes import drops
from kubectl_genainet.agent.probes.declare import DecodeContext
from kubectl_genainet.agent.probes.decode import drop_reason, harmless_bits, icmp_mtu, reason_at
from kubectl_genainet.model.events import DropCount, IcmpCount, ResetCount
from kubectl_genainet.model.packet import FiveTuple, Protocol

NAMES = {
    1: "SKB_CONSUMED",
    2: "SKB_DROP_REASON_NOT_SPECIFIED",
    12: "SKB_DROP_REASON_NETFILTER_DROP",
    49: "SKB_DROP_REASON_TCP_OLD_ACK",
    104: "SKB_DROP_REASON_QUEUE_PURGE",
    SUBSYSTEMS + 2: "SKB_DROP_REASON_SUBSYS_OPENVSWITCH",
}
RESETS = {"sk_rst_reason": {1: "SK_RST_REASON_NO_SOCKET"}}
CONTEXT = DecodeContext("node-1", NAMES, lambda a: "nft_do_chain" if a == 0x10 else "", RESETS)
V4 = b"\0" * 10 + b"\xff\xff"


def key(
    kind: drops.Kind, *, flags: int = 0, reason: int = 12, icmp: tuple[int, int] = (0, 0), v6: bool = False
) -> bytes:
    ends = (bytes(15) + b"\1", bytes(15) + b"\2") if v6 else (V4 + b"\x0a\0\0\1", V4 + b"\x0a\0\0\2")
    return drops.KEY.pack(
        t_saddr=ends[0],
        t_daddr=ends[1],
        t_sport=4000,
        t_dport=80,
        t_proto=6,
        location=0x10,
        netns=77,
        reason=reason,
        kind=kind,
        flags=flags,
        icmp_type=icmp[0],
        icmp_code=icmp[1],
    )


def test_harmless_reasons_are_bits_at_the_running_kernels_numbers() -> None:
    bits = harmless_bits(NAMES)
    assert bits == [1 << 1 | 1 << 49, 1 << (104 - 64), 0, 0]


def test_everything_turns_the_bitmap_off() -> None:
    assert drops.words(CONTEXT, {"everything": "true"}) == {"harmless": [0, 0, 0, 0], "settings": [0, 1]}
    assert drops.words(CONTEXT, {})["settings"] == [0, 0]


def test_reason_of_a_subsystem_is_named_after_it() -> None:
    assert drop_reason(2 << 16 | 3, NAMES) == "OPENVSWITCH_3"
    assert drop_reason(9 << 16 | 1, NAMES) == "SUBSYS_9_1"
    assert drop_reason(200, NAMES) == "REASON_0xc8"


def test_a_kernel_without_reasons_has_them_from_functions_that_free_packets_for_one_only() -> None:
    assert reason_at(0, "nf_hook_slow+0xa3", {}) == ("NETFILTER_DROP", True)
    assert reason_at(0, "arp_error_report", {}) == ("NEIGH_FAILED", True)
    assert reason_at(0, "tcp_v4_rcv", {}) == ("", False)  # no socket, or a wrong checksum, or an IPsec policy
    assert reason_at(0, "icmpv6_rcv", {}) == ("CONSUMED", True)
    assert reason_at(2, "icmpv6_rcv", NAMES) == ("CONSUMED", True)  # taken, before 6.3; since then it says so itself
    assert reason_at(12, "arp_error_report", NAMES) == ("NETFILTER_DROP", False)  # what the kernel says goes first


def test_count_on_a_kernel_without_reasons_says_that_its_reason_is_derived() -> None:
    old = DecodeContext("node-1", {}, lambda _: "nf_hook_slow", {})
    event = drops.count_of(key(drops.Kind.DROP, reason=0), 3, 180, old, 9)
    assert isinstance(event, DropCount)
    assert (event.reason, event.reason_derived, event.location) == ("NETFILTER_DROP", True, "nf_hook_slow")


def test_count_of_a_drop_says_tuple_place_and_whether_it_opened_a_connection() -> None:
    event = drops.count_of(key(drops.Kind.DROP, flags=1), 3, 180, CONTEXT, 9)
    assert event == DropCount(
        node="node-1",
        t_ns=9,
        netns=77,
        flow=FiveTuple("10.0.0.1", 4000, "10.0.0.2", 80, Protocol.TCP),
        packets=3,
        reason="NETFILTER_DROP",
        location="nft_do_chain",
        bytes=180,
        opening=True,
    )


def test_count_of_a_full_table_has_no_source() -> None:
    event = drops.count_of(key(drops.Kind.DROP), 3, 180, CONTEXT, 9, coarse=True)
    assert isinstance(event, DropCount)
    assert event.flow == FiveTuple("", 0, "10.0.0.2", 80, Protocol.TCP)


def test_icmp_count_has_the_family_of_what_it_quotes() -> None:
    event = drops.count_of(key(drops.Kind.ICMP_DROP, icmp=(2, 0), v6=True), 1, 0, CONTEXT, 9)
    assert isinstance(event, IcmpCount)
    assert (event.family, event.type, event.code, event.reason) == (6, 2, 0, "NETFILTER_DROP")


def test_reset_is_provoked_or_wanted() -> None:
    provoked = drops.count_of(key(drops.Kind.RESET_SENT, reason=1), 1, 0, CONTEXT, 9)
    wanted = drops.count_of(key(drops.Kind.RESET_SENT, reason=99, flags=2), 1, 0, CONTEXT, 9)
    assert isinstance(provoked, ResetCount) and isinstance(wanted, ResetCount)
    assert (provoked.sent, provoked.active, provoked.reason) == (True, False, "NO_SOCKET")
    assert (wanted.active, wanted.reason) == (True, "")


def test_mtu_is_read_where_each_family_has_it() -> None:
    assert icmp_mtu(1, 3, 4, int.from_bytes(b"\0\0\x05\x14", "little")) == 1300
    assert icmp_mtu(1, 3, 1, int.from_bytes(b"\0\0\x05\x14", "little")) == 0
    assert icmp_mtu(58, 2, 0, int.from_bytes(b"\0\0\x05\x00", "little")) == 1280
