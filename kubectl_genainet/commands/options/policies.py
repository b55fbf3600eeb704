"""Options of the verbs that judge policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kubectl_genainet.policy.enforcers import EnforcerName

F = TypeVar("F", bound=Callable[..., Any])


def enforcer_option(function: F) -> F:
    """--enforcer: who enforces the policies, where the objects do not show it."""
    return click.option(
        "--enforcer",
        type=click.Choice([n.value for n in EnforcerName]),
        help="Who enforces the policies; default: what the cluster's objects show.",
    )(function)
