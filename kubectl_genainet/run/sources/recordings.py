"""What nodes' recorders are asked: a range of time."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.ranges import Room
from kubectl_genainet.stream import AgentConnection, Dial, each

HISTORY_S = 120.0  # for all nodes' recordings
HISTORY_NODES = 64  # that are asked for them at a time


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """The blocks of a node's recording. `complete`: the answer came to its end."""

    blocks: tuple[bytes, ...]
    complete: bool


def history(
    dials: Mapping[str, Dial],
    request: wire.HistoryRequest,
    token: str = "",
    *,
    within_s: float = HISTORY_S,
    room: Room | None = None,
) -> dict[str, HistoryAnswer | GenainetError]:
    """What each node recorded of a range of time; at most HISTORY_NODES are asked at a time. An answer that finds no `room`
    beside the others' is not complete."""
    body = msgspec.json.encode(request)
    room = room or Room()

    def blocks(connection: AgentConnection) -> HistoryAnswer:
        response = connection.request("POST", "/v1/history", body)
        received = bytearray()
        complete = True
        try:
            while data := response.read(1 << 16):
                if not room.take(len(data)):
                    complete = False
                    break
                received += data
                if len(received) > request.max_bytes + (1 << 20):
                    raise GenainetError(f"node {connection.node} sent more of its recording than was asked for")
        except (OSError, http.client.HTTPException):
            complete = False
        parts = room.whole_blocks(bytes(received))
        return HistoryAnswer(parts, complete and sum(map(len, parts)) == len(received))

    names = sorted(dials)
    answers: dict[str, HistoryAnswer | GenainetError] = {}
    deadline = time.monotonic() + within_s
    for first in range(0, len(names), HISTORY_NODES):
        some = {node: dials[node] for node in names[first : first + HISTORY_NODES]}
        answers |= each(some, token, blocks, max(0.0, deadline - time.monotonic()))
    return answers
