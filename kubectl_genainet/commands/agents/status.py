"""`status`: the agents, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kubectl_genainet.commands.options import (
    MessagesOnce,
    cluster_options,
    lab_option,
    output_option,
    show_each,
    watch_option,
)
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.run.fleet.deploy import NAMESPACE

if TYPE_CHECKING:
    from kubectl_genainet.model.results.fleet import AgentStatus
    from kubectl_genainet.run.fleet.status import FleetStatus


@click.command("status")
@click.option(
    "-n",
    "--namespace",
    envvar="GENAINET_NAMESPACE",
    default=NAMESPACE,
    show_default=True,
    help="Namespace of the agents; also $GENAINET_NAMESPACE.",
)
@watch_option("Then show each node again when it changes, until Ctrl-C.")
@output_option("table", "wide", "json", "yaml", "name", templates=True)
@lab_option
@cluster_options
def command(
    namespace: str, watch: bool, output: str, lab: str | None, context: str, kubeconfig: str, user: Impersonation
) -> ExitStatus:
    """Show the agents, node by node: whether they run and answer, what they can see, and what is wrong.

    \b
    Examples:
      kubectl genainet status
      kubectl genainet status -o wide
      kubectl genainet status --watch
      kubectl genainet status --lab
      kubectl genainet status -o jsonpath='{.node} {.state}'
      kubectl genainet status -o json | jq -r 'select(.state != "ready") | .node'

    Exit status: 0 every node's agent answers, 1 one does not, 2 the command failed.
    """
    from kubectl_genainet.run.fleet.status import lab_fleet, status
    from kubectl_genainet.run.watch import watched

    messages = MessagesOnce()

    def fleet() -> FleetStatus:
        answer = lab_fleet(lab) if lab else status(namespace, context=context, kubeconfig=kubeconfig, user=user)
        for warning in answer.warnings:
            messages.warn(warning)
        return answer

    if not watch:
        answer = fleet()
        _show(answer.nodes, output)
        return ExitStatus.FOUND if answer.found_something else ExitStatus.OK
    shown: dict[str, AgentStatus] = {}

    def show_changed(answer: FleetStatus) -> None:
        if changed := [node for node in answer.nodes if shown.get(node.node) != node]:
            _show(changed, output)
        shown.clear()
        shown.update((node.node, node) for node in answer.nodes)

    show_each(watched(fleet, lambda answer: answer.nodes), show_changed)
    return ExitStatus.OK


def _show(nodes: Sequence[AgentStatus], output: str) -> None:
    from kubectl_genainet.render.fleet import fleet_table
    from kubectl_genainet.render.live import record_writer
    from kubectl_genainet.render.text import make_console, printable, tell

    if output == "name":
        for node in nodes:
            click.echo(f"node/{printable(node.node)}")
    elif write := record_writer(output):
        for node in nodes:
            write(node)
    else:
        make_console().print(fleet_table(nodes, wide=output == "wide"))
        for hint in dict.fromkeys(node.hint for node in nodes if node.hint):
            tell(f"  {hint}")
