"""Every incident of the lab, diagnosed by `trace` from the packets alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kubectl_genainet.lab.incidents import find_incident
from tests.lab.labtest import RunningLab, broken
from tests.lab.tracetest import SLOW, Record, tracing


def hook_of(path: Record) -> str:
    """As lab.incidents spells it."""
    hook = (path["drop"] or {}).get("hook") or ""
    return str(hook).replace("_", "").lower()


def pod_of(path: Record) -> str:
    """The pod that took the connection; "" where that is not known."""
    backend = path["backend"] or {}
    return backend.get("pod") or ""


def matches(path: Record, name: str) -> bool:
    """Whether the path is the diagnosis that the incident promises."""
    expected = find_incident(name).expected
    drop = path["drop"] or {}
    return (
        path["verdict"] == expected.verdict.value
        and drop.get("reason", "") == expected.reason
        and hook_of(path) == expected.hook
        and (str(drop.get("location", "")).partition("+")[0].partition(".")[0] == expected.location)
    )


def began_here(path: Record) -> bool:
    """Whether the trace saw the beginning of an established connection: of an older one it has no translation, and no times."""
    return not path["established"] or path["handshake_ns"] is not None


@dataclass(frozen=True)
class Diagnosis:
    """What the path says beyond what the incident promises. `rule` and `explanation` are parts of the text."""

    certainty: str
    rule: str | None = None
    policies: tuple[str, ...] = ()
    explanation: str = ""
    where: str = "backend"  # whose node or namespace
    findings: tuple[str, ...] = ()
    target: str = "svc/my-llama-svc"
    backend: bool = True


POLICY = ("default/my-llama-ingress-policy",)
DIAGNOSES = {
    "policy-drop": Diagnosis(
        "derived",
        "LAB-POD-",
        POLICY,
        "is isolated for ingress by default/my-llama-ingress-policy, and no rule admits TCP 8080",
    ),
    "policy-service-port": Diagnosis("derived", "LAB-POD-", POLICY, "no rule admits TCP 8080 from default/chatbot-ui"),
    "no-endpoints": Diagnosis(
        "derived",
        "has no endpoints",
        (),
        "has no ready endpoint",
        "client",
        ("no-endpoints", "icmp-error"),
        backend=False,
    ),
    "stale-endpoint": Diagnosis("observed", None, (), "has no route to", "node", ("stale-endpoint",)),
    "nothing-listens": Diagnosis(
        "observed", None, (), "nothing listens on TCP port 8081 in pod default/my-llama", "pod"
    ),
    "mtu-blackhole": Diagnosis(
        "observed", None, (), "is larger than the MTU of the way on", "backend", ("icmp-dropped",)
    ),
    "rp-filter": Diagnosis("observed", None, (), "the reverse path filter of node", "backend"),
    "no-local-endpoint": Diagnosis(
        "derived", "has no local endpoints", (), "has no local endpoints", "any", (), "svc/chatbot-ui", backend=False
    ),
    "conntrack-full": Diagnosis("derived", None, (), "the connection tracking table of node", "backend"),
}


def place_of(path: Record, where: str) -> Callable[[Record], bool]:
    """Where the drop has to be."""
    backend, client = path["backend"] or {"node": "", "pod": ""}, path["flow"]["client"]
    return {
        "backend": lambda d: d["node"] == backend["node"] and d["pod"] is None,
        "pod": lambda d: d["node"] == backend["node"] and d["pod"] == backend["pod"],
        "client": lambda d: d["node"] == client["node"] and d["pod"] is None,
        "node": lambda d: d["node"] is not None and d["pod"] is None,
        "any": lambda d: d["pod"] is None,
    }[where]


@pytest.mark.parametrize("name", DIAGNOSES)
def test_incident_is_diagnosed(lab: RunningLab, name: str) -> None:
    wanted = DIAGNOSES[name]
    with broken(lab, name), tracing(wanted.target, "--lab", lab.name, "--timeout", "300s") as trace:
        path = trace.until(lambda p: matches(p, name) and place_of(p, wanted.where)(p["drop"]) and began_here(p))
        assert trace.stop() == 1
    drop = path["drop"]
    assert (drop["certainty"], tuple(drop["policies"])) == (wanted.certainty, wanted.policies)
    assert wanted.rule is None if drop["rule"] is None else wanted.rule is not None and wanted.rule in drop["rule"]
    assert wanted.explanation in drop["explanation"]
    assert (path["backend"] is not None) is wanted.backend
    assert set(wanted.findings) <= {f["check"] for f in path["findings"]}
    assert set(wanted.findings) <= {f["check"] for f in trace.summary["findings"]}
    assert drop["evidence"][0]["certainty"] == "observed" and drop["evidence"][0]["node"] == drop["node"]
    check_details(name, path, lab)


def check_details(name: str, path: Record, lab: RunningLab) -> None:
    """What only this incident shows."""
    evidence = [e["statement"] for e in path["drop"]["evidence"]]
    match name:
        case "policy-drop":
            assert any("rule 1" in e and "chatbot" in e for e in evidence), evidence
        case "policy-service-port":
            assert any("rule 1" in e and "80" in e and "8080" in e for e in evidence), evidence
        case "no-endpoints":
            assert path["nat"] is None and path["hops"][-1]["dst"].endswith(":80")
        case "stale-endpoint":
            assert path["backend"]["pod"] is None and path["nat"]["endpoint_chain"].startswith("KUBE-SEP-")
            assert "the API knows no pod with that address" in evidence
            assert path["flow"]["client"]["node"] == lab.pods("chatbot-ui")[0].spec.node_name
        case "nothing-listens":
            assert path["backend"]["port"] == 8081 and path["established"] is False
        case "mtu-blackhole":
            assert path["established"] is True and path["response_ns"] is not None, path
            (finding,) = [f for f in path["findings"] if f["check"] == "icmp-dropped"]
            assert "fragmentation needed" in finding["title"] and "in OUTPUT" in finding["title"]
        case "rp-filter":
            assert any(e.endswith("rp_filter = 1") for e in evidence)
            assert path["flow"]["client"]["node"] == lab.pods("chatbot-ui")[0].spec.node_name
        case "conntrack-full":  # of a client of another node: it still has its own translation
            assert any("nf_conntrack_count" in e for e in evidence)
            assert path["nat"] is not None and path["flow"]["client"]["node"] != path["drop"]["node"]
        case "no-local-endpoint":
            assert path["flow"]["client"]["pod"] is None and path["hops"][-1]["dst"].endswith(":30080")


def test_full_connection_table_stops_a_probe_on_its_own_node(lab: RunningLab) -> None:
    """The pods of that node can't even ask for names, so nothing of theirs is seen unless it is made."""
    client = lab.pods("chatbot-ui")[0]
    # Three: an entry of the full table may end at the moment in which one comes.
    probe = ("--check", "--check-count", "3", "--from-pod", client.metadata.name)
    with broken(lab, "conntrack-full"), tracing("svc/my-llama-svc", "--lab", lab.name, *probe) as trace:
        path = trace.until(lambda p: matches(p, "conntrack-full"))
        assert trace.stop() == 1
    assert path["backend"] is None and path["nat"] is None
    assert (path["drop"]["node"], path["drop"]["pod"]) == (client.spec.node_name, None)
    assert path["drop"]["rule"] is None and path["drop"]["certainty"] == "derived"
    assert [h["point"] for h in path["hops"]] == ["tx", "rx"]


def test_slow_backend_is_told_from_a_slow_network(lab: RunningLab) -> None:
    slow = lab.pods("my-llama-finetuned")[-1].metadata.name
    with broken(lab, "slow-backend"), tracing("svc/my-llama-svc", "--lab", lab.name, "--timeout", "300s") as trace:
        # What was open before all nodes watched may have no backend.
        late = trace.until(lambda p: pod_of(p) == slow and (p["response_ns"] or 0) > 700_000_000)
        trace.until(lambda p: pod_of(p) not in ("", slow) and p["response_ns"] is not None)
        assert trace.stop() == 1
    assert late["verdict"] == "forwarded" and late["drop"] is None and late["retransmits"] == 0
    assert late["handshake_ns"] < 100_000_000
    assert {found["check"] for found in trace.summary["findings"]} <= SLOW
    (finding,) = [found for found in trace.summary["findings"] if found["check"] == "slow-backend"]
    assert slow in finding["title"]
    assert finding["object"] == {"kind": "Pod", "name": slow, "namespace": "default"}


def test_healthy_lab_gives_no_finding(lab: RunningLab) -> None:
    with tracing("svc/my-llama-svc", "--lab", lab.name, "--timeout", "300s") as trace:
        for _ in range(4):
            assert trace.until(lambda _: True)["verdict"] == "forwarded"
        trace.stop()
    assert {f["check"] for f in trace.summary["findings"]} <= SLOW
    assert trace.summary["verdicts"] == {"forwarded": len(trace.paths)}


def test_a_policy_that_is_bypassed_is_told_of_what_passes(lab: RunningLab) -> None:
    with broken(lab, "policy-bypassed"), tracing("svc/my-llama-svc", "--lab", lab.name, "--timeout", "300s") as trace:
        path = trace.until(lambda p: any(f["check"] == "policy-not-enforced" for f in p["findings"]))
        assert trace.stop() == 1
    (finding,) = [f for f in path["findings"] if f["check"] == "policy-not-enforced"]
    assert path["verdict"] == "forwarded" and "default/my-llama-ingress-policy does not admit" in finding["title"]


def test_callers_that_cannot_look_the_name_up_are_told(lab: RunningLab) -> None:
    """No connection comes about: what is lost is the callers' query, by their own egress policy."""
    with broken(lab, "dns-policy-egress"), tracing("svc/my-llama-svc", "--lab", lab.name, "--timeout", "300s") as trace:
        path = trace.until(lambda p: p["verdict"] == "dropped" and p["flow"]["protocol"] == "UDP")
        assert trace.stop() == 1
    assert path["flow"]["client"]["workload"] == "chatbot-ui" and path["flow"]["service"]["port"] == 53
    assert path["drop"]["policies"] == ["default/chatbot-ui-egress-policy"]
    remedy = path["drop"]["remedy"]
    assert remedy is None or remedy["command"].endswith(f"--lab {lab.name}")
