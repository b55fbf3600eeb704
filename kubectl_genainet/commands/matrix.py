"""`matrix`: who may reach whom, and what a change of policies would change."""

from __future__ import annotations

import json

import click

from kubectl_genainet.commands.options import FOUND, OK, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, load_snapshot
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.reach.grid import Port, declared_in, differences, grid_of, with_applied
from kubectl_genainet.render.policy.matrix import (
    DIFFERENCE_COLUMNS,
    difference_json,
    differences_html,
    grid_html,
    grid_json,
    print_grid,
)
from kubectl_genainet.render.table import table
from kubectl_genainet.render.text import make_console


@click.command("matrix")
@click.option("--port", type=click.IntRange(1, 65535), help="The port; default: those that each destination declares.")
@click.option(
    "--protocol",
    type=click.Choice(("TCP", "UDP", "SCTP"), case_sensitive=False),
    help="The protocol; default: TCP with --port, else all.",
)
@click.option(
    "--diff",
    "diff",
    type=click.Path(exists=True),
    metavar="DIR",
    help="Show only what is different with the manifests of DIR: applied on top, or, if they hold pods, by themselves.",
)
@output_option("table", "json", "html")
@source_options(manifests=True)
def command(source: Source, port: int | None, protocol: str | None, diff: str | None, output: str) -> int:
    """Show who may reach whom, by the policies.

    Rows are sources, columns destinations, of one namespace or (-A) of all. Pods with the same labels and named ports
    are one row. With --diff the exit status is 1 if any verdict differs.

    \b
    Examples:
      kubectl genainet matrix -n ai
      kubectl genainet matrix -A --port 8000 -o html > matrix.html
      kubectl genainet matrix -n ai --diff ./new-policies
      kubectl genainet matrix --manifests ./deploy -A -o json
    """
    engine = PolicyEngine(load_snapshot(source))
    namespace = "" if source.all_namespaces else default_namespace(source)
    chosen = (protocol or ("TCP" if port else "")).upper()
    where = f"namespace {namespace}" if namespace else "all namespaces"
    if diff:
        return _diff(engine, diff, namespace, chosen, port, output, where)
    grid = grid_of(engine, namespace=namespace, protocol=chosen, port=port)
    match output:
        case "json":
            for line in grid_json(grid):
                click.echo(json.dumps(line))
        case "html":
            click.echo(grid_html(grid, f"Who may reach whom: {where}"))
        case _:
            print_grid(make_console(), grid)
    return OK


def _diff(
    engine: PolicyEngine, path: str, namespace: str, protocol: str, port: int | None, output: str, where: str
) -> int:
    after = PolicyEngine(with_applied(engine.snapshot, load_snapshot(Source(manifests=(path,), namespace=namespace))))
    ports: set[Port] = {(protocol, port)} if port else declared_in((engine, after), namespace, protocol)
    found = differences(engine, after, namespace=namespace, ports=ports)
    match output:
        case "json":
            for one in found:
                click.echo(json.dumps(difference_json(one)))
        case "html":
            click.echo(differences_html(found, f"What would change: {where}"))
        case _ if found:
            make_console().print(table(DIFFERENCE_COLUMNS, found))
        case _:
            click.echo("No verdict differs.", err=True)
    return FOUND if found else OK
