"""Gathers what `status` shows: the DaemonSet, its pods, the nodes, and every agent's own word."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.forward import Agent, dialler, find_agents, read_capability
from kubectl_genainet.kube.agents.progress import rollout
from kubectl_genainet.kube.agents.rollout import RolloutProblem
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.resources import NODE, Served
from kubectl_genainet.kube.snapshot import list_objects
from kubectl_genainet.model.events import Hello
from kubectl_genainet.stream import ANSWER_S, ask_all


class Survey(msgspec.Struct, frozen=True):
    """`answers` has a Hello for each agent that was asked and answered, else the reason; `warnings` are for people."""

    nodes: tuple[str, ...]
    agents: tuple[Agent, ...]
    answers: Mapping[str, Hello | str]
    problems: tuple[RolloutProblem, ...]
    warnings: tuple[str, ...]


def survey(client: KubeClient, namespace: str) -> Survey:
    """Raises GenainetError where there is no DaemonSet; whatever else may not be read becomes a warning."""
    warnings: list[str] = []
    state = rollout(client, namespace)
    agents = find_agents(client, namespace)
    nodes: tuple[str, ...] = ()
    try:
        nodes = tuple(node.name for node in list_objects(client, Served(NODE, "v1"))[0])
    except ApiError as error:
        warnings.append(f"nodes without an agent are not shown: {error.message}")
    answers: dict[str, Hello | str] = {}
    try:
        token = read_capability(client, namespace)
    except GenainetError as error:
        warnings.append(f"the agents were not asked: {error.message}")
    else:
        ready = {agent.node: dialler(client, agent) for agent in agents if agent.ready}
        for node, answer in ask_all(ready, "/v1/hello", token, within_s=min(ANSWER_S, client.left_s)).items():
            hello = None if isinstance(answer, GenainetError) else next(iter(answer), None)
            if isinstance(hello, Hello):
                answers[node] = hello
            else:
                answers[node] = answer.message if isinstance(answer, GenainetError) else "it did not say who it is"
    return Survey(nodes, agents, answers, state.problems, tuple(warnings))
