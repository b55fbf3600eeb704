"""`status` and `version`: the agents of a cluster, node by node, and whose versions fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kubectl_genainet import __version__
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.results.fleet import AgentStatus, Versions
from kubectl_genainet.model.user import NOBODY_ELSE, Impersonation
from kubectl_genainet.stream import HELLO_S, ask_all
from kubectl_genainet.wire import PROTOCOL

# All questions of `version`, which answers without a cluster too, and those of `status`, the agents' answers among them.
VERSION_S, STATUS_S = 10.0, 60.0
_SILENT_S = 5.0  # of the API server, for `version`
_DEPLOY_AGAIN = "run `kubectl genainet deploy` with this client"


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Every node's agent, by node. `warnings` say what could not be asked, and where versions differ."""

    nodes: tuple[AgentStatus, ...]
    warnings: tuple[str, ...]

    @property
    def found_something(self) -> bool:
        return any(node.wrong for node in self.nodes)


def status(
    namespace: str, *, context: str = "", kubeconfig: str = "", user: Impersonation = NOBODY_ELSE
) -> FleetStatus:
    """Raises GenainetError where there are no agents, or the cluster can't be asked."""
    from kubectl_genainet.kube.agents.fleet import fleet
    from kubectl_genainet.kube.agents.survey import survey
    from kubectl_genainet.kube.client import connect

    answered = survey(connect(context=context, kubeconfig=kubeconfig, user=user, within_s=STATUS_S), namespace)
    rows = fleet(answered.nodes, answered.agents, answered.answers, answered.problems)
    return FleetStatus(rows, (*answered.warnings, *_skew_of(rows, _DEPLOY_AGAIN)))


def _skew_of(rows: Sequence[AgentStatus], remedy: str) -> tuple[str, ...]:
    """By what the agents themselves said; of those that were not asked, by what they were deployed as."""
    from kubectl_genainet.kube.agents.fleet import skew

    warning = skew(__version__, (row.version for row in rows if row.version or row.pod))
    return (f"{warning}: {remedy}",) if warning else ()


def lab_fleet(name: str) -> FleetStatus:
    """The agents of a lab on this machine. Raises GenainetError where there is no lab of that name."""
    from kubectl_genainet.kube.agents.fleet import greeted
    from kubectl_genainet.run.sources.lab import LabSource

    rows = []
    for node, answer in sorted(ask_all(LabSource(name).agents().dials, "/v1/hello", within_s=HELLO_S).items()):
        hello = None if isinstance(answer, GenainetError) else next(iter(answer), None)
        if isinstance(hello, Hello):
            rows.append(greeted(hello, node))
        else:
            why = answer.message if isinstance(answer, GenainetError) else "it did not say who it is"
            rows.append(AgentStatus(node, "silent", problem=why))
    return FleetStatus(tuple(rows), _skew_of(rows, "make the lab anew"))


def versions(
    *, client_only: bool, context: str = "", kubeconfig: str = "", user: Impersonation = NOBODY_ELSE
) -> tuple[Versions, tuple[str, ...]]:
    """The versions, with warnings for what could not be asked and for what does not fit. Never fails."""
    client = Versions(__version__, PROTOCOL)
    if client_only:
        return client, ()
    try:
        return _asked(client, context, kubeconfig, user)
    except GenainetError as error:
        return client, (error.message,)


def _asked(own: Versions, context: str, kubeconfig: str, user: Impersonation) -> tuple[Versions, tuple[str, ...]]:
    from kubectl_genainet.kube.agents.fleet import skew
    from kubectl_genainet.kube.agents.forward import agent_namespace, find_agents
    from kubectl_genainet.kube.client import connect

    client = connect(context=context, kubeconfig=kubeconfig, timeout_s=_SILENT_S, user=user, within_s=VERSION_S)
    server = str(client.get("/version").get("gitVersion", ""))
    try:
        agents = find_agents(client, agent_namespace())
    except GenainetError as error:
        return msgspec.structs.replace(own, server=server), (error.message,)
    by_version = dict(sorted(Counter(agent.version or "unknown" for agent in agents).items()))
    answered = msgspec.structs.replace(own, server=server, agents=by_version)
    if not agents:
        return answered, (f"no agents in namespace {agent_namespace()}: `kubectl genainet deploy` brings them",)
    warning = skew(__version__, (agent.version for agent in agents))
    return answered, (f"{warning}: {_DEPLOY_AGAIN}",) if warning else ()
