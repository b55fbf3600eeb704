"""Recorders asked for a range of time: many side by side. One that says nothing holds up nobody else, and is named."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from kubectl_genainet.descriptors import make_room
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import ALIVE
from kubectl_genainet.history.ranges import Room
from kubectl_genainet.stream import AgentConnection, Dial
from kubectl_genainet.untrusted_http import BROKEN
from kubectl_genainet.wire import HistoryRequest

TOTAL_S = 120.0  # for all nodes' recordings
# Nodes that are asked and have not begun to answer, without those that have said nothing for QUIET_S. All are asked soon: one
# that says nothing is given its time while the others answer.
AT_A_TIME = 64
QUIET_S = 1.0
# Without a byte; as long as others answer, a node may take longer. An agent that searches sends something each second.
SILENT_S = 5.0
PER_BYTE_S = 2.0 / len(
    ALIVE
)  # that a byte counts as being heard: what trickles slower than half of ALIVE a second is silent
_LOOK_S = 0.02
_END_S = 1.0  # for the readers of connections that were cut


@dataclass(frozen=True, slots=True)
class RecorderAnswer:
    """The blocks of a node's recording. `complete`: the answer came to its end; `late`: it was cut, as nobody waited longer."""

    blocks: tuple[bytes, ...]
    complete: bool
    late: bool = False


@dataclass(slots=True)
class _Question:
    """One node that is asked, in a thread of its own. It was heard of until `heard_s`."""

    node: str
    dial: Dial
    token: str
    request: bytes
    max_bytes: int
    room: Room
    heard_s: float = field(default_factory=time.monotonic)
    begun: bool = False  # to answer
    answer: RecorderAnswer | GenainetError | None = None
    _connection: AgentConnection | None = None

    def ask(self) -> None:
        try:
            self._connection = AgentConnection(self.node, self.dial, self.token)
            try:
                self._heard()
                self.answer = self._read(self._connection)
            finally:
                self._connection.close()
        except GenainetError as error:
            self.answer = error

    def _heard(self) -> None:
        self.heard_s = time.monotonic()

    def _came(self, size: int) -> None:
        self.heard_s = min(time.monotonic(), self.heard_s + size * PER_BYTE_S)

    def _read(self, connection: AgentConnection) -> RecorderAnswer:
        response = connection.request("POST", "/v1/history", self.request)
        self._heard()
        self.begun = True
        received = bytearray()
        complete = True
        try:
            while data := response.read1(1 << 18):
                self._came(len(data))
                if not self.room.take(len(data)):
                    complete = False
                    break
                received += data
                if len(received) > self.max_bytes + (1 << 20):
                    raise GenainetError(f"node {self.node} sent more of its recording than was asked for")
        except BROKEN:
            complete = False
        blocks = self.room.whole_blocks(bytes(received))
        complete = complete and not response.length and sum(map(len, blocks)) == len(received)
        return RecorderAnswer(tuple(block for block in blocks if block != ALIVE), complete)

    def give_up(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()


def ask_recorders(
    dials: Mapping[str, Dial],
    request: HistoryRequest,
    token: str = "",
    *,
    within_s: float = TOTAL_S,
    room: Room | None = None,
) -> dict[str, RecorderAnswer | GenainetError]:
    """What each node recorded of a range of time. An answer that finds no `room` beside the others' is not complete, nor is
    one that stops before its end; a node that has sent nothing is an error."""
    make_room(len(dials))
    body, room = msgspec.json.encode(request), room or Room()
    waiting = deque(sorted(dials))
    questions: list[_Question] = []
    open_ones: list[_Question] = []
    threads: dict[str, threading.Thread] = {}
    deadline = time.monotonic() + within_s
    while (now := time.monotonic()) < deadline:
        open_ones = [question for question in open_ones if question.answer is None]
        starting = sum(not question.begun and now - question.heard_s < QUIET_S for question in open_ones)
        for node in [waiting.popleft() for _ in range(min(len(waiting), max(0, AT_A_TIME - starting)))]:
            question = _Question(node, dials[node], token, body, request.max_bytes, room)
            threads[node] = threading.Thread(target=question.ask, daemon=True, name=f"recorder-{node}")
            threads[node].start()
            questions.append(question)
            open_ones.append(question)
        if not waiting and all(now - question.heard_s >= SILENT_S for question in open_ones):
            break
        time.sleep(_LOOK_S)
    return {node: GenainetError(_NOT_ASKED.format(node, within_s)) for node in waiting} | _answers(questions, threads)


_NOT_ASKED = "the agent on node {} was not asked: the others took more than {:g} s"


def _answers(
    questions: list[_Question], threads: Mapping[str, threading.Thread]
) -> dict[str, RecorderAnswer | GenainetError]:
    """Cuts what is still open. A thread that still dials is left behind."""
    late = {question.node: time.monotonic() - question.heard_s for question in questions if question.answer is None}
    for question in questions:
        if question.node in late:
            question.give_up()
    end = time.monotonic() + _END_S
    for node in late:
        threads[node].join(max(0.0, end - time.monotonic()))
    answers: dict[str, RecorderAnswer | GenainetError] = {}
    for question in questions:
        answer = question.answer
        if question.node in late:
            answer = (
                replace(answer, late=True)
                if isinstance(answer, RecorderAnswer)
                else GenainetError(
                    f"the agent on node {question.node} has said nothing for {late[question.node]:.0f} s"
                )
            )
        assert answer is not None
        answers[question.node] = answer
    return answers
