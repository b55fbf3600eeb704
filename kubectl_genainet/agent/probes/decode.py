"""What the decoders of all probes share: tuples, addresses, hooks, drop reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubectl_genainet.agent.bpf.headers import SUBSYSTEMS
from kubectl_genainet.model.reasons import HARMLESS_REASONS, NO_REASON, REASON_OF_LOCATION, TAKEN_AT, function_of

REASON_BITS = 256  # REASONS in genainet.h: the bitmap has room for so many; those above are never harmless

# TCP states: include/net/tcp_states.h (part of the kernel's interface to user space, through inet_diag)
TCP_STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)

# The function that runs a netfilter hook, as it stands in a stack below nf_hook_slow (net/ipv4, net/ipv6; for what a bridge
# passes, net/bridge/br_netfilter_hooks.c).
_HOOKS = {
    **dict.fromkeys(("ip_rcv", "ip_list_rcv", "ip_sublist_rcv", "ipv6_rcv", "ipv6_list_rcv"), "PRE_ROUTING"),
    **dict.fromkeys(("ip_local_deliver", "ip6_input"), "INPUT"),
    **dict.fromkeys(("ip_forward", "ip6_forward"), "FORWARD"),
    **dict.fromkeys(("__ip_local_out", "__ip6_local_out", "ip6_xmit", "raw_sendmsg", "rawv6_sendmsg"), "OUTPUT"),
    **dict.fromkeys(("ip_output", "ip_mc_output", "ip6_output"), "POST_ROUTING"),
    **dict.fromkeys(("br_nf_pre_routing", "br_nf_pre_routing_ipv6"), "PRE_ROUTING"),
    **dict.fromkeys(("br_nf_forward", "br_nf_forward_ip"), "FORWARD"),
    "br_nf_post_routing": "POST_ROUTING",
}

# The same where a netdev table's hook runs, right below it (include/linux/netfilter_netdev.h).
_DEVICE_HOOKS = {
    **dict.fromkeys(("__netif_receive_skb_core", "nf_hook_ingress"), "INGRESS"),
    **dict.fromkeys(("__dev_queue_xmit", "nf_hook_egress"), "EGRESS"),
}


# By enum tracked (probes/include/genainet.h); from the third on by enum ip_conntrack_info
# (include/uapi/linux/netfilter/nf_conntrack_common.h), whose states of replies are matched as those of requests.
_CONNTRACK_STATES = ("", "INVALID", "ESTABLISHED", "RELATED", "NEW", "ESTABLISHED", "RELATED", "", "", "UNTRACKED")


def conntrack_state(tracked: int) -> str:
    """The state by which rules match a packet; "" where it is not known."""
    return _CONNTRACK_STATES[tracked] if tracked < len(_CONNTRACK_STATES) else ""


def hook_of(stack: Sequence[str]) -> str:
    """The netfilter hook that a drop's stack was in, or "" where it was in none."""
    names = [frame.partition("+")[0].partition(".")[0] for frame in stack]
    if not any(name.startswith("nf_hook_slow") for name in names):
        return ""
    hook = next((_HOOKS[name] for name in names if name in _HOOKS), "")
    slow_path = next(i for i, name in enumerate(names) if name.startswith("nf_hook_slow"))
    return _DEVICE_HOOKS.get(names[slow_path + 1] if slow_path + 1 < len(names) else "", hook)


def icmp_mtu(protocol: int, kind: int, code: int, rest_of_header: int) -> int:
    """The next hop's MTU that an ICMP error tells; 0 for one that tells none. `rest` is as read on the wire.

    RFC 1191: the second half of the word after the checksum. RFC 4443 3.2: the whole word.
    """
    raw = rest_of_header.to_bytes(4, "little")
    if protocol == 1:
        return int.from_bytes(raw[2:], "big") if (kind, code) == (3, 4) else 0
    return int.from_bytes(raw, "big") if kind == 2 else 0


def harmless_bits(names: Mapping[int, str]) -> list[int]:
    """The bitmap of harmless reasons, 64 a word, from the running kernel's numbers."""
    bitmap = [0] * (REASON_BITS // 64)
    for number in names:
        if number < REASON_BITS and drop_reason(number, dict(names)) in HARMLESS_REASONS:
            bitmap[number >> 6] |= 1 << (number & 63)
    return bitmap


def drop_reason(number: int, names: dict[int, str]) -> str:
    """The kernel's name of a drop reason without its prefix; "" where the kernel gave none."""
    name = names.get(number)
    if name is None and number >> 16:
        return _of_subsystem(number, names)
    if name is None:
        return "" if number == 0 else f"REASON_{number:#x}"
    return name.removeprefix("SKB_DROP_REASON_").removeprefix("SKB_")


def reason_at(number: int, location: str, names: dict[int, str]) -> tuple[str, bool]:
    """(name, derived): the kernel's name of a reason; where it gives none, that of the function that freed the packet."""
    name, function = drop_reason(number, names), function_of(location)
    if name in NO_REASON:
        derived = TAKEN_AT.get(function) or ("" if names else REASON_OF_LOCATION.get(function, ""))
        return derived or name, bool(derived)
    return name, False


def _of_subsystem(number: int, names: dict[int, str]) -> str:
    """A reason of a subsystem (its number is in the upper half, enum skb_drop_reason_subsys): "OPENVSWITCH_3"."""
    subsystem = names.get(SUBSYSTEMS + (number >> 16), f"SUBSYS_{number >> 16}")
    return f"{subsystem.removeprefix('SKB_DROP_REASON_SUBSYS_')}_{number & 0xFFFF}"
