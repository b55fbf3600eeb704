"""What one check reads in several spellings, products or API versions: each as a faulty manifest and a sound one."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

AGENT = """
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: eks-pod-identity-agent, namespace: kube-system}
spec: {template: {spec: {containers: [{name: a, image: "eks/eks-pod-identity-agent:1"}]}}}
"""
TRAINING = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: sft, namespace: ml}
spec:
  completionMode: Indexed
  parallelism: 2
  template:
    spec:
      hostNetwork: true
      containers:
      - name: t
        image: registry.test/t:1
        env: [{name: NCCL_SOCKET_IFNAME, value: "IFNAME"}, {name: GLOO_SOCKET_IFNAME, value: eth0}]
        resources: {limits: {nvidia.com/gpu: 8}}
"""


@pytest.mark.parametrize(
    ("value", "found"), [("^lo,docker", 1), ("^lo,docker,pod-id-link", 0), ("^lo,docker,pod-id-link0", 0), ("eth", 0)]
)
def test_nccl_on_the_hosts_network_leaves_out_the_device_of_pod_identity(value: str, found: int) -> None:
    text = TRAINING.replace('value: "IFNAME"', f'value: "{value}"')
    assert [f for f in findings(text, "nccl-settings") if "pod-id-link0" in str(f)] == []
    with_agent = [f for f in findings(text + AGENT, "nccl-settings") if "pod-id-link0" in str(f)]
    assert [f.severity for f in with_agent] == [Severity.WARNING] * found


FLANNEL = """
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-flannel-ds, namespace: kube-flannel, uid: u-f}
spec: {template: {spec: {containers: [{name: kube-flannel, image: "flannel/flannel:v0.26.1"}]}}}
status: {desiredNumberScheduled: 1, numberReady: 1}
---
apiVersion: v1
kind: Node
metadata: {name: n1, uid: u-n, labels: {LABELS}}
spec: {providerID: "PROVIDER"}
status: {nodeInfo: {kubeletVersion: "VERSION"}}
"""


@pytest.mark.parametrize(
    ("labels", "provider", "version", "found"),
    [
        ("a: b", "", "v1.33.1", 1),
        ("microk8s.io/cluster: 'true'", "", "v1.33.1", 0),
        ("a: b", "k3s://n1", "v1.33.1", 0),
        ("a: b", "", "v1.33.1+k3s1", 0),
    ],
)
def test_kube_proxy_may_run_in_another_process(labels: str, provider: str, version: str, found: int) -> None:
    text = FLANNEL.replace("LABELS", labels).replace("PROVIDER", provider).replace("VERSION", version)
    absent = [f for f in findings(text, "kube-proxy-ready", complete=True) if "there is no kube-proxy" in f.title]
    assert len(absent) == found


@pytest.mark.parametrize("address", ["169.254.20.10", "169.254.25.10"])
def test_the_nodes_cache_has_an_address_of_each_installer(address: str) -> None:
    asks = deployment("web", "image: 'registry.test/w:1'").replace(
        "spec: {containers", f"spec: {{dnsPolicy: None, dnsConfig: {{nameservers: [{address}]}}, containers"
    )
    cache = AGENT.replace("eks-pod-identity-agent, ", "nodelocaldns, ")
    assert len(findings(asks + AGENT, "nodelocal-listener", complete=True)) == 1
    assert findings(asks + cache, "nodelocal-listener", complete=True) == []
    other = asks.replace(address, "10.96.0.10")
    assert findings(other + AGENT, "nodelocal-listener", complete=True) == []


def trained_on(template_of: dict[str, str]) -> str:
    nodes = "".join(
        f"""
---
apiVersion: v1
kind: Node
metadata: {{name: {name}, uid: u-{name}, labels: {{eks.amazonaws.com/sourceLaunchTemplateId: {template}}}}}
spec: {{providerID: "aws:///eu-west-1a/i-{name}"}}
status: {{allocatable: {{nvidia.com/gpu: "8"}}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: sft-{name}
  namespace: ml
  uid: p-{name}
  labels: {{batch.kubernetes.io/job-name: sft}}
  ownerReferences: [{{apiVersion: batch/v1, kind: Job, name: sft, uid: j, controller: true}}]
spec: {{nodeName: {name}, containers: [{{name: t, image: "i:1", resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]}}
"""
        for name, template in template_of.items()
    )
    return TRAINING + nodes


def launch_template(identity: str, group: str) -> str:
    return f"""
---
apiVersion: ec2.services.k8s.aws/v1alpha1
kind: LaunchTemplate
metadata: {{name: {identity}, namespace: infra}}
spec: {{data: {{placement: {{groupName: {group}}}}}}}
status: {{id: {identity}}}
"""


def test_a_launch_template_tells_the_placement_group_of_its_nodes() -> None:
    templates = launch_template("lt-1", "one") + launch_template("lt-2", "two")
    apart = findings(trained_on({"a": "lt-1", "b": "lt-2"}) + templates, "training-placement")
    assert [f.title for f in apart] == ["its pods run in 2 placements"]
    together = trained_on({"a": "lt-1", "b": "lt-1"}) + templates
    assert findings(together, "training-placement") == []
    assert unchecked(together, "training-placement") == ""
    assert "no label of its nodes tells" in unchecked(
        trained_on({"a": "lt-9", "b": "lt-9"}) + templates, "training-placement"
    )


MODEL = deployment("model", 'image: "vllm/vllm-openai:v0.9.2", ports: [{containerPort: 8000}]') + service(
    "model", "{selector: {app: model}, ports: [{name: http, port: 80, targetPort: 8000}]}"
)
PICKER = deployment("epp", 'image: "registry.test/epp:1", ports: [{containerPort: 9002}]') + service(
    "epp", "{selector: {app: epp}, ports: [{name: grpc, port: 9002}]}"
)


@pytest.mark.parametrize(
    ("port", "number", "field"),
    [
        (8000, 9002, None),
        (8080, 9002, "spec.targetPortNumber"),
        (8000, 9003, "spec.extensionRef.port"),
    ],
)
def test_an_inference_pool_of_the_first_api_group_names_ports_in_its_own_fields(
    port: int, number: int, field: str | None
) -> None:
    pool = f"""
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: model, namespace: ml}}
spec: {{targetPortNumber: {port}, selector: {{app: model}}, extensionRef: {{name: epp, portNumber: {number}}}}}
"""
    found = findings(MODEL + PICKER + pool, "inference-pool")
    assert [f.evidence[0].field for f in found] == ([field] if field else [])


def virtual_service(http: str, host: str = "model") -> str:
    return f"""
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: chat, namespace: ml}}
spec: {{hosts: [chat.test], http: [{{route: [{{destination: {{host: {host}}}}}]{http}}}]}}
"""


@pytest.mark.parametrize(
    ("http", "field"),
    [
        ("", None),
        (", timeout: 10s", "spec.http[0].timeout"),
        (", timeout: 0s", None),
        (
            ", timeout: 1h, retries: {attempts: 2, perTryTimeout: 20s, retryOn: connect-failure}",
            "spec.http[0].retries.perTryTimeout",
        ),
        (", retries: {attempts: 2, perTryTimeout: 1h, retryOn: connect-failure}", None),
        (", retries: {attempts: 2, retryOn: '5xx,reset'}", "spec.http[0].retries.retryOn"),
    ],
)
def test_a_try_that_times_out_is_a_timeout_of_the_mesh(http: str, field: str | None) -> None:
    found = findings(MODEL + virtual_service(http), "mesh-stream-timeout")
    assert [f.evidence[0].field for f in found] == ([field] if field else [])


def test_a_host_of_a_service_entry_is_no_service_that_is_missing() -> None:
    host = "gone.ml.svc.cluster.local"
    entry = f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: gone, namespace: ml}}
spec: {{hosts: [{host}], resolution: DNS, ports: [{{number: 443, name: https, protocol: HTTPS}}]}}
"""
    routed = MODEL + virtual_service("", host)
    assert len(findings(routed, "virtual-service-backend", complete=True)) == 1
    assert findings(routed + entry, "virtual-service-backend", complete=True) == []


@pytest.mark.parametrize(
    "label", ["spilo-role: master", "cnpg.io/cluster: db", "statefulset.kubernetes.io/pod-name: db-0"]
)
def test_a_label_that_an_operator_adds_is_not_checked(label: str) -> None:
    text = MODEL + service("db", f"{{selector: {{{label}}}, ports: [{{port: 5432}}]}}")
    assert findings(text, "service-selector") == []
    assert unchecked(text, "service-selector") != ""
    assert len(findings(text.replace(label, "app: modle"), "service-selector")) == 1
