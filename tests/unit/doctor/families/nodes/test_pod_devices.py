"""Which devices a pod has for NCCL, and where its settings stand."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Finding
from tests.unit.doctor.worlds.manifests import findings

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: sft, namespace: lab}
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  template:
    metadata: {annotations: {NOTES}}
    spec:
      restartPolicy: Never
      containers:
      - name: trainer
        image: registry.test/trainer:3
        command: [torchrun, train.py]
        env: [{name: NCCL_SOCKET_IFNAME, value: "VALUE"}, {name: GLOO_SOCKET_IFNAME, value: eth0}]
        resources: {limits: {nvidia.com/gpu: 8}}
"""
MULTUS = "k8s.v1.cni.cncf.io/networks: roce-a"
NAMED = "k8s.v1.cni.cncf.io/networks: roce-a@rail0"
INTERFACES = '[{"interfaceName": "eth0", "network": "default"}, {"interfaceName": "eth1", "network": "vpc1"}]'
GKE = f"networking.gke.io/interfaces: '{INTERFACES}'"


def wrong_device(text: str) -> list[Finding]:
    return [f for f in findings(text, "nccl-settings") if "NCCL_SOCKET_IFNAME" in f.title]


@pytest.mark.parametrize(
    ("notes", "value", "found"),
    [
        ("", "eth0", 0),
        ("", "eth", 0),  # a prefix
        ("", "=eth0", 0),
        ("", "^lo,docker0", 0),
        ("", "net1", 1),
        ("", "eth1", 1),
        ("", "=eth", 1),  # exactly that name
        (MULTUS, "net1", 0),
        (MULTUS, "net", 0),
        (MULTUS, "net2", 1),
        (NAMED, "rail0", 0),
        (NAMED, "net1", 1),
        (GKE, "eth1", 0),
        (GKE, "eth0,eth1", 0),
        (GKE, "eth2", 1),
    ],
)
def test_the_devices_of_a_pod_are_those_of_its_networks(notes: str, value: str, found: int) -> None:
    assert len(wrong_device(JOB.replace("NOTES", notes).replace("VALUE", value))) == found


MPI = """
apiVersion: kubeflow.org/v2beta1
kind: MPIJob
metadata: {name: bench, namespace: lab}
spec:
  mpiReplicaSpecs:
    Launcher:
      template:
        spec: {containers: [{name: m, image: "registry.test/mpi:1", command: [sh, -c, "mpirun -np 16 OPTION ./train"]}]}
    Worker:
      replicas: 2
      template:
        spec: {containers: [{name: m, image: "registry.test/mpi:1", resources: {limits: {nvidia.com/gpu: 8}}}]}
"""


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("-x NCCL_SOCKET_IFNAME=ens5", 1),
        ("-x NCCL_DEBUG=INFO -x NCCL_SOCKET_IFNAME=ens5", 1),
        ("-x NCCL_SOCKET_IFNAME=eth0", 0),
        ("-x NCCL_DEBUG=INFO", 0),
    ],
)
def test_what_mpirun_passes_on_is_a_setting_of_the_workers(option: str, found: int) -> None:
    assert len(wrong_device(MPI.replace("OPTION", option))) == found
