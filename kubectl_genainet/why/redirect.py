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

    Without the tuple with which the packet came in, a rule that redirects to the port must lie in the pod: then the packet may
    also have been meant for that port itself.
    """
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if pod is None or _meant_for_it(context):
        return None
    port, entered, asked = context.flow.dport, context.entered, context.asked
    redirected = ""
    evidence = [observed(f"kernel reason {context.event.reason} on port {port}", context.event.node)]
    if context.event.device == "lo" and asked is not None and (asked.dst, asked.dport) != (context.flow.dst, port):
        redirected = f"its connections to {asked.destination}"
        evidence.append(derived(f"the pod's socket had asked for {asked.destination}", context.event.node))
    elif entered is not None and entered.dport != port:
        redirected = f"port {entered.dport}"
        evidence.append(derived(f"the packet came in for {entered.destination}", context.event.node))
    rule = redirecting_rule(context.ruleset, port)
    if rule is None and redirected:  # by a rule that may be gone
        earlier = (redirecting_rule(ruleset, port) for ruleset in context.earlier())
        rule = next((rule for rule in earlier if rule is not None), None)
    if not redirected and rule is None:
        return None
    statement = (
        f"nothing listens on {context.flow.protocol.value} port {port} in {context.place}, to which the pod's own rules redirect "
        f"{redirected or 'other ports'}: its proxy (a sidecar) does not run"
    )
    if not redirected:
        statement += "; whether these packets came for another port or for this one is not known"
    if rule is None:
        statement += f"; which rule is not known ({_why_unknown(context)})"
    text = rule_text(rule) if rule is not None else None
    return DropExplanation(REDIRECT_WITHOUT_LISTENER, statement, Certainty.DERIVED, text, evidence=tuple(evidence))


def _meant_for_it(context: DropContext) -> bool:
    """Whether the packet came into the pod for the very port, or the pod's own socket had asked for it."""
    entered, asked = context.entered, context.asked
    if entered is None or entered.dport != context.flow.dport:
        return False
    wanted = (asked.dst, asked.dport) if asked is not None else None
    return context.event.device != "lo" or wanted in (None, (context.flow.dst, context.flow.dport))


def _why_unknown(context: DropContext) -> str:
    if context.ruleset is None:
        return context.ruleset_error or f"the rules of {context.place} were not read"
    return f"none that was read in {context.place} redirects to the port"


def redirecting_rule(ruleset: Ruleset | None, port: int) -> RuleRef | None:
    """The rule of a pod's namespace that redirects to the port."""
    for table in ruleset.tables if ruleset is not None else ():
        for chain in table.chains.values():
            for rule in chain.rules:
                if any(a.kind is Act.DNAT and a.port == port and a.address in (None, _ITSELF) for a in rule.actions):
                    return rule.ref
    return None
