"""`drops` on each incident, through the command line: what it says is what was done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.incidents import find_incident
from tests.lab.labtest import RunningLab, broken

Row = dict[str, Any]
SECONDS = 5


def drops(*arguments: str) -> tuple[int, list[Row], Row]:
    """(exit status, rows, summary) of one run with -o json; of a row, the last that was printed."""
    command = (sys.executable, "-m", "kubectl_genainet", "drops", "-o", "json", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode in (0, 1), done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (summary,) = [r for r in records if r["kind"] == "drops_summary"]
    rows = {r["id"]: r for r in records if r["kind"] == "drop"}
    return done.returncode, sorted(rows.values(), key=lambda r: (-r["packets"], r["id"])), summary


@pytest.fixture
def incident(lab: RunningLab, request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The rows while the incident that the test's parameter names is in the lab, all namespaces."""
    with broken(lab, request.param):
        yield found_drops("-A", "--lab", lab.name, check=find_incident(request.param).cause.diagnosis)
    time.sleep(1.5)  # connections that it broke come to their end


def found_drops(*arguments: str, check: str) -> list[Row]:
    """The rows of a run that found this. On a busy machine the clients' next call may be late."""
    return run_that_found(lambda row: row["check"] == check, *arguments)[1]


def run_that_found(wanted: Callable[[Row], bool], *arguments: str) -> tuple[int, list[Row], Row]:
    for seconds in (SECONDS, 3 * SECONDS, 6 * SECONDS):
        status, rows, summary = drops(*arguments, "--timeout", f"{seconds}s")
        if status == 1 and any(map(wanted, rows)):
            return status, rows, summary
    pytest.fail(f"not found: {rows}")


def by_a_rule(row: Row) -> bool:
    return bool(row["check"] == "rule-drop")


def by_a_host_that_has_no_pod(row: Row) -> bool:
    return row["drop"] is not None and row["drop"]["location"].startswith("ip_error")


def of(rows: list[Row], check: str) -> Row:
    found = [r for r in rows if r["check"] == check]
    assert found, f"no row of {check}: {[(r['check'], r['title']) for r in rows]}"
    return found[0]


def statements(row: Row) -> str:
    return "\n".join(e["statement"] for e in row["evidence"])


def workloads(row: Row) -> tuple[str, str]:
    return row["client"]["workload"], row["server"]["workload"]


@pytest.mark.parametrize("incident", ["policy-drop"], indirect=True)
def test_ingress_policy_is_named_with_its_rule_and_the_selector_that_fails(incident: list[Row]) -> None:
    row = of(incident, "policy-drop")
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert (row["service"]["name"], row["service"]["port"], row["server"]["port"]) == ("my-llama-svc", 80, 8080)
    assert (row["outcome"], row["drop"]["reason"], row["drop"]["hook"]) == ("dropped", "NETFILTER_DROP", "FORWARD")
    assert row["node"] == row["server"]["node"]
    assert row["drop"]["policies"] == ["default/my-llama-ingress-policy"]
    assert "LAB-POD-" in row["drop"]["rule"] and row["drop"]["certainty"] == "derived"
    assert (row["policy"]["verdict"], row["policy"]["agreement"]) == ("deny", "agree")
    assert (
        "labels are app.kubernetes.io/name=chatbot-ui; the rule requires app.kubernetes.io/name=chatbot"
        in statements(row)
    )


@pytest.mark.parametrize("incident", ["policy-drop-egress"], indirect=True)
def test_egress_policy_drops_on_the_clients_node(incident: list[Row]) -> None:
    row = of(incident, "policy-drop")
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert row["node"] == row["client"]["node"]
    assert "isolated for egress by default/chatbot-ui-egress-policy" in row["title"]
    assert row["policy"]["agreement"] == "agree"


@pytest.mark.parametrize("incident", ["no-endpoints"], indirect=True)
def test_service_without_endpoints_is_a_reject_that_the_client_was_told_of(incident: list[Row]) -> None:
    row = of(incident, "no-endpoints")
    assert (row["outcome"], row["drop"]["told"]) == ("rejected", "icmp-port-unreachable")
    assert row["service"]["name"] == "my-llama-svc" and row["server"]["pod"] is None
    assert "Service default/my-llama-svc has no ready endpoint" in row["title"]
    assert "KUBE-SERVICES" in row["drop"]["rule"]
    assert "ICMP port unreachable reached pod default/chatbot-ui" in statements(row)
    assert row["policy"] is None  # no backend was chosen: policies have nothing to judge


@pytest.mark.parametrize("incident", ["nothing-listens"], indirect=True)
def test_closed_port_is_refused_by_the_pods_kernel_and_names_the_declared_port(incident: list[Row]) -> None:
    row = of(incident, "closed-port")
    assert (row["outcome"], row["drop"]["reason"], row["server"]["port"]) == ("refused", "NO_SOCKET", 8081)
    assert row["pod"] == f"default/{row['server']['pod']}"
    assert row["drop"]["rule"] is None and row["policy"] is None
    assert "its containers declare 8080" in row["title"]
    assert f"TCP resets sent by pod {row['pod']} (NO_SOCKET)" in statements(row)
    # Of the closed port alone: whatever else runs in the lab may reset connections of its own.
    assert not [r for r in incident if r["outcome"] == "reset" and r["server"]["port"] == row["server"]["port"]]


@pytest.mark.parametrize("incident", ["reset-by-app"], indirect=True)
def test_reset_of_the_application_is_told_from_a_reject_and_a_closed_port(incident: list[Row]) -> None:
    row = of(incident, "reset-by-app")
    assert (row["outcome"], row["drop"]) == ("reset", None)
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert row["pod"] == f"default/{row['server']['pod']}" and row["server"]["port"] == 8080
    assert "No rule and no closed port did" in row["title"]
    assert not [r for r in incident if r["check"] in ("closed-port", "rejected-by-rule", "reset-from-outside")]


@pytest.mark.parametrize("incident", ["listen-overflow"], indirect=True)
def test_full_listen_queue_is_counted_though_no_tracepoint_shows_it(incident: list[Row]) -> None:
    row = of(incident, "listen-overflow")
    assert row["server"]["workload"] == "my-llama-finetuned" and row["pod"] == f"default/{row['server']['pod']}"
    assert "its application does not accept connections" in row["title"]
    grown = next(e for e in row["evidence"] if e["statement"].startswith("TcpExt ListenOverflows grew by"))
    assert grown["value"] == row["packets"] > 0
    assert "in SYN_SENT" in statements(row)


@pytest.mark.parametrize("incident", ["disagreement"], indirect=True)
def test_rule_without_a_policy_disagrees_with_the_api(incident: list[Row]) -> None:
    row = of(incident, "rule-drop")
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert "load test 2023" in row["drop"]["rule"] and row["drop"]["policies"] == []
    assert (row["policy"]["verdict"], row["policy"]["agreement"]) == ("allow", "api-admits")
    assert row["policy"]["causes"] == []  # the rule is the cause, and it is known
    assert not [r for r in incident if r["check"] == "policy-drop"]


@pytest.mark.parametrize("incident", ["rp-filter"], indirect=True)
def test_reverse_path_filter_is_named_with_its_setting(incident: list[Row]) -> None:
    row = of(incident, "rp-filter")
    assert (row["drop"]["reason"], row["drop"]["hook"], row["drop"]["rule"]) == ("IP_RPFILTER", None, None)
    assert "net.ipv4.conf.eth0.rp_filter = 1" in statements(row)
    assert row["client"]["node"] != row["node"] and row["policy"] is None


@pytest.mark.parametrize("incident", ["mtu-blackhole"], indirect=True)
def test_mtu_black_hole_joins_the_drop_with_the_error_that_was_dropped_too(incident: list[Row]) -> None:
    row = of(incident, "mtu-blackhole")
    assert (row["drop"]["reason"], row["direction"]) == ("PKT_TOO_BIG", "reply")
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert row["node"] == row["server"]["node"]
    said = statements(row)
    assert "1300 on eth0" in said
    assert "ICMP fragmentation needed, MTU 1300 was dropped" in said and "in OUTPUT (NETFILTER_DROP)" in said
    (rule,) = [
        e for e in row["evidence"] if e["statement"].startswith("the ICMP error is dropped by filter OUTPUT rule")
    ]
    assert "hardening: no icmp errors" in rule["statement"] and rule["certainty"] == "derived"


@pytest.mark.parametrize("incident", ["conntrack-full"], indirect=True)
def test_full_connection_table_is_counted_and_explains_the_drops(incident: list[Row]) -> None:
    counted = next(r for r in incident if r["check"] == "conntrack-full" and r["drop"] is None)
    grown = next(e for e in counted["evidence"] if e["statement"].startswith("conntrack -S: drop grew by"))
    assert grown["value"] == counted["packets"] > 0
    row = next(r for r in incident if r["check"] == "conntrack-full" and r["drop"] is not None)
    assert row["node"] == counted["node"]
    assert (row["drop"]["hook"], row["drop"]["rule"]) == ("PRE_ROUTING", None)


def test_policy_that_is_bypassed_shows_as_connections_that_pass(lab: RunningLab) -> None:
    with broken(lab, "policy-bypassed"):
        rows = found_drops("-A", "--lab", lab.name, check="policy-not-enforced")
    row = of(rows, "policy-not-enforced")
    assert (row["outcome"], row["drop"]) == ("passed", None)
    assert workloads(row) == ("chatbot-ui", "my-llama-finetuned")
    assert (row["policy"]["verdict"], row["policy"]["agreement"]) == ("deny", "api-isolates")
    assert row["policy"]["policies"] == ["default/my-llama-ingress-policy"]
    assert len(row["policy"]["causes"]) == 3


def test_healthy_lab_has_nothing_to_say(lab: RunningLab) -> None:
    time.sleep(2)
    status, rows, summary = drops("-A", "--lab", lab.name, "--timeout", "5s")
    assert [(r["check"], r["title"]) for r in rows if r["severity"] != "info"] == []
    assert status == 0
    assert summary["lost"] == [] and summary["events"]["lost"] == 0
    assert summary["nodes"] == ["node-1", "node-2", "node-3"]


def test_target_narrows_and_a_bundle_says_the_same(lab: RunningLab, tmp_path: Path) -> None:
    bundle = tmp_path / "drops.gnb"
    with broken(lab, "disagreement"):
        live = run_that_found(by_a_rule, "svc/my-llama-svc", "--lab", lab.name, "--record", str(bundle))
        elsewhere = drops("svc/qdrant", "--lab", lab.name, "--timeout", "4s")
    assert {workloads(r) for r in live[1] if by_a_rule(r)} == {("chatbot-ui", "my-llama-finetuned")}
    assert [r for r in elsewhere[1] if by_a_rule(r)] == []
    replayed = drops("svc/my-llama-svc", "--from", str(bundle))
    assert replayed[0] == 1
    assert replayed[1] == live[1]
    assert replayed[2] == live[2]


def test_target_takes_in_what_old_rules_send_to_no_endpoint(lab: RunningLab) -> None:
    with broken(lab, "stale-endpoint"):
        _, rows, _ = run_that_found(by_a_host_that_has_no_pod, "svc/my-llama-svc", "--lab", lab.name)
    assert {r["server"]["port"] for r in rows if by_a_host_that_has_no_pod(r)} == {8080}
