"""Resource claims of network devices and accelerators."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings

POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: train}
spec:
  containers: [{name: c, image: "registry.test/train:1", resources: {limits: {nvidia.com/gpu: 1}}}]
  resourceClaims: [{name: dev, resourceClaimTemplateName: t}]
"""
CLAIM = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: t, namespace: train}
spec: {spec: {devices: {requests: [{name: r, exactly: %s}]}}}
"""


def test_a_claim_of_a_network_device_needs_no_container() -> None:
    assert findings(POD + CLAIM % "{deviceClassName: dranet}", "dra-claim-missing") == []
    (found,) = findings(POD + CLAIM % "{deviceClassName: gpu.nvidia.com}", "dra-claim-missing")
    assert found.title == "no container names the claim dev"


def test_a_claim_that_chooses_its_device_is_left_alone() -> None:
    by_name = """{deviceClassName: dranet, selectors: [{cel: {expression: 'device.attributes["dra.net"].ifName == "eth1"'}}]}"""
    able = (
        """{deviceClassName: dranet, selectors: [{cel: {expression: 'device.attributes["dra.net"].rdma == true'}}]}"""
    )
    everything = "{deviceClassName: dranet, allocationMode: All}"
    for request, found in (("{deviceClassName: dranet}", 1), (by_name, 0), (able, 1), (everything, 0)):
        assert len(findings(POD + CLAIM % request, "dra-nic-and-gpu")) == found


def claim(*requests: str, constraints: str = "", name: str = "t") -> str:
    devices = f"{{requests: [{', '.join(requests)}], constraints: [{constraints}]}}"
    return f"""
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: {name}, namespace: train}}
spec: {{spec: {{devices: {devices}}}}}
"""


NIC = "{name: nic, exactly: {deviceClassName: dranet}}"
GPU = "{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}"
EITHER = (
    "{name: gpu, firstAvailable: [{name: big, deviceClassName: gpu.nvidia.com},"
    " {name: part, deviceClassName: mig.nvidia.com}]}"
)
ROOT = "matchAttribute: resource.kubernetes.io/pcieRoot"
WITHOUT_GPU = POD.replace(", resources: {limits: {nvidia.com/gpu: 1}}", "")
BY_NAME = WITHOUT_GPU.replace("resourceClaimTemplateName", "resourceClaimName")


@pytest.mark.parametrize(
    ("pod", "requests", "constraints", "title"),
    [
        (WITHOUT_GPU, (NIC,), "", ""),
        (POD, (NIC,), f"{{{ROOT}}}", "the GPUs are not in the same claim"),
        (WITHOUT_GPU, (NIC, GPU), "", "no constraint ties it to the GPUs"),
        (WITHOUT_GPU, (NIC, GPU), f"{{{ROOT}}}", ""),
        (WITHOUT_GPU, (NIC, GPU), f"{{{ROOT}, requests: [nic, gpu]}}", ""),
        (WITHOUT_GPU, (NIC, GPU), f"{{{ROOT}, requests: [nic]}}", "no constraint ties it to the GPUs"),
        (WITHOUT_GPU, (NIC, GPU), "{matchAttribute: example.org/model}", "no constraint ties it to the GPUs"),
        (WITHOUT_GPU, (NIC, EITHER), f"{{{ROOT}, requests: [nic, gpu/big, gpu/part]}}", ""),
        (WITHOUT_GPU, (NIC, EITHER), "", "no constraint ties it to the GPUs"),
        (WITHOUT_GPU, ("{name: nic, exactly: {deviceClassName: sriovnetwork.example.org}}", GPU), "", "no constraint"),
    ],
)
def test_a_nic_is_near_the_gpus_by_a_constraint_on_both(
    pod: str, requests: tuple[str, ...], constraints: str, title: str
) -> None:
    found = findings(pod + claim(*requests, constraints=constraints), "dra-nic-and-gpu")
    assert len(found) == bool(title)
    assert all(title in f.title for f in found)


def test_a_claim_by_name_counts_as_one_by_template() -> None:
    named = (
        claim(NIC, GPU).replace("ResourceClaimTemplate", "ResourceClaim").replace("{spec: {", "{").replace("}}}", "}}")
    )
    assert len(findings(BY_NAME + named, "dra-nic-and-gpu")) == 1
    tied = named.replace("constraints: []", f"constraints: [{{{ROOT}}}]")
    assert findings(BY_NAME + tied, "dra-nic-and-gpu") == []


def test_gpus_that_another_pod_claims_are_no_neighbours() -> None:
    other = WITHOUT_GPU.replace("name: p", "name: q").replace("TemplateName: t", "TemplateName: g")
    text = WITHOUT_GPU + claim(NIC) + "---" + other + claim(GPU, name="g")
    assert findings(text, "dra-nic-and-gpu") == []
    both = WITHOUT_GPU.replace("Name: t}", "Name: t}, {name: gpu, resourceClaimTemplateName: g}")
    assert len(findings(both + claim(NIC) + claim(GPU, name="g"), "dra-nic-and-gpu")) == 1


def test_a_nic_for_each_claimed_gpu_is_information() -> None:
    eight = (NIC.replace("dranet", "dranet, count: 8"), GPU.replace("nvidia.com", "nvidia.com, count: 8"))
    (found,) = findings(WITHOUT_GPU + claim(*eight), "dra-nic-and-gpu")
    assert found.severity is Severity.INFO
    fewer = (
        "{name: nic, firstAvailable: [{name: a, deviceClassName: dranet, count: 8}, {name: b, deviceClassName: roce}]}"
    )
    (found,) = findings(WITHOUT_GPU + claim(fewer, eight[1]), "dra-nic-and-gpu")
    assert found.severity is Severity.WARNING


DRIVER = """
---
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: %s}
spec: {selectors: [{cel: {expression: 'device.driver == "%s"'}}]}
"""
SLICE = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: n1}
spec: {driver: %s, nodeName: n1}
"""


@pytest.mark.parametrize(("driver", "found"), [("mig.test", 0), ("other.test", 2)])
def test_of_alternatives_one_that_is_served_is_enough(driver: str, found: int) -> None:
    classes = DRIVER % ("gpu.nvidia.com", "gpu.test") + DRIVER % ("mig.nvidia.com", "mig.test")
    text = WITHOUT_GPU + claim(EITHER) + classes + SLICE % driver
    assert len(findings(text, "dra-device-class", complete=True)) == found


@pytest.mark.parametrize(("named", "found"), [("dev", 0), ("gpus", 1)])
def test_a_container_names_claims_of_its_pod(named: str, found: int) -> None:
    pod = POD.replace("limits:", f"claims: [{{name: {named}}}], limits:")
    refused = [f for f in findings(pod + claim(NIC), "dra-claim-missing") if f.severity is Severity.ERROR]
    assert len(refused) == found
    assert all(f.title == "container c names the claim gpus, which the pod does not declare" for f in refused)
    assert all(str(f.evidence[0].field) == "spec.containers[0].resources.claims[0].name" for f in refused)
