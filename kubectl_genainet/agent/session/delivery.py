"""Takes what the probes and taps report, and passes it on: to the client's queue, or to the recorder where one records."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_genainet.agent.node.podrules import PodRules
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.agent.session.ledger import Ledger
from kubectl_genainet.agent.session.outbox import Outbox
from kubectl_genainet.model.events import Event, Sightings

SIGHTINGS = 500  # in one record


class Delivery:
    """Keeps the order of what was seen, and counts all of it in `ledger`. `pod_rules`, once set, looks at each event."""

    def __init__(self, node: str, outbox: Outbox, ledger: Ledger, recorder: Recorder | None) -> None:
        self.pod_rules: PodRules | None = None
        self._node, self._outbox, self._ledger, self._recorder = node, outbox, ledger, recorder
        self._sightings: list[bytes] = []  # that wait to be sent together

    def takers(self, probe: str) -> tuple[Callable[[Event], None], Callable[[bytes], None]]:
        """Who gets a probe's events, and its sightings: where a session records, nobody else reads the packets."""
        if self._recorder is None or probe != "packet":
            return self._send, self._batch
        return self._record, self._record_sighting

    def send_from_user_space(self, event: Event) -> None:
        """Sends an event that no kernel program has counted."""
        self._ledger.from_user_space += 1
        self._send(event)

    def send_sightings(self) -> None:
        count = len(self._sightings)
        if not count:
            return
        self._ledger.received += count
        if not self._outbox.put(Sightings(node=self._node, data=b"".join(self._sightings)), count=count):
            self._ledger.refused += count
        self._sightings.clear()

    def _send(self, event: Event) -> None:
        self.send_sightings()  # what was seen before it comes before it
        self._see(event)
        if not self._outbox.put(event):
            self._ledger.refused += 1

    def _batch(self, data: bytes) -> None:
        self._sightings.append(data)
        if len(self._sightings) >= SIGHTINGS:
            self.send_sightings()

    def _see(self, event: Event) -> None:
        self._ledger.received += 1
        if self.pod_rules is not None:
            self.pod_rules.see(event)

    def _record(self, event: Event) -> None:
        self._see(event)
        assert self._recorder is not None
        self._recorder.take(event)

    def _record_sighting(self, data: bytes) -> None:
        self._ledger.received += 1
        assert self._recorder is not None
        self._recorder.sighting(data)
