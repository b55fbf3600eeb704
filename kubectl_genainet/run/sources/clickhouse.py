"""The past of a whole fleet, from a table of what its recorders sent: ClickHouse, or chdb over segments in a folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.objects import BEFORE_NS, ObjectsRange, objects_range
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.history.rows import ALL, COVER, NO_ADDRESS, OBJECTS, STATE, Rebuilt
from kubectl_genainet.history.select import RecordPart, Selection
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import CHDB, Source
from kubectl_genainet.run.sources.engines import (
    TABLE,
    Chdb,
    ClickHouse,
    Engine,
    QueryValue,
    chdb_over,
    extent_of,
    without_password,
)
from kubectl_genainet.run.sources.history import HistorySource, TimeRange
from kubectl_genainet.wire import HistoryRequest

STATE_BACK_NS = 26 * 3600 * 1_000_000_000  # a recorder tells the whole state at least once in the age of its recording
BLOCK_NS = 15 * 1_000_000_000  # a block covers less: its rows may lie so long before a range that it reaches into
BLOCKS_AS_ONE = 12  # of five seconds
DEFAULT_NS = 3600 * 1_000_000_000
_BETWEEN = "Timestamp >= fromUnixTimestamp64Nano({since:Int64}) AND Timestamp < fromUnixTimestamp64Nano({until:Int64})"
# From which time on the state has to be read: per node the last block that tells the whole state.
WHOLE = (
    f"SELECT Node, toUnixTimestamp64Nano(max(Timestamp)) FROM {TABLE} WHERE Part = '{COVER}' AND Service = '' AND "
    f"{_BETWEEN} AND bitAnd(Flags, 16) != 0 GROUP BY Node"
)
# Headers of blocks that follow each other, a minute of them as one: from, until (the first and the second number of a Cover) and
# so on; where one is missing, or holds state, they come one by one. 21 are the flags STATE, FIRST and WHOLE_STATE.
COVERS = f"""
SELECT Node, if(uniqExact(Number) = max(Number) - min(Number) + 1, [], groupArray(Body)) AS each,
    concat('[', arrayStringConcat(arrayMap(n -> toString(n), [
        min(JSONExtractInt(Body, 1)), max(JSONExtractInt(Body, 2)), min(JSONExtractInt(Body, 3)), max(JSONExtractInt(Body, 4)),
        min(JSONExtractInt(Body, 5)), Session, toInt64(max(Number))]), ','),
        ',"', any(JSONExtractString(Body, 8)), '",', toString(max(Flags)), ']') AS whole, min(Number)
FROM {TABLE} WHERE Part = '{COVER}' AND Service = '' AND {_BETWEEN}
GROUP BY Node, Session, intDiv(Number, {{blocks:UInt32}}), if(bitAnd(Flags, 21) != 0, Number + 1, 0)"""
STATES = (
    f"SELECT Node, Session, Number, Position, toUnixTimestamp64Nano(Timestamp), Body FROM {TABLE} "
    f"WHERE Part = '{STATE}' AND Service = '' AND {_BETWEEN}"
)
RECORDS = (
    f"SELECT Node, Session, Number, Position, toUnixTimestamp64Nano(Timestamp), Body FROM {TABLE} "
    f"WHERE Part IN {{parts:Array(String)}} AND {_BETWEEN}"
)
# Of a Service: its own part of the sorting key, and what has no Service by its addresses.
OF_SERVICES = (
    " AND Service IN {services:Array(String)} AND (Service != '' OR hasAny(Addresses, {addresses:Array(String)}))"
)
OF_ADDRESSES = " AND hasAny(Addresses, {addresses:Array(String)})"


class ClickHouseSource(HistorySource):
    """`name` is clickhouse://HOST/DATABASE, or chdb:FOLDER; without a time it is the last hour."""

    no_recorder = "the table has nothing of it"

    def __init__(
        self,
        name: str,
        when: TimeRange | None = None,
        *,
        namespace: str = "",
        all_namespaces: bool = False,
        warn: Warn = lambda _: None,
        engine: Engine | None = None,
    ) -> None:
        self.name, self._engine = name, engine
        self._own: Chdb | None = None  # one that is closed with its range
        super().__init__(
            _Nothing(name, namespace=namespace, all_namespaces=all_namespaces), when or self._default(), warn=warn
        )

    def _default(self) -> TimeRange:
        """All that a folder has; of a server the last hour."""
        if self.name.startswith(CHDB):
            return TimeRange(*extent_of(self._folder))
        now_ns = time.time_ns()
        return TimeRange(now_ns - DEFAULT_NS, now_ns)

    def within(self, when: TimeRange) -> ClickHouseSource:
        """The same table, another time."""
        if self._own is not None:  # it was filled for this range, and there is one in a process
            self._own.close()
            self._engine = self._own = None
        return ClickHouseSource(
            self.name,
            when,
            namespace=self.namespace,
            all_namespaces=self.all_namespaces,
            warn=self._warn,
            engine=self._engine,
        )

    @property
    def _folder(self) -> Path:
        return Path(self.name.removeprefix(CHDB))

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            if self.name.startswith(CHDB):
                self._engine = self._own = chdb_over(self._folder, self.when.since_ns - BLOCK_NS, self.when.until_ns)
            else:
                self._engine = ClickHouse(self.name, password=os.environ.get("CLICKHOUSE_PASSWORD", ""))
        return self._engine

    def _ask_objects(self) -> ObjectsRange:
        rebuilt = self._state_rows()
        if OBJECTS not in rebuilt.nodes:
            return ObjectsRange(None, (), ())
        recorded = rebuilt.range(OBJECTS, self.when.since_ns - BEFORE_NS, self.when.until_ns, Selection())
        return objects_range(recorded, self.when.since_ns, self.when.until_ns)

    def _ask_nodes(self, request: HistoryRequest) -> Mapping[str, NodeRange | GenainetError]:
        rebuilt = self._state_rows()
        nodes = [node for node in rebuilt.nodes if node != OBJECTS]
        if not nodes:
            raise GenainetError(
                f"{self} has no records of that time", hint="docs/clickhouse.md says how records get there."
            )
        wanted = Selection(tuple(RecordPart(part) for part in request.parts), request.addresses or None)
        sql, parameters = records_query(request, self._services_of(request.addresses))
        self._take_records(rebuilt, self.engine.rows(sql, parameters))
        wanted.learn(rebuilt.records)
        if wanted.other_ends and RecordPart.TRACE.value in request.parts:
            # Where rules are old, connections go to what is none of the Service's: they are found by their clients.
            sql, parameters = elsewhere_query(request, wanted.other_ends)
            self._take_records(rebuilt, self.engine.rows(sql, parameters))
        ranges: dict[str, NodeRange | GenainetError] = {}
        for node in nodes:
            try:
                ranges[node] = rebuilt.range(node, request.since_ns, request.until_ns, wanted)
            except GenainetError as error:
                ranges[node] = error
                self.failed_nodes.add(node)
        return ranges

    def _state_rows(self) -> Rebuilt:
        """What every question reads: which times are covered, and the state of nodes and objects."""
        since, until = self.when.since_ns, self.when.until_ns
        whole = self.engine.rows(WHOLE, {"since": since - STATE_BACK_NS, "until": since + 1})
        begin = min((int(at_ns) for _, at_ns in whole), default=since)
        rebuilt = Rebuilt()
        between = {"since": min(begin, since) - BLOCK_NS, "until": until}
        unread = ""
        for node, each, whole, first in self.engine.rows(COVERS, {**between, "blocks": BLOCKS_AS_ONE}):
            try:
                for body in each:
                    rebuilt.cover(node, body)
                if not each:
                    rebuilt.cover(node, whole, int(first))
            except GenainetError as error:  # the time that it stands for is a gap
                unread = error.message
        self._warn_of(unread)
        self._take_records(rebuilt, self.engine.rows(STATES, between))
        return rebuilt

    def _take_records(self, rebuilt: Rebuilt, rows: Iterable[Sequence[Any]]) -> None:
        unread = ""
        for node, session, number, position, at_ns, body in rows:
            try:
                rebuilt.record(node, int(session), int(number), int(position), int(at_ns), body)
            except GenainetError as error:
                unread = error.message
        self._warn_of(unread)

    def _warn_of(self, unread: str) -> None:
        if unread:
            self._warn(f"{self} holds rows that were left out: {unread}")

    def _services_of(self, addresses: tuple[str, ...]) -> frozenset[str]:
        """The Services that all the addresses are of; none where there is one that is of no Service: a pod's own."""
        wanted = set(addresses)
        services: set[str] = set()
        known: set[str] = set()
        for snapshot in self._snapshots():
            for service in snapshot.services:
                fronts = set(map(canonical_ip, (*service.cluster_ips, *service.external_addresses)))
                if not fronts & wanted:
                    continue
                services.add(f"{service.metadata.namespace}/{service.metadata.name}")
                backends = {b.ip for port in service.spec.ports for b in snapshot.backends(service, port)}
                known |= fronts | set(map(canonical_ip, backends))
        return frozenset(services) if wanted <= known else frozenset()

    def _snapshots(self) -> list[ClusterSnapshot]:
        return [self.snapshot()]

    def __str__(self) -> str:
        return str(self._engine) if self._engine is not None else self.name.partition("?")[0].rpartition("@")[2]


def records_query(request: HistoryRequest, services: frozenset[str]) -> tuple[str, dict[str, QueryValue]]:
    """The statement for what a verb reads, and its parameters."""
    parts = [*request.parts, ALL]
    parameters: dict[str, QueryValue] = {
        "since": request.since_ns - BLOCK_NS,
        "until": request.until_ns,
        "parts": parts,
    }
    if not request.addresses:
        return RECORDS, parameters
    parameters["addresses"] = [NO_ADDRESS, *request.addresses]
    if not services:
        return RECORDS + OF_ADDRESSES, parameters
    parameters["services"] = ["", *sorted(services)]
    return RECORDS + OF_SERVICES, parameters


def elsewhere_query(request: HistoryRequest, clients: Collection[str]) -> tuple[str, dict[str, QueryValue]]:
    """The statement for what became of the clients' connections under whatever address, and its parameters."""
    parameters: dict[str, QueryValue] = {
        "since": request.since_ns - BLOCK_NS,
        "until": request.until_ns,
        "parts": [RecordPart.TRACE.value],
        "addresses": sorted(clients),
    }
    return RECORDS + OF_ADDRESSES, parameters


class _Nothing(Source):
    """What there is where nothing is recorded: a table knows no present."""

    live = False

    def __init__(self, name: str, *, namespace: str, all_namespaces: bool) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self._name = name

    def _read(self) -> ClusterSnapshot:
        raise GenainetError(
            f"{self} has no objects of that time: names and Services are not known",
            hint="`kubectl genainet deploy --record` runs the recorder of the cluster's objects.",
        )

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return (("--from", shlex.quote(without_password(self._name))),)

    def __str__(self) -> str:
        return self._name.partition("?")[0].rpartition("@")[2]
