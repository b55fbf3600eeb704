"""--since, --at, --for and --until: which time they name."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime

import click
import pytest

from kubectl_genainet.commands.options.when import moment, time_range

NOON = datetime(2026, 5, 4, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("2h", 7200), ("90s", 90), ("1d", 86400), ("11:30", 1800), ("11:59:30", 30), ("12:30", 23.5 * 3600)],
)
def test_a_moment_is_a_duration_back_or_the_last_time_of_day(text: str, ago_s: float) -> None:
    assert moment(text, NOON) == NOON - ago_s


def test_a_moment_may_be_rfc_3339() -> None:
    assert moment("2026-05-04T03:12:00Z", NOON) == datetime.fromisoformat("2026-05-04T03:12:00+00:00").timestamp()


@pytest.mark.parametrize("text", ["yesterday", "25:00", "12:61", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        moment(text, NOON)


@pytest.mark.parametrize(
    ("since", "at", "until", "length_s", "begin_s", "end_s"),
    [
        ("2h", None, None, None, -7200, 0),
        (None, "11:00", None, None, -3600, -3000),
        (None, "11:00", None, 60.0, -3600, -3540),
        ("1h", None, "30m", None, -3600, -1800),
        ("1h", None, None, 600.0, -3600, -3000),
        (None, "11:55", None, None, -300, 0),  # what has not passed yet is left out
    ],
)
def test_a_range(
    since: str | None, at: str | None, until: str | None, length_s: float | None, begin_s: float, end_s: float
) -> None:
    when = time_range(since, at, until, length_s, now_s=NOON)
    assert when is not None
    assert (when.since_ns / 1e9 - NOON, when.until_ns / 1e9 - NOON) == (begin_s, end_s)


@pytest.mark.parametrize(
    "options",
    [("1h", "11:00", None, None), (None, None, "1h", None), ("1h", None, "2h", None), ("1h", None, "30m", 5.0)],
)
def test_options_that_do_not_fit_together(options: tuple[str | None, str | None, str | None, float | None]) -> None:
    with pytest.raises(click.UsageError):
        time_range(*options, now_s=NOON)


def test_without_options_there_is_no_range() -> None:
    assert time_range(None, None, None, None, now_s=NOON) is None


def test_a_command_begins_with_its_process() -> None:
    """An answer is due so long after the command; the interpreter's own start counts."""
    program = (
        "import time; time.sleep(0.4); from kubectl_genainet.commands import STARTED; print(time.monotonic() - STARTED)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.4
