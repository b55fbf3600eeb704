"""The verbs' questions over a large table of records in chdb, generated in the engine: about one Service of 1,000, an hour of 24.

Baseline: reading the same hour of every Service, which is what a table without the Services in its order would do. The limit is
2 s a question on 2 cores. GENAINET_ROWS is the number of rows (default 20 million; a billion needs about 30 GB and an hour).
Rows are synthetic and small (bodies of about 20 bytes): how much is read is measured, not how fast records are decoded.
"""

from __future__ import annotations

import os
import time

from kubectl_genainet.history.select import Part
from kubectl_genainet.run.sources.clickhouse import COVERS, STATES, WHOLE, records_query
from kubectl_genainet.run.sources.engines import TABLE, Chdb, Value
from kubectl_genainet.wire import HistoryRequest

ROWS = int(os.environ.get("GENAINET_ROWS", "20000000"))
LIMIT_S = 2.0
SECOND = 1_000_000_000
BEGIN = 1_795_400_000 * SECOND
HOURS = 24
BATCH = 10_000_000
SERVICE, ADDRESS = "ns-5/svc-5", "10.96.0.5"
PARTS = ("trace", "drops", "dns", "totals")


def fill(engine: Chdb) -> float:
    """Adds the rows, a day of 1,000 Services on 500 nodes; returns seconds."""
    began = time.perf_counter()
    step = HOURS * 3600 * SECOND // ROWS
    for first in range(0, ROWS, BATCH):
        engine.run(
            f"INSERT INTO {TABLE} (Timestamp, Body, Node, Part, Service, Addresses, Session, Number) SELECT "
            f"fromUnixTimestamp64Nano(toInt64({BEGIN} + number * {step})), toString(number), "
            f"concat('node-', toString(number % 500)), {list(PARTS)}[number % 4 + 1], "
            "concat('ns-', toString(intDiv(number, 4) % 20), '/svc-', toString(intDiv(number, 4) % 1000)), "
            "[concat('10.96.', toString(intDiv(intDiv(number, 4) % 1000, 250)), '.', toString(intDiv(number, 4) % 250))], "
            f"7, toUInt32(number / 5000) FROM numbers({first}, {min(BATCH, ROWS - first)}) "
            "SETTINGS insert_allow_materialized_columns = 1, max_insert_threads = 2"
        )
    return time.perf_counter() - began


def questions() -> dict[str, list[tuple[str, dict[str, Value]]]]:
    """For each verb the statements that it asks, for the tenth hour."""
    since = BEGIN + 10 * 3600 * SECOND
    until = since + 3600 * SECOND
    between: dict[str, Value] = {"since": since, "until": until}
    state = [(sql, between) for sql in (WHOLE, COVERS, STATES)]
    asked = {}
    for part in (Part.TRACE, Part.DROPS, Part.DNS):
        request = HistoryRequest(
            since_ns=since, until_ns=until, parts=(part.value, Part.TOTALS.value), addresses=(ADDRESS,)
        )
        asked[part.value] = [*state, records_query(request, frozenset({SERVICE}))]
    everything = HistoryRequest(since_ns=since, until_ns=until, parts=PARTS, addresses=(ADDRESS,))
    asked["diagnose, timeline"] = [*state, records_query(everything, frozenset({SERVICE}))]
    asked["rules, explain"] = state
    return asked


def main() -> None:
    engine = Chdb()
    engine.create()
    engine.run("SET max_threads = 2")
    seconds = fill(engine)
    ((size, parts),) = engine.rows(
        f"SELECT sum(bytes_on_disk), count() FROM system.parts WHERE table = '{TABLE}' AND active", {}
    )
    print(f"{ROWS:,} rows made in {seconds:.0f} s, {int(size) / 1e9:.2f} GB on disk in {parts} parts")
    since = BEGIN + 10 * 3600 * SECOND
    sql = f"SELECT count(), sum(length(Body)) FROM {TABLE} WHERE Timestamp >= fromUnixTimestamp64Nano(toInt64({since})) AND "
    sql += f"Timestamp < fromUnixTimestamp64Nano(toInt64({since + 3600 * SECOND}))"
    began = time.perf_counter()
    engine.rows(sql, {})
    baseline = time.perf_counter() - began
    print(f"baseline, the hour of every Service, counted: {baseline:.2f} s")
    for verb, statements in questions().items():
        began = time.perf_counter()
        rows = sum(len(engine.rows(sql, parameters)) for sql, parameters in statements)
        took = time.perf_counter() - began
        sql, parameters = statements[-1]
        estimate = engine.rows(f"EXPLAIN ESTIMATE {sql}", parameters)
        read = sum(int(row[3]) for row in estimate)
        verdict = "within" if took <= LIMIT_S else "ABOVE"
        print(
            f"{verb:<20} {took:.2f} s ({verdict} {LIMIT_S:g} s, {took / baseline:.2f} of the baseline); "
            f"{rows:,} rows given back, {read:,} of {ROWS:,} in the plan"
        )
    engine.close()


if __name__ == "__main__":
    main()
