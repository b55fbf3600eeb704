"""`matrix`: who may reach whom, and what a change of policies would change."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kubectl_genainet.commands.options import Messages, output_option, say_moment, source_options
from kubectl_genainet.commands.options.policies import enforcer_option
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.policy.reach.grid import Difference
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.policy.beyond import beyond_json, print_beyond
from kubectl_genainet.render.policy.circumstances import enforcer_text, print_enforcer
from kubectl_genainet.render.policy.matrix import (
    DIFFERENCE_COLUMNS,
    difference_json,
    differences_html,
    grid_html,
    grid_json,
    print_grid,
)
from kubectl_genainet.render.table import table
from kubectl_genainet.render.text import make_console, tell
from kubectl_genainet.run.policies.matrix import MatrixAnswer, MatrixOptions, matrix, matrix_changes
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.manifests import ManifestsSource


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
@enforcer_option
@output_option("table", "json", "yaml", "html", templates=True)
@source_options(manifests=True)
def command(
    source: Source, port: int | None, protocol: str | None, diff: str | None, enforcer: str | None, output: str
) -> ExitStatus:
    """Show who may reach whom, by the policies.

    Rows are sources, columns destinations, of one namespace or (-A) of all. Pods with the same labels and named ports
    are one row. Below them stand the nodes, the API server, clients outside, the internet and DNS. With --diff, only ports that
    the destination declares count (or --port), and the exit status is 1 if any verdict differs.

    \b
    Examples:
      kubectl genainet matrix -n ai
      kubectl genainet matrix -A --port 8000 -o html > matrix.html
      kubectl genainet matrix -n ai --diff ./new-policies
      kubectl genainet matrix --manifests ./deploy -A -o json
    """
    chosen = MatrixOptions(port, protocol or "", enforcer or "", reasons=output == "html")
    say_moment(source)
    if diff:
        changes = matrix_changes(source, _manifests(diff, source), chosen, Messages().warn)
        _print_changes(changes, output, _where(source))
        return ExitStatus.FOUND if changes else ExitStatus.OK
    answer = matrix(source, chosen, Messages().warn)
    write = record_writer(output)
    match output:
        case _ if write is not None:
            for record in (*grid_json(answer.grid), *beyond_json(answer.beyond)):
                write(record)
        case "html":
            click.echo(_page(answer, f"Who may reach whom: {_where(source)}"))
        case _:
            console = make_console()
            print_enforcer(console, answer.enforcer)
            print_grid(console, answer.grid)
            print_beyond(console, answer.grid, answer.beyond)
    return ExitStatus.OK


def _page(answer: MatrixAnswer, title: str) -> str:
    return grid_html(
        answer.grid,
        title,
        beyond=answer.beyond,
        reasons=answer.reasons,
        enforcer=enforcer_text(answer.enforcer),
        made=_made(),
    )


def _made() -> str:
    return f"Made {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC from API objects: what may pass, not what was seen to pass."


def _manifests(path: str, source: Source) -> Source:
    return ManifestsSource((path,), namespace=source.scope_namespace, warn=Messages().warn)


def _where(source: Source) -> str:
    namespace = source.scope_namespace
    return f"namespace {namespace}" if namespace else "all namespaces"


def _print_changes(changes: list[Difference], output: str, where: str) -> None:
    write = record_writer(output)
    match output:
        case _ if write is not None:
            for difference in changes:
                write(difference_json(difference))
        case "html":
            click.echo(differences_html(changes, f"What would change: {where}", made=_made()))
        case _ if changes:
            make_console().print(table(DIFFERENCE_COLUMNS, changes))
        case _:
            tell("No verdict differs.")
