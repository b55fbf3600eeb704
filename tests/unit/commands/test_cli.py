"""The command line itself: what is printed without arguments, and what near misses are told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kubectl_genainet.cli import joined_target, with_lab_named
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.target import parse_target


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubectl_genainet", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_without_arguments_the_help_is_printed() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("--help").stdout
    assert "Usage: kubectl genainet" in done.stdout


def test_a_target_in_two_words_is_named_as_one() -> None:
    done = run("trace", "svc", "my-llama-svc")
    assert done.returncode == 2
    assert "A target is one word: svc/my-llama-svc" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_usage_errors_name_no_target() -> None:
    assert joined_target(["explain", "pod/a", "--wrong"]) == ""
    assert joined_target(["deploy", "--record", "--dry-run"]) == ""


def test_a_bare_name_is_told_the_kinds_that_it_may_mean() -> None:
    with pytest.raises(InputError) as error:
        parse_target("my-llama-svc:80")
    assert error.value.hint == "Did you mean svc/my-llama-svc:80, pod/my-llama-svc:80 or deploy/my-llama-svc:80?"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["trace", "--lab", "svc/x"], ["trace", "--lab=default", "svc/x"]),
        (["trace", "svc/x", "--lab"], ["trace", "svc/x", "--lab=default"]),
        (["status", "--lab", "mine"], ["status", "--lab", "mine"]),
        ([], []),
    ],
)
def test_lab_takes_a_name_but_no_target(given: list[str], read: list[str]) -> None:
    assert with_lab_named(given) == read
