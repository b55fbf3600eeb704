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
from kubectl_genainet.proxy.iptables.reader import Reader, RuleContext, split_words
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
        matches = _Matches(self, Reader(tokens[start:target_at]), rule)
        matches.read()
        try:
            rule.actions = actions_of(tokens[target_at:] if target_at is not None else [], self.chains)
        except (ValueError, IndexError):
            rule.actions = (Action(Act.UNKNOWN, detail="target " + " ".join(tokens[target_at:][1:])),)
        rule.conditions = tuple(condition for condition, _ in matches.labelled)
        rule.labels = tuple(label for _, label in matches.labelled)
        if "--dst-type LOCAL" in rule.labels:
            rule.by_destination = False  # of addresses outside the node, it tells none apart
        rule.finish()
        return rule


class _Matches:
    """The matches of a rule, read word by word: `labelled` has each condition with the words that it was made from."""

    __slots__ = ("_context", "_first_of_module", "_is_module_read", "_reader", "_rule", "labelled")

    def __init__(self, context: RuleContext, reader: Reader, rule: Rule) -> None:
        self._context, self._reader, self._rule = context, reader, rule
        self.labelled: list[tuple[Condition, str]] = []
        self._first_of_module = 0  # of `labelled`
        self._is_module_read = True  # a module without an option that is known makes a condition of its own

    def read(self) -> None:
        reader, negated = self._reader, False
        while reader:
            start = reader.position
            word = reader.next()
            if word == "-m":
                self._module()
            elif word == "--comment":
                reader.position += 1
            elif word == "!":
                negated = True
            elif word == UNREAD:
                # What is not read of one rule is not what is not of another.
                place = f", rule {self._rule.index} of {self._rule.chain.name}"
                self._unknown(f"unread: {reader.next() if reader else 'its end'}{place}")
            else:
                self._option(word, start, negated)
                negated = False
        self._end_module()

    def _unknown(self, label: str) -> None:
        self.labelled.append((conditions.always_unknown, label))

    def _module(self) -> None:
        self._end_module()
        reader = self._reader
        reader.module = reader.next() if reader else ""
        self._first_of_module = len(self.labelled)
        self._is_module_read = reader.module in SILENT_MODULES
        if reader.module in MODULES:
            self.labelled.append((MODULES[reader.module], f"match {reader.module}"))
            self._is_module_read = True

    def _end_module(self) -> None:
        if not self._is_module_read:
            self._unknown(f"match {self._reader.module}")

    def _option(self, word: str, start: int, negated: bool) -> None:
        reader, option = self._reader, OPTIONS.get(word)
        self._is_module_read = True
        if reader.peek() == "!" and not reader.peek(1).startswith("-"):  # "-d ! ADDRESS", as iptables before 1.4.3
            negated = not negated
            reader.next()
        if option is None:
            reader.skip_values()
            if reader.module:  # it may change what the module's other options mean
                del self.labelled[self._first_of_module :]
            self._unknown(f"match {reader.module} {word}".replace("  ", " "))
            return
        self._rule.by_destination |= word in BY_DESTINATION
        reader.negated = negated
        try:
            condition = option(self._context, reader, self._rule)
        except (ValueError, IndexError, KeyError, ZeroDivisionError):
            reader.skip_values()
            condition, reader.negated = conditions.always_unknown, False
        if condition is not None:
            label = ("! " if negated else "") + " ".join(reader.tokens[start : reader.position])
            self.labelled.append((conditions.negate(condition) if reader.negated else condition, label))
