"""DNS messages, as far as they are read, and resolv.conf.

Names are absolute, in presentation format ("google.com."), RFC 1035 and 9499.
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.units import whole_number

DEFAULT_NDOTS = 1  # resolv.conf(5)
GOOD_RCODES = ("NOERROR", "NXDOMAIN")  # no such name is an answer


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """`type` and `klass` are their mnemonics ("A", "TYPE65280", "IN")."""

    name: str
    type: str
    klass: str = "IN"


class Answer(msgspec.Struct, frozen=True):
    """One set of records of the answer section; `data` are the records in presentation format."""

    name: str
    type: str
    ttl: int
    data: tuple[str, ...]


class Edns(msgspec.Struct, frozen=True, omit_defaults=True):
    """The OPT record (RFC 6891). `options` are the options' codes: 10 is a cookie (RFC 7873)."""

    version: int = 0
    payload: int = 0  # bytes that the sender takes over UDP
    do: bool = False
    options: tuple[int, ...] = ()


class DnsMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message without its id, which belongs to the exchange.

    `counts` are the header's: questions, answers, authority, additional. `rcode` includes the extension by EDNS; it is a
    mnemonic ("NXDOMAIN"). `length` is the message's, `captured` how much of it was read: what lies beyond is not known,
    and is no error. `error` says what is wrong with a message that can't be decoded; what came before is kept.
    `answers` is None where they were not looked at.
    """

    qr: bool
    length: int
    captured: int
    opcode: int = 0
    aa: bool = False
    tc: bool = False
    rd: bool = False
    ra: bool = False
    rcode: str = "NOERROR"
    counts: tuple[int, int, int, int] = (1, 0, 0, 0)
    questions: tuple[Question, ...] = ()
    answers: tuple[Answer, ...] | None = None
    edns: Edns | None = None
    error: str = ""

    @property
    def question(self) -> Question | None:
        """The first, and in practice the only, question."""
        return self.questions[0] if self.questions else None

    @property
    def cut(self) -> bool:
        """Whether only a part of the message was captured."""
        return self.captured < self.length


class ResolvConf(msgspec.Struct, frozen=True):
    """`certainty`: observed where the file was read, assumed where it follows from the pod's spec."""

    search: tuple[str, ...]
    ndots: int
    nameservers: tuple[str, ...]
    certainty: Certainty

    @property
    def options_line(self) -> str:
        return f"options ndots:{self.ndots}"

    @property
    def search_line(self) -> str:
        return f"search {' '.join(self.search)}"


def parse_resolv_conf(text: str) -> ResolvConf:
    """The settings of the file, for resolv.conf(5): of several search lines the last counts, and ndots is 15 at most."""
    search: tuple[str, ...] = ()
    servers: list[str] = []
    ndots = DEFAULT_NDOTS
    for line in text.splitlines():
        word, *values = line.split() or [""]
        if word == "nameserver":
            servers += values[:1]
        elif word in ("search", "domain"):
            search = tuple(domain.rstrip(".").lower() for domain in values)
        elif word == "options":
            for option in values:
                name, _, value = option.partition(":")
                if name == "ndots" and (number := whole_number(value)) is not None:
                    ndots = min(number, 15)
    return ResolvConf(search, ndots, tuple(servers), Certainty.OBSERVED)
