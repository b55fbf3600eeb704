"""The ipsets that the rules of the tests ask: the same ones for single statements, random ones for random rulesets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

IPSETS = """create nets hash:net family inet
add nets 10.7.0.0/24
add nets 10.7.0.3 nomatch
create ports hash:ip,port family inet
add ports 10.96.0.1,tcp:80
add ports 10.96.0.2,udp:53
create one hash:ip family inet
add one 10.8.0.2
create masked hash:ip family inet netmask 25
add masked 10.7.0.0
create both list:set size 4
add both one
add both nets
create pairs hash:ip,port,ip family inet
add pairs 10.96.0.1,tcp:80,10.7.0.2
create triples hash:ip,port,net family inet
add triples 10.8.0.2,udp:53,10.7.0.0/25
create netports hash:net,port family inet
add netports 10.96.0.0/16,tcp:443
add netports 10.96.0.2,tcp:443 nomatch
create ranges bitmap:ip range 10.7.0.0/24
add ranges 10.7.0.2
create numbers bitmap:port range 1-1024
add numbers 80
add numbers 443
create devices hash:net,iface family inet
add devices 10.7.0.0/24,cli wildcard
"""

_ADDRESSES = ("10.7.0.1", "10.7.0.2", "10.7.0.3", "10.8.0.2", "10.8.0.3", "10.8.0.11", "10.96.0.1", "10.96.0.2")
_NETS = (
    *("10.7.0.0/24", "10.7.0.2", "10.7.0.3", "10.7.0.2/31", "10.8.0.0/24", "10.8.0.2", "10.8.0.0/29", "10.0.0.0/8"),
    *("10.96.0.0/16", "10.96.0.1", "10.96.0.0/30", "0.0.0.0/1"),
)
_PORTS = ("tcp:80", "tcp:443", "tcp:78-81", "udp:53", "udp:80", "udp:443-450", "icmp:8/0", "icmp:13/0")
_EXTENSIONS = ("timeout 600", "counters", "comment", "skbinfo", "maxelem 4096", "hashsize 64")
_DEVICES = ("cli0", "srv0", "cli wildcard", "srv wildcard", "physdev:cli0", "eth7")
Member = Callable[[random.Random], str]


def _one_of(choices: Iterable[str]) -> Member:
    every = tuple(choices)
    return lambda chance: chance.choice(every)


def _joined(*parts: Member) -> Member:
    return lambda chance: ",".join(part(chance) for part in parts)


_ADDRESS, _NET, _PORT = _one_of((*_ADDRESSES, "10.8.0.2-10.8.0.5", "10.7.0.0/30")), _one_of(_NETS), _one_of(_PORTS)
_HASHES: dict[str, tuple[str, Member, bool]] = {  # name: type, members, whether some may be exceptions
    "nets": ("hash:net family inet", _NET, True),
    "ports": ("hash:ip,port family inet", _joined(_ADDRESS, _PORT), False),
    "one": ("hash:ip family inet", _ADDRESS, False),
    "pairs": ("hash:ip,port,ip family inet", _joined(_ADDRESS, _PORT, _one_of(_ADDRESSES)), False),
    "triples": ("hash:ip,port,net family inet", _joined(_ADDRESS, _PORT, _NET), True),
    "netports": ("hash:net,port family inet", _joined(_NET, _PORT), True),
    "devices": ("hash:net,iface family inet", _joined(_NET, _one_of(_DEVICES)), True),
}


def ipsets_text(chance: random.Random) -> str:
    """The sets of `IPSETS` and two more, with other members, masks, exceptions and extensions."""
    lines = []
    for name, (kind, member, has_exceptions) in _HASHES.items():
        lines.append(f"create {name} {kind} {_extensions(chance)}")
        for _ in range(chance.randint(0, 4)):
            exception = " nomatch" if has_exceptions and chance.random() < 0.3 else ""
            lines.append(f"add {name} {member(chance)}{exception}")
    mask = f"netmask {chance.choice((24, 25, 30, 31))}"
    lines += [f"create masked hash:ip family inet {mask}", f"add masked {chance.choice(_ADDRESSES)}"]
    odd = chance.choice(("255.255.0.255", "255.0.255.3", "0.0.0.255"))
    lines += [f"create cut hash:ip family inet bitmask {odd}", f"add cut {chance.choice(_ADDRESSES)}"]
    lines.append(f"create ranges bitmap:ip range 10.7.0.0/24{chance.choice(('', ' netmask 31', ' timeout 600'))}")
    lines += [f"add ranges {ip}" for ip in chance.sample(_ADDRESSES[:3], 2)]
    lines += ["create numbers bitmap:port range 1-9000", f"add numbers {chance.choice(('80', '443', '53-443'))}"]
    lines += [f"create both list:set size 8{chance.choice(('', ' counters', ' timeout 600'))}"]
    lines += [f"add both {name}" for name in chance.sample(("one", "nets", "masked", "ports", "cut", "netports"), 3)]
    return "".join(f"{line}\n" for line in lines)


def _extensions(chance: random.Random) -> str:
    return " ".join(chance.sample(_EXTENSIONS, chance.randint(0, 2)))
