"""One line of iptables-save compiled to checks and actions.

Sources: iptables-extensions(8); xtables' own save formats. An extension that is not among the options makes a check
that can't be answered, under the extension's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_genainet.proxy.evaluator import checks
from kubectl_genainet.proxy.evaluator.ir import Act, Action, Chain, Rule
from kubectl_genainet.proxy.evaluator.packet.state import Check
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.iptables.options import BY_DESTINATION, OPTIONS, SILENT_MODULES
from kubectl_genainet.proxy.iptables.reader import Reader, split_words
from kubectl_genainet.proxy.iptables.target import actions_of

UNREAD = "--unread"  # of a listing: what could not be put into options


class Compiler:
    """Compiles the rules of one table. `chains` tells user chains from targets, `sets` are the node's ipsets."""

    def __init__(self, family: int, chains: Mapping[str, Chain], sets: Mapping[str, SetLookup]) -> None:
        self.family, self.chains, self.sets = family, chains, sets

    def rule(self, chain: Chain, number: int, raw: str) -> Rule:
        rule = Rule(chain, number, raw)
        words = split_words(raw)
        start = next((i for i, word in enumerate(words[:4]) if word == "-A"), 0) + 2
        target_at = next((i for i in range(start, len(words)) if words[i] in ("-j", "-g", "--jump", "--goto")), None)
        found: list[tuple[Check, str]] = []
        self._matches(Reader(words[start:target_at]), rule, found)
        try:
            rule.actions = actions_of(words[target_at:] if target_at is not None else [], self.chains)
        except (ValueError, IndexError):
            rule.actions = (Action(Act.UNKNOWN, detail="target " + " ".join(words[target_at:][1:])),)
        rule.checks, rule.labels = tuple(c for c, _ in found), tuple(label for _, label in found)
        if "--dst-type LOCAL" in rule.labels:
            rule.by_destination = False  # of addresses outside the node, it tells none apart
        rule.finish()
        return rule

    def _matches(self, reader: Reader, rule: Rule, found: list[tuple[Check, str]]) -> None:
        negated, handled = False, True
        while reader:
            start = reader.at
            word = reader.next()
            if word == "-m":
                if not handled:
                    found.append((checks.always_unknown, f"match {reader.module}"))
                reader.module = reader.next() if reader else ""
                handled = reader.module in SILENT_MODULES
                continue
            if word == "--comment":
                reader.at += 1
                continue
            if word == "!":
                negated = True
                continue
            if word == UNREAD:
                found.append((checks.always_unknown, f"unread: {reader.next()}"))
                continue
            option = OPTIONS.get(word)
            handled = True
            if option is None:
                reader.skip_values()
                found.append((checks.always_unknown, f"match {reader.module} {word}".replace("  ", " ")))
            else:
                rule.by_destination |= word in BY_DESTINATION
                reader.negated = negated
                try:
                    check = option(self, reader, rule)
                except (ValueError, IndexError, KeyError, ZeroDivisionError):
                    reader.skip_values()
                    check, reader.negated = checks.always_unknown, False
                if check is not None:
                    label = ("! " if negated else "") + " ".join(reader.words[start : reader.at])
                    found.append((checks.negate(check) if reader.negated else check, label))
            negated = False
        if not handled:
            found.append((checks.always_unknown, f"match {reader.module}"))
