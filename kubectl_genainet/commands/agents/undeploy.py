"""`undeploy`: removes what deploy made, and nothing else."""

from __future__ import annotations

import click

from kubectl_genainet.commands.options import cluster_options, parse_seconds
from kubectl_genainet.kube.agents.base import NAMESPACE
from kubectl_genainet.render.text import tell


@click.command("undeploy")
@click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Namespace of the agents.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until no agent is left on any node.")
@click.option("--timeout", default="120s", show_default=True, help="How long to wait.")
@cluster_options
def command(namespace: str, wait: bool, timeout: str, context: str, kubeconfig: str) -> None:
    """Remove all that deploy made, and nothing else; waits until no probe is left on any node.

    \b
    Examples:
      kubectl genainet undeploy
      kubectl genainet undeploy -n tracing --timeout 5m
    """
    from kubectl_genainet.kube.agents.deployment import undeploy
    from kubectl_genainet.kube.client import connect

    seconds = parse_seconds(timeout)
    steps = 0
    for step in undeploy(connect(context=context, kubeconfig=kubeconfig), namespace, seconds, wait=wait):
        steps += 1
        click.echo(f"{step.object} {step.outcome}")
        if step.note:
            tell(f"warning: {step.object}: {step.note}")
    if not steps:
        tell(f"nothing of deploy's is in the cluster (namespace {namespace})")
