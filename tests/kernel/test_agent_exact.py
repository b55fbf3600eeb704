"""Exact tracing through a served agent on a node of iptables-legacy rules: whoever is killed, no TRACE rule stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kubectl_genainet.agent.exact.node import COMMENT, LOCK_GROUP, Netns, log_group
from kubectl_genainet.agent.exact.rules import TABLE
from kubectl_genainet.agent.exact.tracing import LOG_GROUP, ExactTracer
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest
from tests.kernel.kerneltest import PORT, Row, cache_folder
from tests.kernel.test_agent_lifecycle import Client, listens, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="exact tracing needs root"),
]

FILTERS = tuple(FilterEntry(f"10.88.2.{i}", PORT, "TCP") for i in (2, 3, 4))  # a rule in each of two chains
REQUEST = TraceRequest(filters=FILTERS, probes=(), exact=True, rulesets=False, timeout_s=600)


class LegacyAgent:
    """An agent whose node has a legacy rule, and whose log is a file."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.path, self.log = row, str(folder / "agent.sock"), folder / "log"
        arguments = ["--node", "node", "--socket", self.path, "--host-netns", str(netns.RUN_NETNS / row.router)]
        command = [sys.executable, "-m", "kubectl_genainet.agent.main", "serve", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, "--cache", str(cache_folder())], stderr=log)
        wait_for(lambda: listens(self.path), "the agent's socket")

    def rules(self) -> list[str]:
        saved = self.row.run(self.row.router, "iptables-legacy-save", "-t", "raw")
        return [line for line in saved.splitlines() if "TRACE" in line]

    def backend(self) -> str:
        return self.row.run(self.row.router, "cat", "/proc/sys/net/netfilter/nf_log/2").strip()

    def audit(self, what: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith('{"audit"')]
        return [line for line in lines if line["audit"] == what]

    def tracing(self) -> Client:
        client = Client(self.path, REQUEST)
        client.until(Progress, "attached")
        assert len(self.rules()) == 2 * len(FILTERS)
        return client

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def agent(row: Row, tmp_path: Path) -> Iterator[LegacyAgent]:
    row.run(row.router, "iptables-legacy", "-A", "FORWARD", "-d", "192.0.2.1", "-j", "ACCEPT")
    found = LegacyAgent(row, tmp_path)
    try:
        yield found
    finally:
        found.stop()
        row.run(row.router, "iptables-legacy", "-D", "FORWARD", "-d", "192.0.2.1", "-j", "ACCEPT")


def test_a_killed_worker_leaves_no_rule_and_the_log_says_whose_it_was(agent: LegacyAgent) -> None:
    before = agent.backend()
    client = agent.tracing()
    (worker,) = subprocess.run(
        ["pgrep", "-P", str(agent.process.pid)], capture_output=True, text=True, timeout=10
    ).stdout.split()
    os.kill(int(worker), signal.SIGKILL)
    wait_for(lambda: not agent.rules(), "the end of the rules")
    wait_for(lambda: len(agent.audit("removed")) == 2 * len(FILTERS), "the log")
    assert agent.backend() == before
    (session,) = agent.audit("session")
    assert {line["session"] for line in agent.audit("removed")} == {session["session"]}
    client.close()


def test_what_others_left_goes_with_the_next_session_which_says_whose_it_was(agent: LegacyAgent) -> None:
    """Rules of an agent that was killed after this one's start."""
    left = ("PREROUTING", "-d", "192.0.2.1", "-m", "comment", "--comment", f"{COMMENT} session=ab12", "-j", "TRACE")
    agent.row.run(agent.row.router, "iptables-legacy", "-t", "raw", "-A", *left)
    client = agent.tracing()  # has its own rules, and no other
    wait_for(lambda: agent.audit("removed"), "the log")
    (removed,) = agent.audit("removed")
    assert "session=ab12" in str(removed["what"])
    client.close()


def test_a_killed_agents_rules_are_gone_with_its_next_start(agent: LegacyAgent, tmp_path: Path) -> None:
    before = agent.backend()
    client = agent.tracing()
    (session,) = agent.audit("session")
    agent.stop()
    client.close()
    wait_for(lambda: agent.backend() == "nfnetlink_log", "what the killed one left", 5)
    again = LegacyAgent(agent.row, tmp_path)
    try:
        assert again.rules() == [] and again.backend() == before
        removed = again.audit("removed")
        assert len(removed) == 2 * len(FILTERS)
        assert all(f"session={session['session']}" in str(line["what"]) for line in removed)
    finally:
        again.stop()


def test_two_at_once_do_not_get_each_others_hits(agent: LegacyAgent, tmp_path: Path) -> None:
    client = agent.tracing()
    second = Client(agent.path, REQUEST)
    second.response.begin()
    assert second.response.status == 429 and b"another exact trace runs" in second.response.read()
    second.close()
    with pytest.raises(GenainetError, match="another exact trace runs"):  # of an agent of another installation
        ExactTracer("node", FILTERS, netns=str(netns.RUN_NETNS / agent.row.router)).__enter__()
    (tmp_path / "other").mkdir()
    other = LegacyAgent(agent.row, tmp_path / "other")  # and its start takes nothing from who traces
    other.stop()
    assert len(agent.rules()) == 2 * len(FILTERS)
    client.sock.shutdown(1)
    wait_for(lambda: not agent.rules(), "the end of the rules")
    client.close()


HOLD = f"""
import fcntl, os, socket, time
from kubectl_genainet.agent.exact.messages import NETLINK_NETFILTER, bind_log_group
os.setgroups([]), os.setgid(65534), os.setuid(65534)
held = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)]
held[0].bind("\\0{COMMENT}")
held.append(open("/proc/self/ns/net"))
fcntl.flock(held[-1], fcntl.LOCK_EX)
for group in (0, {LOCK_GROUP}):
    held.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
    held[-1].bind((0, 0))
    try:
        bind_log_group(held[-1], group)
    except PermissionError:
        print("refused", flush=True)
time.sleep(60)
"""


def test_a_process_of_the_nodes_network_without_rights_keeps_nobody_from_tracing(agent: LegacyAgent) -> None:
    """It holds every name and lock that is open to all, and is refused what is not."""
    router = ("nsenter", f"--net={netns.RUN_NETNS / agent.row.router}", "--")
    with subprocess.Popen([*router, sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdout is not None
        assert [attacker.stdout.readline() for _ in range(2)] == ["refused\n"] * 2
        try:
            client = agent.tracing()
            client.sock.shutdown(1)
            wait_for(lambda: not agent.rules(), "the end of the rules")
            client.close()
        finally:
            attacker.kill()


def test_the_log_is_as_before_while_a_rule_is_left_that_says_what_it_was(agent: LegacyAgent) -> None:
    """An agent that is killed while it ends is made good by that rule's comment."""
    before, seen = agent.backend(), list[tuple[int, str]]()

    class Watched(ExactTracer):
        def _delete_legacy(self, tool: str, rule: Sequence[str]) -> None:
            seen.append((len(agent.rules()), agent.backend()))
            super()._delete_legacy(tool, rule)

    with Watched("node", FILTERS, netns=str(netns.RUN_NETNS / agent.row.router)):
        assert agent.backend() == "nfnetlink_log" != before
    assert [count for count, _ in seen] == [*range(2 * len(FILTERS), 0, -1)]
    assert seen[-1] == (1, before)


def test_who_may_not_administer_the_network_is_told_so_and_not_that_another_traces(agent: LegacyAgent) -> None:
    script = "import os; from kubectl_genainet.agent.exact.node import Netns, exclusively; os.setuid(65534); exclusively(Netns())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert "can't trace rules: NFLOG is refused (Operation not permitted)" in done.stderr


def test_records_that_another_program_of_the_node_reads_are_no_empty_trace(agent: LegacyAgent) -> None:
    node = Netns(str(netns.RUN_NETNS / agent.row.router))
    with log_group(node, LOG_GROUP), pytest.raises(GenainetError, match="TRACE records can't be read: NFLOG group 0"):
        ExactTracer("node", FILTERS, netns=node.netns).__enter__()
    assert agent.rules() == [] and agent.backend() != "nfnetlink_log"


def test_tracing_has_begun_once_its_rules_are_there_and_not_only_their_table(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, nft = tmp_path / "nft", shutil.which("nft")
    reads = f'(IFS= read -r table; echo "$table"; sleep 1; exec cat) | exec {nft} "$@"'
    slow.write_text(f'#!/bin/sh\ncase $* in *-i) {reads};; *) exec {nft} "$@";; esac\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    node = Netns(str(netns.RUN_NETNS / row.router))
    with ExactTracer("node", FILTERS, netns=node.netns):
        assert "nftrace set 1" in node.run("nft", "list", "table", "inet", TABLE)
    assert TABLE not in node.run("nft", "list", "tables")


def test_an_nft_that_has_no_end_of_errors_holds_nobody_up(agent: LegacyAgent, tmp_path: Path) -> None:
    nft = tmp_path / "bin" / "nft"
    nft.parent.mkdir()
    listing = '{"nftables": []}'
    nft.write_text(f"#!/bin/sh\ncase $* in *list*) echo '{listing}';; *) exec yes error;; esac\n")
    nft.chmod(0o755)
    tracer = ExactTracer("node", FILTERS, netns=str(netns.RUN_NETNS / agent.row.router))
    path, begun = os.environ["PATH"], time.monotonic()
    os.environ["PATH"] = f"{nft.parent}:{path}"
    try:
        with pytest.raises(GenainetError, match="nft could not make the tracing table"):
            tracer.__enter__()
    finally:
        os.environ["PATH"] = path
    assert time.monotonic() - begun < 60  # two waits of 5 s
    assert agent.rules() == []
