"""Which policies may have been in force at a moment: near a change of the objects those of before it and those of after it.

A change is seen a while after it was made, and enforcers follow it within seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy import POLICY_KINDS, PolicyEngine

FOLLOWED_NS = 5_000_000_000  # until enforcers have followed a change of the objects
SEEN_NS = 3_000_000_000  # until a change of the objects is seen
MAX_EARLIER = 4  # states that are remembered beside the newest
_KINDS = ("Namespace", *sorted({kind for _, kind in POLICY_KINDS}))


@dataclass(slots=True)
class _Earlier:
    """Policies that were replaced, and when, on each node's clock."""

    engine: PolicyEngine | None
    until_ns: dict[str, int]

    def reach(self, now: Mapping[str, int]) -> None:
        for node, t_ns in now.items():
            self.until_ns[node] = max(t_ns, self.until_ns.get(node, 0))


class InForce:
    """Policies by time. An engine is None where the objects could not be read."""

    def __init__(self, snapshot: ClusterSnapshot, engine: PolicyEngine | None) -> None:
        self._snapshot, self._engine = snapshot, engine
        self._earlier: deque[_Earlier] = deque(maxlen=MAX_EARLIER)  # the latest first
        self._just_ended: _Earlier | None = None

    def change(self, snapshot: ClusterSnapshot, engine: PolicyEngine | None, now: Mapping[str, int]) -> None:
        """The objects are others now; `now` is how far each node has reported, on its own clock."""
        self._just_ended = None
        if is_judged_otherwise(self._snapshot, snapshot):
            self._just_ended = _Earlier(self._engine, dict(now))
            self._earlier.appendleft(self._just_ended)
        self._snapshot, self._engine = snapshot, engine

    def changed_at(self, now: Mapping[str, int]) -> None:
        """How far somebody else knows the nodes to have reported when the objects changed last."""
        if self._just_ended is not None:
            self._just_ended.reach(now)

    def engines(self, node: str, since_ns: int, until_ns: int) -> tuple[PolicyEngine | None, ...]:
        """What may have been in force on the node at some moment between both, on its clock: the newest first."""
        changed = [earlier.until_ns.get(node, -inf) for earlier in self._earlier]
        engines = (self._engine, *(earlier.engine for earlier in self._earlier))
        return tuple(
            engine
            for engine, began_ns, ended_ns in zip(engines, (*changed, -inf), (inf, *changed), strict=True)
            if until_ns >= began_ns - SEEN_NS and since_ns <= ended_ns + FOLLOWED_NS
        )


def is_judged_otherwise(before: ClusterSnapshot, after: ClusterSnapshot) -> bool:
    """Whether policies, or what they select by, are others."""
    return any(before.of(kind) != after.of(kind) for kind in _KINDS) or _is_any_relabelled(before, after)


def _is_any_relabelled(before: ClusterSnapshot, after: ClusterSnapshot) -> bool:
    same = set(map(id, before.of("Pod")))
    others = [pod for pod in after.of("Pod") if id(pod) not in same]
    labels = {(pod.namespace, pod.name): pod.labels for pod in before.of("Pod")} if others else {}
    return any(labels.get((pod.namespace, pod.name), pod.labels) != pod.labels for pod in others)
