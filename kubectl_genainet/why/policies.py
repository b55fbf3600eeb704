"""What the NetworkPolicies say of a dropped flow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kubectl_genainet.context.judging import denied_of, policy_flow
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.policy import DirectionResult, Explanation, PolicyEngine, PolicyVerdict
from kubectl_genainet.why.drop_context import DropContext, assumed


def _names(result: DirectionResult) -> tuple[str, ...]:
    return tuple(f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name for ref in result.isolated_by)


def _first_failures(result: DirectionResult) -> list[Evidence]:
    """For each rule of the isolating policies, the first term that the flow does not meet."""
    failures = []
    for policy in result.policies:
        for rule in policy.rules:
            if rule.failed is not None:
                failed = rule.failed
                failures.append(
                    Evidence(
                        f"{policy.name} rule {rule.number}: {failed}",
                        Certainty.ASSUMED,
                        object=policy.ref,
                        field=failed.field,
                        value=failed.actual,
                    )
                )
        if not policy.rules:
            failures.append(
                Evidence(f"{policy.name} has no rule in this direction", Certainty.ASSUMED, object=policy.ref)
            )
    return failures


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """What the API objects say of a drop's flow. `admits` is whether it is known that they admit it."""

    said: str = ""
    policies: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    admits: bool = False


_REPLACED = assumed("policies that were replaced within seconds of it say so; those that replaced them do not")


def policy_statement(context: DropContext) -> PolicyStatement:
    """The flow judged, once. Near a change of the objects the policies of before and of after it may have been in force: that
    some keep the flow out explains the drop, and they admit it where all of them do."""
    if context.icmp is not None or context.event.tunnel is not None:
        return PolicyStatement()  # policies know connections: no error that belongs to one, no tunnel that carries it
    statements = [_statement_of(context, engine) for engine in context.engines]
    newest = statements[0]
    if newest.said or len(statements) == 1:
        return newest
    replaced = next((statement for statement in statements if statement.said), None)
    if replaced is not None:
        return dataclasses.replace(replaced, evidence=(*replaced.evidence, _REPLACED))
    return next((statement for statement in statements if not statement.admits), newest)


def _statement_of(context: DropContext, engine: PolicyEngine | None) -> PolicyStatement:
    if engine is None:
        return PolicyStatement(evidence=(assumed("the policies could not be evaluated"),))
    snapshot = engine.snapshot
    answer = engine.explain(policy_flow(context.judged, snapshot))
    denied = denied_of(answer)
    if not denied:
        open_points = _not_known(answer)
        statements = (assumed(f"the policies' verdict is not known: {point}") for point in open_points)
        return PolicyStatement(evidence=tuple(statements), admits=not open_points)
    sentences: list[str] = []
    policies: list[str] = []
    evidence: list[Evidence] = []
    for direction, result in denied:
        pod = snapshot.pod_at(context.judged.dst if direction == "ingress" else context.judged.src)
        name = f"{pod.metadata.namespace}/{pod.metadata.name}" if pod else "the pod"
        by = " and ".join(_names(result)) or "a cluster-wide policy"
        sentences.append(f"{name} is isolated for {direction} by {by}, and no rule admits {_asked(context, snapshot)}")
        policies += _names(result)
        evidence += _first_failures(result)
    return PolicyStatement("; ".join(sentences), tuple(dict.fromkeys(policies)), tuple(evidence))


def _not_known(answer: Explanation) -> list[str]:
    """Why it is not known whether the policies admit the flow; empty where that is known."""
    if answer.verdict is not PolicyVerdict.UNKNOWN:
        return []
    return list(map(str, answer.not_evaluated)) or ["not everything that they select by is known"]


def _asked(context: DropContext, snapshot: ClusterSnapshot) -> str:
    source = snapshot.pod_at(context.judged.src)
    name = f"{source.metadata.namespace}/{source.metadata.name}" if source else context.judged.src
    return f"{context.judged.protocol.value} {context.judged.dport} from {name}"
