"""Connections that came about although the API's policies do not admit them."""

from __future__ import annotations

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.judging import denied_directions
from kubectl_genainet.model.diagnoses.rules import POLICY_NOT_ENFORCED
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import PacketPath

SETTLED_NS = 5_000_000_000  # how long the policies must have been in force before a connection is held against them
REMEMBERED = 10_000


class Bypass:
    """Feed it every record; it judges paths. What it says of a pair of pods and a port is kept until objects change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: dict[str, int] = {}  # node -> when the policies were first in force, on its clock
        self._known: dict[tuple[str, str, int | None], Finding | None] = {}

    def feed(self, event: Event) -> None:
        """Takes in one record."""
        if isinstance(event, ClusterChanged):
            self._since, self._known = {}, {}
        elif t_ns := getattr(event, "t_ns", 0):
            self._since.setdefault(getattr(event, "node", ""), t_ns)

    def finding(self, path: PacketPath) -> Finding | None:
        """What is wrong with a connection between two pods that was seen from its first packet to the answer."""
        client, backend = path.flow.client, path.backend
        if backend is None or client.pod is None or backend.pod is None or path.handshake_ns is None or not path.hops:
            return None
        if path.t_ns - self._since.get(path.hops[0].node, path.t_ns) < SETTLED_NS:
            return None
        key = (client.ip, backend.ip, backend.port)
        if key not in self._known and len(self._known) < REMEMBERED:
            self._known[key] = self._judged(path)
        return self._known.get(key)

    def _judged(self, path: PacketPath) -> Finding | None:
        client, backend, engine = path.flow.client, path.backend, self._context.engine
        if engine is None or backend is None:
            return None
        flow = FiveTuple(client.ip, client.port or 0, backend.ip, backend.port or 0, path.flow.protocol)
        denied = denied_directions(flow, self._context.identity, engine)
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
