"""Reading a node's rules: what may be asked, and the bounds on what is read."""

import sys
import time
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet.agent.node import podrules, rulesets
from kubectl_genainet.agent.serve.limits import check_rulesets_query
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.died import died


def test_connections_are_read_only_where_they_are_asked_for() -> None:
    assert [check_rulesets_query(q) for q in ("", "conntrack=0", "conntrack=1")] == [False, False, True]


@pytest.mark.parametrize("query", ["conntrack=2", "conntrack", "conntrack=1&x=y", "x", "conntrack=1" * 20])
def test_any_other_query_is_refused(query: str) -> None:
    with pytest.raises(InputError, match="is not conntrack=0 or conntrack=1"):
        check_rulesets_query(query)


def run(script: str, **bounds: Any) -> tuple[str, str]:
    return rulesets._run((sys.executable, "-c", script), **bounds)


def test_a_text_of_just_the_bound_is_kept_and_one_more_byte_is_an_error() -> None:
    assert run("print('x' * 99)", most=100) == ("x" * 99 + "\n", "")
    assert run("print('x' * 100)", most=100) == ("", "the ruleset has more than 100 bytes")


def test_a_tool_that_never_stops_talking_is_ended_at_the_bound() -> None:
    started = time.monotonic()
    text, error = run("while True: print('x' * 1000)", most=1 << 20)
    assert (text, error) == ("", "the ruleset has more than 1048576 bytes")
    assert time.monotonic() - started < 10


def test_a_tool_that_fails_says_why_in_its_own_words() -> None:
    assert run("import sys; sys.exit('no such table')") == ("", "no such table")


def test_a_tool_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulesets, "TIMEOUT_S", 0.5)
    assert run("import time; time.sleep(60)")[1].endswith("took more than 0.5 s")


def test_a_tool_that_is_not_there_is_an_error() -> None:
    assert "No such file" in rulesets._run(("no-such-tool", "x"))[1]


def dying(netns: int) -> PacketDropped:
    flow = FiveTuple("10.244.1.7", 40_000, "10.96.0.5", 80, Protocol.TCP)
    return died(flow, netns=netns, location="nf_hook_slow")


def test_what_is_due_at_a_sessions_end_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: SimpleQueue[int] = SimpleQueue()
    inventory: Any = SimpleNamespace(host_inode=1, path_of=wanted.put)
    monkeypatch.setattr(podrules, "AGAIN_S", 1000.0)
    rules = podrules.PodRules("node-1", inventory, lambda _: None, lambda: None)
    rules.see(dying(2))
    assert wanted.get(timeout=10) == 2
    rules.see(dying(2))
    with pytest.raises(Empty):
        wanted.get(timeout=0.1)
    rules.finish()
    assert wanted.get(timeout=10) == 2


def test_hosts_rules_that_were_read_without_a_change_are_told_as_read() -> None:
    told: SimpleQueue[Any] = SimpleQueue()
    rules = podrules.PodRules("node-1", SimpleNamespace(host_inode=1), told.put, lambda: None)  # type: ignore[arg-type]
    rules.see(dying(1))
    read = told.get(timeout=10)
    assert (read.netns, read.dumps) == (1, ())


def test_a_session_without_end_reads_the_rules_of_pods_that_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: SimpleQueue[int] = SimpleQueue()
    inventory: Any = SimpleNamespace(host_inode=1, path_of=wanted.put)
    monkeypatch.setattr(podrules, "MAX_NAMESPACES", 1)
    rules = podrules.PodRules("node-1", inventory, lambda _: None, lambda: None)
    rules.see(dying(2))
    assert wanted.get(timeout=10) == 2
    rules.see(dying(3))
    with pytest.raises(Empty):
        wanted.get(timeout=0.2)
    monkeypatch.setattr(podrules, "FORGET_S", -podrules.AGAIN_S - 10)
    rules.see(dying(3))
    assert wanted.get(timeout=10) == 3
