"""What the tests of tables of records share: segments made of a recorded bundle, and chdb behind ClickHouse's HTTP interface.

There is no ClickHouse server to be had here: the engine is chdb, the same code as a library. clickhouse-connect speaks to it
through a small HTTP server of these tests; what the server's own HTTP layer does (users, quotas, compression) is not tested.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import Flag, Span, encode_block
from kubectl_genainet.history.rows import OBJECTS
from kubectl_genainet.model.events import Bye, ClusterChanged, Event, Hello, PacketSighting, Progress, Tick
from kubectl_genainet.run.sources.engines import Chdb

SECOND = 1_000_000_000
BLOCK_NS = SECOND // 2  # many blocks of a short recording


def segments_of(bundle: Bundle, folder: Path) -> tuple[int, int]:
    """Writes what recorders would have kept of the bundle's events; returns the time that it is about."""
    ahead = {e.node: e.realtime_ns - e.t_ns for e in bundle.events if isinstance(e, Hello)}
    times: dict[str, list[int]] = defaultdict(list)
    for event in bundle.events:
        if isinstance(event, Progress | Tick | PacketSighting) and event.t_ns:
            times[event.node].append(event.t_ns + ahead[event.node])
    begin = min(map(min, times.values()))
    end = max(map(max, times.values())) + 1
    first = {node: begin - ahead[node] for node in ahead}
    last = {node: end - ahead[node] for node in ahead}
    for node in first:
        own: list[Event] = [
            e for e in bundle.events if getattr(e, "node", "") == node and not isinstance(e, Progress | Bye)
        ]
        _write(folder / node, own, ahead[node], first[node], last[node] - first[node])
    state = [ClusterChanged.of(bundle.snapshot)]
    covers = Span(begin, end, begin - ahead[min(first)], end - ahead[min(first)])
    flags = Flag.STATE | Flag.WHOLE_STATE | Flag.FIRST
    block = encode_block(list(state), covers, session=9, number=1, boot_id=bytes(16), flags=flags)
    _segment(folder / OBJECTS, begin).write_bytes(block)
    return begin, end


def _write(folder: Path, events: list[Event], ahead: int, first_ns: int, length_ns: int) -> None:
    by_block: dict[int, list[Event]] = defaultdict(list)
    number = 0
    for event in events:
        t_ns = getattr(event, "t_ns", 0)
        number = max(0, (t_ns - first_ns) // BLOCK_NS) if t_ns else number
        by_block[min(number, (length_ns - 1) // BLOCK_NS)].append(event)
    blocks = []
    for number in range(-(-length_ns // BLOCK_NS)):
        mono = (first_ns + number * BLOCK_NS, first_ns + min((number + 1) * BLOCK_NS, length_ns))
        covers = Span(mono[0] + ahead, mono[1] + ahead, *mono)
        flags = Flag.STATE | Flag.WHOLE_STATE | Flag.FIRST if number == 0 else Flag(0)
        records = by_block.get(number, [])
        blocks.append(encode_block(records, covers, session=7, number=number + 1, boot_id=bytes(16), flags=flags))
    _segment(folder, first_ns + ahead).write_bytes(b"".join(blocks))


def _segment(folder: Path, since_ns: int) -> Path:
    folder.mkdir(parents=True)
    return folder / f"{1:020d}-{since_ns:020d}.seg"


class _Http(http.server.BaseHTTPRequestHandler):
    """The part of ClickHouse's HTTP interface that clickhouse-connect uses to read: a statement, its parameters, a format."""

    protocol_version = "HTTP/1.1"
    engine: Chdb
    lock: threading.Lock

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        parameters = {name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")}
        try:
            with self.lock:
                answer = self.engine._ask(
                    query.get("query", "") + body, query.get("default_format", "TabSeparated"), parameters
                )
            self.send_response(200)
        except GenainetError as error:
            answer = error.message.encode()
            self.send_response(500)
            self.send_header("X-ClickHouse-Exception-Code", "1")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST


@contextlib.contextmanager
def http_over(engine: Chdb) -> Iterator[int]:
    """The port on loopback."""
    handler = type("Handler", (_Http,), {"engine": engine, "lock": threading.Lock()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
