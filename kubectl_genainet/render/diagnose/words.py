"""The sentences of a diagnosis that every output shares."""

from __future__ import annotations

from kubectl_genainet.model.finding import Severity, counted, listed
from kubectl_genainet.model.results.diagnosis import Cause, CheckState, Conclusion, Symptom

AT_START_S = 2.5  # what is seen so early was there before the watch began
STATE_WORDS = {CheckState.FINE: "fine", CheckState.FAULTY: "at fault", CheckState.NOT_CHECKED: "not checked"}


def headline(conclusion: Conclusion) -> str:
    """The result in one line."""
    causes = [c for c in conclusion.causes if c.severity is not Severity.INFO]
    connections, seconds = counted(conclusion.connections, "connection"), f"{conclusion.seconds:g} s"
    if conclusion.queries is None:
        totals = f"{connections} in {seconds}; DNS was not watched"
    else:
        totals = f"{connections} and {counted(conclusion.queries, 'DNS query')} in {seconds}"
    if causes:
        return f"{conclusion.target}: {counted(len(causes), 'cause')} found; {totals}"
    if not conclusion.connections and not conclusion.queries:
        return f"{conclusion.target}: nothing was seen in {conclusion.seconds:g} s, so nothing can be said"
    return f"{conclusion.target}: nothing wrong was seen; {totals}"


def who(cause: Cause) -> str:
    """Whom a cause hits, how much, and since when."""
    clients, backends = listed(cause.clients), listed(cause.backends)
    flow = f"{clients} → {backends}" if clients and backends else clients or backends
    parts = [flow, "" if cause.unit == "findings" else amount(cause.count, cause.unit), since(cause)]
    return "; ".join(part for part in parts if part)


def amount(count: int, unit: str) -> str:
    """ "3 connections", "1 query"."""
    if count != 1:
        return f"{count} {unit}"
    return "1 query" if unit == "queries" else f"1 {unit.removesuffix('s')}"


def also_felt(symptom: Symptom) -> str:
    """A symptom below its cause; findings are over the whole watch, and not counted."""
    number = "" if symptom.unit == "findings" else f" ({amount(symptom.count, symptom.unit)})"
    return f"also felt: {symptom.title}{number}"


def the_same_in(cause: Cause) -> str:
    return f"the same in {listed(cause.elsewhere)}"


def since(cause: Cause) -> str:
    if cause.first_s is None:
        return ""
    return (
        "from the start of the watch"
        if cause.first_s <= AT_START_S
        else f"first seen {cause.first_s:.0f} s into the watch"
    )
