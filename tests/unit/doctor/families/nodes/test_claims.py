"""Resource claims of network devices and accelerators."""

from __future__ import annotations

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
    chosen = "{deviceClassName: dranet, selectors: [{cel: {expression: 'device.driver == dra'}}]}"
    everything = "{deviceClassName: dranet, allocationMode: All}"
    for request, found in (("{deviceClassName: dranet}", 1), (chosen, 0), (everything, 0)):
        assert len(findings(POD + CLAIM % request, "dra-nic-and-gpu")) == found
