"""`version`: the client's version, and the agents' where a cluster answers."""

from __future__ import annotations

import click

from kubectl_genainet import __version__


@click.command("version")
def command() -> None:
    """Show the version of the client."""
    click.echo(f"client {__version__}")
