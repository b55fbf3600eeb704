"""A snapshot from YAML and JSON files, folders or standard input: policies can be judged before they are applied.

Loading is never all or nothing: what is no Kubernetes object is left out and named, an object given twice counts as it
was given last, a folder with a kustomization is built, and a Helm chart is left out whole. `ClusterSnapshot.notes` says each
of these things; policies that are known to be in what was left out are in `left_out`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.files.charts import Charts, policy_kinds_in
from kubectl_genainet.kube.files.generated_pods import pods_of_workloads
from kubectl_genainet.kube.files.places import Places
from kubectl_genainet.kube.files.unused import IN_CHART, IN_KUSTOMIZATION, UnusedFiles
from kubectl_genainet.kube.kustomize.build import Kustomizations
from kubectl_genainet.kube.yaml_text import parse_text
from kubectl_genainet.model.cluster import COUNTS, GIVEN_ALIKE, GIVEN_TWICE, ClusterSnapshot, LeftOut
from kubectl_genainet.model.kube import EndpointSlice, KubeObject, Namespace, Node, Pod, Service, without_nulls
from kubectl_genainet.policy import POLICY_KINDS
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS, looks_like_a_policy
from kubectl_genainet.policy.where import nearest

_SUFFIXES = (".yaml", ".yml", ".json")
# Namespaces of published manifests that their readers are to replace: "your-namespace", "my-namespace", "<namespace>".
_TO_FILL_IN = re.compile(r"(your|replace|change|insert)(-?me|-.*)?|((my|the|target)-)?namespace|<.*>")
# A kind that is not here is taken for one with a namespace.
_CLUSTER_SCOPED = frozenset(
    {
        "Namespace",
        "Node",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "HostEndpoint",
        "Tier",
        "CiliumCIDRGroup",
        "CiliumNode",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "PersistentVolume",
        "StorageClass",
        "IngressClass",
        "GatewayClass",
        "PriorityClass",
        "RuntimeClass",
        "APIService",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ClusterNetworkPolicy",
        "FelixConfiguration",
        "IPPool",
        "BGPConfiguration",
        "Profile",
        "Installation",
        "ClusterTrainingRuntime",
        "ClusterServingRuntime",
        "IngressClassParams",
        "ENIConfig",
        "CNINode",
        "DeviceClass",
        "ResourceSlice",
        "EC2NodeClass",
        "NodePool",
    }
)
_CLUSTER_SCOPED_POLICIES = frozenset(key for key, other in OTHER_KINDS.items() if not other.namespaced)


def _group_and_kind(raw: dict[str, Any]) -> tuple[str, str]:
    group, _, version = str(raw.get("apiVersion", "")).rpartition("/")
    return group if version else "", str(raw.get("kind", ""))


def load_manifests(paths: Sequence[str], namespace: str = "") -> ClusterSnapshot:
    """The objects of all files, in order; "-" is standard input, a folder stands for the files below it.

    `namespace` is that of the objects that name none, as with `kubectl apply -n`. Raises InputError, with file and
    document, for a file given by its name that can't be read, and where there is no Kubernetes object at all, with how many
    files were looked at and why each of them was left out.
    """
    loading = _Loading(namespace)
    for path in paths:
        loading.read(path)
    objects = loading.objects
    if not objects:
        raise loading.unused.error(paths)
    pods = []
    for pod in pods_of_workloads(objects, loading.notes.append):
        problem = _unreadable(pod)
        if problem is None:
            pods.append(pod)
        else:
            loading.notes.append(f"{problem.message}: left out")
    return ClusterSnapshot(
        (*objects, *pods),
        left_out=tuple(loading.unread.values()),
        notes=tuple(loading.notes),
        overlays=loading.overlays.givers(),
        alternatives=frozenset(loading.overlays.alternatives),
        given=frozenset("standard input" if path == "-" else str(Path(path)) for path in paths),
    )


def _is_patch(obj: KubeObject) -> bool:
    """Whether a manifest of a workload is a patch in a file of its own: the API server takes no workload without a selector."""
    spec = obj.raw.get("spec")
    return obj.group == "apps" and isinstance(spec, dict) and "selector" not in spec


class _Overlays:
    """What each kustomization gives."""

    def __init__(self) -> None:
        self._given: dict[str, list[tuple[KubeObject, set[str]]]] = {}  # by name: its variants, and who gives each
        self.alternatives: set[frozenset[str]] = set()

    def add(self, obj: KubeObject, root: str) -> None:
        variants = self._given.setdefault(str(obj.ref), [])
        same = next((roots for given, roots in variants if given.raw == obj.raw), None)
        if same is None:
            variants.append((obj, {root}))
        else:
            same.add(root)
        if obj.kind != "Namespace":  # several applications of one namespace write it, each in its way
            others = (roots for given, roots in variants if given.raw != obj.raw)
            self.alternatives |= {frozenset((root, other)) for roots in others for other in roots if other != root}

    def givers(self) -> dict[str, frozenset[str]]:
        """The kustomizations that give an object, by its name."""
        return {name: frozenset(r for _, roots in variants for r in roots) for name, variants in self._given.items()}


class _Loading:
    """The objects read so far, and what there is to say about them."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.notes: list[str] = []
        self.unread: dict[str, LeftOut] = {}  # by kind: policies that files hold which are not read
        self.unused = UnusedFiles()
        self.overlays = _Overlays()
        self._objects: dict[tuple[str, str, str, str], KubeObject] = {}

    @property
    def objects(self) -> list[KubeObject]:
        return list(self._objects.values())

    def read(self, path: str) -> None:
        if path == "-":
            self._text("standard input", sys.stdin.read())
            self.unused.file(path)
            return
        place = Path(path)
        if not place.is_dir():
            self._text(str(place), _text_of(place))
            self.unused.file(path)
            return
        kustomizations, charts = Kustomizations(place, self.notes.append), Charts(place)
        files = sorted(p for p in place.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
        if not files and not kustomizations.roots:
            raise InputError(f"there is no {', '.join(_SUFFIXES)} file in {path}")
        for root in kustomizations.roots:
            for raw, source in kustomizations.build(root):
                for obj in self._value(raw, source):
                    self.overlays.add(obj, str(root))
        for unread_file in kustomizations.unread:
            self._note_policies(unread_file, unread_file.read_text(encoding="utf-8", errors="replace"))
        self.notes += kustomizations.leaves_out(f for f in files if not charts.hold(f))
        for note in charts.named(self.namespace):
            self.notes.append(note)
            self.unused.hint(note)
        for unread in charts.left_out():
            self.unread.setdefault(unread.kind, unread)
        for file in files:
            if (held := kustomizations.consumes(file)) or charts.hold(file):
                self.unused.file(str(file), IN_KUSTOMIZATION if held else IN_CHART)
                continue
            text = ""
            try:
                text = _text_of(file)
                self._text(str(file), text)
            except InputError as error:
                self._left_out(error)
                self._note_policies(file, text)
            self.unused.file(str(file))

    def _note_policies(self, file: Path, text: str) -> None:
        """That there are policies of the kinds that a file names which can't be read."""
        for kind in policy_kinds_in(text):
            self.unread.setdefault(kind, LeftOut(kind, f"{file} can't be read", partly=True))

    def _left_out(self, error: InputError) -> None:
        self.unused.problem(error)
        self.notes.append(f"{error.message}: left out" + (f". {error.hint}" if error.hint else ""))

    def _text(self, source: str, text: str) -> None:
        places = Places(text)
        for number, document in enumerate(parse_text(source, text, self.notes.append), start=1):
            if document is not None:
                self._value(document, f"{source}, document {number}", places, number)

    def _value(self, value: Any, source: str, places: Places | None = None, document: int = 0) -> list[KubeObject]:
        """Takes up the objects of a document, and returns those that could be read."""
        readable = []
        for obj in self._read_objects(value, source):
            if places is not None:
                obj = msgspec.structs.replace(obj, line=places.line(document, obj.name))
            if (problem := _unreadable(obj)) is not None:
                self._left_out(problem)
                continue
            readable.append(obj)
            key = (obj.group, obj.kind, obj.namespace, obj.name or source)
            before = self._objects.pop(key, None)
            if before is not None and _is_patch(before) != _is_patch(obj):
                patch, obj = (obj, before) if _is_patch(obj) else (before, obj)
                self.notes.append(f"{patch.source}: a patch of {obj.ref}, not the object: left out")
            elif before is not None:
                note = GIVEN_ALIKE if obj.raw == before.raw else GIVEN_TWICE
                self.notes.append(f"{obj.ref}{note}{source}{COUNTS}{before.source}")
            self._objects[key] = obj
        return readable

    def _read_objects(self, value: Any, source: str) -> Iterator[KubeObject]:
        if isinstance(value, list):  # a JSON array of objects
            for i, item in enumerate(value):
                yield from self._read_objects(item, f"{source}, item {i + 1}")
            return
        if not isinstance(value, dict) or not (_is_typed(value) or _may_be_a_policy(value)):
            self._left_out(InputError("not a Kubernetes object: it has no apiVersion and kind", source=source))
            return
        items, kind = value.get("items", ""), value.get("kind")
        if isinstance(kind, str) and kind.endswith("List") and (items is None or isinstance(items, list | dict)):
            of_all = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
            members = list(items.values()) if isinstance(items, dict) else items  # refused, but no policy in it is lost
            for i, item in enumerate(members or ()):  # an empty list of `kubectl cluster-info dump` is null
                if isinstance(item, dict):  # items of typed lists (PodList) may leave out what the list says
                    item = {**of_all, **item}
                yield from self._read_objects(item, f"{source}, item {i + 1}")
            return
        raw: dict[str, Any] = without_nulls(value)
        metadata = raw.setdefault("metadata", {})
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
            name = metadata.get("generateName") if isinstance(metadata, dict) else None
            if isinstance(name, str) and name:
                metadata["name"] = name
            elif _may_be_a_policy(raw):  # kept with the reason why it is refused
                metadata = raw["metadata"] = (isinstance(metadata, dict) and metadata) or _misspelt_metadata(raw)
            else:
                self._left_out(InputError("has no name", source=source, obj=str(kind), field="metadata.name"))
                return
        yield self._placed(raw, metadata, source)

    def _placed(self, raw: dict[str, Any], metadata: dict[str, Any], source: str) -> KubeObject:
        """The object in its namespace: its own, else the user's, else "default". A word that asks to be replaced names none."""
        kind, namespace = str(raw.get("kind")), metadata.get("namespace")
        if kind in _CLUSTER_SCOPED or _group_and_kind(raw) in _CLUSTER_SCOPED_POLICIES:
            metadata.pop("namespace", None)
        elif not namespace or not (isinstance(namespace, str) or _may_be_a_policy(raw)):
            metadata["namespace"] = self.namespace or "default"
            return KubeObject(raw, source, unplaced=not self.namespace)
        return KubeObject(raw, source, unplaced=isinstance(namespace, str) and bool(_TO_FILL_IN.fullmatch(namespace)))


def _is_typed(value: dict[str, Any]) -> bool:
    return all(isinstance(value.get(field), str) and value[field] for field in ("apiVersion", "kind"))


def _misspelt_metadata(raw: dict[str, Any]) -> dict[str, Any]:
    """What stands under a name that is nearly "metadata"."""
    given = (v for k, v in raw.items() if nearest(str(k), ("metadata",)) and isinstance(v, dict))
    return dict(next(given, {}))


def _may_be_a_policy(value: dict[str, Any]) -> bool:
    """Whether what can't be read as an object is kept all the same: a policy that is refused is named, never left out."""
    obj = KubeObject(value)
    return (obj.group, obj.kind) in POLICY_KINDS or looks_like_a_policy(obj)


# Kinds that are read with their types: an object of another shape is left out, not the others with it.
_SHAPES: dict[tuple[str, str], type] = {
    ("", "Pod"): Pod,
    ("", "Service"): Service,
    ("", "Node"): Node,
    ("", "Namespace"): Namespace,
    ("discovery.k8s.io", "EndpointSlice"): EndpointSlice,
}


def _unreadable(obj: KubeObject) -> InputError | None:
    """What is wrong with the types of an object's fields, if something is."""
    shape = _SHAPES.get((obj.group, obj.kind))
    if shape is None:
        return None
    try:
        obj.decode(shape)
    except InputError as error:
        return error
    return None


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", source=str(file)) from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8 text", source=str(file)) from None
