"""Recordings and objects whose values are of the right types and mean nothing."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

import pytest

from kubectl_genainet import wire
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.doctor.families.nodes import multinode
from kubectl_genainet.doctor.objects import calls
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.manifests import load_manifests
from scripts.fuzz_replay import run_command

FLOW = b'{"src":"10.0.0.1","sport":1,"dst":"10.0.0.2","dport":53,"protocol":"UDP"}'
DNS = b'{"kind":"dns","node":"n","t_ns":1,"id":1,"end":"answered","flows":[%s],"query":[%s],"response":[%s]}'
PLACE = b'[1,1,1,"rx",%d]'


@pytest.mark.parametrize(
    ("flows", "query", "response"),
    [(b"", PLACE % 0, b""), (FLOW, b"", b""), (FLOW, PLACE % 1, b""), (FLOW, PLACE % 0, PLACE % -1)],
)
def test_a_dns_transaction_whose_sightings_lead_nowhere_is_no_record(
    flows: bytes, query: bytes, response: bytes
) -> None:
    assert wire.decode(DNS % (FLOW, PLACE % 0, PLACE % 0))
    with pytest.raises(GenainetError):
        wire.decode(DNS % (flows, query, response))


@pytest.mark.parametrize("t_ns", [-(1 << 62) - 1, (1 << 62) + 1, 1 << 70])
def test_a_time_that_is_none_is_no_record(t_ns: int) -> None:
    with pytest.raises(GenainetError):
        wire.decode(b'{"kind":"tick","node":"n","t_ns":%d}' % t_ns)


@pytest.mark.parametrize("output", ["text", "markdown", "json"])
def test_a_timeline_of_a_hundred_years_is_refused_at_once(tmp_path: Path, output: str) -> None:
    text = gzip.decompress((recordings() / "healthy.gnb").read_bytes())
    late = re.sub(rb'("kind":"tick","node":"[^"]*","t_ns":)\d+', rb"\g<1>%d" % (1 << 61), text, count=1)
    assert late != text
    (tmp_path / "late.gnb").write_bytes(gzip.compress(late))
    begun = time.process_time()
    with pytest.raises(GenainetError, match="a timeline shows 31 days at most"):
        run_command(["timeline", "svc/my-llama-svc", "--from", str(tmp_path / "late.gnb"), "-o", output])
    assert time.process_time() - begun < 10
    assert read_bundle(tmp_path / "late.gnb").events


def test_what_anybody_may_write_into_an_annotation_ends_no_check(tmp_path: Path) -> None:
    deep = '"' + "[" * 20_000 + '"'
    (tmp_path / "objects.yaml").write_text(
        f"""
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {{name: net, namespace: ai}}
spec: {{config: {deep}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: trainer
  namespace: ai
  annotations: {{networking.gke.io/interfaces: {deep}, k8s.v1.cni.cncf.io/networks: net}}
spec:
  containers:
  - name: c
    image: x
    resources: {{limits: {{nvidia.com/gpu: 8, rdma/hca: 1}}}}
    env: [{{name: NCCL_FASTRAK_X, value: "1"}}]
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkPoolConfig
metadata: {{name: pool, namespace: ai}}
spec: {{rdmaMode: shared}}
"""
    )
    report = examine(Cluster(load_manifests([str(tmp_path / "objects.yaml")])), all_checks())
    assert report.findings


@pytest.mark.parametrize(
    "value", ["a" * 200_000, "a." * 100_000, "a://" * 50_000, "a" * 100_000 + "://" + ":" * 100_000]
)
def test_an_environment_variable_of_any_length_takes_no_time(value: str) -> None:
    begun = time.process_time()
    for pattern in (calls._URL, calls._PASSWORD, multinode._CLUSTER_NAME):
        list(pattern.finditer(value))
    assert time.process_time() - begun < 2
