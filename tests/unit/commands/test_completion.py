"""Completion as kubectl asks for it: candidates and a directive, never an error."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kubectl_genainet.completion import complete

NAMES = {
    "/api/v1/namespaces": ["chat", "default"],
    "/api/v1/namespaces/chat/services": ["my-llama-svc", "qdrant"],
    "/api/v1/namespaces/chat/pods": ["chatbot-ui-0"],
    "/apis/apps/v1/namespaces/other/deployments": ["rag-app"],
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        names = NAMES.get(self.path.partition("?")[0], [])
        body = json.dumps({"items": [{"metadata": {"name": n}} for n in names]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "", "namespace": "chat"}}],
            "current-context": "prod",
            "users": [],
        }
        (tmp_path / "config").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield str(tmp_path / "config")
        server.shutdown()


def test_verbs_come_with_their_description() -> None:
    assert complete([], "und") == (["undeploy\tRemove all that deploy made"], ":4")


def test_flags_and_choices_of_a_verb_are_completed() -> None:
    lines, directive = complete(["deploy"], "--dry")
    assert [line.partition("\t")[0] for line in lines] == ["--dry-run"]
    assert directive == ":4"
    assert complete(["deploy", "--dry-run"], "c") == (["client"], ":4")


def test_file_options_leave_it_to_the_shell() -> None:
    assert complete(["deploy", "--kubeconfig"], "") == ([], ":0")


def test_names_come_from_the_cluster(kubeconfig: str) -> None:
    assert complete(["deploy", "-n"], "c") == (["chat"], ":4")
    assert complete(["deploy", "--context"], "p") == (["prod"], ":4")


@pytest.mark.parametrize(
    "name", ["p;reboot", "p$(reboot)", "p`x`", "p\nq", "p q", "p\x1b[2J", "p\u202eq", "p'", "p~{a,b}"]
)
def test_what_a_shell_would_read_otherwise_is_not_offered(tmp_path: Path, name: str) -> None:
    contexts = [{"name": n, "context": {"cluster": "c", "user": ""}} for n in (name, "prod-1:a/b@c")]
    config = {"clusters": [], "contexts": contexts, "users": []}
    (tmp_path / "config").write_text(json.dumps(config))
    assert complete(["deploy", "--kubeconfig", str(tmp_path / "config"), "--context"], "p") == (["prod-1:a/b@c"], ":4")


@pytest.mark.parametrize("name", ["-A", "--kubeconfig=x", "=ls", "~root", "", "\u0661"])
def test_a_name_is_no_option_and_no_word_that_a_shell_replaces(tmp_path: Path, name: str) -> None:
    contexts = [{"name": n, "context": {"cluster": "c", "user": ""}} for n in (name, "prod")]
    (tmp_path / "config").write_text(json.dumps({"clusters": [], "contexts": contexts, "users": []}))
    assert complete(["deploy", "--kubeconfig", str(tmp_path / "config"), "--context"], "") == (["prod"], ":4")


def test_an_api_server_that_does_not_end_its_answer_completes_nothing(tmp_path: Path) -> None:
    """A byte at a time: no wait for one of them is long."""
    code = "from kubectl_genainet import completion; completion.DEADLINE_S = 1; completion.main()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.getsockname()[1]}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": ""}}
        config = {"clusters": [cluster], "contexts": [context], "current-context": "x", "users": []}
        (tmp_path / "config").write_text(json.dumps(config))
        command = [sys.executable, "-c", code, "deploy", "--kubeconfig", str(tmp_path / "config"), "-n", ""]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, ":4\n", "")


def test_a_deadline_that_somebody_swallows_still_ends_it() -> None:
    """The signal may arrive where any error means that an optional module is missing."""
    code = """
import contextlib, time
from kubectl_genainet import completion

def complete(words, incomplete):
    with contextlib.suppress(Exception):
        time.sleep(60)
    time.sleep(60)

completion.DEADLINE_S, completion.complete = 0.2, complete
completion.main()
"""
    done = subprocess.run([sys.executable, "-c", code, "deploy"], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, ":4\n", "")


def trickle(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.1)


def test_targets_are_completed_by_kind_then_by_name(kubeconfig: str) -> None:
    pytest.importorskip("kubectl_genainet.commands.trace")
    assert complete(["trace"], "s") == (["sts/", "svc/"], ":4")
    assert complete(["trace"], "svc/my") == (["svc/my-llama-svc"], ":4")
    assert complete(["trace", "-n", "other"], "deploy/") == (["deploy/rag-app"], ":4")
    assert complete(["trace", "svc/x", "--from-pod"], "pod/") == (["pod/chatbot-ui-0"], ":4")


def test_without_a_cluster_nothing_is_completed_and_nothing_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_genainet.completion", "deploy", "-n", ""],
        capture_output=True,
        text=True,
        env={"KUBECONFIG": str(tmp_path / "nowhere"), "PATH": ""},
        check=True,
    )
    assert (done.stdout, done.stderr) == (":4\n", "")


@pytest.mark.parametrize(
    ("words", "incomplete", "candidates"),
    [
        (["trace"], "svc/my", ["svc/my-llama-svc"]),
        (["explain", "deploy/chatbot-ui"], "svc/q", ["svc/qdrant"]),
        (["drops", "-n"], "kube", ["kube-system"]),
        (["rules", "--node"], "", ["node-1", "node-2", "node-3"]),
        (["rules"], "w", ["why"]),
        (["rules", "why"], "", ["pod/", "svc/"]),
        (["rules", "why", "10.0.0.1"], "svc/rag", ["svc/rag-app"]),
    ],
)
def test_names_are_those_of_the_source_that_is_named_and_not_of_the_cluster(
    kubeconfig: str, words: list[str], incomplete: str, candidates: list[str]
) -> None:
    bundle = str(Path(__file__).parents[2] / "golden" / "bundles" / "healthy.gnb")
    verb, *others = words
    assert complete([verb, "--from", bundle, *others], incomplete) == (candidates, ":4")


def test_manifests_that_come_once_are_not_read_for_names(kubeconfig: str) -> None:
    assert complete(["explain", "--manifests", "-"], "pod/") == ([], ":4")


def test_names_in_manifests_are_completed(kubeconfig: str, tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ui-0", "namespace": "chat"},
        "spec": {"containers": []},
    }
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    words = ["explain", "--manifests", str(tmp_path), "-n", "chat"]
    assert complete(words, "pod/") == (["pod/ui-0"], ":4")
