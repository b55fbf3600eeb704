"""A lab without root: its files, and agents that answer from a recorded bundle on unix sockets."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet import wire
from kubectl_genainet.bundle import Bundle
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import LabRecord
from kubectl_genainet.model.events import Event, Hello
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.wire import TraceRequest

NAME = "fake"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class FakeLab:
    """Agents of all nodes of a bundle. `requests` are those that were asked; `before_end` runs before a trace's last record."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        self.bundle, self.folder = bundle, root / NAME
        self.requests: dict[str, TraceRequest] = {}
        self.before_end: Callable[[], object] = lambda: None
        self.refuses: set[str] = set()  # nodes whose agent answers with an error
        self.fabric: Callable[[str], FabricReport] | None = None  # what the agent of a node says of it
        self.nodes = sorted({event.node for event in bundle.events if isinstance(event, NodeReport)})
        self._servers: list[_Server] = []

    def __enter__(self) -> FakeLab:
        self.folder.mkdir(parents=True)
        sockets = {node: str(self.folder / f"{number}.sock") for number, node in enumerate(self.nodes)}
        record = LabRecord(id="fake", spec=LabSpec(name=NAME), up=True, agents=sockets)
        (self.folder / "lab.json").write_bytes(msgspec.json.encode(record))
        self.write_objects([o.raw for o in self.bundle.snapshot.objects])
        for node, path in sockets.items():
            server = _Server(path, self._handler(node))
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._servers.append(server)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def write_objects(self, objects: list[dict[str, Any]]) -> None:
        temporary = self.folder / f"objects.{threading.get_ident()}"
        temporary.write_text(json.dumps(objects))
        temporary.replace(self.folder / "objects.json")

    def _of(self, node: str, *kinds: type[Any]) -> Iterator[Event]:
        for event in self.bundle.events:
            if isinstance(event, Hello):  # of the version that recorded it
                event = msgspec.structs.replace(event, protocol=wire.PROTOCOL)
            if getattr(event, "node", "") == node and (not kinds or isinstance(event, kinds)):
                yield event

    def _handler(lab, node: str) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def address_string(self) -> str:
                return "agent"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _begin(self, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Genainet-Session", "session")
                self.end_headers()

            def do_GET(self) -> None:
                if node in lab.refuses:
                    self._begin(500)
                    self.wfile.write(b'{"error": "out of order"}')
                    return
                self._begin()
                if lab.fabric is not None and self.path.startswith("/v1/fabric"):
                    self.wfile.write(wire.encode(lab.fabric(node)))
                    return
                kind = NodeReport if self.path.startswith("/v1/node") else RulesetDump
                for event in lab._of(node, kind):
                    self.wfile.write(wire.encode(event))

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._begin()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                lab.requests[node] = msgspec.json.decode(body, type=TraceRequest)
                self._begin(500 if node in lab.refuses else 200)
                if node in lab.refuses:
                    self.wfile.write(b'{"error": "out of order"}')
                    return
                *events, last = lab._of(node)
                for event in events:
                    self.wfile.write(wire.encode(event))
                lab.before_end()
                self.wfile.write(wire.encode(last))

        return Handler


@contextmanager
def fake_lab(root: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLab]:
    monkeypatch.setattr("kubectl_genainet.lab.state.ROOT", root)
    with FakeLab(root, bundle) as lab:
        yield lab
