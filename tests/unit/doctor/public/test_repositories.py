"""What public repositories have and is no fault, or less of one, each on an input of its own."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings, unchecked

SIDE_BY_SIDE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm, namespace: ml}
spec:
  selector: {matchLabels: {app: llm}}
  template:
    metadata: {labels: {app: llm}}
    spec:
      containers:
      - {name: warm-cache, image: busybox, command: [sh, -c, "cat /models/* > /dev/null; sleep infinity"]}
      - name: server
        image: registry.test/serving:2
        command: [python3, -m, vllm.entrypoints.openai.api_server]
        readinessProbe: {httpGet: {path: /health, port: 8000}}
"""


def test_the_container_whose_command_line_serves_is_the_one_whose_readiness_counts() -> None:
    assert findings(SIDE_BY_SIDE, "readiness-probe") == []
    (found,) = findings(SIDE_BY_SIDE.replace("readinessProbe", "livenessProbe"), "readiness-probe")
    assert found.evidence[0].field == "spec.template.spec.containers[1].readinessProbe"


POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own, namespace: ml}
spec:
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "VALUE"}}}]}]
"""


@pytest.mark.parametrize("placeholder", ["${namespace}", "{{ namespace }}", "$(NAMESPACE)"])
def test_a_placeholder_of_a_template_is_not_refused_but_not_checked(placeholder: str) -> None:
    text = POLICY.replace("VALUE", placeholder)
    assert findings(text, "policy-refused") == []
    assert f"{placeholder} is a placeholder" in unchecked(text, "policy-refused")
    assert findings(POLICY.replace("VALUE", "-ml"), "policy-refused")


DELEGATION = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: parent, namespace: edge}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{group: GROUP, kind: KIND, name: chat, namespace: ml}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: ml}
spec: {rules: [{backendRefs: [{name: chat, port: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: chat, namespace: ml}
spec: {ports: [{port: 80}]}
"""


def test_a_route_that_leads_to_another_route_needs_no_grant() -> None:
    delegated = DELEGATION.replace("GROUP", "gateway.networking.k8s.io").replace("KIND", "HTTPRoute")
    assert findings(delegated, "reference-grant") == []
    assert findings(DELEGATION.replace("GROUP", '""').replace("KIND", "Service"), "reference-grant")


CERTIFICATE = """
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: certificates}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: ml}
spec:
  gatewayClassName: eg
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: tls, namespace: NAMESPACE}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: ml}
spec: {parentRefs: [{name: edge}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: edge, namespace: certificates}
spec: {from: [{group: gateway.networking.k8s.io, kind: KIND, namespace: ml}], to: [{group: "", kind: Secret}]}
"""


@pytest.mark.parametrize(
    ("namespace", "kind", "fields"),
    [
        ("certificates", "HTTPRoute", ["spec.listeners[0].tls.certificateRefs[0].namespace"]),
        ("certificates", "Gateway", []),
        ("ml", "HTTPRoute", []),
    ],
)
def test_a_gateway_needs_a_grant_for_a_certificate_of_another_namespace(
    namespace: str, kind: str, fields: list[str]
) -> None:
    text = CERTIFICATE.replace("NAMESPACE", namespace).replace("KIND", kind)
    assert [f.evidence[0].field for f in findings(text, "reference-grant")] == fields


@pytest.mark.parametrize(
    ("made", "found"),
    [("apiVersion: cert-manager.io/v1\nkind: Certificate", 1), ("apiVersion: v1\nkind: ConfigMap", 0)],
)
def test_a_certificate_that_is_not_here_is_not_checked_unless_cert_manager_makes_it(made: str, found: int) -> None:
    rest = CERTIFICATE.replace("NAMESPACE", "certificates").replace("KIND", "HTTPRoute").split("---", 1)[1]
    text = f"{made}\nmetadata: {{name: c, namespace: certificates}}\nspec: {{secretName: tls}}\n---{rest}"
    assert len(findings(text, "reference-grant")) == found
    assert bool(unchecked(text, "reference-grant")) is not bool(found)


WITH_NICS = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: nics, namespace: ml}
spec: {spec: {devices: {requests: [{name: nic, exactly: {deviceClassName: mrdma.google.com, count: NUMBER}}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: train, namespace: ml}
spec:
  template:
    spec:
      restartPolicy: Never
      resourceClaims: [{name: nic, resourceClaimTemplateName: nics}]
      containers:
      - {name: c, image: "registry.test/train:1", resources: {limits: {nvidia.com/gpu: 4}, claims: [{name: nic}]}}
"""


@pytest.mark.parametrize(("number", "severity"), [(2, Severity.WARNING), (4, Severity.INFO), (8, Severity.INFO)])
def test_as_many_network_devices_as_gpus_may_be_all_of_a_node(number: int, severity: Severity) -> None:
    (found,) = findings(WITH_NICS.replace("NUMBER", str(number)), "dra-nic-and-gpu")
    assert found.severity is severity


RDMA_JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: train, namespace: ml}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: "registry.test/train:1", resources: {limits: {nvidia.com/gpu: 8, "RESOURCE": 1}}}
"""


@pytest.mark.parametrize(("resource", "severity"), [("rdma/ib", Severity.INFO), ("rdma/hca_a", Severity.WARNING)])
def test_a_resource_of_nodes_without_a_limit_of_locked_memory_is_information(resource: str, severity: Severity) -> None:
    (found,) = findings(RDMA_JOB.replace("RESOURCE", resource), "rdma-memlock")
    assert found.severity is severity


CALLER = """
apiVersion: v1
kind: Pod
metadata: {name: front}
spec: {containers: [{name: c, image: "registry.test/front:1", env: [{name: API, value: "http://back.dev.svc:80"}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: back}
spec: {ports: [{port: 80}]}
"""


def test_a_service_whose_manifest_names_no_namespace_may_go_to_the_one_that_is_called() -> None:
    assert findings(CALLER, "call-host") == []
    assert "Service dev/back is not here" in unchecked(CALLER, "call-host")
    placed = CALLER.replace("{name: back}", "{name: back, namespace: prod}").replace(
        "{name: front}", "{name: front, namespace: dev}"
    )
    assert findings(placed, "call-host") == []  # dev is meant, and may hold another one
    (found,) = findings(placed.replace("back.dev.svc", "back"), "call-host")
    assert found.severity is Severity.ERROR


HOST_NETWORK = """
apiVersion: kubeflow.org/v2beta1
kind: MPIJob
metadata: {name: test, namespace: ml}
spec:
  mpiReplicaSpecs:
    Launcher:
      template:
        spec:
          hostNetwork: true
          containers: [{name: c, image: "registry.test/t:1", command: [sh, -c, "mpirun -x NCCL_SOCKET_IFNAME=ens9 COMMAND"]}]
    Worker:
      template:
        spec:
          hostNetwork: true
          containers: [{name: c, image: "registry.test/t:1", resources: {limits: {nvidia.com/gpu: 8}}}]
"""


def test_a_program_that_knows_no_gloo_needs_no_setting_for_it() -> None:
    assert (
        findings(HOST_NETWORK.replace("COMMAND", "/opt/nccl-tests/build/all_reduce_perf -b 8"), "nccl-settings") == []
    )
    assert findings(HOST_NETWORK.replace("COMMAND", "python train.py"), "nccl-settings")


SERVER_OF_MANY = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: server, namespace: ml}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      containers:
      - name: server
        image: nvcr.io/nvidia/tritonserver:25.08-py3
        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}
        livenessProbe: {httpGet: {path: PATH, port: 8000}, failureThreshold: 3}
"""


def test_a_liveness_that_does_not_wait_for_the_model_gives_it_all_its_time() -> None:
    assert findings(SERVER_OF_MANY.replace("PATH", "/v2/health/live"), "startup-budget") == []
    assert findings(SERVER_OF_MANY.replace("PATH", "/v2/health/ready"), "startup-budget")


BOUND = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chat, namespace: ml}
spec: {hosts: ["*"], gateways: [istio-system/edge], http: [{route: [{destination: {host: chat}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: ml}
spec: {servers: [{hosts: ["*"], port: {number: 80, name: http, protocol: HTTP}}]}
"""


def test_a_gateway_of_the_name_in_another_namespace_is_a_warning_unless_all_is_here() -> None:
    (found,) = findings(BOUND, "virtual-service-gateway")
    assert found.severity is Severity.WARNING
    (found,) = findings(BOUND, "virtual-service-gateway", complete=True)
    assert found.severity is Severity.ERROR


PLUGIN = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: devices, namespace: kube-system}
spec:
  selector: {matchLabels: {app: devices}}
  template:
    metadata: {labels: {app: devices}}
    spec:
      containers: [{name: c, image: "registry.test/plugin:1", volumeMounts: [{name: ib, mountPath: /dev/infiniband}]}]
      volumes: [{name: ib, hostPath: {path: /dev/infiniband}}, {name: kubelet, hostPath: {path: FOLDER}}]
"""


def test_a_device_plugin_lists_the_nodes_devices_and_opens_none() -> None:
    assert findings(PLUGIN.replace("FOLDER", "/var/lib/kubelet/device-plugins"), "rdma-host-path") == []
    assert findings(PLUGIN.replace("FOLDER", "/var/lib/models"), "rdma-host-path")


WITH_PRESETS = """
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: llm, namespace: ml}
spec:
  model: {uri: "hf://a/b"}
  template:
    containers: [{name: main, resources: {limits: {nvidia.com/gpu: 2, rdma/roce_gdr: 1}}, args: ["--tensor-parallel-size=2"]}]
"""


@pytest.mark.parametrize("check", ["rdma-memlock", "shared-memory"])
def test_what_an_operators_presets_may_add_is_not_checked(check: str) -> None:
    assert findings(WITH_PRESETS, check) == []
    assert "presets of its operator" in unchecked(WITH_PRESETS, check)
