"""--since, --at, --for and --until: a time that has passed, as what was recorded of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import click

from kubectl_genainet.model.units import seconds
from kubectl_genainet.run.sources.history import TimeRange

F = TypeVar("F", bound=Callable[..., Any])
LONGEST_S = 31 * 24 * 3600.0
AT_FOR_S = 600.0  # --at without --for
_DAYS = re.compile(r"(\d+)d")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def time_options(*, length: bool) -> list[Callable[[F], F]]:
    """--since, --at, --until; and --for, unless (`length`) the verb has one of its own."""
    options: list[Callable[[F], F]] = [
        click.option("--since", metavar="TIME", help="What was recorded since: 2h, 03:12, 2026-01-31T03:12:00Z."),
        click.option("--at", metavar="TIME", help="What was recorded from then on, for 10 minutes or for --for."),
        click.option("--until", metavar="TIME", help="With --since or --at: what was recorded until then."),
    ]
    if length:
        options.append(click.option("--for", "length", metavar="TIME", help="With --at or --since: for how long."))
    return options


def moment(text: str, now_s: float, *, option: str = "--at", after_s: float | None = None) -> float:
    """A time in seconds since 1970: a duration back from now ("2h", "1d"), a time of day (in the local zone: the last one that
    has passed, or the first one `after_s`) or RFC 3339. Raises click.UsageError, which names the option."""
    days = _DAYS.fullmatch(text)
    back = float(days[1]) * 86400 if days else None if text.isdecimal() else seconds(text)
    if back is not None:
        return now_s - back
    clock = _CLOCK.fullmatch(text)
    try:
        if not clock:
            return datetime.fromisoformat(text).timestamp()
        today = datetime.fromtimestamp(now_s if after_s is None else after_s).replace(
            hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0), microsecond=0
        )
        if after_s is not None:
            return (today if today.timestamp() > after_s else today + timedelta(days=1)).timestamp()
        return (today if today.timestamp() <= now_s else today - timedelta(days=1)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(f"{option} {text!r} is not a time like 2h, 03:12 or 2026-01-31T03:12:00Z") from None


def time_range(
    since: str | None, at: str | None, until: str | None, length_s: float | None, *, now_s: float | None = None
) -> TimeRange | None:
    """The range that the options name; None where they name none. Raises click.UsageError."""
    if since is None and at is None:
        if until is not None:
            raise click.UsageError("--until goes with --since or --at")
        return None
    if since is not None and at is not None:
        raise click.UsageError("--since and --at exclude each other")
    if until is not None and length_s is not None:
        raise click.UsageError("--until and --for exclude each other")
    now = time.time() if now_s is None else now_s
    option, text = ("--since", since) if since is not None else ("--at", at or "")
    begin = moment(text, now, option=option)
    if begin >= now:
        raise click.UsageError(f"{option} {text} is no time that has passed: it is {_said(now)} now")
    end = moment(until, now, option="--until", after_s=begin) if until is not None else None
    if until is not None and _CLOCK.fullmatch(until) and end is not None and _day(end) > _day(now):
        raise click.UsageError(f"--until {until} is not after {option} {text}: the next {until} is tomorrow's")
    if end is None:
        end = begin + length_s if length_s is not None else now if since is not None else begin + AT_FOR_S
    if end <= begin:
        raise click.UsageError(f"--until {until} ({_said(end)}) is not after {option} {text} ({_said(begin)})")
    end = min(end, now)
    if end - begin > LONGEST_S:
        longer = f"{option} {text} begins {(end - begin) / 86400:.0f} days before the end"
        raise click.UsageError(f"at most 31 days are asked for at a time, and {longer} (--until, --for)")
    begin_ns, end_ns = int(begin * 1e9), int(end * 1e9)
    options = tuple((name, _stamp(value)) for name, value in (("--since", begin_ns), ("--until", end_ns)))
    return TimeRange(begin_ns, end_ns, options)


def _day(moment_s: float) -> date:
    return datetime.fromtimestamp(moment_s).date()


def _said(moment_s: float) -> str:
    return f"{datetime.fromtimestamp(moment_s).astimezone():%Y-%m-%dT%H:%M:%S%z}"


def _stamp(wall_ns: int) -> str:
    """To the second, so that the command that is suggested means the same tomorrow."""
    return f"{datetime.fromtimestamp(wall_ns // 10**9).astimezone().isoformat()}"
