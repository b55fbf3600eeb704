"""Which resources are RDMA devices: the configuration of the device plugins tells it, or the name."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings, report_of

POD = """
---
apiVersion: v1
kind: Pod
metadata: {name: train, namespace: ai}
spec:
  containers:
  - name: t
    image: registry.test/t:1
    env: [{name: NCCL_IB_DISABLE, value: "1"}]
    resources: {limits: {nvidia.com/gpu: 1, RESOURCE: 1}}
"""
POLICY = """
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: fast, namespace: sriov}
spec: {resourceName: NAME, numVfs: 8, deviceType: netdevice, nicSelector: {vendor: "15b3"}, isRdma: IS}
"""
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: devices, namespace: kube-system}
data: {config.json: 'CONFIG'}
"""
NIC_POLICY = """
apiVersion: mellanox.com/v1alpha1
kind: NicClusterPolicy
metadata: {name: nic-cluster-policy}
spec: {PLUGIN: {image: plugin, config: 'CONFIG'}}
"""
SHARED = '{"configList": [{"resourceName": "hca_a", "resourcePrefix": "fast.test", "rdmaHcaMax": 63}]}'
POOL = '{"resourceList": [{"resourceName": "fastnic", "selectors": [{"vendors": ["15b3"], "isRdma": true}]}]}'
OTHER_POOL = '{"resourceList": [{"resourcePrefix": "mellanox.com", "resourceName": "plain", "selectors": {"vendors": ["15b3"]}}]}'


def policy(name: str, is_rdma: str) -> str:
    return POLICY.replace("NAME", name).replace("IS", is_rdma)


def nic_policy(plugin: str, config: str) -> str:
    return NIC_POLICY.replace("PLUGIN", plugin).replace("CONFIG", config)


TOLD = [
    (policy("fastnic", "true"), "openshift.io/fastnic"),
    (policy("fastnic", "true"), "nvidia.com/fastnic"),
    (
        policy("fastnic", "false") + "---" + policy("fastnic", "true").replace("name: fast", "name: b"),
        "openshift.io/fastnic",
    ),
    (CONFIG_MAP.replace("CONFIG", SHARED), "fast.test/hca_a"),
    (CONFIG_MAP.replace("CONFIG", POOL), "nvidia.com/fastnic"),
    (nic_policy("rdmaSharedDevicePlugin", SHARED), "fast.test/hca_a"),
    (nic_policy("sriovDevicePlugin", POOL), "nvidia.com/fastnic"),
    ("", "rdma/hca_a"),
]


@pytest.mark.parametrize(("configuration", "resource"), TOLD)
def test_a_resource_that_is_told_to_be_rdma_needs_what_rdma_needs(configuration: str, resource: str) -> None:
    text = configuration + POD.replace("RESOURCE", resource)
    (locked,) = findings(text, "rdma-memlock")
    assert resource in locked.evidence[0].statement
    assert [f.title for f in findings(text, "nccl-settings") if resource in f.title]
    assert findings(text, "sriov-invisible")


NOT_TOLD = [
    ("", "openshift.io/fastnic"),
    (policy("other", "true"), "openshift.io/fastnic"),
    (policy("roce_net", "false"), "nvidia.com/roce_net"),
    (CONFIG_MAP.replace("CONFIG", SHARED), "other.test/hca_a"),
    (CONFIG_MAP.replace("CONFIG", OTHER_POOL), "mellanox.com/plain"),
    (CONFIG_MAP.replace("CONFIG", '{"configList": ["x", {"resourceName": 3}]'), "fast.test/hca_a"),
]


@pytest.mark.parametrize(("configuration", "resource"), NOT_TOLD)
def test_what_is_not_told_to_be_rdma_is_left_alone(configuration: str, resource: str) -> None:
    checks = {f.check for f in report_of(configuration + POD.replace("RESOURCE", resource)).findings}
    assert not checks & {"rdma-memlock", "nccl-settings"}


@pytest.mark.parametrize(("resource", "found"), [("", 1), ("\n      openshift.io/fastnic: 1", 0)])
def test_a_device_that_nothing_tells_of_may_be_what_libfabric_uses(resource: str, found: int) -> None:
    text = f"""
apiVersion: v1
kind: Pod
metadata: {{name: g, namespace: ai}}
spec:
  containers:
  - name: t
    image: registry.test/t:1
    env: [{{name: HCCL_OVER_OFI, value: "1"}}]
    resources:
     limits:
      habana.ai/gaudi: 8{resource}
"""
    assert len(findings(text, "nccl-settings")) == found
