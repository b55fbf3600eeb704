"""The client works without what only a node or a few verbs need; what needs it says how to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kubectl_genainet
from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import EXTRAS

RECORDED = str(recordings() / "policy-service-port.gnb")
APP = str(Path(kubectl_genainet.__file__).parent / "lab" / "manifests" / "app")
WITHOUT = f"""
import sys
for name in {tuple(EXTRAS)!r}:
    sys.modules[name] = None
from kubectl_genainet.cli import main
main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("trace", "svc/my-llama-svc", "--from", RECORDED), 1),
        (("rules", "svc/my-llama-svc", "--from", RECORDED), 0),
        (("explain", "deploy/chatbot-ui", "svc/my-llama-svc", "--manifests", APP), 0),
        (("matrix", "--manifests", APP), 0),
        (("version", "--client"), 0),
        (("doctor", "--manifests", APP, "--only", "policy", "--fail-on", "error"), 0),
    ],
)
def test_the_client_needs_no_package_of_an_extra(arguments: tuple[str, ...], status: int) -> None:
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "extra"), [(("lab", "up"), "lab"), (("mcp", "--from", RECORDED), "mcp")])
def test_what_needs_an_extra_says_what_to_install(arguments: tuple[str, ...], extra: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"pipx install --force '.[{extra}]'" in done.stderr
