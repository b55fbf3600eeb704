"""Public bug reports rebuilt as minimal manifests: each fault is found, and gone once it is mended as the report was.

The sources are the reports' own; names and addresses are made up. What objects do not tell is in `NOT_TOLD`: there
doctor has to stay silent.
"""

from __future__ import annotations

import pytest

from tests.unit.doctor.public.reported import CLUSTERED, JOB, LLM, VLLM, Reported, service, stateful
from tests.unit.doctor.public.reports_fabric import FABRIC
from tests.unit.doctor.public.reports_policies import POLICIES
from tests.unit.doctor.public.reports_services import SERVICES
from tests.unit.doctor.public.reports_streams import STREAMS
from tests.unit.doctor.worlds.manifests import report_of

NOT_TOLD = (
    # The name of a device on the nodes' own network.
    (
        "marin-community/marin#6940",
        "nccl-settings",
        JOB.replace("POD", "hostNetwork: true")
        .replace("MORE", "")
        .replace(
            "ENV", "{name: NCCL_SOCKET_IFNAME, value: =enp90s0np0}, {name: GLOO_SOCKET_IFNAME, value: enp90s0np0}"
        ),
    ),
    # A resolver of the cluster that answers "server misbehaving".
    ("milvus-io/milvus-helm#297", "dns-failures", stateful("etcd", "registry.test/etcd:3.5", "etcd")),
    # An operator that makes another object than was asked for.
    ("envoyproxy/ai-gateway#2230", "route-backend", VLLM + LLM),
    # Raft that times out between pods that reach each other.
    (
        "qdrant/qdrant#7585",
        "policy-blocks-peers",
        stateful("db", "qdrant/qdrant:v1.13.6", "db-headless", CLUSTERED, 2)
        + service("db-headless", "db", "[{port: 6335}]", ", clusterIP: None, publishNotReadyAddresses: true"),
    ),
)


def checks_of(text: str) -> set[str]:
    return {f.check for f in report_of(text).findings}


@pytest.mark.parametrize("reported", (*SERVICES, *STREAMS, *POLICIES, *FABRIC), ids=lambda r: r.source)
def test_a_reported_fault_is_found_and_gone_once_it_is_mended(reported: Reported) -> None:
    assert reported.check in checks_of(reported.text)
    assert reported.check not in checks_of(reported.sound)


@pytest.mark.parametrize(("source", "check", "text"), NOT_TOLD, ids=[n[0] for n in NOT_TOLD])
def test_of_what_objects_do_not_tell_nothing_is_said(source: str, check: str, text: str) -> None:
    assert check not in checks_of(text)
