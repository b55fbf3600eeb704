"""Where a rule stands: its hook, and how a rule is named."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

import msgspec

ENTERED = -1  # a RuleRef's index where it stands for a base chain that a packet enters


class Hook(Enum):
    """Netfilter hooks, named as drops and iptables name them."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and every packet looks up its hooks' chains

    INGRESS = "INGRESS"  # of one device, before PRE_ROUTING
    PRE_ROUTING = "PRE_ROUTING"
    INPUT = "INPUT"
    FORWARD = "FORWARD"
    OUTPUT = "OUTPUT"
    POST_ROUTING = "POST_ROUTING"
    EGRESS = "EGRESS"  # of one device, after POST_ROUTING

    @classmethod
    def named(cls, text: str) -> Hook | None:
        """Reads any spelling: "PREROUTING", "pre_routing", "NF_INET_LOCAL_IN", "postrouting"; None if it is none."""
        key = text.upper().removeprefix("NF_INET_").replace("_", "").replace("LOCALIN", "INPUT")
        return _HOOKS.get(key.replace("LOCALOUT", "OUTPUT"))


_HOOKS = {hook.value.replace("_", ""): hook for hook in Hook}


_TARGET = re.compile(r" (?:-[jg]|--jump|--goto) (\S+)")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_WRITTEN = re.compile(rf"(?:-m comment )?(?:--)?\bcomment (?!-)(?:{_QUOTED}|\S+)|{_QUOTED}")


class RuleRef(msgspec.Struct, frozen=True):
    """One rule as the node has it. `index` counts from 1 within the chain (0: the chain's policy).

    `table` is "nat" for iptables, "ip kube-proxy" for nftables, "ipvs" for a virtual server.
    """

    table: str
    chain: str
    index: int
    text: str
    comment: str = ""
    packets: int | None = None  # the rule's own counters, where the dump has them
    bytes: int | None = None

    @property
    def target(self) -> str:
        """The target, or the chain, that a rule of iptables goes to; empty for rules of others."""
        return _target(self.text)

    @property
    def bare_text(self) -> str:
        """The text without comments and quoted words: what the rule does, not what somebody wrote about it."""
        return _bare(self.text)


@lru_cache(maxsize=8192)  # the rules that packets pass are the same ones, again and again
def _target(text: str) -> str:
    match = _TARGET.search(_bare(text))
    return match[1] if match else ""


@lru_cache(maxsize=8192)
def _bare(text: str) -> str:
    return _WRITTEN.sub("", text) if "comment" in text or '"' in text else text
