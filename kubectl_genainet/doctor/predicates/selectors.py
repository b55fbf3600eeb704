"""Selectors that match nothing: whether that is a fault, or pods that the objects here do not show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, selector_matches
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import ObjectRef

# Labels that people write into pod templates, whatever their prefix; other prefixed labels are a controller's own.
_WRITTEN = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
)
# Labels without a prefix that controllers add: Job, Zalando's and CloudNativePG's operators, AIBrix, Kubeflow Notebooks.
_ADDED = frozenset(
    (
        *("job-name", "controller-uid", "pod-template-hash", "controller-revision-hash", "cluster-name", "spilo-role"),
        *("storm-service-name", "storm-service-revision", "roleset-name", "role-name", "role-template-hash"),
        *("notebook-name", "nim-llm-role"),
    )
)
# Labels by which a Helm chart's own Services find its pods.
_OF_CHARTS = frozenset(("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"))
_ALIKE = 0.8
_LONG = 4  # letters of a word in which one may be wrong
_WORDS = re.compile(r"[-._/]")
_DIGITS = re.compile(r"[0-9]+")
_KIND = re.compile(r"-(service|svc)$")  # what some add to the name of a Service


def added_by_a_controller(cluster: Cluster, namespace: str, keys: Iterable[str]) -> str:
    """The key among some that a controller adds to pods and no template here has; empty where there is none.

    A prefixed label beyond the recommended ones is some controller's vocabulary, unless a template writes it, or the
    controller of a kind here is known to add it.
    """
    written = {k for w in cluster.workloads_in.get(namespace, ()) for k in (*w.template.labels, *dict(w.added_labels))}
    return next(
        (k for k in keys if k not in written and (k in _ADDED or ("/" in k and k not in _WRITTEN))),
        "",
    )


def of_a_chart(cluster: Cluster, ref: ObjectRef, selector: Mapping[str, str], near: Workload | None) -> str:
    """Why a selector may be for the pods of a chart that is installed beside the manifests; empty where it is not.

    It names the labels that charts give, and the workload that it resembles has none of them.
    """
    values = cluster.extent.values_beside(ref)
    if not values or not _OF_CHARTS.issuperset(selector) or (near is not None and _OF_CHARTS & near.labels.keys()):
        return ""
    return f"its pods may be those of the chart that {values} is for"


def selected_when_placed(cluster: Cluster, namespace: str, selector: Mapping[str, str]) -> str:
    """Why a selector may find another workload: one with its labels names no namespace. Empty where there is none."""
    for space in cluster.workloads_in:
        matching = cluster.templates_matching(space, {"matchLabels": dict(selector)}) if space != namespace else ()
        found = next((w for w in matching if cluster.extent.names_no_namespace(w.ref)), None)
        if found is not None:
            return f"{found.ref}, which it would select, names no namespace"
    return ""


def named_by(cluster: Cluster, namespace: str, peer: dict[str, Any]) -> Iterator[Workload]:
    """The workloads that a peer of a policy selects (API reference, NetworkPolicyPeer); none for an ipBlock."""
    pods, spaces = at(peer, "podSelector"), at(peer, "namespaceSelector")
    if pods is None and spaces is None:
        return
    labels_of = cluster.snapshot.namespace_labels
    named = (s for s in cluster.workloads_in if selector_matches(spaces, labels_of(s))) if spaces is not None else None
    for space in (namespace,) if named is None else named:
        yield from cluster.templates_matching(space, pods or {})


def nearly_selected(
    cluster: Cluster, namespace: str, selector: Mapping[str, str], name: str
) -> tuple[Workload, str] | None:
    """A workload that a selector misses by one label, with that label's key: the one that was meant.

    It has the name of what selects it, or the label's value is nearly the same, or stands under another key beside labels
    that do match.
    """
    for workload in cluster.workloads_in.get(namespace, ()):
        labels = workload.labels
        differ = [k for k, v in selector.items() if labels.get(k) != str(v)]
        if len(differ) != 1:
            continue
        key = differ[0]
        if selector[key].lower() == labels.get(key, "").lower():
            return workload, key
        if workload.name == _stem(name) or _alike(str(selector[key]), labels.get(key, "")):
            return workload, key
        if key not in labels and len(selector) > 1 and str(selector[key]) in labels.values():
            return workload, key
    return None


def _stem(name: str) -> str:
    for end in ("-service", "-svc", "-headless", "-lb"):
        name = name.removesuffix(end)
    return name


def _alike(name: str, other: str) -> bool:
    """Whether one name is a slip of the pen for another: a letter or two differ. A word more is another name, and so is
    another number, or another short word: sizes and versions of a model stand side by side, and so do "tei" and "tgi". A
    long prefix that both share, such as a release's, makes no two names alike."""
    if name == other or abs(len(name) - len(other)) > 2 or _DIGITS.findall(name) != _DIGITS.findall(other):
        return False
    own_words, others = _WORDS.split(name), _WORDS.split(other)
    if len(own_words) != len(others):
        return _ratio(name, other) >= _ALIKE
    differing = [(a, b) for a, b in zip(own_words, others, strict=True) if a != b]
    return all(min(len(a), len(b)) >= _LONG and _ratio(a, b) >= _ALIKE for a, b in differing)


def _ratio(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def alike(name: str, names: Iterable[str]) -> str:
    """The name among some that one was probably written for; empty where none is near. "llm-service" is one for "llm"."""
    some, plain = tuple(names), _KIND.sub("", name)
    slips = (n for n in some if _alike(name, n))
    return next(slips, "") or next((n for n in some if n != name and _KIND.sub("", n) == plain), "")


def meant(kind: str, name: str, namespace: str) -> tuple[ObjectRef, ...]:
    """The object that another one probably means, where there is one."""
    return (ObjectRef(kind, name, namespace),) if name else ()


def service_names(cluster: Cluster, namespace: str) -> list[str]:
    """The Services of a namespace, among which a name that is not there may be meant."""
    return [name for where, name in cluster.services_by_key if where == namespace]
