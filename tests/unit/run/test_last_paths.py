"""`--last N` shows what began last, every tree its time, and a recording is not asked for new connections."""

from __future__ import annotations

import io

import pytest
from click.testing import CliRunner
from rich.console import Console

from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import InputError
from kubectl_genainet.render.trace.tree import path_tree
from kubectl_genainet.run.trace import LastPaths
from tests.unit.trace.test_groups import path

BUNDLE = str(recordings() / "healthy.gnb")


def test_the_last_paths_are_those_that_began_last_and_are_in_order() -> None:
    last = LastPaths()
    for second in (7, 9, 8, 1, 12, 3):  # as they become known: one that lasted long comes after younger ones
        last.add(path(1, 1, second=second), 3)
    assert [kept.time[17:19] for kept in last.in_order()] == ["28", "29", "32"]


def test_paths_of_one_moment_stay_in_the_order_in_which_they_came() -> None:
    last = LastPaths()
    for client in (3, 1, 2):
        last.add(path(client, 1), 2)
    assert [kept.flow.client.pod for kept in last.in_order()] == ["chat-1", "chat-2"]


def test_a_tree_says_when_its_connection_began() -> None:
    out = io.StringIO()
    Console(file=out, width=100, no_color=True).print(path_tree(path(1, 2), 1, 100))
    assert out.getvalue().splitlines()[0].endswith("TCP  22:13:20.000Z")


@pytest.mark.parametrize("asked", [("--check", "--from-pod", "pod/x"), ("--exact",)])
def test_a_recording_opens_no_connections(asked: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", BUNDLE, *asked], standalone_mode=False)
    assert isinstance(done.exception, InputError) and "need live nodes" in done.exception.message


@pytest.mark.parametrize(("ends", "said"), [(("pod/a",), "DST is missing"), ((), "SRC and DST are missing")])
def test_explain_names_the_end_that_is_missing(ends: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(cli, ["explain", "--from", BUNDLE, *ends])
    assert done.exit_code == 2 and said in done.output
