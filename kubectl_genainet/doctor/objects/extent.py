"""What a source is complete for: where that is not known, what is absent from it may be elsewhere.

A live cluster has the kinds that could be listed, a bundle those that were recorded. Manifests are part of something
larger, unless the user says that they are the whole cluster, or their nodes show that they are a dump of one: a dump has
every object of a kind that it holds, and of the kinds of which a cluster need not have any.

Which manifests are applied together is known of those of one file, of one kustomization, of one folder, and of files that the
user names one by one. A repository holds examples, environments and alternatives side by side: of others nothing says it.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.doctor.objects.raw import mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.cluster import COUNTS, GIVEN_TWICE, ClusterSnapshot, LeftOut
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import TEMPLATE_PLACES

# Kinds that many clusters have none of: in a dump their absence says that there are none.
_MAY_BE_NONE = frozenset(
    {
        "NetworkPolicy",
        "ReferenceGrant",
        "NetworkAttachmentDefinition",
        "ENIConfig",
        "PeerAuthentication",
        "ResourceSlice",
        "DeviceClass",
    }
)
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_PART = "the manifests are not known to be the whole cluster (--complete says that they are)"


# Folders whose files are applied one by one.
_EXAMPLES = re.compile(r"(^|/)(examples?|samples?|demos?|tutorials?)(/|$)", re.I)
_VALUES = re.compile(r"((?:.*/)?[^/]*values[^/]*\.ya?ml), document 1: not a Kubernetes object", re.I)
_ENVIRONMENT = re.compile(r"(^|-)(dev|development|test|testing|qa|stage|staging|uat|preprod|prod|production)(?=-|$)")


def _file(source: str) -> str:
    """The file of an object's source ("FILE, document N")."""
    return source.partition(", document ")[0]


def _folder(source: str) -> str:
    return _file(source).rpartition("/")[0]


def _of_another_environment(first: KubeObject, other: KubeObject) -> bool:
    """Whether two objects are one for two environments: "api-dev" and "prod-api", or "api" in two namespaces."""
    names = [_ENVIRONMENT.sub("", obj.name).lstrip("-") for obj in (first, other)]
    return first.kind == other.kind and first.ref != other.ref and names[0] == names[1]


@dataclass(frozen=True)
class Extent:
    """How far a snapshot reaches. `stated`: the user says that manifests are the whole cluster."""

    snapshot: ClusterSnapshot
    stated: bool = False

    @cached_property
    def from_files(self) -> bool:
        """Whether the objects come from manifests: nothing of what the cluster made of them is known."""
        return any(o.source for o in self.snapshot.objects)

    @cached_property
    def of_a_cluster(self) -> bool:
        """Whether the snapshot shows a whole cluster: read from one, said to be one, or a dump of one."""
        return not self.from_files or self.stated or self._is_a_dump

    @cached_property
    def _is_a_dump(self) -> bool:
        """Whether manifests are a dump: nodes, and every workload beside them in the same file, or with the uid that an API
        server gives. A repository may hold a node in some test of its own."""
        nodes = self.snapshot.of("Node", "")
        others = self._made or tuple(o for o in self.snapshot.objects if o.kind != "Node")
        return bool(nodes) and self._beside({_file(n.source) for n in nodes}, others)

    @cached_property
    def _made(self) -> tuple[KubeObject, ...]:
        """What people write and clusters hold: workloads and Services."""
        kinds = {kind for _, kind in TEMPLATE_PLACES} | {"Service"}
        return tuple(o for kind in sorted(kinds) for o in self.snapshot.of(kind))

    @staticmethod
    def _beside(files: set[str], objects: Iterable[KubeObject]) -> bool:
        return all(text(o.raw, "metadata", "uid") or _file(o.source) in files for o in objects)

    @cached_property
    def _dumped_namespaces(self) -> frozenset[str]:
        """Namespaces of pods that a cluster has run, with their workloads beside them. People write nodeName too, but no
        uid and no status."""
        files: dict[str, set[str]] = defaultdict(set)
        for pod in self.snapshot.of("Pod", ""):
            ran = text(pod.raw, "metadata", "uid") or mapping(pod.raw, "status")
            if ran and text(pod.raw, "spec", "nodeName"):
                files[pod.namespace].add(_file(pod.source))
        return frozenset(
            namespace
            for namespace, held in files.items()
            if self._beside(held, (o for o in self._made if o.namespace == namespace))
        )

    @cached_property
    def _left_out(self) -> dict[str, LeftOut]:
        return {item.kind: item for item in self.snapshot.left_out if not item.partly}

    @cached_property
    def _variants(self) -> Mapping[str, frozenset[str]]:
        """The files that give an object in different ways, by the object's name."""
        files: dict[str, frozenset[str]] = {}
        for note in self.snapshot.notes:
            name, twice, sources = note.partition(GIVEN_TWICE)
            if twice and COUNTS in sources:
                files[name] = files.get(name, frozenset()) | {_file(s) for s in sources.split(COUNTS)}
        return files

    @cached_property
    def _alternatives(self) -> frozenset[str]:
        """Files of which each gives an object in a way of its own: they are not applied together."""
        return frozenset(file for files in self._variants.values() if len(files) > 1 for file in files)

    @cached_property
    def _values(self) -> Mapping[str, str]:
        """Values for Helm charts of elsewhere, by their folder; the folder of a chart itself is left out whole."""
        named = (_VALUES.match(note) for note in self.snapshot.notes)
        return {_folder(m[1]): m[1] for m in named if m}

    @cached_property
    def _sources(self) -> Mapping[str, KubeObject]:
        return {str(o.ref): o for o in self.snapshot.objects if o.source}

    @staticmethod
    def same_file(first: KubeObject, other: KubeObject) -> bool:
        return _file(first.source) == _file(other.source)

    def together(self, first: KubeObject, other: KubeObject) -> bool:
        """Whether two objects are applied to one cluster, as far as is known."""
        if self.of_a_cluster or not (first.source and other.source):
            return True
        overlays = self.snapshot.overlays
        built, also = overlays.get(str(first.ref), frozenset()), overlays.get(str(other.ref), frozenset())
        if built and also:
            return bool(built & also)
        if self.same_file(first, other) or {_file(o.source) for o in (first, other)} <= self.snapshot.given:
            return True
        return _folder(first.source) == _folder(other.source) and not self._holds_examples(_folder(first.source))

    def _holds_examples(self, folder: str) -> bool:
        """Whether a folder is one of examples; what the folder is called that the user named says nothing."""
        named = max((g for g in self.snapshot.given if f"{folder}/".startswith(f"{g}/")), key=len, default="")
        return _EXAMPLES.search(folder.removeprefix(named)) is not None

    def beside(self, ref: ObjectRef, workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
        """Those of some workloads that are applied with an object; all of them where none is."""
        if len(workloads) < 2 or self.of_a_cluster:
            return workloads
        return tuple(w for w in workloads if not self.scattered((ref, w.ref))) or workloads

    def scattered(self, refs: Iterable[ObjectRef]) -> str:
        """Why nobody says that several objects of manifests are applied together; empty where they are. A Namespace is the one
        that the others name."""
        if self.of_a_cluster:
            return ""
        named = {str(ref) for ref in refs if ref.kind != "Namespace"}
        rest = [self._sources[name] for name in sorted(named) if name in self._sources]
        reached = rest[:1]
        while near := [o for o in rest if o not in reached and any(self.together(o, r) for r in reached)]:
            reached += near
        far = next((o for o in rest if o not in reached), None)
        if far is None:
            return ""
        return f"nothing says that {rest[0].ref} and {far.ref} are applied together (--complete says that all is)"

    @cached_property
    def endpoints_by_hand(self) -> bool:
        """Whether the EndpointSlices of manifests are those that people wrote, for addresses outside, and no cluster's."""
        slices = self.snapshot.of("EndpointSlice")
        made = any(s.labels.get(_MANAGED_BY, "").endswith(".k8s.io") or text(s.raw, "metadata", "uid") for s in slices)
        return bool(slices) and not (self.of_a_cluster or self._dumped_namespaces or made)

    def old_status(self, obj: KubeObject) -> str:
        """Why an object's status says nothing of the cluster as it is; empty where it does."""
        if not mapping(obj.raw, "status"):
            return "it has no status"
        return "" if self.of_a_cluster else "its status is of the day it was saved"

    def values_beside(self, ref: ObjectRef) -> str:
        """The values of a Helm chart in an object's folder: what the chart installs is not here. Empty where there are none."""
        obj = self._sources.get(str(ref))
        return "" if self.of_a_cluster or obj is None else self._values.get(_folder(obj.source), "")

    def names_no_namespace(self, ref: ObjectRef) -> bool:
        """Whether a manifest leaves an object's namespace to whoever applies it."""
        obj = self._sources.get(str(ref))
        return obj is not None and obj.unplaced

    def varies(self, ref: ObjectRef) -> bool:
        """Whether manifests give an object more than once: which of them belongs to the others is not known."""
        return str(ref) in self._variants

    def apart(self, refs: Iterable[ObjectRef]) -> str:
        """Why manifests that give several objects exclude each other; empty where nothing speaks against them."""
        if self.of_a_cluster:
            return ""
        overlays, alternatives = self.snapshot.overlays, self.snapshot.alternatives
        names = {str(ref): self._sources.get(str(ref)) for ref in refs}
        for one, another in itertools.combinations([o for o in names.values() if o is not None], 2):
            if _of_another_environment(one, another):
                return f"{one.ref} and {another.ref} may be one object of two environments"
        if len(names) < 2:
            return ""
        for first, second in itertools.combinations([overlays[name] for name in names if name in overlays], 2):
            pairs = [frozenset((one, other)) for one in first for other in second]
            if not first & second and all(pair in alternatives for pair in pairs):
                return f"{' and '.join(sorted(pairs[0]))} give the same object differently"
        varying = next((name for name in names if name in self._variants), "")
        if varying:
            return f"{varying} is given more than once"
        files = {_file(obj.source) for obj in names.values() if obj is not None}
        alternative = min(files & self._alternatives, default="") if len(files) > 1 else ""
        return f"{alternative} is one of several files that give the same object differently" if alternative else ""

    def unread(self, kind: str, namespace: str = "") -> str:
        """Why a kind was not read; empty where it was. `namespace`: the objects of this one are enough."""
        left_out = self._left_out.get(kind)
        if left_out is None or (namespace and left_out.namespace == namespace):
            return ""
        return left_out.reason

    def partial(self, kind: str, namespace: str = "") -> str:
        """Why an object of a kind that is not in the snapshot may exist all the same; empty where it does not exist."""
        reason = self.unread(kind, namespace)
        if reason:
            return f"{kind} could not be read: {reason}"
        if not self.from_files or self.stated:
            return ""
        held = bool(self.snapshot.of(kind))
        if self.of_a_cluster or namespace in self._dumped_namespaces:
            return "" if held or kind in _MAY_BE_NONE else f"the manifests hold no {kind}"
        return _PART if held else f"the manifests hold no {kind}"
