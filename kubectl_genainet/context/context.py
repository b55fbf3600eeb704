"""What every correlator knows besides the packets: who is who, the nodes' rules, the policies in force."""

from __future__ import annotations

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.context.judging import engine_of
from kubectl_genainet.context.rulesets import Rulesets
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump


class Context:
    """Begins with a snapshot's objects. `not_judged` names the policies that are not evaluated.

    `engine` is None where the objects can't be read; `not_judged` says why. Correlators may share one: an event
    that several of them pass on is learnt once.
    """

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.identity = Identity(snapshot)
        self.rulesets = Rulesets(self.identity)
        self.engine, self.not_judged = engine_of(snapshot)
        self._last: object = None

    def learn(self, event: NodeReport | RulesetDump | NetnsRules | ClusterChanged) -> None:
        if event is self._last:
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
