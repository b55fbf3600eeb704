"""The target of an iptables rule as an action.

Sources: iptables-extensions(8), "TARGET EXTENSIONS"; a target that is not known becomes an action that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from kubectl_genainet.model.packet import split_endpoint
from kubectl_genainet.proxy.evaluator.ir import ALL_BITS, CONTINUE_ACTION, Act, Action, address_number

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
    "TOS",
    "DSCP",
    "ECN",
    "TTL",
    "HL",
    "SET",
    "RATEEST",
    "IDLETIMER",
    "LED",
    "SECMARK",
    "CONNSECMARK",
    "TEE",
    "CT",
}
_VERDICTS = {"ACCEPT": Action(Act.ACCEPT), "DROP": Action(Act.DROP), "RETURN": Action(Act.RETURN)}


def actions_of(words: list[str], chains: Container[str]) -> tuple[Action, ...]:
    """The action of "-j TARGET options" or "-g CHAIN"; none for a rule that only counts."""
    if not words:
        return ()
    kind, name, options = words[0], words[1], words[2:]
    if name in chains:
        return (Action(Act.GOTO if kind == "-g" else Act.JUMP, chain=name),)
    if name in _VERDICTS:
        return (_VERDICTS[name],)
    if name in _NO_VERDICT and "--notrack" not in options:
        return (CONTINUE_ACTION,)
    build = _TARGETS.get(name)
    return (build(options) if build else Action(Act.UNKNOWN, detail=f"target {name}"),)


def value_and_mask(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    return int(value, 0), int(mask, 0) if mask else ALL_BITS


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
    if not options or options[0] != "--to-destination":
        return Action(Act.UNKNOWN, detail="target DNAT " + " ".join(options))
    address, port = split_endpoint(options[1])
    if "-" in address or "-" in port:
        return Action(Act.UNKNOWN, detail=f"target DNAT to the range {options[1]}")
    return Action(Act.DNAT, address=address_number(address) if address else None, port=int(port) if port else None)


def _redirect(options: list[str]) -> Action:
    port = options[1] if len(options) > 1 and options[0] == "--to-ports" else ""
    return Action(Act.DNAT, address=-1, port=int(port) if port.isdigit() else None, detail="REDIRECT")


def _queue(options: list[str]) -> Action:
    number = options[options.index("--queue-num") + 1] if "--queue-num" in options else "0"
    return Action(Act.QUEUE, detail=f"nfqueue {number}")


def _connmark(options: list[str]) -> Action:
    if options[0] in ("--restore-mark", "--save-mark"):
        return Action(Act.CONNMARK, detail=options[0])
    return Action(Act.CONTINUE)


_TARGETS: dict[str, Callable[[list[str]], Action]] = {
    "REJECT": _reject,
    "MARK": _set_mark,
    "CONNMARK": _connmark,
    "DNAT": _dnat,
    "REDIRECT": _redirect,
    "MASQUERADE": lambda options: Action(Act.SNAT),
    "SNAT": lambda options: Action(Act.SNAT),
    "NETMAP": lambda options: Action(Act.UNKNOWN, detail="target NETMAP"),
    "NFQUEUE": _queue,
    "QUEUE": _queue,
}
