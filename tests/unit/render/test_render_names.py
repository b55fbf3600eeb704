"""-o name: the objects that records name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli

BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "stale-endpoint.gnb"
CLIENT, FAILED_CLIENT = "pod/chatbot-ui-d8qhflqlr-qfns9", "pod/chatbot-ui-d8qhflqlr-swxbr"


def names(*arguments: str) -> Sequence[str]:
    done = CliRunner().invoke(cli, [*arguments, "--from", str(BUNDLE), "-o", "name"], standalone_mode=False)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("diagnose", "svc/my-llama-svc"), ["service/my-llama-svc", FAILED_CLIENT]),
        (
            ("trace", "svc/my-llama-svc", "--verdict", "reset,dropped,rejected,unanswered"),
            [FAILED_CLIENT, "service/my-llama-svc"],
        ),
        (("rules", "svc/my-llama-svc"), ["service/my-llama-svc"]),
        (("doctor", "--only", "kube-proxy-drift"), ["service/my-llama-svc"]),
    ],
)
def test_each_object_is_named_once(arguments: tuple[str, ...], named: list[str]) -> None:
    assert names(*arguments) == named


def test_every_connection_names_its_ends() -> None:
    named = names("trace", "svc/my-llama-svc")
    assert {CLIENT, FAILED_CLIENT, "service/my-llama-svc"} < set(named)
    assert len(named) == len(set(named))
