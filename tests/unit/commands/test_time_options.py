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


@pytest.mark.parametrize("text", ["yesterday", "25:00", "12:61", "", "0312", "0001-01-01", "\x1b[31m", "9" * 40])
def test_what_is_no_time_is_refused_with_the_option_that_has_it(text: str) -> None:
    """0312 was 312 seconds back."""
    with pytest.raises(click.UsageError) as refused:
        time_range(None, text, None, None, now_s=NOON)
    assert refused.value.message.startswith(f"--at {text!r} is not a time like 2h, 03:12")


@pytest.mark.parametrize(
    ("since", "at", "until", "length_s", "begin_s", "end_s"),
    [
        ("2h", None, None, None, -7200, 0),
        (None, "11:00", None, None, -3600, -3000),
        (None, "11:00", None, 60.0, -3600, -3540),
        ("1h", None, "30m", None, -3600, -1800),
        ("1h", None, None, 600.0, -3600, -3000),
        (None, "11:55", None, None, -300, 0),  # what has not passed yet is left out
        (None, "23:50", "00:10", None, -43800, -42600),
        ("2026-05-01T10:00:00", None, "10:30", None, -266400, -264600),  # the first 10:30 after it
        ("11:50", None, "12:30", None, -600, 0),
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            (None, "2026-05-04T13:00:00", None),
            "--at 2026-05-04T13:00:00 is no time that has passed: it is 2026-05-04T12:00",
        ),
        (("0s", None, None), "--since 0s is no time that has passed"),
        (("1h", None, "2h"), "--until 2h (2026-05-04T10:00:00"),
        (("11:50", None, "11:40"), "--until 11:40 is not after --since 11:50: the next 11:40 is tomorrow's"),
        (("40d", None, None), "at most 31 days are asked for at a time, and --since 40d begins 40 days before the end"),
        (("9999999d", None, None), "at most 31 days"),
    ],
)
def test_a_range_that_can_not_be_says_which_time_is_wrong(
    options: tuple[str | None, str | None, str | None], said: str
) -> None:
    with pytest.raises(click.UsageError) as refused:
        time_range(*options, None, now_s=NOON)
    assert refused.value.message.startswith(said)


def test_without_options_there_is_no_range() -> None:
    assert time_range(None, None, None, None, now_s=NOON) is None


def test_a_command_begins_with_its_process() -> None:
    """An answer is due so long after the command; the interpreter's own start counts."""
    program = (
        "import time; time.sleep(0.4); from kubectl_genainet.commands import STARTED; print(time.monotonic() - STARTED)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.4
