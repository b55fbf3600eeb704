"""Workloads by their labels: what a Service's selector matches, and a policy's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubectl_genainet.doctor.objects.raw import mapping, selector_matches
from kubectl_genainet.doctor.objects.workloads import Workload

_Carried = tuple[Workload, Mapping[str, str]]


class WorkloadsByLabel:
    """Workloads by each label that their pods or templates carry, with the whole set that the label is from.

    Many checks ask for the same selectors: each Service's is looked up once.
    """

    def __init__(self, workloads_in: Mapping[str, Sequence[Workload]]) -> None:
        self._workloads_in = workloads_in
        self._by_template: dict[tuple[str, str, str], list[Workload]] = defaultdict(list)
        self._index: dict[tuple[str, str, str], list[_Carried]] = defaultdict(list)
        self._selected: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Workload, ...]] = {}
        for workload in (w for workloads in workloads_in.values() for w in workloads):
            for key, value in workload.labels.items():
                self._by_template[(workload.namespace, key, value)].append(workload)
            for carried in _label_sets(workload):
                for key, value in carried.items():
                    self._index[(workload.namespace, key, value)].append((workload, carried))

    def selected(self, namespace: str, selector: Mapping[str, str]) -> tuple[Workload, ...]:
        """The workloads of which a pod, or else the template, carries all labels; none for an empty selector."""
        asked = (namespace, tuple(selector.items()))
        if asked not in self._selected:
            self._selected[asked] = self._having(namespace, selector)
        return self._selected[asked]

    def templates_matching(self, namespace: str, selector: Mapping[str, Any]) -> list[Workload]:
        """The workloads whose template a LabelSelector matches; an empty one matches all."""
        equal = mapping(selector, "matchLabels").items()
        candidates = (self._by_template.get((namespace, key, str(value)), []) for key, value in equal)
        fewest: Sequence[Workload] = min(candidates, key=len, default=self._workloads_in.get(namespace, ()))
        return [w for w in fewest if selector_matches(selector, w.labels)]

    def _having(self, namespace: str, selector: Mapping[str, str]) -> tuple[Workload, ...]:
        candidates = (self._index.get((namespace, key, value), []) for key, value in selector.items())
        fewest = min(candidates, key=len, default=[])
        wanted = selector.items()
        return tuple({w.key: w for w, labels in fewest if wanted <= labels.items()}.values())


def _label_sets(workload: Workload) -> Iterable[Mapping[str, str]]:
    """The different sets of labels of a workload's pods and its template. Pods of one template share theirs."""
    sets = {id(labels): labels for p in workload.pods for labels in (p.pod.metadata.labels,)}
    different = {tuple(sorted(labels.items())): labels for labels in (*sets.values(), workload.labels)}
    return different.values()
