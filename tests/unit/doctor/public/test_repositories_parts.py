"""What part of a repository shows and what it leaves open: each kind of false finding beside the fault that it resembled."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.selectors import alike
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked


def cilium(name: str, selector: str, egress: str, kind: str = "CiliumNetworkPolicy") -> str:
    return f"""
---
apiVersion: cilium.io/v2
kind: {kind}
metadata: {{name: {name}{", namespace: ml" if kind == "CiliumNetworkPolicy" else ""}}}
spec: {{endpointSelector: {selector}, egress: [{egress}]}}
"""


NAMES = "{toFQDNs: [{matchName: api.openai.com}], toPorts: [{ports: [{port: '443'}]}]}"
LOOKUPS = "{toEndpoints: [{matchLabels: {k8s-app: kube-dns}}], toPorts: [{ports: [{port: '53'}]RULES}]}"
SEEN = LOOKUPS.replace("RULES", ", rules: {dns: [{matchPattern: '*'}]}")
UNSEEN = LOOKUPS.replace("RULES", "")
OWN = "{matchLabels: {app: chat}}"


@pytest.mark.parametrize(
    ("selector", "kind", "found"),
    [
        ("{matchExpressions: [{key: app, operator: Exists}]}", "CiliumNetworkPolicy", 0),
        ("{matchLabels: {'k8s:app': chat}}", "CiliumNetworkPolicy", 0),
        ("{}", "CiliumClusterwideNetworkPolicy", 0),
        ("{matchLabels: {app: other}}", "CiliumNetworkPolicy", 1),
    ],
)
def test_another_policy_shows_cilium_the_lookups_of_the_same_pods(selector: str, kind: str, found: int) -> None:
    text = cilium("names", OWN, f"{NAMES}, {UNSEEN}") + cilium("dns", selector, SEEN, kind)
    assert len(findings(text, "cilium-fqdn-dns")) == found


def test_names_without_any_lookup_admitted_need_a_policy_that_is_elsewhere() -> None:
    assert findings(cilium("names", OWN, NAMES), "cilium-fqdn-dns") == []
    assert "not in the manifests" in unchecked(cilium("names", OWN, NAMES), "cilium-fqdn-dns")
    (part,) = findings(cilium("names", OWN, f"{NAMES}, {UNSEEN}"), "cilium-fqdn-dns")
    (whole,) = findings(cilium("names", OWN, NAMES), "cilium-fqdn-dns", complete=True)
    assert (part.severity, whole.severity) == (Severity.WARNING, Severity.ERROR)


CLIENT = "image: 'registry.test/app:1', env: [{name: STORE_URL, value: 'http://HOST'}]"


def call_host(folder: Path, client: str, other: str, *, apart: bool) -> list[str]:
    (folder / "app").mkdir()
    (folder / "store").mkdir()
    (folder / "app" / "client.yaml").write_text(client)
    (folder / ("store" if apart else "app") / "store.yaml").write_text(other)
    report = examine(Cluster(load_manifests([str(folder)])), all_checks())
    return [f.title for f in report.findings if f.check == "call-host"]


@pytest.mark.parametrize("apart", [False, True])
def test_a_service_of_another_namespace_is_the_one_meant_where_both_are_of_one_folder(
    tmp_path: Path, apart: bool
) -> None:
    client = deployment("app", CLIENT.replace("HOST", "vectors:6333"))
    store = service("vectors", "{selector: {app: v}, ports: [{port: 6333}]}", "data")
    assert bool(call_host(tmp_path, client, store, apart=apart)) is not apart


def test_an_external_name_of_another_namespace_stands_for_a_service_elsewhere(tmp_path: Path) -> None:
    client = deployment("app", CLIENT.replace("HOST", "vectors:6333"))
    alias = service("vectors", "{type: ExternalName, externalName: vectors.ml.svc.cluster.local}", "data")
    assert call_host(tmp_path, client, alias, apart=False) == []


def test_a_user_before_a_password_that_a_variable_stands_for_is_no_host() -> None:
    command = "command: [sh, -c, 'URL=\"SCHEME$(get secret -o name | decode)AT\"; run']"
    db = service("vector", "{selector: {app: v}, ports: [{port: 5432}]}")
    password = command.replace("SCHEME", "postgresql://vectr:").replace("AT", "@vector.ml.svc:5432/x")
    assert findings(deployment("app", f"image: 'a:1', {password}") + db, "call-host") == []
    assert findings(deployment("app", "image: 'a:1', command: [run, 'postgresql://vectr:5432']") + db, "call-host")


def test_what_differs_in_a_whole_word_behind_a_long_prefix_is_another_name() -> None:
    assert not alike("release-latency-metrics-vllm", ["release-latency-metrics-proxy"])
    assert alike("release-latency-metrics-porxy", ["release-latency-metrics-proxy"])


def test_a_port_number_under_both_protocols_is_meant_as_both() -> None:
    app = deployment("cam", "image: 'a:1', ports: [{containerPort: 8555}]")
    both = "{selector: {app: cam}, ports: [{name: t, port: 8555}, {name: u, port: 8555, protocol: UDP}]}"
    udp = "{selector: {app: cam}, ports: [{name: u, port: 8555, protocol: UDP}]}"
    tcp = udp.replace(", protocol: UDP", "")
    assert findings(app + service("cam", both), "service-protocol") == []
    assert findings(app + service("cam", udp) + service("cam-tcp", tcp), "service-protocol") == []
    (default,) = findings(app + service("cam", udp), "service-protocol")
    (written,) = findings(app.replace("8555}", "8555, protocol: TCP}") + service("cam", udp), "service-protocol")
    assert (default.severity, written.severity) == (Severity.INFO, Severity.ERROR)


BY_HAND = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nas, namespace: ml, labels: {kubernetes.io/service-name: nas}}
addressType: IPv4
ports: [{port: 443}]
endpoints: [{addresses: [192.0.2.7]}]
"""


def test_a_slice_that_people_wrote_says_nothing_of_other_services() -> None:
    app = deployment("app", "image: 'a:1', ports: [{containerPort: 80}]") + service(
        "app", "{selector: {app: app}, ports: [{port: 80}]}"
    )
    assert findings(app + BY_HAND, "service-endpoints") == []
    assert "no EndpointSlice that a cluster made" in unchecked(app + BY_HAND, "service-endpoints")
    assert len(findings(app + BY_HAND, "service-endpoints", complete=True)) == 1


NODE = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-template}\n"
CLAIM = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: gpu, namespace: ml}
spec: {devices: {requests: [{name: g, exactly: {deviceClassName: gpu.nvidia.com}}]}}
"""


def test_a_node_in_a_file_of_its_own_makes_no_dump_of_claims_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(NODE)
    (tmp_path / "claim.yaml").write_text(CLAIM)
    report = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert [f for f in report.findings if f.check == "dra-device-class"] == []
    (tmp_path / "claim.yaml").unlink()
    (tmp_path / "node.yaml").write_text(NODE + CLAIM)
    report = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert len([f for f in report.findings if f.check == "dra-device-class"]) == 1


DOMAIN = """
---
apiVersion: resource.nvidia.com/v1beta1
kind: ComputeDomain
metadata: {name: d, namespace: ml}
spec: {numNodes: 2, channel: {resourceClaimTemplate: {name: CHANNEL}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ml}
spec:
  resourceClaims: [{name: channel, resourceClaimTemplateName: channel}]
  containers: [{name: c, image: "a:1", resources: {claims: [{name: channel}]}}]
"""


def test_a_compute_domain_makes_the_template_that_it_names() -> None:
    assert findings(DOMAIN.replace("CHANNEL", "channel"), "dra-claim-missing", complete=True) == []
    assert findings(DOMAIN.replace("CHANNEL", "other"), "dra-claim-missing", complete=True)


INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: SPACE}
spec:
  ingressClassName: nginx
  rules: [{host: chat.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: ui, port: {number: 80}}}}]}}]
"""


def test_one_ingress_in_the_namespaces_of_several_environments_is_no_conflict() -> None:
    text = INGRESS.replace("NAME", "chat").replace("SPACE", "dev") + INGRESS.replace("SPACE", "prod")
    assert findings(text.replace("NAME", "chat"), "ingress-path-conflict") == []
    assert len(findings(text.replace("NAME", "chat"), "ingress-path-conflict", complete=True)) == 1
    assert len(findings(text.replace("NAME", "ui"), "ingress-path-conflict")) == 1


@pytest.mark.parametrize(("held", "found"), [(["prod"], 0), (["dev"], 0), (["dev", "prod"], 1), ([], 1)])
def test_an_ingress_whose_service_is_only_in_the_namespace_of_the_other_is_its_earlier_version(
    held: list[str], found: int
) -> None:
    plain, tls = (
        INGRESS.replace("NAME", name).replace("SPACE", space) for name, space in (("ui", "dev"), ("tls", "prod"))
    )
    text = plain + tls + "".join(service("ui", "{selector: {app: ui}, ports: [{port: 80}]}", space) for space in held)
    assert len(findings(text, "ingress-path-conflict")) == found
    assert ("may be the same for another namespace" in unchecked(text, "ingress-path-conflict")) is not bool(found)
    assert len(findings(text, "ingress-path-conflict", complete=True)) == 1


KSERVE = """
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: m, namespace: ml}
spec: {predictor: {timeout: 30, model: {modelFormat: {name: FORMAT}, storageUri: "hf://MODEL"}}}
"""


@pytest.mark.parametrize(
    ("model", "form", "found"),
    [("ibm/granite-8b", "vLLM", 1), ("org/all-minilm-l6-v2", "vLLM", 0), ("org/fraud", "sklearn", 0)],
)
def test_a_model_that_answers_at_once_has_no_stream_to_cut(model: str, form: str, found: int) -> None:
    text = KSERVE.replace("FORMAT", form).replace("MODEL", model)
    assert len(findings(text, "serving-stream-timeout")) == found


SERVING = """
---
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata: {name: llm, namespace: ml}
spec:
  replicas: 1
  template:
    roles:
    - name: decode
      replicas: 2
      entryTemplate: {spec: {containers: [{name: leader, image: "vllm/vllm-openai:v0.11.0", ports: [{containerPort: 8000}]}]}}
      workerReplicas: 3
      workerTemplate: {spec: {containers: [{name: worker, image: "vllm/vllm-openai:v0.11.0"}]}}
"""


def test_the_entry_pods_of_a_model_serving_serve_and_its_workers_join_them() -> None:
    (entry,) = findings(SERVING, "readiness-probe")
    assert entry.evidence[0].field == "spec.template.roles[0].entryTemplate.spec.containers[0].readinessProbe"


SANDBOX = """
---
apiVersion: agents.x-k8s.io/v1alpha1
kind: Sandbox
metadata: {name: agent, namespace: ml}
spec:
  podTemplate:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, image: "registry.test/agent:1", ports: [{containerPort: 8888}]}]}
"""


def test_a_sandbox_of_an_agent_is_behind_its_service() -> None:
    text = SANDBOX + service("agent", "{selector: {app: agent}, ports: [{port: 80, targetPort: http}]}")
    assert len(findings(text, "service-target-port")) == 1
    assert findings(text.replace("targetPort: http", "targetPort: 8888"), "service-target-port") == []


def test_a_coordinator_of_model_servers_loads_no_model() -> None:
    probe = "ports: [{containerPort: 8080}], livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 10}"
    assert findings(deployment("llm-d-coordinator", f"image: 'registry.test/c:1', {probe}"), "startup-budget") == []
    assert findings(deployment("llm-server", f"image: 'registry.test/c:1', {probe}"), "startup-budget")


def test_a_client_named_after_what_it_calls_means_that_and_no_neighbour() -> None:
    neighbour = service("readarr", "{selector: {app: r}, ports: [{port: 7878}]}")
    client = deployment("exporter-radarr", CLIENT.replace("HOST", "radarr:7878"))
    assert findings(client + neighbour, "call-host") == []
    assert findings(client.replace("exporter-radarr", "exporter") + neighbour, "call-host")


def test_a_patch_in_a_file_of_its_own_is_not_the_object_that_it_patches(tmp_path: Path) -> None:
    patch = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm, namespace: ml}
spec: {template: {spec: {containers: [{name: c, image: "registry.test/pinned:2"}]}}}
"""
    whole = deployment("llm", "image: 'registry.test/app:1', ports: [{name: http, containerPort: 80}]")
    for first, second in (("a", "b"), ("b", "a")):
        (tmp_path / f"{first}.yaml").write_text(patch)
        (tmp_path / f"{second}.yaml").write_text(whole + service("llm", "{selector: {app: llm}, ports: [{port: 80}]}"))
        snapshot = load_manifests([str(tmp_path)])
        (kept,) = snapshot.of("Deployment", "apps")
        assert "selector" in kept.raw["spec"]
        assert [note for note in snapshot.notes if "a patch of Deployment ml/llm" in note]


def test_a_services_own_name_in_another_namespace_is_no_call(tmp_path: Path) -> None:
    client = deployment("ui", CLIENT.replace("HOST", "ui.llm.svc:80"))
    own = service("ui", "{selector: {app: ui}, ports: [{port: 80}]}")
    assert call_host(tmp_path, client, own, apart=False) == []


def test_a_path_that_is_matched_as_a_whole_goes_before_the_prefix() -> None:
    one = INGRESS.replace("NAME", "a").replace("SPACE", "ml")
    two = INGRESS.replace("NAME", "b").replace("SPACE", "ml").replace("name: ui", "name: other")
    assert len(findings(one + two, "ingress-path-conflict")) == 1
    assert findings(one + two.replace("Prefix", "Exact"), "ingress-path-conflict") == []
