"""The target of an iptables rule as an action.

Sources: iptables-extensions(8), "TARGET EXTENSIONS"; a target that is not known becomes an action that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from itertools import pairwise

from kubectl_genainet.model.packet import split_endpoint
from kubectl_genainet.proxy.evaluator.ir import CONTINUE_ACTION, Act, Action
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, address_number
from kubectl_genainet.proxy.iptables.reader import network

# Targets that leave the packet's way alone, as far as this tool looks at a packet.
_NO_VERDICT = {
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "TCPMSS",
    "ECN",
    "TCPOPTSTRIP",
    "RATEEST",
    "IDLETIMER",
    "LED",
    "SECMARK",
    "CONNSECMARK",
    "TEE",
}
_VERDICTS = {"ACCEPT": Action(Act.ACCEPT), "DROP": Action(Act.DROP), "RETURN": Action(Act.RETURN)}


def actions_of(tokens: list[str], chains: Container[str]) -> tuple[Action, ...]:
    """The action of "-j TARGET options" or "-g CHAIN"; none for a rule that only counts."""
    if not tokens:
        return ()
    kind, name, options = tokens[0], tokens[1], tokens[2:]
    if name in chains:
        return (Action(Act.GOTO if kind == "-g" else Act.JUMP, chain=name),)
    if name in _VERDICTS:
        return (_VERDICTS[name],)
    if name in _NO_VERDICT:
        return (CONTINUE_ACTION,)
    build = _TARGETS.get(name)
    return (build(options) if build else Action(Act.UNKNOWN, chain=name, detail=f"target {name}"),)


def value_and_mask(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    return int(value, 0), int(mask, 0) if mask else ALL_BITS


def _set(options: list[str]) -> Action:
    """Adds the packet to an ipset or takes it out: rules behind it that match the set can't be answered."""
    for option in ("--add-set", "--del-set"):
        if option in options:
            return Action(Act.ADD, detail=f"ipset {options[options.index(option) + 1]}")
    return Action(Act.UNKNOWN, chain="SET", detail="target SET") if "--map-mark" in options else CONTINUE_ACTION


def _reject(options: list[str]) -> Action:
    return Action(Act.REJECT, detail=options[1] if len(options) > 1 else "icmp-port-unreachable")


def _set_mark(options: list[str]) -> Action:
    """MARK: --set-xmark zeroes the mask's bits and XORs the value in (iptables-extensions, MARK)."""
    option, (value, mask) = options[0], value_and_mask(options[1])
    match option:
        case "--set-xmark":
            return Action(Act.MARK, keep=~mask & ALL_BITS, flip=value)
        case "--set-mark":
            return Action(Act.MARK, keep=~(mask | value) & ALL_BITS, flip=value)
        case "--or-mark":
            return Action(Act.MARK, keep=~value & ALL_BITS, flip=value)
        case "--and-mark":
            return Action(Act.MARK, keep=value, flip=0)
        case "--xor-mark":
            return Action(Act.MARK, keep=ALL_BITS, flip=value)
    return Action(Act.UNKNOWN, detail=f"target MARK {option}")


def _dnat(options: list[str]) -> Action:
    if not options or options[0] != "--to-destination" or "[unsupported" in options:
        return Action(Act.UNKNOWN, detail="target DNAT " + " ".join(options))
    text = options[1]
    address, port = ("", text[1:]) if text.startswith(":") else split_endpoint(text)
    if "/" in port:
        return Action(Act.UNKNOWN, detail=f"target DNAT to {text}, a shifted range of ports")
    return _translation(address.strip("[]"), port, options)


def _translation(address: str, port: str, options: list[str]) -> Action:
    low, _, high = address.partition("-")
    first, _, last = port.partition("-")
    return Action(
        Act.DNAT,
        address=address_number(low) if low else None,
        last_address=address_number(high) if high else None,
        port=int(first) if first else None,
        last_port=int(last) if last else None,
        persistent="--persistent" in options,
        random_port="--random" in options,
    )


def _snat(options: list[str]) -> Action:
    """The new source, where it is one address; of a range any."""
    text = options[options.index("--to-source") + 1] if "--to-source" in options[:-1] else ""
    address = split_endpoint(text)[0].strip("[]") if ":" in text else text
    return Action(Act.SNAT, address=address_number(address) if address and "-" not in address else None)


def _redirect(options: list[str]) -> Action:
    ports = options[options.index("--to-ports") + 1] if "--to-ports" in options else ""
    first, _, last = ports.partition("-")
    return Action(
        Act.DNAT,
        address=-1,
        port=int(first) if first else None,
        last_port=int(last) if last else None,
        random_port="--random" in options,
        detail="REDIRECT",
    )


def _netmap(options: list[str]) -> Action:
    net, mask, family = network(options[options.index("--to") + 1])
    full = ALL_BITS if family == 4 else (1 << 128) - 1
    return Action(Act.DNAT, keep=~mask & full, flip=net, detail="NETMAP")


def _dscp(options: list[str]) -> Action:
    return Action(Act.TOS, keep=0x03, flip=int(options[1], 0) << 2)


def _tos(options: list[str]) -> Action:
    """--set-tos zeroes the mask's bits and XORs the value in; all others are saved as it (tos_tg, xt_DSCP.c)."""
    value, mask = value_and_mask(options[1])
    return Action(Act.TOS, keep=~mask & 0xFF, flip=value & 0xFF)


def _ttl(options: list[str]) -> Action:
    how, number = options[0].rpartition("-")[2], int(options[1])
    return Action(Act.TTL, detail=how, flip=-number if how == "dec" else number)


def _marked_by_hash(options: list[str]) -> Action:
    return Action(Act.MARK, source="unknown", detail="HMARK")


def _ct(options: list[str]) -> Action:
    return Action(Act.NOTRACK) if "--notrack" in options else CONTINUE_ACTION


def _queue(options: list[str]) -> Action:
    number = options[options.index("--queue-num") + 1] if "--queue-num" in options else "0"
    return Action(Act.QUEUE, detail=f"nfqueue {number}")


def _tproxy(options: list[str]) -> Action:
    values = dict(pairwise(options))
    address, port = values.get("--on-ip", "0.0.0.0"), int(values.get("--on-port", "0"))
    value, mask = value_and_mask(values.get("--tproxy-mark", "0x0/0x0"))
    is_any = address in ("0.0.0.0", "::")
    return Action(
        Act.TPROXY,
        address=None if is_any else address_number(address),
        port=port or None,
        keep=~mask & ALL_BITS,
        flip=value,
    )


def _connmark(options: list[str]) -> Action:
    """CONNMARK: what is saved or restored is masked on both sides (connmark_tg, net/netfilter/xt_connmark.c)."""
    if any("shift" in option for option in options):
        return Action(Act.UNKNOWN, detail="target CONNMARK " + " ".join(options))
    if options[0] in ("--restore-mark", "--save-mark"):
        values = dict(pairwise(options))
        both = int(values.get("--mask", hex(ALL_BITS)), 0)
        packet, connection = int(values.get("--nfmask", hex(both)), 0), int(values.get("--ctmask", hex(both)), 0)
        if options[0] == "--restore-mark":
            return Action(Act.MARK, keep=~packet & ALL_BITS, source="connmark", source_mask=connection)
        return Action(Act.CONNMARK, keep=~connection & ALL_BITS, source="mark", source_mask=packet)
    marking = _set_mark(options)
    return replace(marking, kind=Act.CONNMARK) if marking.kind is Act.MARK else marking


_TARGETS: dict[str, Callable[[list[str]], Action]] = {
    "SET": _set,
    "REJECT": _reject,
    "MARK": _set_mark,
    "CONNMARK": _connmark,
    "DNAT": _dnat,
    "REDIRECT": _redirect,
    "MASQUERADE": lambda options: Action(Act.SNAT, detail="MASQUERADE"),
    "SNAT": _snat,
    "NETMAP": _netmap,
    "CT": _ct,
    "NOTRACK": lambda options: Action(Act.NOTRACK),
    "DSCP": _dscp,
    "TTL": _ttl,
    "HL": _ttl,
    "HMARK": _marked_by_hash,
    "TOS": _tos,
    "TPROXY": _tproxy,
    "NFQUEUE": _queue,
    "QUEUE": _queue,
}
