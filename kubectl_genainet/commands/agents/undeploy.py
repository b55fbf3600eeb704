"""`undeploy`: removes what deploy made, and nothing else."""

from __future__ import annotations

import click

from kubectl_genainet.commands.options import cluster_options, parse_seconds
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.render.deploy import StepLines
from kubectl_genainet.render.text import tell
from kubectl_genainet.run.fleet.deploy import NAMESPACE, DeployTarget, undeploy


@click.command("undeploy")
@click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Namespace of the agents.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until no agent is left on any node.")
@click.option("--timeout", default="120s", show_default=True, help="How long to wait.")
@cluster_options
def command(namespace: str, wait: bool, timeout: str, context: str, kubeconfig: str, user: Impersonation) -> None:
    """Remove all that deploy made, and nothing else; waits until no probe is left on any node.

    \b
    Examples:
      kubectl genainet undeploy
      kubectl genainet undeploy -n tracing --timeout 5m
    """
    view = StepLines()
    undeploy(namespace, DeployTarget(context, kubeconfig, user, parse_seconds(timeout), wait), view)
    if not view.steps:
        tell(f"nothing of deploy's is in the cluster (namespace {namespace})")
