"""Serves the recording of the cluster's objects, as an agent does its node's: GET /healthz and POST /v1/history."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import h11
import msgspec

from kubectl_genainet.agent.objects.recorder import FLUSH_S, ObjectsRecorder
from kubectl_genainet.agent.serve.history import History, checked_history
from kubectl_genainet.agent.serve.http import HttpConnection, HttpError
from kubectl_genainet.agent.serve.server import HEAD_S, HISTORY, REQUEST_S, Authenticator, decoded, peer
from kubectl_genainet.agent.serve.slots import ConnectionSlots
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.wire import HistoryRequest

MAX_CONNECTIONS = 16
MAX_KNOWN = 12  # of them with a token: the kubelet's probe always finds a place
NAME = "objects"  # in place of a node's
LOOK_S = 1.0


class ObjectsServer:
    """`ready` says whether the objects are being recorded."""

    def __init__(
        self, folder: Path, recorder: ObjectsRecorder, readers: Authenticator, ready: Callable[[], bool]
    ) -> None:
        async def flush() -> None:
            await asyncio.to_thread(recorder.flush)

        self.history = History(folder, NAME, flush)
        self._readers, self._ready = readers, ready
        self._places = ConnectionSlots(MAX_CONNECTIONS, MAX_KNOWN)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; whatever a client sends, the recorder goes on."""
        connection = HttpConnection(reader, writer)
        try:
            self._places.enter()
            async with asyncio.timeout(HEAD_S):
                request = await connection.head()
            await self._answer(connection, request)
        except HttpError as error:
            await connection.refuse(error.status, msgspec.json.encode({"error": str(error), "hint": ""}))
        except GenainetError as error:
            await connection.refuse(400, msgspec.json.encode({"error": error.message, "hint": error.hint}))
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        except Exception as error:
            traceback.print_exc()
            await connection.refuse(
                500, msgspec.json.encode({"error": type(error).__name__, "hint": "Its log says where."})
            )
        finally:
            self._places.leave()
            await connection.close()

    async def _answer(self, connection: HttpConnection, request: h11.Request) -> None:
        method, path = request.method.decode(), request.target.decode("ascii", "replace").partition("?")[0]
        if (method, path) == ("GET", "/healthz"):
            if not self._ready():
                raise HttpError(503, "the objects are not known yet")
            await connection.respond(200, b"ok\n", "text/plain")
            return
        if (method, path) != ("POST", HISTORY):
            raise HttpError(404, f"there is no {method} {path[:100]}")
        fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        if refusal := await self._readers.refuse(fields.get("authorization", ""), path):
            raise HttpError(401, refusal)
        self._places.known()
        async with asyncio.timeout(REQUEST_S):
            wanted = checked_history(decoded(await connection.body(), HistoryRequest))
        await self.history.answer(connection, wanted, peer(connection.writer))


class Watch(threading.Thread):
    """Looks at the objects again and again, and has the recorder write what it saw. `newer` gives the state where it has
    changed; an error of it is a gap, not the end."""

    def __init__(self, recorder: ObjectsRecorder, newer: Callable[[], ClusterSnapshot | None]) -> None:
        super().__init__(name="objects", daemon=True)
        self._recorder, self._newer = recorder, newer
        self.stopping = threading.Event()
        self.seen = threading.Event()

    def run(self) -> None:
        looks = 0
        problem = ""
        while not self.stopping.wait(LOOK_S if looks else 0):
            self._recorder.tick()
            try:
                now = self._newer()
                if now is not None:
                    self._recorder.see(now)
                    self.seen.set()
                if problem:
                    print("genainet-objects: the objects can be read again", file=sys.stderr)
                problem = ""
            except GenainetError as error:
                self._recorder.unseen(f"the objects could not be read: {error.message}")
                if error.message != problem:  # once, not with each look
                    print(f"genainet-objects: {error.message}", file=sys.stderr)
                problem = error.message
            if looks % int(FLUSH_S / LOOK_S) == 0:
                self._recorder.flush()
            looks += 1

    def stop(self) -> None:
        self.stopping.set()
        self.join(FLUSH_S)
        with contextlib.suppress(OSError):
            self._recorder.close()
