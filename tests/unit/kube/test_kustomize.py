"""Kustomizations are built in process, and what is not built is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.kube.kustomize import build
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.kube.yaml_text import parse_text

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
    assert policy["ingress"][0]["from"][0]["podSelector"] == {}  # labels join those that are there
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
    assert [e["name"] for e in spec["containers"][0]["env"]] == ["B", "A"]


def test_what_is_not_built_is_named_and_the_rest_is_loaded(tmp_path: Path) -> None:
    text = """\
resources: [service.yaml, gone.yaml, "https://github.com/example/repo//deploy?ref=v1"]
helmCharts: [{name: qdrant}]
"""
    path = tree(tmp_path, {"kustomization.yaml": text, "service.yaml": SERVICE, "values.yaml": "a: 1"})
    found = load_manifests([path])
    assert [str(o.ref) for o in found.objects] == ["Service default/chat"]
    command = f"kubectl kustomize --enable-helm {path} | kubectl genainet ... --manifests -"
    assert [n.partition(": ")[2] for n in found.notes] == [
        f"helmCharts (qdrant): the objects of Helm charts are left out; to have them: {command}",
        "gone.yaml is not there: left out",
        "https://github.com/example/repo//deploy?ref=v1 is remote: left out",
        "no kustomization here names it: left out",
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


def built(root: Path, kustomization: str, **files: str) -> tuple[list[str], str]:
    """(labels `hit` of the objects that got one, what was said)."""
    path = tree(root, {"kustomization.yaml": kustomization, "service.yaml": SERVICE, **files})
    found = load_manifests([path])
    return [str(o.ref) for o in found.objects if "hit" in (o.raw["metadata"].get("labels") or {})], "; ".join(
        found.notes
    )


PATCH = "patch: '{kind: X, metadata: {labels: {hit: \"1\"}}}'"


@pytest.mark.parametrize(
    ("target", "hits"),
    [
        ("{kind: Serv.*, name: ch(at|ip)}", True),
        ("{kind: Service, name: '[b-d]hat'}", True),
        ("{name: hat}", False),
        ("{kind: Service, labelSelector: 'app in (chat, x), tier!=db'}", True),
        ("{kind: Service, labelSelector: '!app'}", False),
        ("{kind: Service, labelSelector: app notin (chat)}", False),
        ("{kind: Service, annotationSelector: owner=me}", False),
    ],
)
def test_a_patch_is_for_what_its_target_selects(tmp_path: Path, target: str, hits: bool) -> None:
    service = SERVICE.replace("{name: chat}", "{name: chat, labels: {app: chat}}")
    text = f"resources: [labelled.yaml]\npatches: [{{target: {target}, {PATCH}}}]\n"
    found, _ = built(tmp_path, text, **{"labelled.yaml": service})
    assert bool(found) is hits


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{name: '(c+)+{9}x'}", "is not read: the patch is left out"),
        ("{kind: Service, labelSelector: '=x'}", "selector '=x' of a patch's target is not read"),
        ('{kind: Service, labelSelector: "a\\nb"}', "is not read"),
    ],
)
def test_a_target_that_is_not_read_is_named_and_its_patch_is_for_nothing(
    tmp_path: Path, target: str, says: str
) -> None:
    found, said = built(tmp_path, f"resources: [service.yaml]\npatches: [{{target: {target}, {PATCH}}}]\n")
    assert found == [] and says in said


def test_a_repository_reads_no_file_beyond_its_kustomization(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token: abc")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "link.yaml").symlink_to("../secret")
    generator = "{name: c, files: [a=../secret, b=link.yaml, c=/dev/zero]}"
    text = f"resources: [service.yaml, link.yaml]\nconfigMapGenerator: [{generator}]\n"
    _, said = built(tmp_path / "app", text)
    assert said.count("is not below the kustomization") == 4
    (found,) = load_manifests([str(tmp_path / "app")]).of("ConfigMap")
    assert found.raw["data"] == {"a": "", "b": "", "c": ""}


def test_names_that_can_be_no_path_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    names = ["x" * 5000, '"\\0"', "circle"]
    generator = f"configMapGenerator: [{{name: c, files: [{', '.join(names)}]}}]"
    text = f"resources: [service.yaml, {', '.join(names)}]\ncomponents: [{names[0]}]\n{generator}\n"
    _, said = built(tmp_path, text)
    assert said.count("is not there: left out") == 3


def test_an_inline_patch_is_bounded_as_a_file_is(tmp_path: Path) -> None:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{n}: &{n} [{','.join([f'*{o}'] * 9)}]\n" for o, n in zip("abcdefg", "bcdefgh", strict=True)
    )
    indented = bomb.replace("\n", "\n    ")
    _, said = built(tmp_path, f"resources: [service.yaml]\npatches:\n- patch: |\n    {indented}\n")
    assert "aliases stand for more than" in said


def test_a_base_is_parsed_once_and_each_overlay_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def counted(source: str, *rest: Any) -> list[Any]:
        parsed.append(Path(source).name)
        return parse_text(source, *rest)

    monkeypatch.setattr(build, "parse_text", counted)
    files = {"base/s.yaml": SERVICE, "base/kustomization.yaml": "resources: [s.yaml]\n"}
    for name in ("one", "two", "three"):
        files[f"{name}/kustomization.yaml"] = f"resources: [../base]\nnamePrefix: {name}-\nnamespace: {name}\n"
    found = load_manifests([tree(tmp_path, files)]).of("Service")
    assert {o.namespace for o in found} == {"one", "two", "three"}
    assert all(o.name.startswith(f"{o.namespace}-") and o.name.count("-") == found[0].name.count("-") for o in found)
    assert parsed.count("s.yaml") == 1


def test_kustomizations_without_end_are_left_out(tmp_path: Path) -> None:
    files = {f"k{i}/kustomization.yaml": f"resources: [../k{i + 1}, ../k{i + 1}]\n" for i in range(18)}
    files["k18/kustomization.yaml"] = "resources: [s.yaml]\n"
    files["k18/s.yaml"] = SERVICE
    (tmp_path / "x.yaml").write_text(SERVICE)
    found = load_manifests([tree(tmp_path, files)])
    assert any("kustomizations without end" in note for note in found.notes)


def test_operations_that_nest_without_end_leave_their_object_out(tmp_path: Path) -> None:
    deep = "[" * 150 + "1" + "]" * 150
    paths = ["/spec/x", "/spec/x" + "/0" * 149, "/spec/x" + "/0" * 298]
    operations = ", ".join(f"{{op: add, path: {path}, value: {deep}}}" for path in paths)
    text = f"resources: [service.yaml]\npatches: [{{target: {{name: chat}}, patch: '[{operations}]'}}]\n"
    files = {"app/kustomization.yaml": text, "app/service.yaml": SERVICE, "ingress.yaml": INGRESS}
    found = load_manifests([tree(tmp_path, files)])
    assert [o.kind for o in found.objects] == ["Ingress"]
    assert any("nested too deep" in note or "recursion" in note for note in found.notes)


def test_patches_times_objects_are_bounded(tmp_path: Path) -> None:
    objects = "---\n".join(SERVICE.replace("name: chat", f"name: chat-{i}") for i in range(700))
    patches = "\n".join("- {target: {name: x}, patch: '{a: 1}'}" for _ in range(400))
    text = f"resources: [many.yaml]\npatches:\n{patches}\n"
    (tmp_path / "well").mkdir()
    files = {"bad/kustomization.yaml": text, "bad/many.yaml": objects, "well.yaml": SERVICE}
    found = load_manifests([tree(tmp_path, files)])
    assert any("400 patches for 700 objects are too many" in note for note in found.notes)
    assert [s.metadata.name for s in found.services] == ["chat"]


@pytest.mark.parametrize(
    "field",
    [
        "labels: [{pairs: 1e999}]",
        "commonLabels: [a]",
        "replicas: [7]",
        "images: [a]",
    ],
)
def test_a_field_of_another_type_leaves_out_the_kustomization_alone(tmp_path: Path, field: str) -> None:
    files = {
        "app/kustomization.yaml": f"resources: [s.yaml]\n{field}\n",
        "app/s.yaml": SERVICE,
        "ingress.yaml": INGRESS,
    }
    found = load_manifests([tree(tmp_path, files)])
    assert [o.kind for o in found.objects] == ["Ingress"]
    assert any("can't be built" in note for note in found.notes)


def test_names_of_files_that_are_none_are_said(tmp_path: Path) -> None:
    text = "resources: [s.yaml]\nconfigMapGenerator: [{name: c, files: 7}]\n"
    found = load_manifests([tree(tmp_path, {"app/kustomization.yaml": text, "ingress.yaml": INGRESS})])
    assert [o.kind for o in found.objects] == ["Ingress"]
    assert any("names of its files can't be read" in note for note in found.notes)


REPLACING = """\
resources: [../base, settings.yaml]
namePrefix: prod-
replacements:
- source: {kind: ConfigMap, name: settings, fieldPath: data.PORT}
  targets:
  - select: {kind: Service, name: chat}
    fieldPaths: [spec.ports.0.port]
  - select: {kind: Deployment}
    fieldPaths: ["spec.template.spec.containers.[name=c].env.[name=A].value"]
- source: {kind: Service, name: chat}
  targets:
  - select: {kind: Deployment, name: chat}
    fieldPaths: ["spec.template.metadata.annotations.[example.com/service]"]
    options: {create: true}
- source: {kind: ConfigMap, name: settings, fieldPath: data.IMAGE, options: {delimiter: ":", index: 1}}
  targets:
  - select: {kind: Deployment}
    reject: [{name: other}]
    fieldPaths: ["spec.template.spec.containers.*.image"]
    options: {delimiter: ":", index: 1}
- path: more.yaml
- source: {kind: ConfigMap, name: nowhere}
  targets: [{select: {kind: Service}, fieldPaths: [metadata.name]}]
"""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {PORT: "8080", IMAGE: "any:v7", APP: assistant}
"""
MORE = """\
- source: {kind: ConfigMap, name: settings, fieldPath: data.APP}
  targets:
  - {select: {kind: NetworkPolicy}, fieldPaths: [spec.podSelector.matchLabels.app]}
"""


def test_replacements_copy_values_between_objects(tmp_path: Path) -> None:
    files = BASE | {"over/kustomization.yaml": REPLACING, "over/settings.yaml": SETTINGS, "over/more.yaml": MORE}
    loaded = load_manifests([tree(tmp_path, files)])
    by_kind = {o.kind: o.raw for o in loaded.objects}
    template = by_kind["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert by_kind["Service"]["spec"]["ports"] == [{"port": 8080}]  # a number stays one
    assert container["env"] == [{"name": "A", "value": "8080"}]
    assert container["image"] == "registry.example/chat:v7"
    assert template["metadata"]["annotations"] == {"example.com/service": "prod-chat"}
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": {"app": "assistant"}}
    (note, _) = loaded.notes
    assert "a replacement is left out: its source ConfigMap nowhere is 0 objects" in note


def test_variables_follow_the_names_that_overlays_give(tmp_path: Path) -> None:
    base = BASE["base/kustomization.yaml"] + (
        "vars:\n- {name: CHAT, objref: {apiVersion: v1, kind: Service, name: chat}, fieldref: {fieldpath: metadata.name}}\n"
        "patches: [{path: env.yaml}]\n"
    )
    env = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec: {template: {spec: {containers: [{name: c, env: [{name: URL, value: "http://$(CHAT):80/$(POD_IP)"}]}]}}}
"""
    overlay = "resources: [../base]\nnamePrefix: prod-\n"
    files = BASE | {"base/kustomization.yaml": base, "base/env.yaml": env, "over/kustomization.yaml": overlay}
    loaded = load_manifests([tree(tmp_path, files)])
    assert not any("left out" in note for note in loaded.notes)
    (deployment,) = (o.raw for o in loaded.objects if o.kind == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "URL", "value": "http://prod-chat:80/$(POD_IP)"} in container["env"]
