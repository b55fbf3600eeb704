"""Options of iptables' matches on a packet's header, and on what little is known of its connection and device."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.conditions import Getter
from kubectl_genainet.proxy.evaluator.ir import Rule
from kubectl_genainet.proxy.evaluator.packet import header
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State
from kubectl_genainet.proxy.iptables.reader import Option, Reader, RuleContext, ports
from kubectl_genainet.proxy.iptables.target import value_and_mask


def _compared(get: Getter, holds: Callable[[int, int], bool]) -> Option:
    """A field beside one number."""

    def option(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
        number = int(reader.next(), 0)

        def condition(s: State) -> bool | None:
            value = get(s)
            return None if value is None else holds(value, number)

        return condition

    return option


def _tos(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    value, mask = value_and_mask(reader.next())
    return lambda s: header.get_tos(s) & mask & 0xFF == value


def _length(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    low, high = ports(reader.next())

    def condition(s: State) -> bool | None:
        length = header.get_length(s)
        return None if length is None else low <= length <= high

    return condition


def _u32(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    return header.u32_test(reader.next())


def _tcp_ecn(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    """ECE and CWR: a SYN that asks for ECN has both."""
    asks = conditions.assuming("the connection does not ask for ECN", False)
    return lambda s: asks(s) if s.proto == PROTOCOLS["tcp"] else False


def _connbytes(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    """Of the first packet, which conntrack has counted when rules ask (nf_ct_refresh_acct)."""
    low, _, high = reader.next().partition(":")
    lowest, highest = int(low or 0), int(high) if high else None
    options = reader.tokens[reader.position :]
    direction = options[options.index("--connbytes-dir") + 1] if "--connbytes-dir" in options else "both"
    mode = options[options.index("--connbytes-mode") + 1] if "--connbytes-mode" in options else ""

    def condition(s: State) -> bool | None:
        if not s.traced:
            return False
        if s.ct != "NEW":
            return None
        size = 1 if mode == "packets" else header.get_length(s)
        value = 0 if direction == "reply" else size
        return None if value is None else lowest <= value and (highest is None or value <= highest)

    return condition


def _of_socket(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    """What is forwarded has no socket, and no cgroup (cgroup_mt): neither the match nor its negation holds."""
    reader.next()
    reader.negated = False
    return lambda s: None if s.own else False


def _is_default(what: str) -> Option:
    """A number that is 0 unless somebody sets it: a route's realm, a device's group."""

    def option(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
        text = reader.next()
        value, mask = (0, 0) if text in header.NAMES_OF_ZERO else value_and_mask(text)
        return conditions.assuming(what, value & mask == 0)

    return option


def _payload_text(node: RuleContext, reader: Reader, rule: Rule) -> Condition:
    """A text in the packet (xt_string.c): the first packet of a TCP connection carries none."""
    reader.next()
    absent = conditions.assuming("the first packet of a connection carries no data", False)
    return lambda s: None if s.tcp_flags is None else absent(s)


def _no_word(node: RuleContext, reader: Reader, rule: Rule) -> None:
    return None


def _one_word(node: RuleContext, reader: Reader, rule: Rule) -> None:
    reader.next()


HEADER_OPTIONS: dict[str, Option] = {
    "--dscp": _compared(header.get_dscp, lambda value, number: value == number),
    "--tos": _tos,
    "--ecn-ip-ect": _compared(header.get_ecn, lambda value, number: value == number),
    **dict.fromkeys(("--ecn-tcp-ece", "--ecn-tcp-cwr"), _tcp_ecn),
    **dict.fromkeys(("--ttl-eq", "--hl-eq"), _compared(header.get_ttl, lambda value, number: value == number)),
    **dict.fromkeys(("--ttl-lt", "--hl-lt"), _compared(header.get_ttl, lambda value, number: value < number)),
    **dict.fromkeys(("--ttl-gt", "--hl-gt"), _compared(header.get_ttl, lambda value, number: value > number)),
    "--length": _length,
    "--u32": _u32,
    "--connbytes": _connbytes,
    **dict.fromkeys(("--connbytes-dir", "--connbytes-mode"), _one_word),
    **dict.fromkeys(("--string", "--hex-string"), _payload_text),
    **dict.fromkeys(("--algo", "--from", "--to"), _one_word),
    "--icase": _no_word,
    **dict.fromkeys(("--path", "--cgroup"), _of_socket),
    "--realm": _is_default("the route has no realm"),
    **dict.fromkeys(("--src-group", "--dst-group"), _is_default("the device is in group 0")),
}
