"""Documented rulesets in a real kernel: packets do what the evaluation says, and --exact names the same rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.exact.node import remove_leftovers
from kubectl_genainet.agent.exact.rules import TABLE
from kubectl_genainet.agent.exact.tracing import ExactTracer
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, Ruleset, RulesetVerdict, evaluate, parse_ruleset
from kubectl_genainet.proxy.evaluator.model import Evaluation, WalkOutcome
from kubectl_genainet.proxy.exact import ExactPath, exact_paths
from kubectl_genainet.wire import FilterEntry
from tests.proxy_traffic import CALLER, Namespace, Traffic, inside

FOLDER = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[3] / "../shared/conformance")) / "kubeproxy"
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no conformance material at {FOLDER}"),
]

OUTSIDE = "192.0.2.10"
CASES = [
    ("nftables/clusterip-general.transaction.txt", "nft"),
    ("nftables/loadbalancer-local-session-affinity.transaction.txt", "nft"),
    ("nftables/loadbalancer-source-ranges.transaction.txt", "nft"),
    ("iptables/loadbalancer-source-ranges.restore.txt", "iptables-nft"),
    ("iptables/loadbalancer-local-session-affinity.restore.txt", "iptables-legacy"),
]


class Loaded:
    """A node with a documented ruleset, its documented endpoints and its node address."""

    def __init__(self, name: str, tool: str) -> None:
        stem = name.rsplit("/", 1)[1].split(".")[0]
        self.case: dict[str, Any] = json.loads((FOLDER / name).with_name(f"{stem}.json").read_text())
        self.tool = tool
        self.node = Namespace("node")
        self.traffic: Traffic | None = None
        try:
            endpoints = {
                (e["ip"], p.get("targetPort", e["port"] if len(s["ports"]) == 1 else p["port"]), p["protocol"])
                for s in self.case["services"]
                for e in s["endpoints"]
                for p in s["ports"]
            }
            self.traffic = Traffic(self.node.name, sorted(endpoints))
            for ip in self.case["node_ips"]:
                inside(self.node.name, "ip", "addr", "add", ip, "dev", "lo")
            inside(self.node.name, "ip", "route", "add", "10.180.0.0/16", "via", "169.254.1.2")
            self._load(FOLDER / name)
        except BaseException:
            self.stop()
            raise

    def _load(self, path: Path) -> None:
        text = path.read_text()
        if self.tool == "nft":
            inside(self.node.name, "nft", "-f", "-", stdin=text)
        else:
            restore = "iptables-legacy-restore" if "legacy" in self.tool else "iptables-restore"
            inside(self.node.name, restore, stdin=text)

    def ruleset(self) -> Ruleset:
        assert self.traffic is not None
        if self.tool == "nft":
            text = inside(self.node.name, "nft", "-j", "list", "ruleset")
        else:
            save = "iptables-legacy-save" if "legacy" in self.tool else "iptables-save"
            text = inside(self.node.name, save, "-c")
        dump = RulesetDump(node="node", t_ns=0, source=self.tool, text=text)
        return parse_ruleset([dump], node_ips=self.traffic.node_ips())

    def flows(self) -> list[dict[str, Any]]:
        """The documented destinations, from outside, from a pod and from the node."""
        targets = {(f["destIP"], f["destPort"], f["protocol"]) for f in self.case["flows"]}
        sources = [("client", OUTSIDE), ("client", CALLER), ("node", self.case["node_ips"][0])]
        return [
            {"from": origin, "src": src, "dst": dst, "dport": port, "protocol": protocol}
            for dst, port, protocol in sorted(targets)
            for origin, src in sources
        ]

    def stop(self) -> None:
        if self.traffic is not None:
            self.traffic.stop()
        self.node.delete()


@pytest.fixture(params=CASES, ids=lambda c: f"{c[1]}-{c[0].split('/')[1].split('.')[0]}")
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    found = Loaded(*request.param)
    yield found
    found.stop()


def _packet(flow: dict[str, Any]) -> Packet:
    return Packet(src=flow["src"], dst=flow["dst"], dport=flow["dport"], protocol=Protocol(flow["protocol"]))


def test_real_packets_end_as_evaluated(loaded: Loaded) -> None:
    assert loaded.traffic is not None
    ruleset, flows = loaded.ruleset(), loaded.flows()
    wrong = []
    for flow, came in zip(flows, loaded.traffic.send(flows), strict=True):
        said = evaluate(ruleset, _packet(flow))
        backends = {b.address: b.masquerade for b in said.backends}
        if came["end"] == "answer":
            right = backends.get(came["backend"]) is (came["seen_as"] != flow["src"])
        else:
            right = said.verdict is not RulesetVerdict.DNAT and (
                came["end"]
                in {RulesetVerdict.REJECT: ("refused", "forbidden"), RulesetVerdict.DROP: ("timeout", "forbidden")}.get(
                    said.verdict, (came["end"],)
                )
            )
        if not right or said.verdict is RulesetVerdict.UNKNOWN:
            wrong.append((flow, came, said.verdict.value, backends))
    assert wrong == []


def test_exact_names_the_rules_of_the_evaluation(loaded: Loaded) -> None:
    assert loaded.traffic is not None
    ruleset = loaded.ruleset()
    flow = next(
        f
        for f in loaded.flows()
        if f["protocol"] == "TCP"
        and f["src"] == OUTSIDE
        and evaluate(ruleset, _packet(f)).verdict is RulesetVerdict.DNAT
    )
    entry = FilterEntry(flow["dst"], flow["dport"], flow["protocol"])
    with ExactTracer("node", [entry], netns=f"/run/netns/{loaded.node.name}") as tracer:
        came = loaded.traffic.send([flow])[0]
        hits = list(tracer.hits(0.5))
    assert came["end"] == "answer"
    syn = exact_paths(ruleset, hits)[0]
    met = [(h.table, h.chain, h.index) for h in hits if h.trace == syn.trace]
    assert syn.unknown == 0, met
    said = [[(r.table, r.chain, r.index) for r in o.rules] for o in evaluate(ruleset, _packet(flow)).outcomes]
    outcome = _outcome_met(evaluate(ruleset, _packet(flow)), syn)
    assert outcome is not None, (met, said)
    assert outcome.backend is not None
    assert outcome.backend.address == came["backend"]
    assert _nothing_left(loaded)


def _outcome_met(evaluation: Evaluation, path: ExactPath) -> WalkOutcome | None:
    """The outcome of the evaluation whose rules are those the packet met; None where there is none."""
    met = [(r.table, r.chain, r.index) for r in path.rules]
    for outcome in evaluation.outcomes:
        said = [(r.table, r.chain, r.index) for r in outcome.rules if r.index and not r.chain.startswith("map ")]
        if said == met:
            return outcome
    return None


def test_a_killed_tracer_leaves_nothing_that_the_next_start_does_not_remove(loaded: Loaded) -> None:
    script = (
        "import sys, time\n"
        "from kubectl_genainet.agent.exact.tracing import ExactTracer\n"
        "from kubectl_genainet.wire import FilterEntry\n"
        "with ExactTracer('node', [FilterEntry('10.0.0.1', 80, 'TCP')], netns=sys.argv[1]):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    netns = f"/run/netns/{loaded.node.name}"
    with subprocess.Popen([sys.executable, "-c", script, netns], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert not _nothing_left(loaded)
        process.kill()
    remove_leftovers(netns)
    deadline = time.monotonic() + 10  # the table goes with the process that owns it, which ends by itself
    while not _nothing_left(loaded):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _nothing_left(loaded: Loaded) -> bool:
    name = loaded.node.name
    legacy = "legacy" in loaded.tool
    trace_rules = "genainet" in inside(name, "iptables-legacy-save", "-t", "raw") if legacy else False
    backend = inside(name, "cat", "/proc/sys/net/netfilter/nf_log/2").strip() if legacy else "nf_log_ipv4"
    return TABLE not in inside(name, "nft", "list", "tables") and not trace_rules and backend != "nfnetlink_log"
