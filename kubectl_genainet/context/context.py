"""What every correlator knows besides the packets: who is who, the nodes' rules, the policies in force."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.context.in_force import InForce
from kubectl_genainet.context.judging import engine_of
from kubectl_genainet.context.rulesets import Rulesets
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump

NOTHING: Mapping[str, int] = MappingProxyType({})


class Context:
    """Begins with a snapshot's objects. `not_judged` names the policies that are not evaluated.

    `engine` is None where the objects can't be read; `not_judged` says why. Correlators may share one: an event
    that several of them pass on is learnt once.
    """

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.identity = Identity(snapshot)
        self.rulesets = Rulesets(self.identity)
        self.engine, self.not_judged = engine_of(snapshot)
        self.in_force = InForce(snapshot, self.engine)
        self._last: object = None

    def learn(
        self, event: NodeReport | RulesetDump | NetnsRules | ClusterChanged, now: Mapping[str, int] = NOTHING
    ) -> None:
        """Takes in a record; `now` is how far each node has reported, on its own clock."""
        if event is self._last:
            self.in_force.changed_at(now)
            return
        self._last = event
        match event:
            case NodeReport():
                self.identity.learn(event)
            case RulesetDump() | NetnsRules():
                self.rulesets.learn(event)
            case ClusterChanged():
                self.identity.update(event.snapshot)
                self.engine, self.not_judged = engine_of(event.snapshot)
                self.in_force.change(event.snapshot, self.engine, now)
