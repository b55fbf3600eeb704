"""Kustomizations are built in process, and what is not built is named."""

from __future__ import annotations

from pathlib import Path

from kubectl_genainet.kube.manifests import load_manifests

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec:
  replicas: 1
  selector: {matchLabels: {app: chat}}
  template:
    metadata: {labels: {app: chat}}
    spec: {containers: [{name: c, image: "registry.example/chat:1", env: [{name: A, value: "1"}]}]}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: chat}
spec: {selector: {app: chat}, ports: [{port: 80}]}
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: chat}
spec: {podSelector: {matchLabels: {app: chat}}, ingress: [{from: [{podSelector: {}}]}]}
"""
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat}
spec: {defaultBackend: {service: {name: chat, port: {number: 80}}}}
"""


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


BASE = {
    "base/kustomization.yaml": "resources: [deployment.yaml, service.yaml, policy.yaml]\n",
    "base/deployment.yaml": DEPLOYMENT,
    "base/service.yaml": SERVICE,
    "base/policy.yaml": POLICY,
}


def test_an_overlay_sets_namespace_names_labels_and_images(tmp_path: Path) -> None:
    overlay = """\
resources: [../base, ingress.yaml]
namespace: ai
namePrefix: prod-
commonLabels: {team: llm}
images: [{name: registry.example/chat, newTag: "2"}]
replicas: [{name: chat, count: 3}]
"""
    path = tree(tmp_path, {**BASE, "prod/kustomization.yaml": overlay, "prod/ingress.yaml": INGRESS})
    found = load_manifests([path])
    assert found.notes == ()
    assert sorted(str(o.ref) for o in found.objects if o.kind != "Pod") == [
        "Deployment ai/prod-chat",
        "Ingress ai/prod-chat",
        "NetworkPolicy ai/prod-chat",
        "Service ai/prod-chat",
    ]
    assert found.of("Ingress")[0].raw["spec"]["defaultBackend"]["service"]["name"] == "prod-chat"
    assert found.services[0].spec.selector == {"app": "chat", "team": "llm"}
    assert found.pods[0].metadata.labels == {"app": "chat", "team": "llm"}
    assert found.pods[0].spec.containers[0].image == "registry.example/chat:2"
    policy = found.of("NetworkPolicy")[0].raw["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app": "chat", "team": "llm"}
    assert policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"] == {"team": "llm"}
    assert found.of("Deployment")[0].raw["spec"]["replicas"] == 3


def test_patches_merge_or_operate(tmp_path: Path) -> None:
    overlay = """\
resources: [../base]
patches:
- path: more.yaml
- target: {kind: Service, name: cha.*}
  patch: |-
    - {op: replace, path: /spec/ports/0/port, value: 8080}
    - {op: add, path: /metadata/labels, value: {a: b}}
- target: {kind: NetworkPolicy}
  patch: "{$patch: delete, apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: any}}"
"""
    more = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec: {template: {spec: {hostNetwork: true, containers: [{name: c, env: [{name: B, value: "2"}]}, {name: side}]}}}
"""
    path = tree(tmp_path, {**BASE, "prod/kustomization.yaml": overlay, "prod/more.yaml": more})
    found = load_manifests([path])
    assert found.of("NetworkPolicy") == ()
    assert found.services[0].spec.ports[0].port == 8080
    assert found.services[0].metadata.labels == {"a": "b"}
    spec = found.of("Deployment")[0].raw["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is True
    assert [c["name"] for c in spec["containers"]] == ["c", "side"]
    assert [e["name"] for e in spec["containers"][0]["env"]] == ["A", "B"]


def test_what_is_not_built_is_named_and_the_rest_is_loaded(tmp_path: Path) -> None:
    text = """\
resources: [service.yaml, gone.yaml, "https://github.com/example/repo//deploy?ref=v1"]
helmCharts: [{name: qdrant}]
"""
    path = tree(tmp_path, {"kustomization.yaml": text, "service.yaml": SERVICE, "values.yaml": "a: 1"})
    found = load_manifests([path])
    assert [str(o.ref) for o in found.objects] == ["Service default/chat"]
    assert [n.partition(": ")[2] for n in found.notes] == [
        "helmCharts of the kustomization is not built",
        "gone.yaml is not there: left out",
        "https://github.com/example/repo//deploy?ref=v1 is remote: left out",
    ]


def test_a_broken_kustomization_leaves_the_other_files(tmp_path: Path) -> None:
    path = tree(tmp_path, {"bad/kustomization.yaml": "resources: 7\n", "service.yaml": SERVICE})
    found = load_manifests([path])
    assert [str(o.ref) for o in found.objects] == ["Service default/chat"]
    assert len(found.notes) == 1 and "can't be built" in found.notes[0]


def test_components_and_generated_config_maps(tmp_path: Path) -> None:
    component = "kind: Component\nresources: [policy.yaml]\nlabels: [{pairs: {c: d}}]\n"
    overlay = "resources: [service.yaml]\ncomponents: [../parts]\nconfigMapGenerator: [{name: cfg, literals: [A=1]}]\n"
    files = {
        "app/kustomization.yaml": overlay,
        "app/service.yaml": SERVICE,
        "parts/kustomization.yaml": component,
        "parts/policy.yaml": POLICY,
    }
    found = load_manifests([tree(tmp_path, files)])
    assert [str(o.ref) for o in found.objects] == [
        "Service default/chat",
        "ConfigMap default/cfg",
        "NetworkPolicy default/chat",
    ]
    assert found.of("ConfigMap")[0].raw["data"] == {"A": "1"}
    assert {o.labels.get("c") for o in found.objects} == {"d"}
