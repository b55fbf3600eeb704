"""What shows that a workload gets its AWS credentials from EKS Pod Identity, whose agent a policy closes off."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings

INDEXER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: indexer, namespace: ml, uid: d}
spec:
  template:
    metadata: {labels: {app: indexer}}
    spec: {serviceAccountName: indexer, containers: [{name: c, image: 'registry.test/i:1', env: [ENV]}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: indexer, namespace: ml, annotations: {NOTES}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: ml}
spec: {podSelector: {}, policyTypes: [Egress], egress: [RULES]}
"""
ASSOCIATION = """
---
apiVersion: eks.services.k8s.aws/v1alpha1
kind: PodIdentityAssociation
metadata: {name: indexer, namespace: ack-system}
spec: {clusterName: prod, namespace: ml, serviceAccount: indexer, roleARN: 'arn:aws:iam::111122223333:role/indexer'}
"""
AGENT = "{to: [{ipBlock: {cidr: 169.254.170.23/32}}]}"


def indexer(env: str = "", notes: str = "", rules: str = "") -> str:
    return INDEXER.replace("ENV", env).replace("NOTES", notes).replace("RULES", rules)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (indexer() + ASSOCIATION, 1),
        (indexer(), 0),
        (indexer(rules=AGENT) + ASSOCIATION, 0),
        (indexer() + ASSOCIATION.replace("serviceAccount: indexer", "serviceAccount: other"), 0),
        (indexer() + ASSOCIATION.replace("namespace: ml", "namespace: other"), 0),
        (indexer("{name: AWS_ACCESS_KEY_ID, value: a}") + ASSOCIATION, 0),
        (indexer(notes="eks.amazonaws.com/role-arn: 'arn:aws:iam::111122223333:role/r'") + ASSOCIATION, 0),
    ],
)
def test_an_association_with_the_service_account_tells_of_pod_identity(text: str, found: int) -> None:
    closed = findings(text, "egress-to-credentials", complete=True)
    assert [f.severity for f in closed] == [Severity.WARNING] * found
    objects = [str(e.object) for f in closed for e in f.evidence]
    assert objects.count("PodIdentityAssociation ack-system/indexer") == found


def test_a_workload_with_an_association_takes_no_credentials_from_the_instance() -> None:
    text = indexer("{name: BUCKET, value: 's3://docs'}")
    assert len(findings(text, "imds-hop-limit", complete=True)) == 1
    assert findings(text + ASSOCIATION, "imds-hop-limit", complete=True) == []


POD = """
---
apiVersion: v1
kind: Pod
metadata:
  name: indexer-0
  namespace: ml
  labels: {app: indexer}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: indexer, uid: d, controller: true}]
spec:
  serviceAccountName: indexer
  containers:
  - name: c
    image: registry.test/i:1
    env: [{name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: 'http://ADDRESS/v1/credentials'}]
status: {phase: Running, podIP: 10.0.0.7}
"""


@pytest.mark.parametrize(("address", "found"), [("169.254.170.23", 1), ("169.254.170.2", 0)])
def test_the_variable_that_eks_adds_to_a_pod_tells_for_certain(address: str, found: int) -> None:
    closed = findings(indexer() + POD.replace("ADDRESS", address), "egress-to-credentials", complete=True)
    assert [f.severity for f in closed] == [Severity.ERROR] * found
