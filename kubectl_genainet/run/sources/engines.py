"""Where a table of records is asked: a ClickHouse server, or chdb, the same engine in this process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.deadline import in_time
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.history.blocks import BlockError, Flag
from kubectl_genainet.history.names import SnapshotNames
from kubectl_genainet.history.rows import (
    OBJECTS,
    Nobody,
    RecordRow,
    RowNames,
    attributes_of,
    blocks_of_folder,
    rows_of_folder,
)
from kubectl_genainet.model.events import ClusterChanged

QueryValue = int | str | Sequence[str]
QUERY_S = 60
ANSWER_S = 300.0  # for all rows of an answer, however they come
TABLE = "genainet_records"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BATCH = 20_000  # rows of one insert


def schema(*, keep: bool = False) -> str:
    """The table's statement, as daemonset/clickhouse has it; with `keep` rows never get too old."""
    text = (asset_dir("daemonset") / "clickhouse" / "schema.sql").read_text(encoding="utf-8")
    return re.sub(r"^TTL .*\n", "", text, flags=re.MULTILINE) if keep else text


class Engine(Protocol):
    """`{name:Type}` in a statement stands for a parameter."""

    def rows(self, sql: str, parameters: Mapping[str, QueryValue]) -> list[Sequence[Any]]:
        """Raises GenainetError where the engine can't be asked."""


class ClickHouse:
    """A server, by its HTTP interface. `url` is clickhouse://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?secure=1]; the password
    is better in $CLICKHOUSE_PASSWORD."""

    def __init__(self, url: str, *, password: str = "") -> None:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        database = parts.path.strip("/")
        if parts.scheme != "clickhouse" or not parts.hostname or not _IDENTIFIER.fullmatch(database):
            raise InputError(
                f"{without_password(url)!r} does not name a database",
                field="--from",
                hint="clickhouse://HOST[:8123]/DATABASE, with ?secure=1 for TLS.",
            )
        try:
            self.port = parts.port
        except ValueError as error:
            raise InputError(f"{without_password(url)!r}: {error}", field="--from") from None
        self.host, self.database = parts.hostname, database
        self.secure = options.get("secure", ["0"])[0] in ("1", "true")
        self.user = unquote(parts.username or "default")
        self._password = unquote(parts.password or "") or password
        self._client: Any = None

    def rows(self, sql: str, parameters: Mapping[str, QueryValue]) -> list[Sequence[Any]]:
        from clickhouse_connect.driver.exceptions import ClickHouseError

        def asked() -> list[Sequence[Any]]:
            rows: list[Sequence[Any]] = self._connected().query(sql, parameters=dict(parameters)).result_rows
            return rows

        try:
            return in_time(asked, ANSWER_S, name="clickhouse")
        except ClickHouseError as error:
            raise GenainetError(
                f"ClickHouse at {self.host} does not answer: {_reason(error)}",
                "The source is clickhouse://[USER@]HOST[:8123]/DATABASE; $CLICKHOUSE_PASSWORD has the password.",
            ) from None
        except TimeoutError:
            raise GenainetError(
                f"ClickHouse at {self.host} has not answered in full within {ANSWER_S:g} s", "Ask for a shorter time."
            ) from None

    def _connected(self) -> Any:
        import clickhouse_connect

        logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # errors are told once, by us
        if self._client is None:
            self._client = clickhouse_connect.get_client(
                host=self.host,
                port=self.port or (8443 if self.secure else 8123),
                username=self.user,
                password=self._password,
                database=self.database,
                secure=self.secure,
                client_name="kubectl-genainet",
                send_receive_timeout=QUERY_S,
                autogenerate_session_id=False,  # queries of several verbs may run at once
            )
        return self._client

    def __str__(self) -> str:
        return f"ClickHouse at {self.host}, database {self.database}"


class Chdb:
    """The engine in this process, over a table in a folder of its own. There is one at a time in a process."""

    def __init__(self) -> None:
        self._session: Any = None
        self._folder = tempfile.mkdtemp(prefix="genainet-chdb-")
        atexit.register(self.close)

    def rows(self, sql: str, parameters: Mapping[str, QueryValue]) -> list[Sequence[Any]]:
        literals = {name: _literal(value) for name, value in parameters.items()}
        lines = self._ask(sql, "JSONCompactEachRow", literals)
        return [msgspec.json.decode(line) for line in lines.splitlines() if line]

    def run(self, sql: str) -> None:
        self._ask(sql, "Null", {})

    def create(self) -> None:
        self.run("CREATE DATABASE IF NOT EXISTS genainet")
        self.run("USE genainet")
        self.run(schema(keep=True))

    def load(self, rows: Iterable[RecordRow]) -> int:
        """Adds rows, as the Collector's exporter would: the columns that it fills. Returns how many."""
        total = 0
        with tempfile.TemporaryDirectory(prefix="genainet-rows-") as folder:
            file = Path(folder) / "rows.jsonl"
            for batch in _batches(rows):
                file.write_bytes(b"".join(msgspec.json.encode(exported(row)) + b"\n" for row in batch))
                columns = ", ".join(_EXPORTED)
                self.run(
                    f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM file('{file}', 'JSONEachRow', '{_SHAPE}')"
                )
                total += len(batch)
        return total

    def _ask(self, sql: str, form: str, parameters: Mapping[str, Any]) -> bytes:
        if self._session is None:
            from chdb.session import Session

            self._session = Session(self._folder)
        try:
            answer: bytes = self._session.query(sql, form, params=dict(parameters)).bytes() or b""
            return answer
        except RuntimeError as error:
            raise GenainetError(f"chdb can't answer: {_first_line(error)}") from None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __str__(self) -> str:
        return "chdb"


# The columns that the Collector's exporter fills, as far as the records have them, and their types.
_EXPORTED = {
    "Timestamp": "DateTime64(9)",
    "ServiceName": "String",
    "Body": "String",
    "ResourceAttributes": "Map(String, String)",
    "ScopeName": "String",
    "LogAttributes": "Map(String, String)",
    "EventName": "String",
}
_SHAPE = ", ".join(f"{name} {kind}" for name, kind in _EXPORTED.items())


def exported(row: RecordRow) -> dict[str, Any]:
    """A row as the exporter inserts the log record that the agent makes of it."""
    return {
        "Timestamp": f"{row.at_ns // 1_000_000_000}.{row.at_ns % 1_000_000_000:09d}",
        "ServiceName": "genainet-agent",
        "Body": row.body,
        "ResourceAttributes": {"service.name": "genainet-agent", "k8s.node.name": row.node},
        "ScopeName": "kubectl-genainet",
        "LogAttributes": {name: str(value) for name, value in attributes_of(row).items()},
        "EventName": f"genainet.{row.kind}",
    }


def chdb_over(folder: Path, since_ns: int = 0, until_ns: int = 1 << 62) -> Chdb:
    """A table of the segments in FOLDER/NODE, and of those of the objects in FOLDER/objects, which name what the nodes saw: for
    questions about a range of time.

    Raises GenainetError where there are none.
    """
    nodes = _recordings(folder)
    engine = Chdb()
    engine.create()
    names = names_in(folder / OBJECTS)
    if not sum(engine.load(rows_of_folder(node, node.name, names, since_ns, until_ns)) for node in nodes):
        engine.close()
        raise _no_segments(folder)
    return engine


def extent_of(folder: Path) -> tuple[int, int]:
    """From when to when there are segments, in wall-clock ns. Raises GenainetError where there are none."""
    covers = [block.covers for node in _recordings(folder) for block in blocks_of_folder(node)]
    if not covers:
        raise _no_segments(folder)
    return min(span.wall_from for span in covers), max(span.wall_until for span in covers)


def _recordings(folder: Path) -> list[Path]:
    return sorted(part for part in folder.iterdir() if part.is_dir()) if folder.is_dir() else []


def _no_segments(folder: Path) -> GenainetError:
    return GenainetError(f"there are no segments in {folder}", hint="It has a folder for each node: NODE/*.seg.")


def names_in(folder: Path) -> RowNames:
    """The names by the last whole set of objects in the segments of their recorder."""
    last = None
    for block in blocks_of_folder(folder):
        if Flag.STATE in block.flags:
            with contextlib.suppress(BlockError):
                last = next((r for r in block.records() if isinstance(r, ClusterChanged)), last)
    return SnapshotNames(last.snapshot) if last is not None else Nobody()


def _batches(rows: Iterable[RecordRow]) -> Iterable[list[RecordRow]]:
    batch: list[RecordRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _literal(value: QueryValue) -> Any:
    """A parameter as chdb reads it: an array is its text."""
    if isinstance(value, int | str):
        return value
    quoted = ("'" + item.replace("\\", "\\\\").replace("'", "\\'") + "'" for item in value)
    return f"[{','.join(quoted)}]"


def _reason(error: BaseException) -> str:
    """Why a server can't be asked: the operating system's word where there is one, in place of the libraries' own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


def without_password(url: str) -> str:
    """The URL as it may be shown. A password may have any characters that its user forgot to escape."""
    scheme, _, rest = url.partition("//")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}//{user}@{place}" if at and colon else url
