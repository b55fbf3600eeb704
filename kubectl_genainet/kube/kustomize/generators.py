"""The ConfigMaps and Secrets that a kustomization generates, without the hash at the end of their names. Secrets are
generated without their values.

Source: Kustomize's reference of configMapGenerator, secretGenerator and generatorOptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kubectl_genainet.kube.yaml_text import Warn

Item = tuple[dict[str, Any], str]


def with_generated(
    items: list[Item], raw: dict[str, Any], place: str, text_of: Callable[[str], str | None], warn: Warn
) -> list[Item]:
    """The objects with those that a kustomization generates: new ones, or, by their `behavior`, merged into or in place of
    those that are there."""
    out = list(items)
    for kind, field in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for generator in raw.get(field) or ():
            obj = _generated(kind, generator, raw.get("generatorOptions") or {}, text_of)
            behavior = generator.get("behavior", "create")
            if behavior == "create":
                out.append((obj, place))
                continue
            there = [i for i, (other, _) in enumerate(out) if _is_same(other, obj)]
            if len(there) != 1:
                warn(f"{kind} {obj['metadata']['name']} is to {behavior} {len(there)} objects: left out")
                continue
            out[there[0]] = (_joined(out[there[0]][0], obj, behavior), place)
    return out


def _is_same(other: dict[str, Any], obj: dict[str, Any]) -> bool:
    own, mine = other.get("metadata") or {}, obj["metadata"]
    places = (own.get("namespace"), mine.get("namespace"))
    return (
        other.get("kind") == obj["kind"]
        and own.get("name") == mine["name"]
        and (None in places or places[0] == places[1])
    )


def _joined(old: dict[str, Any], new: dict[str, Any], behavior: str) -> dict[str, Any]:
    metadata = dict(old.get("metadata") or {})
    for field in ("labels", "annotations"):
        if new["metadata"].get(field):
            metadata[field] = {**(metadata.get(field) or {}), **new["metadata"][field]}
    if behavior == "replace":
        return {**new, "metadata": metadata}
    data = {**(old.get("data") or {}), **new.get("data", {})} if "data" in new else old.get("data")
    return {**old, "metadata": metadata, **({"data": data} if data is not None else {})}


def _generated(
    kind: str, generator: dict[str, Any], common: dict[str, Any], text_of: Callable[[str], str | None]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": generator["name"]}
    if generator.get("namespace"):
        metadata["namespace"] = generator["namespace"]
    options = generator.get("options") or {}
    for field in ("labels", "annotations"):
        pairs = {**(common.get(field) or {}), **(options.get(field) or {})}
        if pairs:
            metadata[field] = pairs
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    if kind == "Secret":
        obj["type"] = generator.get("type") or "Opaque"
    else:
        obj["data"] = dict(_data(generator, text_of))
    if options.get("immutable", common.get("immutable")):
        obj["immutable"] = True
    return obj


def _data(generator: dict[str, Any], text_of: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
    for name in (*(generator.get("envs") or ()), *([generator["env"]] if generator.get("env") else ())):
        yield from _of_environment((text_of(str(name)) or "").splitlines())
    for file in generator.get("files") or ():
        key, _, path = str(file).rpartition("=")
        yield key or path.rpartition("/")[2], text_of(path) or ""
    for literal in generator.get("literals") or ():
        key, _, value = str(literal).partition("=")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        yield key, value[1:-1] if quoted else value


def _of_environment(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        text = line.lstrip()
        if text and not text.startswith("#"):
            key, _, value = text.partition("=")
            yield key, value
