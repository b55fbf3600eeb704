"""What each verb says without rights, without an API server, without that context, and of an empty cluster: what is wrong, with
which object, and what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, GenainetError
from tests.unit.commands.fake_api import FakeApi, fake_api

SERVICE = "svc/my-llama-svc"
READING = {
    "trace": ("trace", SERVICE),
    "drops": ("drops",),
    "dns": ("dns",),
    "diagnose": ("diagnose", SERVICE),
    "diagnose a namespace": ("diagnose",),
    "rules": ("rules", SERVICE),
    "explain": ("explain", "pod/ui", SERVICE),
    "matrix": ("matrix",),
    "doctor": ("doctor", "--measure", "0"),
    "fabric": ("fabric",),
    "timeline": ("timeline", SERVICE, "--since", "10m"),
}
ALL = {**READING, "status": ("status",), "deploy": ("deploy", "--no-wait"), "undeploy": ("undeploy",)}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeApi, str]]:
    monkeypatch.delenv("GENAINET_NAMESPACE", raising=False)
    with fake_api(tmp_path) as made:
        yield made


def failure(*arguments: str) -> GenainetError:
    """The error that a command ends with."""
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(done.exception, GenainetError), (done.output, done.exception)
    return done.exception


@pytest.mark.parametrize("verb", ALL)
def test_without_rights_a_verb_says_what_may_not_be_read_and_who_may(api: tuple[FakeApi, str], verb: str) -> None:
    """`matrix` said "there are no pods", `doctor` ended with 0, and `trace` did not say what to ask for."""
    server, kubeconfig = api
    server.forbidding = True
    error = failure(*ALL[verb], "--kubeconfig", kubeconfig)
    assert "is forbidden" in error.message
    assert "ClusterRole genainet-" in error.hint


def test_who_may_not_impersonate_is_told_so(api: tuple[FakeApi, str], monkeypatch: pytest.MonkeyPatch) -> None:
    server, kubeconfig = api
    message = 'forbidden: User "nobody" cannot impersonate resource "users"'
    status = {"kind": "Status", "message": message, "reason": "Forbidden", "code": 403}
    monkeypatch.setattr(server, "answer", lambda *_: (403, status))
    assert "right to impersonate" in failure("status", "--as", "ana", "--kubeconfig", kubeconfig).hint


@pytest.mark.parametrize("verb", ALL)
def test_an_api_server_that_does_not_answer_is_named(api: tuple[FakeApi, str], tmp_path: Path, verb: str) -> None:
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        config = yaml.safe_load(Path(api[1]).read_text())
        config["clusters"][0]["cluster"]["server"] = server = f"https://127.0.0.1:{unused.getsockname()[1]}"
        kubeconfig = tmp_path / "unreachable"
        kubeconfig.write_text(json.dumps(config))
        error = failure(*ALL[verb], "--kubeconfig", str(kubeconfig))
    assert error.message == f"the API server {server} refused the connection" and "--context" in error.hint
    assert f"`kubectl --kubeconfig {kubeconfig} cluster-info`" in error.hint


@pytest.mark.parametrize("verb", ALL)
def test_a_context_that_is_not_there_is_named_with_those_that_are(api: tuple[FakeApi, str], verb: str) -> None:
    error = failure(*ALL[verb], "--kubeconfig", api[1], "--context", "nope")
    assert (error.message, error.hint) == ("no context 'nope'", "There are: x")


def test_without_a_cluster_version_tells_the_client_alone(api: tuple[FakeApi, str]) -> None:
    done = CliRunner().invoke(cli, ["version", "--kubeconfig", api[1], "--context", "nope"], standalone_mode=False)
    assert done.return_value in (None, ExitStatus.OK) and "client" in done.stdout and "no context" in done.stderr


@pytest.mark.parametrize("verb", READING)
def test_an_empty_cluster_is_no_reason_for_a_traceback(api: tuple[FakeApi, str], verb: str) -> None:
    done = CliRunner().invoke(cli, [*READING[verb], "--kubeconfig", api[1]], standalone_mode=False)
    assert done.exception is None or isinstance(done.exception, GenainetError), done.exception
    if isinstance(done.exception, GenainetError):
        assert done.exception.hint
