"""Packets that a pod's own rules send to another port of it, as a service mesh's sidecar has it."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.rules import REDIRECT_WITHOUT_LISTENER
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.proxy import RuleRef, Ruleset
from kubectl_genainet.proxy.evaluator.ir import Act
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, derived, observed
from kubectl_genainet.why.netfilter import rule_text

_ITSELF = -1  # the address that REDIRECT stands for


def own_redirect(context: DropContext) -> DropExplanation | None:
    """Nothing listens on the port to which the pod's own rules redirected the packet; None where they did not.

    Without the tuple with which the packet came in, a rule that redirects to the port must lie in the pod.
    """
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if pod is None:
        return None
    port, entered = context.flow.dport, context.entered
    came_by = f"port {entered.dport}" if entered is not None and entered.dport != port else ""
    rule = redirecting_rule(context.ruleset, port)
    if not came_by and rule is None:
        return None
    words = (
        f"nothing listens on {context.flow.protocol.value} port {port} in {context.place}, to which the pod's own rules redirect "
        f"{came_by or 'what comes in'}: its proxy (a sidecar) does not run"
    )
    seen = observed(f"kernel reason {context.event.reason} on port {port}", context.event.node)
    how = derived(f"the packet came in for {entered.destination}", context.event.node) if came_by and entered else None
    evidence = (seen, *((how,) if how else ()))
    text = rule_text(rule) if rule is not None else None
    return DropExplanation(REDIRECT_WITHOUT_LISTENER, words, Certainty.DERIVED, text, evidence=evidence)


def redirecting_rule(ruleset: Ruleset | None, port: int) -> RuleRef | None:
    """The rule of a pod's namespace that redirects to the port."""
    for table in ruleset.tables if ruleset is not None else ():
        for chain in table.chains.values():
            for rule in chain.rules:
                if any(a.kind is Act.DNAT and a.port == port and a.address in (None, _ITSELF) for a in rule.actions):
                    return rule.ref
    return None
