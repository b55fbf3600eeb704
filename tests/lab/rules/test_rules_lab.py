"""`rules` on a lab, by the command itself: what it shows is what the nodes have, and what is wrong is found."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kubectl_genainet.agent.exact.rules import TABLE
from kubectl_genainet.cli import cli
from kubectl_genainet.lab.change import changing
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.datapath.kube_proxy_nft import write_nftables
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, ProxyMode
from kubectl_genainet.proxy.cleanup import cleanup
from tests.lab.labtest import RunningLab, broken, running

SERVICE = "svc/my-llama-svc"
PORT = "default/my-llama-svc:http"
CLI = [sys.executable, "-m", "kubectl_genainet"]
NODES = ("node-1", "node-2", "node-3")


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def items(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [item for item in self.items if item["kind"] == "rules"]

    def findings(self) -> dict[str, list[str]]:
        """The findings' titles by check."""
        found: dict[str, list[str]] = {}
        for item in self.items:
            if item["kind"] == "finding":
                found.setdefault(item["check"], []).append(item["title"])
        return found


def rules(lab: RunningLab, *argv: str) -> Answer:
    done = subprocess.run(
        [*CLI, "rules", "--lab", lab.name, *argv],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "400"},
    )
    assert done.returncode in (0, 1, 124), done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def by_iptables(quiet_manifests: Path) -> Iterator[RunningLab]:
    with running(LabSpec(name=f"rules{uuid.uuid4().hex[:8]}", manifests=str(quiet_manifests))) as lab:
        yield lab


@pytest.fixture(scope="module")
def by_nftables(quiet_manifests: Path) -> Iterator[RunningLab]:
    spec = LabSpec(
        name=f"rules{uuid.uuid4().hex[:8]}",
        manifests=str(quiet_manifests),
        proxy_mode=ProxyMode.NFTABLES,
        families=(AddressFamily.IPV4, AddressFamily.IPV6),
    )
    with running(spec) as lab:
        yield lab


@pytest.fixture(params=["by_iptables", "by_nftables"])
def lab(request: pytest.FixtureRequest) -> RunningLab:
    found: RunningLab = request.getfixturevalue(request.param)
    return found


@contextlib.contextmanager
def rules_put_back(lab: RunningLab) -> Iterator[None]:
    """Has the nodes' rules written anew at the end."""
    try:
        yield
    finally:
        with changing(lab.name) as change:
            change.sync()


def restore(lab: RunningLab, node: str, text: str, *command: str) -> None:
    path = f"/run/netns/{lab.record.nodes[node]}"
    subprocess.run(["nsenter", f"--net={path}", *command], input=text, text=True, check=True, timeout=20)


def connect(lab: RunningLab, count: int) -> str:
    """Connections from a chatbot to each address of the Service; returns the client's node."""
    client = lab.pods("chatbot-ui")[0]
    for ip in lab.service("my-llama-svc").cluster_ips:
        for _ in range(count):
            assert lab.get(client, ip, 80)[0] == 200
    return client.spec.node_name


def endpoints(lab: RunningLab) -> set[str]:
    return {f"[{ip}]:8080" if ":" in ip else f"{ip}:8080" for p in lab.pods("my-llama-finetuned") for ip in p.ips}


def address(row: dict[str, Any]) -> str:
    ip, port = row["address"]["ip"], row["address"]["port"]
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_rows_have_every_node_and_address_with_the_chains_that_the_nodes_have(lab: RunningLab) -> None:
    answer = rules(lab, SERVICE, "-o", "json")
    assert (answer.status, answer.findings()) == (0, {})
    vips = {f"[{ip}]:80" if ":" in ip else f"{ip}:80" for ip in lab.service("my-llama-svc").cluster_ips}
    assert {(r["node"], address(r)) for r in answer.rows} == {(node, vip) for node in NODES for vip in vips}
    for row in answer.rows:
        assert (row["service"], row["mode"], row["state"]) == (PORT, lab.record.spec.proxy_mode.value, "in step")
        programmed = {f"[{b['ip']}]:8080" if ":" in b["ip"] else f"{b['ip']}:8080" for b in row["address"]["backends"]}
        assert programmed == {e for e in endpoints(lab) if ("[" in e) == ("[" in address(row))}
        assert row["expected"] == len(programmed) == 3
        listed = lab.node_output(row["node"], "sh", "-c", "iptables-save; nft list ruleset")
        for chain in (row["address"]["chain"], *(b["chain"] for b in row["address"]["backends"])):
            assert f" {chain} " in listed


@pytest.mark.parametrize("output", ["table", "wide", "tree", "yaml"])
def test_every_output_names_chain_and_state(lab: RunningLab, output: str) -> None:
    answer = rules(lab, SERVICE, "-o", output)
    assert answer.status == 0
    if output == "yaml":
        assert list(yaml.safe_load_all(answer.out)) == rules(lab, SERVICE, "-o", "json").items
        return
    assert answer.out.count("in step") == (6 if lab.record.spec.proxy_mode is ProxyMode.NFTABLES else 3)
    # A wide table may break a long name over two lines.
    assert "my-llama-svc" in answer.out
    if output == "tree":
        assert all(e in answer.out for e in endpoints(lab))
        assert "33%" in answer.out
    if output == "wide":
        columns = answer.out.splitlines()[0].split()
        assert {"CONNTRACK", "SOURCE", "BACKENDS"} <= set(columns)


def test_all_services_of_a_sound_lab_are_in_step(lab: RunningLab) -> None:
    answer = rules(lab, "-o", "json")
    assert (answer.status, answer.findings()) == (0, {})
    assert {r["service"] for r in answer.rows} >= {PORT, "default/chatbot-ui:http", "kube-system/kube-dns:dns"}
    external = "loadBalancer" if lab.record.spec.proxy_mode is ProxyMode.IPTABLES else "external"
    assert {r["address"]["via"] for r in answer.rows} == {"clusterIP", external, "nodePort"}


def test_one_node_is_asked_for_by_name(lab: RunningLab) -> None:
    assert {r["node"] for r in rules(lab, SERVICE, "--node", "node-2", "-o", "json").rows} == {"node-2"}


# --- how often --------------------------------------------------------------------------------------------------------


def test_hits_are_the_connections_between_the_readings(lab: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    callers: list[str] = []
    connecting = SimpleNamespace(sleep=lambda _seconds: callers.append(connect(lab, 7)))
    monkeypatch.setattr("kubectl_genainet.run.rules.time", connecting)  # in place of the time between the readings
    done = CliRunner().invoke(cli, ["rules", SERVICE, "--lab", lab.name, "--hits", "4", "-o", "json"])
    (node,) = callers
    for row in Answer(done.exit_code, done.stdout, done.stderr).rows:
        hits = row["address"]["packets"] if row["mode"] == "iptables" else row["begun"]
        assert hits == (7 if row["node"] == node else 0), row
        assert row["begun"] == hits


def test_conntrack_column_counts_the_connections_that_the_node_holds(lab: RunningLab) -> None:
    node = connect(lab, 3)
    for row in rules(lab, SERVICE, "-o", "json").rows:
        dst = re.escape(row["address"]["ip"])
        family = "ipv6" if ":" in row["address"]["ip"] else "ipv4"
        listed = lab.node_output(row["node"], "conntrack", "-L", "-f", family)
        held = len(re.findall(rf"^tcp .*?src=\S+ dst={dst} sport=\d+ dport=80 src=", listed, re.M))
        assert row["conntrack"] == held
        assert (held >= 3) == (row["node"] == node)


def test_exact_counts_the_packets_of_each_rule_and_leaves_nothing(lab: RunningLab) -> None:
    tracing = subprocess.Popen(
        [*CLI, "rules", SERVICE, "--lab", lab.name, "--exact", "15", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    listed = ("sh", "-c", f"nft list table inet {TABLE} 2>&1; true")
    while not all("nftrace set 1" in lab.node_output(node, *listed) for node in NODES):
        assert tracing.poll() is None, "no tracing table on some node"
        time.sleep(0.1)
    node = connect(lab, 6)
    out, err = tracing.communicate(timeout=180)
    assert (tracing.returncode, "warning" in err) == (0, False), err
    rows = rules(lab, SERVICE, "-o", "json").rows
    mine = [r["address"] for r in rows if r["node"] == node]
    counts = {(i["node"], i["rule"]["chain"]): i["packets"] for i in Answer(0, out, "").items if i["rule"]}
    assert {n for n, _ in counts} == {node}
    for at in mine:  # one packet of each connection meets nat rules
        # With a map of endpoints (nftables) the backends share the Service's chain.
        chosen = sum(counts.get((node, chain), 0) for chain in {b["chain"] for b in at["backends"]})
        assert chosen == 6, counts
    for name in NODES:
        assert TABLE not in lab.node_output(name, "nft", "list", "tables")


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_stale_endpoint_is_found_on_its_node_with_its_age(lab: RunningLab) -> None:
    before, began = endpoints(lab), time.monotonic()
    with broken(lab, "stale-endpoint"):
        gone = before - endpoints(lab)
        time.sleep(1.1)
        answer = rules(lab, SERVICE, "-o", "json")
        at_most_s = time.monotonic() - began + 1  # times are told to the second
        node = lab.record.lagging or ["node-1"]
    found = answer.findings()
    # Connections to the endpoint that went, from before, may still be in a node's connection table.
    assert (answer.status, sorted(found.keys() - {"stale-connection"})) == (
        1,
        ["nodes-disagree", "stale-endpoint-rules"],
    )
    (title,) = found["stale-endpoint-rules"]
    assert f"node {node[0]} still sends to" in title
    assert all(e in title for e in gone)
    age = re.search(r"the last change is (\d+) s old", title)
    assert age is not None
    assert 1 <= int(age[1]) <= at_most_s
    states = {r["node"]: r["state"] for r in answer.rows}
    assert states[node[0]].startswith("stale endpoints, nodes disagree")
    assert rules(lab, SERVICE).status == 0  # cleared


def test_no_endpoints_is_what_the_api_says_until_a_node_lags(lab: RunningLab) -> None:
    saved = lab.node_output("node-2", "sh", "-c", "iptables-save; nft list ruleset")
    with broken(lab, "no-endpoints"), rules_put_back(lab):
        answer = rules(lab, SERVICE, "-o", "json")
        assert (answer.status, answer.findings()) == (0, {})
        assert {(r["address"]["verdict"], r["expected"]) for r in answer.rows} == {("REJECT", 0)}
        if lab.record.spec.proxy_mode is ProxyMode.IPTABLES:
            restore(lab, "node-2", saved.partition("\ntable ")[0], "iptables-restore")
            answer = rules(lab, SERVICE, "-o", "json")
            assert answer.status == 1
            assert {"nodes-disagree", "stale-endpoint-rules"} <= set(answer.findings())
            assert all("node-2" in title for title in answer.findings()["stale-endpoint-rules"])


def test_a_node_without_the_services_rules_is_named(lab: RunningLab) -> None:
    vip = lab.service("my-llama-svc").cluster_ips[0]
    with rules_put_back(lab):
        if lab.record.spec.proxy_mode is ProxyMode.NFTABLES:
            lab.node_output(
                "node-3", "nft", "delete", "element", "ip", "kube-proxy", "service-ips", f"{{ {vip} . tcp . 80 }}"
            )
        else:
            chain = rules(lab, SERVICE, "-o", "json").rows[0]["address"]["chain"]
            saved = lab.node_output("node-3", "iptables-save", "-t", "nat").splitlines(keepends=True)
            without = "".join(line for line in saved if not (line.startswith("-A KUBE-SERVICES") and chain in line))
            restore(lab, "node-3", without, "iptables-restore")
        answer = rules(lab, SERVICE, "-o", "json")
        (title,) = answer.findings()["service-without-rules"]
        assert (answer.status, title) == (
            1,
            f"node node-3 has no rules for {vip}:80 (TCP) of Service default/my-llama-svc",
        )
    assert rules(lab, SERVICE).status == 0


def test_rules_of_a_service_that_is_gone_are_found(by_iptables: RunningLab) -> None:
    lab = by_iptables
    extra = (
        "*nat\n:KUBE-SVC-GENAINETGONE0000 - [0:0]\n:KUBE-SEP-GENAINETGONE0000 - [0:0]\n"
        '-A KUBE-SERVICES -d 10.96.77.77/32 -p tcp -m comment --comment "default/gone:http cluster IP" -m tcp '
        "--dport 80 -j KUBE-SVC-GENAINETGONE0000\n"
        '-A KUBE-SVC-GENAINETGONE0000 -m comment --comment "default/gone:http" -j KUBE-SEP-GENAINETGONE0000\n'
        '-A KUBE-SEP-GENAINETGONE0000 -p tcp -m comment --comment "default/gone:http" -m tcp -j DNAT '
        "--to-destination 10.244.9.9:80\nCOMMIT\n"
    )
    with rules_put_back(lab):
        restore(lab, "node-1", extra, "iptables-restore", "--noflush")
        found = rules(lab, "-o", "json").findings()
        assert list(found) == ["rules-without-service"]
        assert "default/gone:http" in found["rules-without-service"][0]


def test_rules_of_an_old_mode_are_found(by_iptables: RunningLab) -> None:
    lab = by_iptables
    node = next(n for n in lab.snapshot.nodes if n.metadata.name == "node-2")
    family = AddressFamily.IPV4
    old = ProxyNode("node-2", family, node.ips, family.cluster_cidr, family.service_cidr)
    restore(lab, "node-2", write_nftables(lab.snapshot, old), "nft", "-f", "-")
    try:
        answer = rules(lab, SERVICE, "-o", "json")
    finally:
        lab.node_output("node-2", "sh", "-c", cleanup(["nft ip"]))
    assert answer.status == 1
    assert rules(lab, SERVICE).status == 0
    assert answer.findings() == {
        "leftover-proxy-rules": ["node node-2 has rules of several kube-proxy modes: packets meet the older ones too"]
    }
    assert sorted((r["node"], r["mode"]) for r in answer.rows) == [
        ("node-1", "iptables"),
        ("node-2", "iptables"),
        ("node-2", "nftables"),
        ("node-3", "iptables"),
    ]


def test_rules_of_the_other_iptables_variant_are_found(by_iptables: RunningLab) -> None:
    lab = by_iptables
    saved = lab.node_output("node-3", "iptables-save", "-t", "nat")
    restore(lab, "node-3", saved, "iptables-legacy-restore")
    try:
        answer = rules(lab, SERVICE, "-o", "json")
        lab.node_output("node-3", "sh", "-c", cleanup(["iptables-legacy"]))
        after = rules(lab, SERVICE)
    finally:
        lab.node_output("node-3", "sh", "-c", "iptables-legacy -t nat -F; iptables-legacy -t nat -X")
    assert (answer.status, after.status) == (1, 0)
    (title,) = answer.findings()["leftover-proxy-rules"]
    assert title.startswith("node node-3 has iptables rules in both iptables-legacy and iptables-nft")


def test_a_node_without_any_rules_is_found(by_nftables: RunningLab) -> None:
    lab = by_nftables
    with rules_put_back(lab):
        for family in ("ip", "ip6"):
            lab.node_output("node-1", "nft", "delete", "table", family, "kube-proxy")
        answer = rules(lab, SERVICE, "-o", "json")
    assert (answer.status, answer.findings()) == (1, {"no-proxy-rules": ["node node-1 has no rules of kube-proxy"]})
    assert rules(lab, SERVICE).status == 0


# --- trace --exact ----------------------------------------------------------------------------------------------------


def traced(lab: RunningLab) -> list[dict[str, Any]]:
    """The paths of connections that the agents open from a chatbot, each watched from its beginning."""
    client = lab.pods("chatbot-ui")[0].metadata.name
    argv = [*CLI, "trace", SERVICE, "--lab", lab.name, "--exact", "--check", "--check-count", "1", "--from-pod", client]
    for _ in range(3):  # on a busy machine, agents may be too late for a connection's beginning
        done = subprocess.run([*argv, "-o", "json"], capture_output=True, text=True, timeout=180, check=False)
        for name in NODES:
            assert TABLE not in lab.node_output(name, "nft", "list", "tables")
        paths = [item for item in map(json.loads, done.stdout.splitlines()) if item["kind"] == "path"]
        if paths:
            return paths
    pytest.fail(done.stderr)


def test_trace_exact_observes_the_chains_of_the_translation(by_iptables: RunningLab) -> None:
    lab = by_iptables
    rows = rules(lab, SERVICE, "-o", "json").rows
    chains = {(a["chain"], b["chain"]): b["ip"] for r in rows for a in [r["address"]] for b in a["backends"]}
    for path in traced(lab):
        nat = path["nat"]
        assert nat["certainty"] == "observed"
        assert chains[nat["service_chain"], nat["endpoint_chain"]] == path["backend"]["ip"]


def test_trace_exact_observes_the_rule_behind_a_drop(by_nftables: RunningLab) -> None:
    lab = by_nftables
    with broken(lab, "policy-drop"):
        paths = traced(lab)
    for path in paths:
        drop = path["drop"]
        assert (path["verdict"], path["nat"]["certainty"]) == ("dropped", "observed")
        assert (drop["rule_certainty"], drop["certainty"]) == ("observed", "derived")
        assert "LAB-POD-" in drop["rule"]
        assert "-j DROP" in drop["rule"]
        assert drop["policies"] == ["default/my-llama-ingress-policy"]
