"""Every way not to reach an API server says what is wrong and what to do."""

import contextlib
import gzip
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube import client
from kubectl_genainet.kube.agents.portforward import dial_pod
from kubectl_genainet.kube.client import connect, context_namespace
from kubectl_genainet.kube.failures import ApiError, Unreachable
from kubectl_genainet.kube.incluster import ServiceAccountClient
from kubectl_genainet.kube.resources import POD, Served
from kubectl_genainet.kube.watch import Selection, watch_once


def write_config(path: Path, server: str = "https://127.0.0.1:1", **user: Any) -> str:
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [
            {"name": "prod", "context": {"cluster": "c", "user": "u", "namespace": "chat"}},
            {"name": "staging", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": "prod",
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


def failure(kubeconfig: str, context: str = "") -> GenainetError:
    with pytest.raises(GenainetError) as caught:
        connect(kubeconfig=kubeconfig, context=context, timeout_s=1).get("/api")
    return caught.value


def test_the_namespace_is_the_contexts_own(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config")
    assert context_namespace(kubeconfig=config) == "chat"
    assert context_namespace(kubeconfig=config, context="staging") == "default"


def test_without_a_kubeconfig_the_error_names_the_file_and_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    error = failure("")
    assert error.message == f"there is no kubeconfig: {tmp_path / 'nowhere'} does not exist"
    assert "--lab" in error.hint


def test_kubeconfig_lists_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").write_text("apiVersion: v1\nkind: Config\ncurrent-context: staging\n")
    config = write_config(tmp_path / "second")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'first'}:{tmp_path / 'missing'}:{config}")
    assert context_namespace(context="prod") == "chat"


def test_an_unknown_context_lists_near_matches(tmp_path: Path) -> None:
    error = failure(write_config(tmp_path / "config"), context="prd")
    assert (error.message, error.hint) == ("no context 'prd'", "Did you mean prod?")


@pytest.mark.parametrize("text", ["{", "[]", "contexts: 3", "", "\x00"])
def test_a_damaged_kubeconfig_is_called_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    assert "kubeconfig" in failure(str(tmp_path / "config")).message


def test_a_refused_connection_names_the_server(tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else takes the port meanwhile
        bound.bind(("127.0.0.1", 0))
        error = failure(write_config(tmp_path / "config", f"https://127.0.0.1:{bound.getsockname()[1]}"))
    assert "refused the connection" in error.message
    assert "--context" in error.hint


def test_a_name_that_does_not_resolve_is_said(tmp_path: Path) -> None:
    error = failure(write_config(tmp_path / "config", "https://api.cluster.invalid"))
    assert error.message == "the name api.cluster.invalid can't be resolved"


def test_a_server_that_is_silent_times_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(write_config(tmp_path / "config", f"https://127.0.0.1:{silent.getsockname()[1]}"))
    assert "didn't answer in time" in error.message


class Answers(BaseHTTPRequestHandler):
    """Answers with the status and body that the test put on the server."""

    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url(server: ThreadingHTTPServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "log in again"), (403, "genainet-view"), (503, "try again"), (429, "overloaded")],
)
def test_an_answer_that_refuses_has_the_servers_message_and_a_hint(
    server: ThreadingHTTPServer, tmp_path: Path, status: int, hint: str
) -> None:
    server.answer = (status, json.dumps({"kind": "Status", "message": "said the server"}).encode())  # type: ignore[attr-defined]
    error = failure(write_config(tmp_path / "config", url(server)))
    assert isinstance(error, ApiError)
    assert (error.status, error.message) == (status, "can't GET /api: said the server")
    assert hint in error.hint


def test_a_log_in_page_is_recognised(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.answer = (200, b"<html>please log in</html>")  # type: ignore[attr-defined]
    assert "not JSON" in failure(write_config(tmp_path / "config", url(server))).message


def test_a_server_without_tls_is_said(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.answer = (200, b"{}")  # type: ignore[attr-defined]
    assert "doesn't speak TLS" in failure(write_config(tmp_path / "config", url(server, "https"))).message


def asked(kubeconfig: str) -> None:
    connect(kubeconfig=kubeconfig, timeout_s=1).get("/api")


def forwarded(kubeconfig: str) -> None:
    """A connection of its own, that authenticates the server by itself."""
    dial_pod(connect(kubeconfig=kubeconfig, timeout_s=1), "genainet", "agent", 9914)


@pytest.mark.parametrize("way", [asked, forwarded])
def test_a_certificate_of_an_unknown_authority_is_said(
    server: ThreadingHTTPServer, tmp_path: Path, way: Callable[[str], None]
) -> None:
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(GenainetError) as caught:
        way(write_config(tmp_path / "config", url(server, "https")))
    assert "is not accepted: self-signed certificate" in caught.value.message
    assert "certificate-authority" in caught.value.hint


@pytest.mark.parametrize("way", [asked, forwarded])
def test_a_certificate_for_another_name_is_said(
    server: ThreadingHTTPServer, tmp_path: Path, way: Callable[[str], None]
) -> None:
    certificate = make_certificate(tmp_path, "DNS:other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    config = yaml.safe_load(Path(write_config(tmp_path / "config", url(server, "https"))).read_text())
    config["clusters"][0]["cluster"]["certificate-authority"] = str(certificate)
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    with pytest.raises(GenainetError) as caught:
        way(str(tmp_path / "config"))
    assert "tls-server-name" in caught.value.hint


def test_a_service_account_asks_as_itself(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answer = (200, b'{"groups": []}')  # type: ignore[attr-defined]
    (tmp_path / "ca.crt").write_bytes(certificate.read_bytes())
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    assert ServiceAccountClient(tmp_path).request("GET", "/apis") == b'{"groups": []}'


def make_certificate(folder: Path, names: str) -> Path:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=test",
            "-addext",
            f"subjectAltName={names}",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    return certificate


def test_an_answer_that_trickles_has_a_deadline_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WHOLE_ANSWER_S", 0.5)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            with listener.accept()[0] as caller:
                caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not ended.wait(0.05):  # far more often than the time-out of a read
                    caller.sendall(b" ")

        dripping = threading.Thread(target=trickle)
        dripping.start()
        error = failure(write_config(tmp_path / "config", f"http://127.0.0.1:{listener.getsockname()[1]}"))
        ended.set()
        dripping.join()
    assert error.message.endswith("has not answered in full within 1 s")


@pytest.mark.parametrize(
    "broken",
    [
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Encoding: gzip, gzip, gzip, gzip, gzip, gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 10\r\n\r\n{",
    ],
)
def test_an_answer_that_is_none_of_http_is_no_answer(tmp_path: Path, broken: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + broken
    with answering(answer, answer) as address:
        assert isinstance(failure(write_config(tmp_path / "config", address)), Unreachable)
    with answering(answer) as address:
        kube = connect(kubeconfig=write_config(tmp_path / "config", address))
        with pytest.raises(Unreachable):
            list(watch_once(kube, Selection(Served(POD, "v1")), "1"))


def test_an_answer_that_unpacks_to_more_than_the_bound_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", 4 << 20)
    body = gzip.compress(bytes(64 << 20), 9)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as address:
        error = failure(write_config(tmp_path / "config", address))
    assert error.message.endswith("answered /api with more than 4 MiB")


def test_a_watch_whose_object_has_no_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_LINE", 1 << 20)
    with answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * (8 << 20)) as address:
        kube = connect(kubeconfig=write_config(tmp_path / "config", address))
        with (
            pytest.raises(GenainetError, match="an object of more than 1 MiB"),
            kube.lines("/x", {}, read_timeout_s=5) as lines,
        ):
            list(lines)


def test_an_object_of_a_watch_costs_as_much_as_it_is_long(tmp_path: Path) -> None:
    """However small the parts that it comes in: joining them anew with each would take hours."""
    parts = [b"1234567", b"\n89", b"\n\n0", *[b"x"] * 1_000_000, b"\n"]
    answer = SimpleNamespace(stream=lambda size, decode_content: iter(parts))
    begun = time.process_time()
    lines = list(connect(kubeconfig=write_config(tmp_path / "config"))._split(answer))
    assert time.process_time() - begun < 10
    assert lines == [b"1234567", b"89", b"0" + b"x" * 1_000_000]


def test_a_watch_that_is_refused_is_no_empty_watch(tmp_path: Path) -> None:
    refusal = b'{"kind": "Status", "message": "said the server"}'
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(refusal)
    with answering(head + refusal) as address:
        kube = connect(kubeconfig=write_config(tmp_path / "config", address))
        with pytest.raises(ApiError, match="can't watch pods: said the server") as caught:
            list(watch_once(kube, Selection(Served(POD, "v1")), "1"))
    assert caught.value.status == 500


def test_an_answer_that_breaks_off_is_asked_for_once_more(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    with answering(head + b"{", head + b"{}") as address:
        assert connect(kubeconfig=write_config(tmp_path / "config", address)).get("/api") == {}


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that answers its connections with these bytes, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for text in answers:
                with listener.accept()[0] as caller, suppress(OSError):
                    caller.recv(65536)
                    caller.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("part", ["clusters", "users", "contexts", "cluster", "user", "context"])
@pytest.mark.parametrize("instead", ["text with exec", 5, [], ["exec"], None])
def test_a_kubeconfig_of_which_a_part_is_no_mapping_is_an_error_and_no_traceback(
    tmp_path: Path, part: str, instead: Any
) -> None:
    config = yaml.safe_load(Path(write_config(tmp_path / "config", exec={"command": "true"})).read_text())
    if part in config:
        config[part] = instead
    else:
        config[f"{part}s"][0][part] = instead
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    assert failure(str(tmp_path / "config"), "prod").message
    with contextlib.suppress(GenainetError):
        assert context_namespace(kubeconfig=str(tmp_path / "config"), context="prod")
