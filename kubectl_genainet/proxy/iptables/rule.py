"""One line of iptables-save compiled to conditions and actions.

Sources: iptables-extensions(8); xtables' own save formats. An extension that is not among the options makes a condition
that can't be answered, under the extension's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.ir import Act, Action, Chain, Rule
from kubectl_genainet.proxy.evaluator.packet.state import Condition
from kubectl_genainet.proxy.evaluator.sets import SetLookup
from kubectl_genainet.proxy.iptables.options import BY_DESTINATION, MODULES, OPTIONS, SILENT_MODULES
from kubectl_genainet.proxy.iptables.reader import Reader, split_words
from kubectl_genainet.proxy.iptables.target import actions_of

UNREAD = "--unread"  # of a listing: what could not be put into options


class Compiler:
    """Compiles the rules of one table. `chains` tells user chains from targets, `sets` are the node's ipsets."""

    def __init__(self, family: int, chains: Mapping[str, Chain], sets: Mapping[str, SetLookup]) -> None:
        self.family, self.chains, self.sets = family, chains, sets

    def rule(self, chain: Chain, number: int, raw: str) -> Rule:
        rule = Rule(chain, number, raw)
        tokens = split_words(raw)
        start = next((i for i, word in enumerate(tokens[:4]) if word == "-A"), 0) + 2
        target_at = next((i for i in range(start, len(tokens)) if tokens[i] in ("-j", "-g", "--jump", "--goto")), None)
        conditions: list[tuple[Condition, str]] = []
        self._matches(Reader(tokens[start:target_at]), rule, conditions)
        try:
            rule.actions = actions_of(tokens[target_at:] if target_at is not None else [], self.chains)
        except (ValueError, IndexError):
            rule.actions = (Action(Act.UNKNOWN, detail="target " + " ".join(tokens[target_at:][1:])),)
        rule.conditions, rule.labels = tuple(c for c, _ in conditions), tuple(label for _, label in conditions)
        if "--dst-type LOCAL" in rule.labels:
            rule.by_destination = False  # of addresses outside the node, it tells none apart
        rule.finish()
        return rule

    def _matches(self, reader: Reader, rule: Rule, labelled: list[tuple[Condition, str]]) -> None:
        negated, handled = False, True
        first_of_module = 0  # of `labelled`
        place = (
            f", rule {rule.index} of {rule.chain.name}"  # what is not read of one rule is not what is not of another
        )
        while reader:
            start = reader.position
            word = reader.next()
            if word == "-m":
                if not handled:
                    labelled.append((conditions.always_unknown, f"match {reader.module}"))
                reader.module = reader.next() if reader else ""
                first_of_module = len(labelled)
                handled = reader.module in SILENT_MODULES
                if reader.module in MODULES:
                    labelled.append((MODULES[reader.module], f"match {reader.module}"))
                    handled = True
                continue
            if word == "--comment":
                reader.position += 1
                continue
            if word == "!":
                negated = True
                continue
            if word == UNREAD:
                labelled.append((conditions.always_unknown, f"unread: {reader.next() if reader else 'its end'}{place}"))
                continue
            option = OPTIONS.get(word)
            handled = True
            if reader.peek() == "!" and not reader.peek(1).startswith("-"):  # "-d ! ADDRESS", as iptables before 1.4.3
                negated = not negated
                reader.next()
            if option is None:
                reader.skip_values()
                if reader.module:  # it may change what the module's other options mean
                    del labelled[first_of_module:]
                labelled.append((conditions.always_unknown, f"match {reader.module} {word}".replace("  ", " ")))
            else:
                rule.by_destination |= word in BY_DESTINATION
                reader.negated = negated
                try:
                    condition = option(self, reader, rule)
                except (ValueError, IndexError, KeyError, ZeroDivisionError):
                    reader.skip_values()
                    condition, reader.negated = conditions.always_unknown, False
                if condition is not None:
                    label = ("! " if negated else "") + " ".join(reader.tokens[start : reader.position])
                    labelled.append((conditions.negate(condition) if reader.negated else condition, label))
            negated = False
        if not handled:
            labelled.append((conditions.always_unknown, f"match {reader.module}"))
