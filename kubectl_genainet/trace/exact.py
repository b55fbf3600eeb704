"""The rules that the nodes' kernels named (`--exact`), kept by packet, for the flows whose paths are told."""

from __future__ import annotations

from collections import OrderedDict

from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.proxy import Ruleset
from kubectl_genainet.proxy.attribute import attribution_of
from kubectl_genainet.proxy.evaluator.model import NatAttribution
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.exact import exact_paths, rule_of

MAX_PACKETS = 20_000  # packets whose hits are kept; the oldest go first


class ExactHits:
    """All hits of a trace. A packet is found by the node and by any tuple that it had there."""

    def __init__(self) -> None:
        self._packets: OrderedDict[tuple[str, int], list[RuleHit]] = OrderedDict()
        self._by_flow: dict[tuple[str, FiveTuple], list[tuple[str, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._packets)

    def learn(self, hit: RuleHit) -> None:
        key = (hit.node, hit.trace)
        if key not in self._packets:
            self._packets[key] = []
            if len(self._packets) > MAX_PACKETS:
                self._forget()
        self._packets[key].append(hit)
        if hit.flow is not None:
            packets = self._by_flow.setdefault((hit.node, hit.flow), [])
            if key not in packets[-1:]:
                packets.append(key)

    def _forget(self) -> None:
        key, hits = self._packets.popitem(last=False)
        for flow in {hit.flow for hit in hits if hit.flow is not None}:
            packets = self._by_flow.get((key[0], flow), [])
            if key in packets:
                packets.remove(key)
            if not packets:
                self._by_flow.pop((key[0], flow), None)

    def _of(self, node: str, flow: FiveTuple) -> list[list[RuleHit]]:
        keys = dict.fromkeys(self._by_flow.get((node, flow), ()))
        return [self._packets[key] for key in keys if key in self._packets]

    def translation(self, ruleset: Ruleset, node: str, before: FiveTuple) -> NatAttribution | None:
        """The rules that translated the packet which had the tuple `before` on the node; None where none was named."""
        for hits in self._of(node, before):
            for path in exact_paths(ruleset, hits):
                attribution = attribution_of(path.rules)
                if attribution is not None:
                    return attribution
        return None

    def dropping_rule(self, ruleset: Ruleset, node: str, flow: FiveTuple) -> RuleRef | None:
        """The rule that ended the packet which had this tuple on the node; None where none was named."""
        for hits in self._of(node, flow):
            last = hits[-1]
            if last.verdict == "drop":
                return rule_of(ruleset, last)
        return None
