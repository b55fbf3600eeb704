"""How a kubeconfig's user logs in: what gives the credentials has a time and a size, and leaves nothing behind."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube import credentials, kubeconfig
from kubectl_genainet.kube.client import KubeClient, connect
from tests.unit.kube.test_kube_client import make_certificate, write_config

V1 = "client.authentication.k8s.io/v1"
# What never answers, by a child that holds its output.
HANGS = "echo no network >&2; sleep 1000 & echo $$ $! >{}; wait"


def credential(token: str = "t", **status: str) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": {"token": token, **status}})


def with_plugin(folder: Path, script: str, **settings: Any) -> str:
    """A kubeconfig whose user's plugin is a shell with this script."""
    plugin = {"apiVersion": V1, "command": "sh", "args": ["-c", script], **settings}
    return write_config(folder / "config", exec=plugin)


def refused(config: str, within_s: float = 60.0) -> GenainetError:
    with pytest.raises(GenainetError) as caught:
        connect(kubeconfig=config, within_s=within_s)
    return caught.value


def authorization(client: KubeClient) -> str:
    return client.headers()["authorization"]


def pids_in(file: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while not (file.exists() and len(file.read_text().split()) == 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [int(pid) for pid in file.read_text().split()]


def is_gone(pid: int) -> bool:
    """Ended; whoever adopts a child may not have looked after it yet."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    error = refused(with_plugin(tmp_path, "", command="no-such-aws"))
    assert error.message == "the credential plugin no-such-aws failed: No such file or directory"
    assert "not on PATH" in error.hint


def test_a_plugin_that_fails_shows_its_message(tmp_path: Path) -> None:
    error = refused(with_plugin(tmp_path, "echo token expired >&2; exit 3"))
    assert error.message == "the credential plugin sh failed: it ended with status 3: token expired"
    assert "user 'u'" in error.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"command": 7},
        {"args": "x"},
        {"env": [{"name": "A"}]},
        {"env": [{"name": "A", "value": "a\0b"}]},
        {"args": ["a\0b"]},
        {"interactiveMode": "Sometimes"},
        {"provideClusterInfo": True, "env": [{"name": "A=", "value": "b"}], "command": "no-such\x1b[2J"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert refused(with_plugin(tmp_path, "", **settings)).message.startswith(
        ("the kubeconfig's user 'u'", "the credential")
    )


def test_a_plugin_that_never_answers_is_named_and_ended_with_its_children(tmp_path: Path) -> None:
    begun = time.monotonic()
    error = refused(with_plugin(tmp_path, HANGS.format(tmp_path / "pids")), within_s=0.5)
    assert time.monotonic() - begun < 10
    expected = "the credential plugin sh failed: it has not answered within 0.5 s; it said: no network"
    assert error.message == expected and "Run it by hand" in error.hint
    assert all(map(is_gone, pids_in(tmp_path / "pids")))


def test_a_plugin_has_a_time_where_the_command_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PLUGIN_S", 0.3)
    assert "has not answered within 0.3 s" in refused(with_plugin(tmp_path, "sleep 1000")).message


def test_ctrl_c_ends_a_plugin_with_its_children(tmp_path: Path) -> None:
    config = with_plugin(tmp_path, HANGS.format(tmp_path / "pids"))
    command = [sys.executable, "-m", "kubectl_genainet", "matrix", "--kubeconfig", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        pids = pids_in(tmp_path / "pids")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and b"Traceback" not in said
    assert all(map(is_gone, pids))


def test_what_a_plugin_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    config = with_plugin(tmp_path, f"sleep 1000 & echo $! $! >{tmp_path / 'pids'}; echo '{credential('left')}'")
    try:
        assert authorization(connect(kubeconfig=config)) == "Bearer left"
    finally:
        with suppress(ProcessLookupError):
            os.kill(pids_in(tmp_path / "pids")[0], signal.SIGKILL)


def test_a_plugin_that_says_too_much_is_ended(tmp_path: Path) -> None:
    assert "said more than 1048576 bytes" in refused(with_plugin(tmp_path, "yes")).message


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("not json", "no ExecCredential"),
        ("[" * 100_000, "no ExecCredential"),
        ('{"apiVersion": "v2", "kind": "ExecCredential", "status": {"token": "t"}}', f"not one of {V1}"),
        (credential(""), "neither a token nor a certificate"),
        (credential(clientCertificateData="c", token=""), "neither a token nor a certificate"),
        (credential(expirationTimestamp="soon"), "no ExecCredential"),
    ],
)
def test_what_is_no_credential_is_refused(tmp_path: Path, printed: str, problem: str) -> None:
    (tmp_path / "printed").write_text(printed)
    assert problem in refused(with_plugin(tmp_path, f"cat {tmp_path / 'printed'}")).message


def test_a_plugin_that_can_ask_nobody_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on standard input (--flows -) is the command's."""
    reader, writer = os.pipe()
    os.write(writer, b"the command's\n")
    os.close(writer)
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        script = f"read -r line; echo \"$line$KUBERNETES_EXEC_INFO\" >{tmp_path / 'read'}; echo '{credential()}'"
        connect(kubeconfig=with_plugin(tmp_path, script))
        assert os.read(0, 100) == b"the command's\n"
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)
    assert json.loads((tmp_path / "read").read_text())["spec"] == {"interactive": False}


@pytest.mark.parametrize(("mode", "asks"), [("IfAvailable", True), ("Always", True), ("Never", False)])
def test_a_plugin_asks_at_a_terminal_unless_it_never_does(tmp_path: Path, mode: str, asks: bool) -> None:
    """As `aws sso login` does it: the question on standard error, the answer on standard input."""
    script = f"echo code? >&2; read -r code; echo '{credential()}' | sed s/t\\\"/$code\\\"/"
    config = with_plugin(tmp_path, script, interactiveMode=mode)
    child, terminal = pty.fork()
    if child == 0:
        code = f"from kubectl_genainet.kube.client import connect; print(connect(kubeconfig={config!r}).headers())"
        os.execv(sys.executable, [sys.executable, "-c", code])
    os.write(terminal, b"4711\n")
    said = b""
    with suppress(OSError):  # the terminal has gone
        while data := os.read(terminal, 4096):
            said += data
    os.close(terminal)
    os.waitpid(child, 0)
    assert (b"code?" in said, b"Bearer 4711" in said) == (asks, asks)


def test_where_there_is_no_terminal_a_plugin_that_always_asks_is_not_run(tmp_path: Path) -> None:
    config = with_plugin(tmp_path, f"touch {tmp_path / 'ran'}", interactiveMode="Always")
    assert "there is no terminal" in refused(config).message
    assert not (tmp_path / "ran").exists()


def test_credentials_are_renewed_before_they_expire(tmp_path: Path) -> None:
    def in_seconds(seconds: int) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()

    answers = tmp_path / "answers"
    config = with_plugin(tmp_path, f"cat {answers}")
    answers.write_text(credential("old", expirationTimestamp=in_seconds(30)))
    client = connect(kubeconfig=config)
    answers.write_text(credential("new", expirationTimestamp=in_seconds(3600)))
    assert authorization(client) == "Bearer new"
    answers.write_text(credential("newer"))
    assert authorization(client) == "Bearer new"


def test_a_certificate_of_a_plugin_is_the_clients(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "DNS:me").read_text()
    key = (tmp_path / "key.pem").read_text()
    (tmp_path / "printed").write_text(credential("", clientCertificateData=certificate, clientKeyData=key))
    configuration = connect(kubeconfig=with_plugin(tmp_path, f"cat {tmp_path / 'printed'}")).configuration
    assert Path(configuration.cert_file).read_text() == certificate
    assert Path(configuration.key_file).read_text() == key


def test_a_command_with_a_folder_is_relative_to_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/login").write_text(f"#!/bin/sh\necho '{credential('mine')}'\n")
    (tmp_path / "bin/login").chmod(0o700)
    monkeypatch.chdir("/")
    config = with_plugin(tmp_path, "", command="./bin/login")
    assert authorization(connect(kubeconfig=config)) == "Bearer mine"


def expired_identity(issuer: str) -> dict[str, Any]:
    """A user of an identity provider whose token has to be renewed."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, {"exp": 1}, {})]
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    secrets = {"id-token": token, "refresh-token": "r", "client-id": "c", "client-secret": "s"}
    return {"auth-provider": {"name": "oidc", "config": {"idp-issuer-url": issuer, **secrets}}}


def test_an_identity_provider_that_nobody_vouches_for_is_told_no_secret(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path, "IP:127.0.0.1"), tmp_path / "key.pem")
    believed = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):  # the listener has gone
                while True:
                    with listener.accept()[0] as caller, suppress(ssl.SSLError):
                        believed.append(context.wrap_socket(caller, server_side=True))

        threading.Thread(target=answer, daemon=True).start()
        user = expired_identity(f"https://127.0.0.1:{listener.getsockname()[1]}")
        error = refused(write_config(tmp_path / "config", **user))
        listener.shutdown(socket.SHUT_RDWR)
    assert "certificate verify failed" in error.message
    assert believed == []


def test_an_identity_provider_that_says_nothing_has_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "LOGIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        user = expired_identity(f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = refused(write_config(tmp_path / "config", **user))
    assert "its user's credentials were not there within 0.3 s" in error.message
