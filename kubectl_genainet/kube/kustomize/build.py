"""Kustomizations, built in process: the objects that `kubectl apply -k FOLDER` would send.

Built are resources, bases, components, patches, namespace, names and the references to them, labels, annotations, images,
replicas, generated ConfigMaps (without the hash at the end of their names), replacements, vars, and Kustomize's own plugins.
What is not built (remote resources, Helm charts, other plugins) is named. Annotations of `buildMetadata` are not set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize import edits, substitutions
from kubectl_genainet.kube.kustomize.build_metadata import set_build_metadata
from kubectl_genainet.kube.kustomize.builtins import as_kustomization
from kubectl_genainet.kube.kustomize.configurations import configured
from kubectl_genainet.kube.kustomize.generators import with_generated
from kubectl_genainet.kube.kustomize.names import remember, without_former_names
from kubectl_genainet.kube.yaml_text import Warn, parse_text, problem_of
from kubectl_genainet.shell import sh

FILE_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_OBJECTS = ("resources", "bases", "components")
_NOT_BUILT = ("helmCharts", "helmChartInflationGenerator")
_LISTS = (
    *("resources", "bases", "components", "patches", "patchesStrategicMerge", "patchesJson6902", "labels", "images"),
    *("configMapGenerator", "secretGenerator", "replicas", "configurations", "crds", "transformers", "generators"),
    *("helmCharts", "replacements", "vars", "buildMetadata"),
)
_WRONG_TYPES = (AttributeError, TypeError, KeyError, IndexError, ValueError)  # of fields that are not what they must be
_DEEPEST = 20
_MOST_BUILT = 2_000  # kustomizations, each counted as often as it is built on
_MOST_WORK = 200_000  # patches times objects of one
_MOST_BYTES = 32 << 20  # of a file

Item = tuple[dict[str, Any], str]  # an object, and where it was read


class Kustomizations:
    """The kustomizations below a folder. `roots` are those that no other one builds on."""

    def __init__(self, folder: Path, warn: Warn) -> None:
        self._warn = warn
        self._built = 0
        self._variables: list[substitutions.Substitution] = []
        self._parsed: dict[Path, list[Any]] = {}  # the documents of files: a base is built on by many
        self.unread: list[Path] = []  # files of objects that could not be read, or not built
        files = sorted(p for name in FILE_NAMES for p in folder.rglob(name) if p.is_file())
        self._read: dict[Path, dict[str, Any]] = {}
        for file in files:
            raw = self._kustomization(file)
            if raw is not None:
                self._read.setdefault(file.parent.resolve(), raw)
        self._consumed = {p.resolve() for p in files}
        self._parts: set[Path] = set()
        used: set[Path] = set()
        for place, raw in self._read.items():
            objects = {_resolved(place, name) for name in _listed(raw, *_OBJECTS)}
            for name in self._names(place, raw):
                path = _resolved(place, name)
                (used if path in self._read else self._consumed).add(path)
                if path not in objects:
                    self._parts.add(path)
        whole = folder.resolve()
        tops = [p for p in self._read if p not in used and not edits.is_component(self._read[p])]
        self.roots = [whole] if whole in self._read else tops
        self._whole = whole in self._read
        self._beside = [p for p in tops if p != whole] if self._whole else []

    def consumes(self, file: Path) -> bool:
        """Whether a file is part of a kustomization, or beside those that are built: it is not an object file of its own then."""
        return self._whole or file.resolve() in self._consumed

    def leaves_out(self, files: Iterable[Path]) -> Iterator[str]:
        """What to say of files that are not read as objects: those that no kustomization names where the folder is one, and
        those that are patches or a generator's input."""
        parts = []
        for file in files:
            path = file.resolve()
            if path in self._parts:
                parts.append(str(file))
            elif self._whole and path not in self._consumed:
                yield f"{file}: no kustomization here names it: left out"
        yield from (f"{place}: a kustomization that no other here builds on: left out" for place in self._beside)
        if parts:
            are = "a part" if len(parts) == 1 else "parts"
            yield f"read as {are} of kustomizations (patches, inputs of generators), not as objects: {', '.join(parts)}"

    def _names(self, place: Path, raw: dict[str, Any]) -> list[str]:
        try:
            return list(_file_names(raw))
        except _WRONG_TYPES as error:
            self._warn(f"{place}: the names of its files can't be read ({error})")
            return []

    def build(self, place: Path) -> list[Item]:
        """The objects of a kustomization. Raises InputError where its own fields have the wrong type."""
        try:
            self._variables = []
            built = self._build(place, 0)
            substitutions.resolve(built, self._variables, lambda m: self._warn(f"{place}: {m}"))
        except (*_WRONG_TYPES, RecursionError, InputError) as error:
            self._warn(f"{place}: the kustomization can't be built ({error}): left out")
            self.unread += sorted(p for p in place.rglob("*") if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
            return []
        finished = [(without_former_names(obj), source) for obj, source in built if not _is_local(obj)]
        objects = [obj for obj, _ in finished]
        set_build_metadata(objects, self._read.get(place) or {}, lambda m: self._warn(f"{place}: {m}"))
        return [item for item in finished if not self._too_deep(item)]

    def _too_deep(self, item: Item) -> bool:
        problem = problem_of(item[0])
        if problem:
            self._warn(f"{item[1]}: {problem}: left out")
        return bool(problem)

    def _kustomization(self, file: Path) -> dict[str, Any] | None:
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise InputError(f"more than {_MOST_BYTES >> 20} MiB", source=str(file))
            documents = [d for d in parse_text(str(file), file.read_text(encoding="utf-8-sig"), self._warn) if d]
        except (OSError, UnicodeDecodeError, InputError) as error:
            self._warn(f"{error}: left out")
            return None
        if len(documents) != 1 or not isinstance(documents[0], dict):
            self._warn(f"{file} is not a kustomization: left out")
            return None
        wrong = [f for f in _LISTS if not isinstance(documents[0].get(f) or [], list)]
        if wrong:
            self._warn(f"{file} can't be built: {wrong[0]} is not a list: left out")
            return None
        if "toolkit.fluxcd.io" in str(documents[0].get("apiVersion", "")):
            return None  # Flux's own kind of the same name is an object of the cluster
        return documents[0]

    def _build(self, place: Path, depth: int) -> list[Item]:
        self._count(place, depth)
        raw = self._read.get(place) or self._outside(place)
        if raw is None:
            self._warn(f"{place} has no kustomization: left out")
            return []
        first_variable = len(self._variables)
        self._name_what_is_not_built(raw, place)
        items = [i for name in _listed(raw, "resources", "bases") for i in self._resource(place, name, depth)]
        items = self._with_generated(items, raw, place, depth)
        return self._with_components(raw, place, items, depth, first_variable)

    def _with_components(
        self, raw: dict[str, Any], place: Path, items: list[Item], depth: int, first_variable: int
    ) -> list[Item]:
        """The objects after the components of a kustomization, each of which may have its own, and after its own changes."""
        for name in _listed(raw, "components"):
            component = _resolved(place, name)
            own = self._read.get(component) or self._outside(component)
            if own is None:
                continue
            self._count(component, depth)
            self._name_what_is_not_built(own, component)
            added = [i for n in _listed(own, "resources", "bases") for i in self._resource(component, n, depth)]
            items = self._with_generated(items + added, own, component, depth)
            items = self._with_components(own, component, items, depth + 1, first_variable)
        items = self._edited(raw, place, items, first_variable)
        for plugin in self._plugins(raw, "transformers", place, depth):
            items = self._edited(plugin, place, items, first_variable)
        return items

    def _plugins(self, raw: dict[str, Any], field: str, place: Path, depth: int) -> Iterator[dict[str, Any]]:
        """What the plugins of a field do, as kustomizations; one that is not built is named."""
        for name in _listed(raw, field):
            inline = "\n" in name
            documents = edits.inline_documents(name, self._warn) if inline else self._configuration(place, name, depth)
            for document in documents:
                try:
                    yield as_kustomization(document)
                except InputError as error:
                    self._warn(f"{place}: {error.message}")

    def _configuration(self, place: Path, name: str, depth: int) -> list[Any]:
        """The documents of a file, or what the kustomization of a folder makes."""
        return [document for document, _ in self._resource(place, name, depth)]

    def _count(self, place: Path, depth: int) -> None:
        self._built += 1
        if depth > _DEEPEST or self._built > _MOST_BUILT:
            raise InputError("kustomizations without end", source=str(place))

    def _name_what_is_not_built(self, raw: dict[str, Any], place: Path) -> None:
        for field in _NOT_BUILT:
            if raw.get(field):
                self._warn(f"{place}: {_not_built(field, raw[field], place)}")

    def _with_generated(self, items: list[Item], raw: dict[str, Any], place: Path, depth: int) -> list[Item]:
        for source in (raw, *self._plugins(raw, "generators", place, depth)):
            items = with_generated(
                items, source, str(place), lambda name: self._text(place, name), lambda m: self._warn(f"{place}: {m}")
            )
        return items

    def _edited(self, raw: dict[str, Any], place: Path, items: list[Item], first_variable: int) -> list[Item]:
        """The objects after the kustomization's own changes: patches first, replacements last.

        The variables from `first_variable` on are those of its objects.
        """
        remember(obj for obj, _ in items)
        patches = list(edits.patches_of(raw, lambda name: self._values(place, name), self._warn))
        if len(patches) * len(items) > _MOST_WORK:
            raise InputError(f"{len(patches)} patches for {len(items)} objects are too many", source=str(place))
        for patch in patches:
            items = edits.patched(items, patch, str(place), lambda m: self._warn(f"{place}: {m}"))
        self._variables += [substitutions.Substitution.of(v) for v in raw.get("vars") or ()]
        files = [v for name in _listed(raw, "configurations") for v, _ in self._values(place, name)]
        renamed = edits.set_fields(items, raw, configured(files, lambda m: self._warn(f"{place}: {m}")))
        for variable in self._variables[first_variable:]:
            variable.rename(renamed)
        replacements = list(self._replacements(raw, place))
        if len(replacements) * len(items) > _MOST_WORK:
            raise InputError(
                f"{len(replacements)} replacements in {len(items)} objects are too many", source=str(place)
            )
        substitutions.replace(items, replacements, lambda m: self._warn(f"{place}: {m}"))
        return items

    def _replacements(self, raw: dict[str, Any], place: Path) -> Iterator[Any]:
        """The replacements of a kustomization, those in files of their own too."""
        for replacement in raw.get("replacements") or ():
            if not replacement.get("path"):
                yield replacement
                continue
            for value, _ in self._values(place, str(replacement["path"])):
                yield from value if isinstance(value, list) else (value,)

    def _outside(self, place: Path) -> dict[str, Any] | None:
        """A kustomization that lies outside the folder that was given (a base beside it)."""
        for name in FILE_NAMES:
            if (place / name).is_file():
                return self._kustomization(place / name)
        return None

    def _resource(self, place: Path, name: str, depth: int) -> Iterator[Item]:
        path = _resolved(place, name)
        if path.is_dir():
            yield from self._build(path, depth + 1)
        elif path.is_file():
            for value, source in self._values(place, name):
                if not isinstance(value, dict):
                    self._warn(f"{source}: not a Kubernetes object: left out")
                    continue
                kind = str(value.get("kind", ""))
                items = value.get("items") if kind.endswith("List") else None
                of_all = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
                members = (
                    ({**of_all, **i} if isinstance(i, dict) else i for i in items)
                    if isinstance(items, list)
                    else (value,)
                )
                yield from ((member, source) for member in members)
        else:
            remote = "://" in name or name.startswith(("git@", "github.com/")) or "?ref=" in name
            self._warn(f"{place}: {name} is {'remote' if remote else 'not there'}: left out")

    def _values(self, place: Path, name: str) -> list[Item]:
        """The documents of a file, the caller's own to change. A file is parsed once."""
        path = place / name
        plain = self._plain_file(place, name)
        if plain is None:
            return []
        if plain not in self._parsed:
            self._parsed[plain] = self._documents(path)
        documents = enumerate(self._parsed[plain], start=1)
        return [(_copied(d), f"{path}, document {i}") for i, d in documents if d is not None]

    def _documents(self, path: Path) -> list[Any]:
        text = self._read_text(path)
        try:
            return parse_text(str(path), text, self._warn) if text is not None else []
        except InputError as error:
            self._warn(f"{error.message}: left out")
            self.unread.append(path)
            return []

    def _text(self, place: Path, name: str) -> str | None:
        return None if self._plain_file(place, name) is None else self._read_text(place / name)

    def _plain_file(self, place: Path, name: str) -> Path | None:
        """A file of a kustomization. One beyond its folder is not read, as by kubectl: what it holds would become part of
        objects, and so of reports. Neither is what is no plain file."""
        path = _resolved(place, name)
        if not path.is_relative_to(place):
            self._warn(f"{place}: {name} is not below the kustomization: left out")
            return None
        try:
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                return path
        except OSError as error:
            self._warn(f"can't read {place / name} ({error}): left out")
            return None
        self._warn(f"{place}: {name} is no file of at most {_MOST_BYTES >> 20} MiB: left out")
        return None

    def _read_text(self, path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            self._warn(f"can't read {path} ({error}): left out")
            return None


def _is_local(obj: dict[str, Any]) -> bool:
    """Whether an object is for tools only, and not sent to a cluster."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get("config.kubernetes.io/local-config", "false")) != "false"


def _copied(value: Any) -> Any:
    """The value, its mappings and lists new: kustomizations change what they build on."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _not_built(field: str, value: Any, place: Path) -> str:
    """What to say of a field that is not built: for Helm charts, which, and how to have them."""
    charts = [value] if isinstance(value, dict) else value
    names = ", ".join(str(chart.get("name") or chart.get("chartName")) for chart in charts)
    command = f"kubectl kustomize --enable-helm {sh(str(place))} | kubectl genainet ... --manifests -"
    return f"{field} ({names}): the objects of Helm charts are left out; to have them: {command}"


def _resolved(place: Path, name: str) -> Path:
    """The path that a kustomization names, links followed; one that can be none is a file that is not there."""
    try:
        path = (place / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, links in a circle
        return place / "(no path)"
    return path


def _listed(raw: dict[str, Any], *fields: str) -> list[str]:
    return [str(v) for f in fields for v in raw.get(f) or () if isinstance(v, str)]


def _file_names(raw: dict[str, Any]) -> Iterator[str]:
    """The files and folders that a kustomization names."""
    yield from _listed(raw, *_OBJECTS, "configurations", "crds", "transformers", "generators")
    yield from (v for v in _listed(raw, "patchesStrategicMerge") if "\n" not in v)
    for patch in [f for field in ("patches", "patchesJson6902", "replacements") for f in raw.get(field) or ()]:
        if isinstance(patch, dict) and isinstance(patch.get("path"), str):
            yield patch["path"]
    for generator in [*(raw.get("configMapGenerator") or ()), *(raw.get("secretGenerator") or ())]:
        if isinstance(generator, dict):
            names = [*(generator.get("files") or ()), *(generator.get("envs") or ())]
            names += [generator["env"]] if generator.get("env") else []
            yield from (str(n).rpartition("=")[2] for n in names)
    for chart in raw.get("helmCharts") or ():
        if isinstance(chart, dict) and isinstance(chart.get("valuesFile"), str):
            yield chart["valuesFile"]
