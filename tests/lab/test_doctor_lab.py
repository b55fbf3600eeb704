"""`doctor` on a lab: nothing to complain of while it is sound, and of each incident exactly what is visible."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.incidents import clear_incident, make_incident
from kubectl_genainet.lab.spec import LabSpec, Overlay, ProxyMode
from kubectl_genainet.lab.state import lab_record
from tests.lab.labtest import RunningLab, broken, running

COMMAND = (sys.executable, "-m", "kubectl_genainet")
Found = dict[tuple[str, str], str]  # (check, object) -> severity


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with running(LabSpec(name=f"doctor{os.getpid()}")) as found:
        yield found


@pytest.fixture(scope="module")
def overlay_lab() -> Iterator[RunningLab]:
    spec = LabSpec(name=f"doctorx{os.getpid()}", proxy_mode=ProxyMode.NFTABLES, overlay=Overlay.VXLAN)
    with running(spec) as found:
        yield found


def doctor(lab: RunningLab, *options: str, scope: tuple[str, ...] = ("-A",)) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and the records of the real command."""
    command = [*COMMAND, "doctor", "--lab", lab.name, *scope, "-o", "json", "--measure", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "Traceback" not in done.stderr and "warning" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def name_of(obj: dict[str, str] | None) -> str:
    return "" if obj is None else "/".join(filter(None, (obj["kind"], obj["namespace"], obj["name"])))


def complaints(records: list[dict[str, Any]]) -> Found:
    """Warnings and errors; of a check that speaks of one object twice, the worse."""
    found = [r for r in records if r["kind"] == "finding" and r["severity"] != "info"]
    return {(r["check"], name_of(r["object"])): r["severity"] for r in reversed(found)}


def wait_for(lab: RunningLab, wanted: Found, timeout: float = 60.0, may_say: Collection[tuple[str, str]] = ()) -> Found:
    """What doctor complains of (but for what it may say or not), once that is what is wanted, or at the end of the time:
    counters need packets."""
    deadline = time.monotonic() + timeout
    while True:
        _, records = doctor(lab)
        found = {k: severity for k, severity in complaints(records).items() if k in wanted or k not in may_say}
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


@dataclass(frozen=True)
class Visible:
    """An incident, and the (check, object, severity) of what doctor is to say; `may_say`: (check, object) that depend on what
    was on its way while it was made. "{node}" is the node that it is made on."""

    incident: str
    says: tuple[tuple[str, str, str], ...]
    may_say: tuple[tuple[str, str], ...] = ()


SERVICE, LLAMA_POLICY = "Service/default/my-llama-svc", "NetworkPolicy/default/my-llama-ingress-policy"
BLOCKED = ("policy-blocks-call", "Deployment/default/my-llama-finetuned", "error")
VISIBLE = (
    Visible("no-endpoints", (("service-endpoints", SERVICE, "error"),)),
    Visible("no-local-endpoint", (("external-policy-local", "Service/default/chatbot-ui", "warning"),)),
    Visible("policy-drop", (("policy-peer-nobody", LLAMA_POLICY, "warning"), BLOCKED)),
    Visible("policy-service-port", (("policy-service-port", LLAMA_POLICY, "warning"), BLOCKED)),
    Visible("policy-drop-egress", (("policy-blocks-call", "Deployment/default/chatbot-ui", "error"),)),
    Visible("dns-policy-egress", (("egress-without-dns", "Deployment/default/chatbot-ui", "error"),)),
    Visible("stale-endpoint", (("kube-proxy-drift", SERVICE, "error"),)),
    Visible("nothing-listens", (("service-listener", SERVICE, "error"), ("service-target-port", SERVICE, "warning"))),
    Visible(
        "mtu-blackhole",
        (
            ("mtu-mismatch", "Node/{node}", "error"),
            ("mtu-nodes-differ", "Node/{node}", "warning"),
            ("icmp-blocked", "Node/{node}", "warning"),
        ),
    ),
    Visible("rp-filter", (("reverse-path", "Node/{node}", "error"),)),
    Visible(
        "disagreement",
        (("rule-of-nobody", "Node/{client0}", "warning"), ("rule-of-nobody", "Node/{client1}", "warning")),
        # A node that gets its rule before the client's drops what the client's still lets pass.
        may_say=tuple(("rule-of-nobody", f"Node/node-{number}") for number in (1, 2, 3)),
    ),
    Visible("dns-timeout", (("rule-of-nobody", "Node/{dns}", "warning"),)),
    Visible("conntrack-full", (("conntrack-fill", "Node/{node}", "error"),)),
)


def expected(lab: RunningLab, visible: Visible) -> Found:
    memo = lab.record.incidents[visible.incident].notes
    clients = [p.spec.node_name for p in lab.pods("chatbot-ui")]
    dns = sorted(p.spec.node_name for p in lab.snapshot.pods if p.metadata.labels.get("k8s-app") == "kube-dns")[-1]
    nodes = {"node": memo.get("node", "") if memo else "", "client0": clients[0], "client1": clients[-1], "dns": dns}
    return {(check, obj.format(**nodes)): severity for check, obj, severity in visible.says}


def test_sound_lab_gives_no_warning_and_exit_status_0(lab: RunningLab) -> None:
    status, records = doctor(lab)
    assert (status, complaints(records)) == (0, {})
    recognised = {(name_of(r["object"]), r["role"]) for r in records if r["kind"] == "workload"}
    assert ("Deployment/default/my-llama-finetuned", "model-server") in recognised
    assert ("StatefulSet/default/qdrant", "vector-database") in recognised
    assert ("Deployment/default/chatbot-ui", "application") in recognised
    assert ("Deployment/default/rag-app", "application") in recognised


def test_sound_lab_with_an_overlay_gives_no_warning(overlay_lab: RunningLab) -> None:
    assert complaints(doctor(overlay_lab)[1]) == {}


def test_every_check_that_asks_nodes_has_run_on_the_lab(lab: RunningLab) -> None:
    _, records = doctor(lab)
    outcomes = {r["check"]: r["outcome"] for r in records if r["kind"] == "check"}
    asking = (
        "mtu-mismatch",
        "reverse-path",
        "conntrack-fill",
        "pod-netns-mismatch",
        "pod-device-down",
        "pod-route-missing",
        "node-forwarding-off",
        "kube-proxy-drift",
        "kube-proxy-mode",
        "rule-of-nobody",
        "icmp-blocked",
        "listen-queue",
        "service-listener",
        "listen-loopback",
    )
    assert {name: outcomes[name] for name in asking} == dict.fromkeys(asking, "passed")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("visible", VISIBLE, ids=lambda v: v.incident)
def test_incident_is_found_by_the_checks_that_can_see_it_and_by_no_other(
    visible: Visible, request: pytest.FixtureRequest
) -> None:
    lab: RunningLab = request.getfixturevalue("lab")
    with broken(lab, visible.incident):
        wanted = expected(RunningLab(lab_record(lab.name)), visible)
        assert wait_for(lab, wanted, may_say=visible.may_say) == wanted


def test_lab_is_sound_again_once_every_incident_is_undone(lab: RunningLab) -> None:
    assert wait_for(lab, {}) == {}


HABIT = ("dns-search-waste", "Deployment/default/chatbot-ui")  # the lab's front end asks for a name with too few dots
MEASURED = {
    "dns-timeout": {"dns-stalls", "dns-failures"},
    "dns-slow-upstream": {"dns-latency"},
    "dns-nxdomain-storm": {"dns-nxdomain"},
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("incident", ["dns-slow-upstream"])
def test_measured_dns_of_a_bundle_is_judged(lab: RunningLab, incident: str, tmp_path: Path) -> None:
    bundle = str(tmp_path / "dns.gnb")
    record = ["dns", "--lab", lab.name, "--timeout", "12s", "--record", bundle, "-o", "json"]
    with broken(lab, incident):
        done = subprocess.run([*COMMAND, *record], capture_output=True, text=True, timeout=180)
    assert done.returncode in (0, 1), done.stderr
    shown = subprocess.run(
        [*COMMAND, "doctor", "--from", bundle, "-A", "-o", "json"], capture_output=True, text=True, timeout=180
    )
    records = [json.loads(line) for line in shown.stdout.splitlines()]
    checks = {check for check, _ in complaints(records)} - {HABIT[0], "rule-of-nobody"}
    assert checks == MEASURED[incident]
    assert not [r for r in records if r["kind"] == "not_checked" and "DNS" in r["reason"]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("incident", "time"), [("", "2s"), ("dns-timeout", "12s"), ("dns-nxdomain-storm", "5s")])
def test_dns_is_measured_live_for_the_stated_time(lab: RunningLab, incident: str, time: str) -> None:
    if incident:
        make_incident(lab.name, incident)
    try:
        _, records = doctor(lab, "--measure", time, "--only", "coredns", "--only", "lookups")
    finally:
        if incident:
            clear_incident(lab.name, incident)
    found = {check for check, _ in complaints(records)} - {HABIT[0]}
    assert found == MEASURED.get(incident, set())
    outcomes = {r["check"]: r for r in records if r["kind"] == "check"}
    if not incident:  # nobody could have waited for a resolver's five seconds
        assert outcomes["dns-latency"]["outcome"] == "passed"
        assert outcomes["dns-stalls"]["outcome"] == "not-checked"
        (seconds,) = re.findall(r"was measured for ([0-9.]+) s", outcomes["dns-stalls"]["reasons"][0])
        assert 2 <= float(seconds) < 5  # all nodes are measured for as long, and they do not begin at once


def test_measured_dns_of_no_pod_of_the_namespace_is_not_a_pass(lab: RunningLab) -> None:
    _, records = doctor(lab, "--measure", "1s", "--only", "coredns", scope=("-n", "kube-system"))
    outcomes = {r["check"]: r for r in records if r["kind"] == "check"}
    assert outcomes["dns-latency"]["outcome"] == "not-checked"
    assert outcomes["dns-latency"]["reasons"] == ["no DNS query of a pod in namespace kube-system was measured"]


@pytest.mark.parametrize("incident", ["mtu-blackhole", "rp-filter", "stale-endpoint"])
def test_incident_between_nodes_is_found_through_an_overlay_too(overlay_lab: RunningLab, incident: str) -> None:
    wanted = {"mtu-blackhole": "mtu-mismatch", "rp-filter": "reverse-path", "stale-endpoint": "kube-proxy-drift"}
    with broken(overlay_lab, incident):
        found = complaints(doctor(overlay_lab)[1])
    assert wanted[incident] in {check for check, _ in found}


def test_server_that_listens_elsewhere_is_an_observation_of_its_node(lab: RunningLab) -> None:
    make_incident(lab.name, "nothing-listens")
    try:
        _, records = doctor(lab, "--only", "services")
    finally:
        clear_incident(lab.name, "nothing-listens")
    found = next(r for r in records if r["kind"] == "finding" and r["check"] == "service-listener")
    pods = {p.metadata.name: p.spec.node_name for p in lab.pods("my-llama-finetuned")}
    told = {e["object"]["name"]: e["node"] for e in found["evidence"] if e["object"]["kind"] == "Pod"}
    assert told == pods
    assert {e["certainty"] for e in found["evidence"]} == {"observed"}
    assert {e["statement"] for e in found["evidence"] if e["node"]} == {"listens on TCP port 8080"}


def test_status_is_1_and_can_be_limited_to_what_fails_the_build(lab: RunningLab) -> None:
    with broken(lab, "policy-drop"):
        assert doctor(lab)[0] == 1
        assert doctor(lab, "--fail-on", "error", "--ignore", "policy-blocks-call")[0] == 0
        accepted = ("policy-peer-nobody:default/my-llama-ingress-policy", "policy-blocks-call")
        status, records = doctor(lab, *(word for name in accepted for word in ("--ignore", name)))
        assert (status, complaints(records)) == (0, {})


def test_listen_queue_that_ran_over_is_named_with_its_pod(lab: RunningLab) -> None:
    """The last one: the counter stays for the pod's life."""
    pod = lab.pods("my-llama-finetuned")[-1]
    make_incident(lab.name, "listen-overflow")
    wanted = {("listen-queue", f"Pod/default/{pod.metadata.name}"): "warning"}
    try:
        assert wait_for(lab, wanted) == wanted
    finally:
        clear_incident(lab.name, "listen-overflow")
