"""`diagnose` names the cause of every incident first, in one command, and finds nothing in a healthy lab."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_genainet.lab.incidents import incidents
from tests.lab.labtest import RunningLab, broken
from tests.lab.tracetest import genainet

LLAMA = "svc/my-llama-svc"
# incident -> (what the user asks about, the first cause, a part of its title)
FIRST_CAUSE = {
    "conntrack-full": (LLAMA, "conntrack-full", "connection tracking table of node"),
    "disagreement": (LLAMA, "rule-drop", "load test 2023"),
    "dns-nxdomain-storm": ("deploy/chatbot-ui", "dns-nxdomain-storm", "vector-db.prod.internal"),
    "dns-policy-egress": (LLAMA, "policy-drop", "isolated for egress by default/chatbot-ui-egress-policy"),
    "dns-slow-upstream": (LLAMA, "dns-slow-upstream", "waits for its upstream"),
    "dns-timeout": (LLAMA, "rule-drop", "hardening: block udp"),
    "listen-overflow": (LLAMA, "listen-overflow", "listen queue of pod default/my-llama-finetuned"),
    "mtu-blackhole": (LLAMA, "mtu-blackhole", "larger than the MTU"),
    "ndots-waste": ("deploy/rag-app", "dns-ndots-waste", "default/rag-app are wasted on search domains"),
    "no-endpoints": (LLAMA, "no-endpoints", "has no ready endpoint"),
    "no-local-endpoint": ("svc/chatbot-ui", "kube-proxy-drop", "has no local endpoints"),
    "nothing-listens": (LLAMA, "closed-port", "nothing listens on TCP port 8081"),
    "pinned-connections": (LLAMA, "pinned-connection", "one connection carries"),
    "policy-bypassed": (LLAMA, "policy-not-enforced", "default/my-llama-ingress-policy does not admit"),
    "policy-drop": (LLAMA, "policy-drop", "isolated for ingress by default/my-llama-ingress-policy"),
    "policy-drop-egress": (LLAMA, "policy-drop", "isolated for egress by default/chatbot-ui-egress-policy"),
    "policy-service-port": (LLAMA, "policy-drop", "isolated for ingress by default/my-llama-ingress-policy"),
    "reset-by-app": (LLAMA, "reset-by-app", "reset the connection after the handshake"),
    "rp-filter": (LLAMA, "rp-filter", "reverse path filter of node"),
    "slow-first-token": (LLAMA, "slow-first-token", "nothing came for 3.0 s"),
    "slow-backend": (LLAMA, "slow-backend", "answers slowly"),
    "stream-reset": (LLAMA, "reset-by-app", "midway through its answer"),
    "stream-stall": (LLAMA, "stream-stalled", "4.0 s of silence in the middle of its reply"),
    "stale-endpoint": (LLAMA, "stale-endpoint", "10.244."),
}


# A stream is judged once it is over, and those of these incidents last five seconds.
LONGER = {"stream-stall": "16s", "slow-first-token": "16s"}


def diagnosis(lab: RunningLab, target: str, seconds: str = "8s") -> tuple[int, dict[str, Any]]:
    done = genainet("diagnose", target, "--lab", lab.name, "--for", seconds, "-o", "json", timeout=90)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_incident_that_names_a_cause_is_here() -> None:
    assert incidents().keys() - FIRST_CAUSE.keys() == set()


@pytest.mark.parametrize("name", FIRST_CAUSE)
def test_the_cause_of_an_incident_comes_first(lab: RunningLab, name: str) -> None:
    target, check, words = FIRST_CAUSE[name]
    with broken(lab, name):
        status, found = diagnosis(lab, target, LONGER.get(name, "8s"))
    causes = [(cause["check"], cause["title"]) for cause in found["causes"]]
    # A client that waits for the pod that is gone opens no connection meanwhile: then the node's rules tell it alone.
    also = "stale-endpoint-rules" if check == "stale-endpoint" else check
    assert causes and causes[0][0] in (check, also), causes
    assert words in causes[0][1]
    assert status == 1


def test_a_healthy_lab_gives_no_cause(lab: RunningLab) -> None:
    status, found = diagnosis(lab, LLAMA)
    assert (status, found["causes"]) == (0, [])
    assert {c["what"]: c["state"] for c in found["checked"]} == dict.fromkeys(
        ("dns", "policies", "endpoints", "rules", "mtu", "conntrack", "nodes"), "fine"
    )
    assert found["callers"]["default/chatbot-ui"] > 0


def test_two_incidents_at_once_are_two_causes(lab: RunningLab) -> None:
    with broken(lab, "policy-drop"), broken(lab, "dns-timeout"):
        _, found = diagnosis(lab, LLAMA)
    assert {cause["check"] for cause in found["causes"]} >= {"policy-drop", "rule-drop"}
