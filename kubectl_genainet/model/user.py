"""Whom requests are made as (`--as`, `--as-group`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impersonation:
    """The user, and the groups, that the API server is asked to take the requests as coming from; "" for oneself."""

    name: str = ""
    groups: tuple[str, ...] = ()


NOBODY_ELSE = Impersonation()
