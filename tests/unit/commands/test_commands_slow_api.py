"""An API server that answers, but never to the end: commands that ask it little say so after a time of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.run.fleet import status


@contextmanager
def endless(folder: Path, *, trickling: bool, asked: Callable[[str], object] = lambda path: None) -> Iterator[str]:
    """A kubeconfig for an API server whose answers trickle, or whose lists go on after each page. Which kinds it has it says."""
    over = threading.Event()
    pods = {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["list"]}
    said = {"/api": {"versions": ["v1"]}, "/apis": {"groups": []}, "/api/v1": {"resources": [pods]}}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked(path)
            page = {"gitVersion": "v1.33.1", "items": [], "metadata": {"continue": "more"}}
            text = json.dumps(said.get(path, page)).encode()
            trickles = trickling and path not in said
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 20 if trickles else len(text)))
            self.end_headers()
            try:
                self.wfile.write(b" " if trickles else text)
                while trickles and not over.wait(0.02):  # far more often than the time-out of a read
                    self.wfile.write(b" ")
            except OSError:
                return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        config = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        yield str(folder / "kubeconfig")
        over.set()
        server.shutdown()


def run(verb: str, kubeconfig: str) -> Result:
    return CliRunner().invoke(cli, [verb, "--kubeconfig", kubeconfig], standalone_mode=False)


@pytest.mark.parametrize("trickling", [True, False])
def test_version_answers_though_the_api_server_does_not_end(
    trickling: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "VERSION_S", 0.3)
    with endless(tmp_path, trickling=trickling) as kubeconfig:
        done = run("version", kubeconfig)
    assert done.exception is None and done.stdout.startswith("client ")
    assert "has not answered in full within 0.3 s" in done.stderr


def test_status_says_that_the_api_server_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "STATUS_S", 0.3)
    with endless(tmp_path, trickling=True) as kubeconfig:
        done = run("status", kubeconfig)
    assert isinstance(done.exception, GenainetError)
    assert "has not answered in full within 0.3 s" in done.exception.message
    assert f"`kubectl --kubeconfig {kubeconfig} get --raw /version`" in done.exception.hint


def test_ctrl_c_waits_for_no_list(tmp_path: Path) -> None:
    listing = threading.Event()

    def asked(path: str) -> None:
        if path.endswith("/pods"):
            listing.set()

    with endless(tmp_path, trickling=True, asked=asked) as kubeconfig:
        command = [sys.executable, "-m", "kubectl_genainet", "matrix", "--kubeconfig", kubeconfig]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert listing.wait(30)
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=20)
            finally:
                process.kill()
    assert process.returncode == ExitStatus.INTERRUPTED and b"Traceback" not in said
