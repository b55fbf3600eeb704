"""toFQDNs: names, as far as the agent learns their addresses from the DNS lookups that it lets through its proxy.

Source: Cilium, pkg/fqdn (matchpattern) and documentation, "DNS based".
"""

from __future__ import annotations

import re
from collections import defaultdict

import msgspec

from kubectl_genainet.policy.dialects.cilium.shapes import RawFqdn
from kubectl_genainet.policy.matching.domains import domain_matches
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, Peer, no
from kubectl_genainet.policy.model import Term

_EVERY_NAME = re.compile(r"\*+\.?")


class Lookups:
    """Which names the policies of a pod let it look up through the agent's DNS proxy."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, list[tuple[Peer, str]]] = defaultdict(list)

    def add(self, subject: Peer, namespace: str, pattern: str) -> None:
        self._by_namespace[namespace].append((subject, pattern))

    def learn(self, own: PolicyParty, name: str) -> bool | None:
        """Whether the agent learns a name's addresses when `own` looks it up; None where it can't be told."""
        answer: bool | None = False
        for namespace in ("", own.namespace):
            for subject, pattern in self._by_namespace.get(namespace, ()):
                if domain_matches(pattern, name):
                    selected = subject.match(own, own).value
                    if selected:
                        return True
                    answer = answer if selected is False else None
        return answer

    def restrict(self, own: PolicyParty) -> bool:
        """Whether some DNS rule applies to a pod, so that the agent's proxy may refuse what it looks up."""
        rules = (rule for namespace in ("", own.namespace) for rule in self._by_namespace.get(namespace, ()))
        return any(subject.match(own, own).value is not False for subject, _ in rules)


class NamePeer(msgspec.Struct, frozen=True):
    """Destinations outside the cluster by a name or a pattern of names."""

    name: str
    pattern: str
    lookups: Lookups
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.OUTSIDE:
            return no(Term.DOMAIN, self.name, f"{party.text}, inside the cluster", self.field)
        if not party.domain:
            return Match(None, why=f"whether {party.text} is an address of {self.name} depends on DNS")
        if not domain_matches(self.pattern, party.domain):
            return no(Term.DOMAIN, self.name, party.domain, self.field)
        if self.lookups.learn(own, party.domain):
            return YES
        why = (
            f"no DNS rule (toPorts rules.dns) of the pod's policies admits {party.domain}: unless another pod of the node"
            " looks it up, the agent learns none of its addresses and drops the connection"
        )
        return Match(None, why=why)


def name_pattern(raw: RawFqdn) -> str:
    """matchName or matchPattern as a pattern of policy/domains.py: `*` stands for any characters of one label, a leading
    `**.` for one label or more, and stars alone for every name."""
    text = (raw.match_name or raw.match_pattern).strip().lower()
    if _EVERY_NAME.fullmatch(text):
        return "*"
    text = text.rstrip(".")
    prefix = re.match(r"\*{2,}\.", text)
    return ("**." if prefix else "") + re.sub(r"\*+", "*", text[prefix.end() :] if prefix else text)
