"""An API server in memory: enough for deploy, undeploy, status and version."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
VERSION = "v1.33.1"


class FakeApi:
    """Objects by their path. `requests` are (method, path) of all that changes something, `reads` counts the others;
    `users` are the user and the groups that each request asked to be taken for. One that is `forbidding` lets nobody read or
    change an object."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.reads = 0
        self.forbidding = False
        self.users: set[tuple[str | None, tuple[str, ...]]] = set()
        self._uids = 0

    def put(self, path: str, obj: Object) -> Object:
        self._uids += 1
        plain = obj.get("stringData", {})
        if plain:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
            obj = {**obj, "data": {**obj.get("data", {}), **data}}
        before = self.objects.get(path, {}).get("metadata", {})
        uid = before.get("uid") or f"uid-{self._uids}"
        self.objects[path] = {**obj, "metadata": {**obj["metadata"], "uid": uid, "resourceVersion": str(self._uids)}}
        return self.objects[path]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Object]:
        if method == "GET":
            self.reads += 1
        else:
            self.requests.append((method, path))
        if self.forbidding and path not in ("/version", "/apis"):
            message = f'{path} is forbidden: User "nobody" cannot {method.lower()} it'
            return 403, {"kind": "Status", "message": message, "reason": "Forbidden", "code": 403}
        match method:
            case "PATCH":
                return 200, self.put(path, body)
            case "POST":
                return 201, self.put(f"{path}/{body['metadata']['name']}", body)
            case "DELETE":
                return 200, self.objects.pop(path, {})
        if path == "/version":
            return 200, {"gitVersion": VERSION}
        if path == "/apis":
            return 200, {"groups": []}
        if path in self.objects:
            return 200, self.objects[path]
        if path.rpartition("/")[2].endswith("s") and not path.rpartition("/")[2].startswith("genainet"):
            return 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": self._listed(path, query)}
        return 404, {"kind": "Status", "message": f"{path} not found", "reason": "NotFound", "code": 404}

    def _listed(self, path: str, query: dict[str, list[str]]) -> list[Object]:
        wanted = dict(part.split("=") for part in query.get("labelSelector", [""])[0].split(",") if "=" in part)
        items = [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]
        return [o for o in items if wanted.items() <= o["metadata"].get("labels", {}).items()]


@contextmanager
def fake_api(folder: Path) -> Iterator[tuple[FakeApi, str]]:
    """The server, and the path of a kubeconfig for it."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            url = urlsplit(self.path)
            groups = self.headers.get_all("Impersonate-Group") or ()
            api.users.add((self.headers.get("Impersonate-User"), tuple(groups)))
            status, value = api.answer(self.command, url.path, parse_qs(url.query), body)
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PATCH = do_POST = do_DELETE = _do

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        yield api, str(kubeconfig)
        server.shutdown()
