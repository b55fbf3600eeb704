"""`version`: the client's version, the API server's, and the agents' where a cluster answers."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

import click
import msgspec

from kubectl_genainet import __version__
from kubectl_genainet.commands.options import cluster_options, output_option
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.finding import counted
from kubectl_genainet.wire import PROTOCOL

_TIMEOUT_S = 5.0


class VersionJson(TypedDict):
    """`server` and `agents` (nodes by version) are null where they were not asked, or did not answer."""

    client: str
    protocol: int
    server: str | None
    agents: dict[str, int] | None


@click.command("version")
@click.option("--client", "client_only", is_flag=True, help="Ask no cluster.")
@output_option("text", "json")
@cluster_options
def command(client_only: bool, output: str, context: str, kubeconfig: str) -> None:
    """Show the versions of the client, of the API server and of the agents; warns where they don't fit.

    Answers without a cluster too.

    \b
    Examples:
      kubectl genainet version
      kubectl genainet version --client -o json
    """
    found: VersionJson = {"client": __version__, "protocol": PROTOCOL, "server": None, "agents": None}
    warnings: list[str] = []
    if not client_only:
        try:
            _ask(found, warnings, context, kubeconfig)
        except GenainetError as error:
            warnings.append(error.message)
    if output == "json":
        click.echo(msgspec.json.encode(found).decode())
    else:
        click.echo(f"client {__version__} (protocol {PROTOCOL})")
        if found["server"]:
            click.echo(f"server {found['server']}")
        for version, count in (found["agents"] or {}).items():
            click.echo(f"agents {version} on {counted(count, 'node')}")
    if warnings:
        from kubectl_genainet.render.text import tell

        for warning in warnings:
            tell(f"warning: {warning}")


def _ask(found: VersionJson, warnings: list[str], context: str, kubeconfig: str) -> None:
    from kubectl_genainet.kube.agents.fleet import skew
    from kubectl_genainet.kube.agents.forward import agent_namespace, find_agents
    from kubectl_genainet.kube.client import connect
    from kubectl_genainet.render.text import printable

    client = connect(context=context, kubeconfig=kubeconfig, timeout_s=_TIMEOUT_S)
    found["server"] = printable(str(client.get("/version").get("gitVersion", "")))
    agents = find_agents(client, agent_namespace())
    found["agents"] = dict(sorted(Counter(printable(a.version or "unknown") for a in agents).items()))
    if not agents:
        warnings.append(f"no agents in namespace {agent_namespace()}: `kubectl genainet deploy` brings them")
    elif warning := skew(__version__, agents):
        warnings.append(printable(f"{warning}: run `kubectl genainet deploy` with this client"))
