"""Connections that came about although the API's policies do not admit them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.in_force import FOLLOWED_NS, SEEN_NS
from kubectl_genainet.context.judging import denied_directions
from kubectl_genainet.model.diagnoses.rules import POLICY_NOT_ENFORCED
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import PacketPath

REMEMBERED = 10_000
MAX_HELD = 10_000  # paths; beyond, nothing is said of the oldest


class Bypass:
    """Feed it every record, after the context; it judges paths. What it says of a pair of pods and a port is kept until objects
    change. A path that is to be held against the policies is itself held, until it is known that these had not changed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: dict[str, int] = {}  # node -> when the policies were first in force, on its clock
        self._known: dict[tuple[str, str, int | None], Finding | None] = {}
        self._held: deque[PacketPath] = deque()
        self._now: dict[str, int] = {}

    def feed(self, event: Event) -> Iterator[PacketPath]:
        """Takes in one record; gives the paths that were held and can be told now."""
        if isinstance(event, ClusterChanged):
            self._since, self._known = {}, {}
            held, self._held = self._held, deque()
            for path in held:
                if self._verdict(path) is not None:  # by the policies of before and by those of after
                    self._held.append(path)
                else:
                    yield path
        elif t_ns := getattr(event, "t_ns", 0):
            node = getattr(event, "node", "")
            self._since.setdefault(node, t_ns)
            self._now[node] = max(t_ns, self._now.get(node, 0))
            while self._held and self._is_settled(self._held[0]):
                path = self._held.popleft()
                yield _with(path, self._verdict(path))

    def hold(self, path: PacketPath) -> Iterator[PacketPath]:
        """The path, if nothing is held against it; else it comes later. One of those before it, where there is no room."""
        if not self._is_in_force(path) or self._verdict(path) is None:
            yield path
            return
        self._held.append(path)
        if len(self._held) > MAX_HELD:
            yield self._held.popleft()

    def finish(self) -> Iterator[PacketPath]:
        """The paths that are still held: of what came so late that a change of the policies may not have been seen."""
        yield from self._held
        self._held.clear()

    def _is_settled(self, path: PacketPath) -> bool:
        return self._now.get(path.hops[0].node, 0) - path.t_ns > SEEN_NS

    def _is_in_force(self, path: PacketPath) -> bool:
        """Whether it is a connection between two pods that was seen from its first packet to the answer, under policies that
        enforcers had followed."""
        client, backend = path.flow.client, path.backend
        if backend is None or client.pod is None or backend.pod is None or path.handshake_ns is None or not path.hops:
            return False
        return path.t_ns - self._since.get(path.hops[0].node, path.t_ns) >= FOLLOWED_NS

    def _verdict(self, path: PacketPath) -> Finding | None:
        backend = path.backend
        if backend is None:
            return None
        key = (path.flow.client.ip, backend.ip, backend.port)
        if key not in self._known and len(self._known) < REMEMBERED:
            self._known[key] = self._judged(path)
        return self._known.get(key)

    def _judged(self, path: PacketPath) -> Finding | None:
        client, backend, engine = path.flow.client, path.backend, self._context.engine
        if engine is None or backend is None:
            return None
        flow = FiveTuple(client.ip, client.port or 0, backend.ip, backend.port or 0, path.flow.protocol)
        denied = denied_directions(flow, engine)
        if not denied:
            return None
        by = dict.fromkeys(f"{r.namespace}/{r.name}" for _, result in denied for r in result.isolated_by)
        names = " and ".join(by) or "the policies"
        return POLICY_NOT_ENFORCED.finding(
            f"pod {backend.namespace}/{backend.pod} accepts connections that {names} does not admit",
            (
                Evidence("the handshake was seen to end", Certainty.OBSERVED, node=backend.node or ""),
                Evidence(f"isolated for {' and '.join(name for name, _ in denied)} by {names}", Certainty.ASSUMED),
            ),
            object=ObjectRef("Pod", backend.pod or "", backend.namespace or ""),
        )


def _with(path: PacketPath, finding: Finding | None) -> PacketPath:
    return msgspec.structs.replace(path, findings=(*path.findings, finding)) if finding is not None else path
