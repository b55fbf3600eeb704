"""`deploy` and `undeploy`: the agent put on the nodes of a cluster, and removed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from kubectl_genainet.kube.agents.base import (
    NAMESPACE,
    DeployOptions,
    parse_node_selector,
    parse_tolerations,
    render,
)
from kubectl_genainet.kube.agents.record import RecordChoices
from kubectl_genainet.model.user import NOBODY_ELSE, Impersonation

if TYPE_CHECKING:
    from kubectl_genainet.kube.agents.deployment import AppliedObject
    from kubectl_genainet.kube.agents.progress import Rollout

__all__ = [
    "NAMESPACE",
    "DeployOptions",
    "DeployTarget",
    "DeployView",
    "RecordChoices",
    "deploy",
    "deploy_objects",
    "parse_node_selector",
    "parse_tolerations",
    "undeploy",
]


class DeployView(Protocol):
    def step(self, step: AppliedObject) -> None:
        """An object, and what became of it."""

    def rollout(self, state: Rollout) -> None:
        """How many agents are ready, and what keeps the others. Called again whenever that was looked at."""


@dataclass(frozen=True, slots=True)
class DeployTarget:
    """The cluster, and how long to wait for it. `wait`: until every agent is ready, or gone."""

    context: str = ""
    kubeconfig: str = ""
    user: Impersonation = NOBODY_ELSE
    timeout_s: float = 120.0
    wait: bool = True


def deploy_objects(options: DeployOptions) -> list[dict[str, Any]]:
    """What `deploy` applies, without asking the cluster.

    The Secret is not among them: it is random, and belongs into no file. Nor is what depends on the cluster: the
    Prometheus Operator's kinds, the API server's port. Raises InputError for options that do not fit together.
    """
    return render(options)


def deploy(options: DeployOptions, destination: DeployTarget, view: DeployView, *, dry_run: bool = False) -> None:
    """Applies what differs, and waits for the agents. `dry_run` has the server check, and changes nothing."""
    from kubectl_genainet.kube.agents import deployment, progress
    from kubectl_genainet.kube.client import connect

    deploy_objects(options)  # what is wrong with the options is said before the cluster is asked
    client = connect(context=destination.context, kubeconfig=destination.kubeconfig, user=destination.user)
    if options.record is not None:
        options = msgspec.structs.replace(options, api_port=deployment.api_server_port(client))
    if options.metrics:
        options = msgspec.structs.replace(
            options, monitoring=deployment.has_monitoring(client), api_port=deployment.api_server_port(client)
        )
    for step in deployment.deploy(client, options, destination.timeout_s, dry_run=dry_run):
        view.step(step)
    if destination.wait and not dry_run:
        progress.wait_for_rollout(client, options.namespace, destination.timeout_s, view.rollout)


def undeploy(namespace: str, destination: DeployTarget, view: DeployView) -> None:
    """Removes all that `deploy` made, and nothing else."""
    from kubectl_genainet.kube.agents import deployment
    from kubectl_genainet.kube.client import connect

    client = connect(context=destination.context, kubeconfig=destination.kubeconfig, user=destination.user)
    for step in deployment.undeploy(client, namespace, destination.timeout_s, wait=destination.wait):
        view.step(step)
