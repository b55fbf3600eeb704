"""The verbs' questions over a billion records in chdb, generated in the engine: about one Service of 1,000, an hour of 24.

Baseline: the same question of a table that is not sorted by Service (the condition is hidden from the index). The limit is 2 s a
question on 2 cores. GENAINET_ROWS is the number of rows; a part of them is made, merged, and attached as often as it takes, so
that a billion needs minutes and little disk. Rows are synthetic, with small bodies: how much is read is measured, not how fast
records are decoded. Block headers are as many as 500 nodes have in that hour.
"""

from __future__ import annotations

import os
import time

from kubectl_genainet.history.select import RecordPart
from kubectl_genainet.run.sources.clickhouse import BLOCKS_AS_ONE, COVERS, STATES, WHOLE, elsewhere_query, records_query
from kubectl_genainet.run.sources.engines import TABLE, Chdb, QueryValue
from kubectl_genainet.wire import HistoryRequest

ROWS = int(os.environ.get("GENAINET_ROWS", "1000000000"))
MADE = 10_000_000  # at most: the others are copies
LIMIT_S = 2.0
SECOND = 1_000_000_000
BEGIN = 1_795_400_000 * SECOND
HOURS = 24
ASKED = BEGIN + 10 * 3600 * SECOND  # the hour that is asked about begins
SERVICE, ADDRESS = "ns-5/svc-5", "10.96.0.5"
CLIENT = "10.96.3.7"  # of the Service: what became of its connections elsewhere is asked for too
PARTS = ("trace", "drops", "dns", "totals")


def fill(engine: Chdb) -> int:
    """Adds the rows, a day of 1,000 Services on 500 nodes; returns how many."""
    made = min(ROWS, MADE)
    step = HOURS * 3600 * SECOND // made
    engine.run(f"CREATE TABLE made AS {TABLE}")
    engine.run(
        "INSERT INTO made (Timestamp, Body, Node, Part, Service, Addresses, Session, Number) SELECT "
        f"fromUnixTimestamp64Nano(toInt64({BEGIN} + number * {step})), toString(number), "
        f"concat('node-', toString(number % 500)), {list(PARTS)}[number % 4 + 1], "
        "concat('ns-', toString(intDiv(number, 4) % 20), '/svc-', toString(intDiv(number, 4) % 1000)), "
        "[concat('10.96.', toString(intDiv(intDiv(number, 4) % 1000, 250)), '.', toString(intDiv(number, 4) % 250))], "
        f"7, toUInt32(number / 5000) FROM numbers({made}) "
        "SETTINGS insert_allow_materialized_columns = 1, max_insert_threads = 2"
    )
    engine.run("OPTIMIZE TABLE made FINAL")
    engine.run(f"SYSTEM STOP MERGES {TABLE}")
    partitions = [day for (day,) in engine.rows("SELECT DISTINCT partition FROM system.parts WHERE table = 'made'", {})]
    for _ in range(max(1, ROWS // made)):
        for day in partitions:
            engine.run(f"ALTER TABLE {TABLE} ATTACH PARTITION '{day}' FROM made")
    _add_headers(engine)
    ((total,),) = engine.rows(f"SELECT count() FROM {TABLE}", {})
    return int(total)


def _add_headers(engine: Chdb) -> None:
    """A block each 5 s on each node, in the hour that is asked about."""
    begin, block = f"{ASKED} + intDiv(number, 500) * 5000000000", "intDiv(number, 500)"
    engine.run(
        f"INSERT INTO {TABLE} (Timestamp, Body, Node, Part, Service, Session, Number) SELECT "
        f"fromUnixTimestamp64Nano(toInt64({begin})), "
        f"concat('[', toString({begin}), ',0,0,0,0,7,', toString({block}), ',\"\",0]'), "
        f"concat('node-', toString(number % 500)), 'cover', '', 7, toUInt32({block}) FROM numbers(360000) "
        "SETTINGS insert_allow_materialized_columns = 1"
    )


def questions() -> dict[str, list[tuple[str, dict[str, QueryValue]]]]:
    """For each verb the statements that it asks, for the tenth hour."""
    since, until = ASKED, ASKED + 3600 * SECOND
    between: dict[str, QueryValue] = {"since": since, "until": until}
    state = [(WHOLE, between), (COVERS, {**between, "blocks": BLOCKS_AS_ONE}), (STATES, between)]
    asked = {}
    for part in (RecordPart.TRACE, RecordPart.DROPS, RecordPart.DNS):
        request = HistoryRequest(
            since_ns=since, until_ns=until, parts=(part.value, RecordPart.TOTALS.value), addresses=(ADDRESS,)
        )
        asked[part.value] = [*state, records_query(request, frozenset({SERVICE}))]
        if part is RecordPart.TRACE:
            asked[part.value].insert(-1, elsewhere_query(request, (CLIENT,)))
    everything = HistoryRequest(since_ns=since, until_ns=until, parts=PARTS, addresses=(ADDRESS,))
    asked["diagnose, timeline"] = [*state, records_query(everything, frozenset({SERVICE}))]
    asked["rules, explain"] = state
    return asked


def main() -> None:
    engine = Chdb()
    engine.create()
    engine.run("SET max_threads = 2")
    began = time.perf_counter()
    total = fill(engine)
    ((size, parts),) = engine.rows(
        f"SELECT sum(bytes_on_disk), count() FROM system.parts WHERE table = '{TABLE}' AND active", {}
    )
    print(
        f"{total:,} rows in {time.perf_counter() - began:.0f} s ({min(ROWS, MADE):,} made, the others attached copies), "
        f"{int(size) / 1e9:.2f} GB in {parts} parts"
    )
    sql, parameters = questions()[RecordPart.TRACE.value][-1]
    began = time.perf_counter()
    engine.rows(sql.replace("Service IN", "materialize(Service) IN"), parameters)
    baseline = time.perf_counter() - began
    print(f"baseline, trace's question without the order by Service: {baseline:.2f} s")
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
            f"{rows:,} rows given back, {read:,} of {total:,} in the plan"
        )
    engine.close()


if __name__ == "__main__":
    main()
