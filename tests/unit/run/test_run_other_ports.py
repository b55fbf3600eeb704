"""`trace` follows a Service's own ports: where it saw nobody, it names the command that tells of clients of another port."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.run.collect import TraceCollector
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.trace import TraceOptions, trace_run

BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "stale-endpoint.gnb"


class Notes(TraceCollector):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def notes_of(target: str, *, silent: bool) -> str:
    """What is noted at the end; `silent`: the nodes were watched and nothing was seen."""
    view = Notes()
    run, _ = trace_run(BundleSource(BUNDLE), parse_target(target), TraceOptions(), lambda _, live: view)
    for event in read_bundle(BUNDLE).events:
        if not silent or isinstance(event, Hello):
            run.take(event)
    status = run.finish(live=True)
    assert (status is ExitStatus.TIMED_OUT) is silent
    return "\n".join(view.notes)


def test_who_calls_another_port_is_found_by_drops() -> None:
    said = notes_of("svc/my-llama-svc", silent=True)
    assert "only its own ports (80) were followed" in said and "kubectl genainet drops svc/my-llama-svc" in said


@pytest.mark.parametrize(("target", "silent"), [("svc/my-llama-svc:80", True), ("svc/my-llama-svc", False)])
def test_nothing_is_said_of_other_ports_where_one_was_asked_for_or_connections_were_seen(
    target: str, silent: bool
) -> None:
    assert "own ports" not in notes_of(target, silent=silent)
