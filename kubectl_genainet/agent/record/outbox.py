"""What a session that records sends on: the recorder sees every record, the session's consumers those that they count."""

from __future__ import annotations

from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.agent.session.outbox import Outbox
from kubectl_genainet.model.events import (
    ConnectionCounts,
    Event,
    FlowCounters,
    Http2Streams,
    HttpHead,
    Sampled,
    Sightings,
    TcpRetransmit,
)
from kubectl_genainet.model.node import NetnsRules, RulesetDump

_RECORDED_ONLY = (
    ConnectionCounts,
    FlowCounters,
    Http2Streams,
    HttpHead,
    NetnsRules,
    RulesetDump,
    Sampled,
    Sightings,
    TcpRetransmit,
)


class RecordingOutbox(Outbox):
    """The packet probe's drops do not come this way: a PacketDropped here is a sample of the drops probe."""

    def __init__(self, sink: int, capacity: int, recorder: Recorder) -> None:
        super().__init__(sink, capacity)
        self._recorder = recorder

    def put(self, event: Event, *, always: bool = False, count: int = 1) -> bool:
        self._recorder.take(event, of_drops=True)
        if isinstance(event, _RECORDED_ONLY):
            return True
        return super().put(event, always=always, count=count)
