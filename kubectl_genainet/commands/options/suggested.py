"""Commands that errors and warnings name: they go where the command goes that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from kubectl_genainet.run.sources.choice import SourceChoice

_KEY = f"{__name__}.as_used"


@contextmanager
def commands_as_used(options: Callable[[], tuple[tuple[str, ...], ...]]) -> Iterator[None]:
    """Within it. `options` as Source.options has them."""
    from kubectl_genainet.run.as_used import AsUsed, errors_as_used  # not before: it costs more than a --help

    click.get_current_context().meta[_KEY] = lambda text: AsUsed(options()).prose(text)
    with errors_as_used(options):
        yield


def options_of(choice: SourceChoice) -> tuple[tuple[str, ...], ...]:
    return choice.open(lambda _: None).options


def as_used(text: str) -> str:
    """A sentence whose commands stand between backquotes."""
    context = click.get_current_context(silent=True)
    change: Callable[[str], str] | None = context.meta.get(_KEY) if context is not None and "`" in text else None
    return change(text) if change is not None else text
