"""What `status` and `version` say of the agents: one row a node, with the reason where something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.forward import Agent
from kubectl_genainet.kube.agents.rollout import RolloutProblem
from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.results.fleet import AgentStatus


def fleet(
    nodes: Iterable[str],
    agents: Iterable[Agent],
    answers: Mapping[str, Hello | str],
    problems: Iterable[RolloutProblem],
) -> tuple[AgentStatus, ...]:
    """Joins what the API knows with what the agents said (`answers`: a Hello, or why there is none). Sorted by node."""
    by_node = {agent.node: agent for agent in agents}
    why = {problem.node: problem for problem in problems if problem.node}
    everyone = next((p for p in problems if not p.node), None)
    rows = []
    for node in sorted({*nodes, *by_node, *why}):
        agent, problem = by_node.get(node), why.get(node, everyone)
        if agent is None:
            text = problem.what if problem else "no agent is meant to run here (see --node-selector, --tolerations)"
            rows.append(AgentStatus(node, "none", problem=text, hint=problem.hint if problem else ""))
        elif not agent.ready:
            reason = problem.what if problem else "it is starting, or its node does not answer"
            hint = problem.hint if problem else ""
            rows.append(AgentStatus(node, "not ready", agent.pod, agent.version, problem=reason, hint=hint))
        else:
            rows.append(_answered(agent, answers.get(node, "")))
    return tuple(rows)


def _answered(agent: Agent, answer: Hello | str) -> AgentStatus:
    if isinstance(answer, str):
        if not answer:  # it was not asked
            return AgentStatus(agent.node, "ready", agent.pod, agent.version)
        return AgentStatus(agent.node, "silent", agent.pod, agent.version, problem=answer)
    return greeted(answer, agent.node, agent.pod)


def greeted(hello: Hello, node: str, pod: str = "") -> AgentStatus:
    """The row of an agent that said who it is; what it says may be for other clients."""
    row = AgentStatus(node, "ready", pod, hello.version, hello.kernel, hello.tier)
    try:
        wire.check_hello(hello)
    except GenainetError as error:
        return msgspec.structs.replace(row, state="incompatible", problem=error.message, hint=error.hint)
    return row


def skew(client_version: str, versions: Iterable[str]) -> str:
    """A warning for agents of another version than this client; "" where all are the same."""
    other_versions = sorted({version or "unknown" for version in versions} - {client_version})
    if not other_versions:
        return ""
    return f"agents of version {', '.join(other_versions)} run, this client is {client_version}"
