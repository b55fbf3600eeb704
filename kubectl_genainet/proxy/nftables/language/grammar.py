"""Tokens, literals and the words that begin a statement, of nft's language (nft(8))."""

from __future__ import annotations

import re
from typing import Any

from kubectl_genainet.model.units import whole_number

Json = dict[str, Any]

_TOKEN = re.compile(r'"[^"\n]*"|[{}()]|[;,\n]|[^\s{}(),;"]+|"')
_HEX_RANGE = re.compile(r"(0x[0-9a-fA-F]+|\d+)-(0x[0-9a-fA-F]+|\d+)")

PAYLOAD = {
    *("ip", "ip6", "tcp", "udp", "sctp", "th", "icmp", "icmpv6", "ether", "arp", "udplite", "dccp", "esp", "ah"),
    *("vlan", "comp", "igmp"),
}
META = {
    *("mark", "iifname", "oifname", "iif", "oif", "skuid", "skgid", "nftrace", "l4proto", "nfproto", "pkttype", "cpu"),
    *("iifgroup", "oifgroup", "cgroup", "priority", "length", "protocol", "random", "rtclassid", "iiftype", "oiftype"),
    *("ibrname", "obrname", "secpath"),
}
# Words with which a statement begins: where reading goes on behind one that is not understood.
STARTS = {
    *("accept", "drop", "return", "continue", "jump", "goto", "reject", "counter", "log", "limit", "masquerade"),
    *("dnat", "snat", "redirect", "queue", "comment", "update", "add", "delete", "notrack", "meta", "ct", "ip", "ip6"),
    *("tcp", "udp", "sctp", "th", "fib", "iifname", "oifname", "numgen", "mark", "quota", "flow", "dup", "tproxy"),
    *("iif", "oif", "set", "icmp", "icmpv6", "jhash", "symhash", "last", "fwd", "synproxy", "meter", "rt", "socket"),
}
WITH_BITS = {("ct", "state"), ("ct", "status"), ("ct", "label"), ("tcp", "flags")}


def tokens_of(text: str) -> list[str]:
    return _TOKEN.findall(text)


class Tokens:
    """The words of a rule, and how far they are read."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position = tokens, 0

    def __bool__(self) -> bool:
        return self.position < len(self.tokens)

    def peek(self, ahead: int = 0) -> str:
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else ""

    def next(self) -> str:
        word = self.peek()
        self.position += 1
        return word

    def take(self, word: str) -> bool:
        if self.peek() == word:
            self.position += 1
            return True
        return False

    def block(self) -> list[str]:
        """What stands between the brace that comes next and its partner."""
        self.take("{")
        depth, start = 1, self.position
        while self and depth:
            word = self.next()
            depth += (word == "{") - (word == "}")
        return self.tokens[start : self.position - 1]


def unquoted(word: str) -> str:
    return word[1:-1] if word.startswith('"') and word.endswith('"') and len(word) > 1 else word


def literal(word: str) -> Any:
    """A number, prefix, range or word as JSON has it."""
    if word.startswith('"'):
        return unquoted(word)
    number = whole_number(word)
    if number is not None:
        return number
    if word.startswith("0x"):
        try:
            return int(word, 16)
        except ValueError:
            pass
    address, slash, length = word.partition("/")
    if slash and (bits := whole_number(length)) is not None:
        return {"prefix": {"addr": address, "len": bits}}
    low, dash, high = word.partition("-")
    if dash and (_HEX_RANGE.fullmatch(word) or (_is_address(low) and _is_address(high))):
        return {"range": [literal(low), literal(high)]}
    return word


def _is_address(word: str) -> bool:
    return word.count(".") == 3 or word.count(":") > 1


def split(tokens: list[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for word in tokens:
        depth += (word == "{") - (word == "}")
        if word == separator and depth == 0:
            parts.append([])
        elif word != "\n":
            parts[-1].append(word)
    return parts
