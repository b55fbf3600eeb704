"""--report FILE: what a run found, as a page for the ticket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.run.view import MakeView, View

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V", bound=View)
W = TypeVar("W", bound=View)


def report_option(function: F) -> F:
    return click.option(
        "--report",
        type=click.Path(dir_okay=False, writable=True),
        default="",
        metavar="FILE.html",
        callback=_in_a_folder,
        help="Also write an HTML page for the ticket.",
    )(function)


def _in_a_folder(_: click.Context, __: click.Parameter, file: str) -> str:
    """A run of minutes does not end with a file that could never be written."""
    if file and not Path(file).absolute().parent.is_dir():
        raise GenainetError(f"{file}: there is no such folder")
    return file


def reported(make_view: MakeView[V], reporting: Callable[[V, str], W], file: str) -> MakeView[V | W]:
    """What makes the views, with a page at the end where a file is named for it."""
    if not file:
        return make_view

    def make_reporting(target: str, *, live: bool) -> W:
        return reporting(make_view(target, live=live), file)

    return make_reporting
