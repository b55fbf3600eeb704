"""`trace deploy/NAME` and `pod/NAME`: of pods that ask as well as answer, who is asked is told as the listening sockets say."""

from __future__ import annotations

import pytest

from kubectl_genainet.lab.datapath import netns
from tests.lab.labtest import RunningLab
from tests.lab.tracetest import tracing

_LISTEN = "0A"  # of /proc/net/tcp, include/net/tcp_states.h
DNS = 53


def listening(lab: RunningLab) -> set[int]:
    """TCP ports on which any pod listens."""
    found = set()
    for namespace in lab.record.pods.values():
        with netns.inside(namespace), open("/proc/thread-self/net/tcp") as file:
            rows = [line.split() for line in file.read().splitlines()[1:]]
        found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}
    return found


@pytest.mark.parametrize("target", ["deploy/rag-app", "pod/{}"])
def test_what_a_traced_pod_is_answered_is_no_connection_to_it(lab: RunningLab, target: str) -> None:
    (pod, *_) = lab.pods("rag-app")
    with tracing(target.format(pod.metadata.name), "--lab", lab.name, "--timeout", "12s") as trace:
        trace.stop(None, timeout=180)
    ports = listening(lab)
    asked = {(p["flow"]["protocol"], p["backend"]["port"]) for p in trace.paths if p["backend"]}
    assert {protocol for protocol, _ in asked} == {"TCP", "UDP"}, trace.errors
    assert {port for protocol, port in asked if protocol == "TCP"} <= ports
    assert {port for protocol, port in asked if protocol == "UDP"} == {DNS}
    assert all(p["flow"]["client"]["port"] not in {*ports, DNS} for p in trace.paths)
    assert all(p["handshake_ns"] is None or p["handshake_ns"] > 0 for p in trace.paths)
    backends = [b["backend"] for b in trace.summary["backends"] if b["backend"]]
    assert len(backends) == len({(b["ip"], b["port"]) for b in backends}) and {b["port"] for b in backends} <= {
        *ports,
        DNS,
    }
