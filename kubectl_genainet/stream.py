"""The client's side of the agents' HTTP interface: many nodes at once, one iterator of records.

A node is reached by a dialler, a function that returns a connected socket: a unix socket in the lab, the API server's
port-forward on a cluster. A node that fails or falls silent becomes an AgentFailed record and stops nobody else.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.descriptors import make_room
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, Progress
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.untrusted_http import BROKEN
from kubectl_genainet.wire import Filters, TraceRequest
from kubectl_genainet.wire.waiting import WaitingRecords

T = TypeVar("T")
Dial = Callable[[], socket.socket]

SILENT_S = 15.0  # agents send a record every second
_LATE = math.inf  # since when a node was asked that was hung up on
_NOT_UNDERSTOOD = (400, 404)  # what an agent of another version may say to a request that it does not know
HELLO_S = 20.0  # to say who it is, which an agent does at once
ANSWER_S = 60.0  # an agent gives up a report of its node after a third of that
RULES_S = 130.0  # and its rules after 120 s
MAX_ANSWER = 4 * wire.MAX_RECORD  # bytes of an answer that is no stream
CHANGE_S = 5.0  # to take other filters, while its records come
READY_S = 5.0  # how long the node that opens connections waits for the others to watch
# What waits to be taken: records, and the bytes that they came in; then sockets are not read, and agents count what they lose.
WAITING_RECORDS = 20_000
WAITING_BYTES = 2 * wire.MAX_RECORD


class AgentConnection:
    """One HTTP request to one agent."""

    def __init__(self, node: str, dial: Dial, token: str = "") -> None:
        self.node = node
        try:
            sock = dial()
        except OSError as error:
            raise GenainetError(f"the agent on node {node} can't be reached: {error}") from None
        sock.settimeout(SILENT_S)
        self._http = http.client.HTTPConnection("agent")
        self._http.sock = sock
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._socket = sock
        self._version = ""  # of the agent, once it has answered
        self._steps: set[str] = set()
        self._stepping = threading.Lock()

    def request(self, method: str, path: str, body: bytes = b"") -> http.client.HTTPResponse:
        """Sends the request; raises GenainetError with the agent's own words for a refusal."""
        try:
            # An agent that refuses does not read the body: its answer, which says why, is there all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, path, body or None, self._headers)
            self._step("asked")
            response = self._http.getresponse()
        except BROKEN as error:
            raise GenainetError(
                f"the agent on node {self.node} does not answer: {error or type(error).__name__}"
            ) from None
        self._version = response.getheader(wire.VERSION_HEADER, "")
        if response.status >= 400:
            text = b""
            with contextlib.suppress(*BROKEN), contextlib.closing(response):
                text = response.read(65536)
            try:
                answer = msgspec.json.decode(text, type=dict[str, str])
            except DECODE_ERRORS:
                answer = {"error": text.decode(errors="replace")[:200]}
            message, hint = answer.get("error", ""), answer.get("hint", "")
            skew, remedy = wire.skew(self.node, self._version) if response.status in _NOT_UNDERSTOOD else ("", "")
            refused = (
                f"the agent on node {self.node} refuses ({response.status}): {message or 'its reason did not arrive'}"
            )
            raise GenainetError(f"{refused}; {skew}" if skew else refused, hint or remedy)
        return response

    @property
    def _why(self) -> str:
        """Why a port-forward ended ("" for an ordinary end); other sockets know no reason."""
        return getattr(self._socket, "reason", "")

    def decode(self, line: bytes) -> Event:
        """A line as a record of the node. Raises GenainetError, which names the agent's version where it is another one."""
        try:
            event = wire.decode(line)
        except GenainetError as error:
            skew, remedy = wire.skew(self.node, self._version)
            raise GenainetError(f"{error.message}; {skew}" if skew else error.message, remedy) from None
        wire.check_is_of(event, self.node)
        return event

    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body's lines as they arrive. Raises GenainetError where it breaks off or stays silent."""
        partial_line: list[bytes] = []  # parts of a line that is not whole yet
        size = 0
        while True:
            try:
                data = response.read1(1 << 16)
            except TimeoutError:
                raise GenainetError(f"node {self.node} has sent nothing for {SILENT_S:.0f} s") from None
            except BROKEN as error:
                raise GenainetError(f"the stream of node {self.node} broke off: {self._why or error}") from None
            if not data:
                if partial_line:
                    raise GenainetError(f"the stream of node {self.node} broke off in the middle of a record")
                return
            first, *others = data.split(b"\n")
            partial_line.append(first)
            size += len(first)
            if size > wire.MAX_RECORD:
                raise GenainetError(f"node {self.node} sent a record of more than {wire.MAX_RECORD} bytes")
            if others:
                yield b"".join(partial_line)
                *whole, last = others
                yield from whole
                partial_line, size = [last] if last else [], len(last)

    def say_no_more(self) -> None:
        """Tells the agent to end the trace, and to send what is left. By a byte: a port-forward can't be closed by one side.
        It follows the request, within which it would be a part of that."""
        self._step("no more")

    def _step(self, step: str) -> None:
        with self._stepping, contextlib.suppress(OSError):
            before = len(self._steps)
            self._steps.add(step)
            if before == 1 and len(self._steps) == 2:
                self._socket.send(b"\n")

    def interrupt(self) -> None:
        """Ends both sides; for another thread than the reading one, which wakes, and closes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """For the thread that reads only: http.client's objects can't be closed under a reader."""
        self.interrupt()
        self._http.close()


def ask_all(
    dials: Mapping[str, Dial], path: str | Mapping[str, str], token: str = "", *, within_s: float | None = None
) -> dict[str, list[Event] | GenainetError]:
    """The records of a GET (/v1/hello, /v1/node, /v1/rulesets) of many nodes side by side; a node's failure is its value.

    A node that has not answered whole within the time (ANSWER_S) has failed, however it spends it.
    """

    def records(connection: AgentConnection) -> list[Event]:
        size, events = 0, []
        node_path = path if isinstance(path, str) else path[connection.node]
        for line in connection.lines(connection.request("GET", node_path)):
            size += len(line)
            if size > MAX_ANSWER:
                raise GenainetError(f"node {connection.node} answered with more than {MAX_ANSWER} bytes")
            events.append(connection.decode(line))
        return events

    return _each(dials, token, records, ANSWER_S if within_s is None else within_s)


def _each(
    dials: Mapping[str, Dial], token: str, talk: Callable[[AgentConnection], T], within_s: float
) -> dict[str, T | GenainetError]:
    """What `talk` gives for a connection to each node. Each wait in it is bounded by the socket's time-out, all of them
    together by `within_s`: then the connections are cut, and a thread that still dials is left behind."""
    answers: dict[str, T | GenainetError] = {}
    connections: dict[str, AgentConnection] = {}

    def one(node: str, dial: Dial) -> None:
        try:
            connections[node] = connection = AgentConnection(node, dial, token)
            try:
                answers.setdefault(node, talk(connection))
            finally:
                connection.close()
        except GenainetError as error:
            answers.setdefault(node, error)

    make_room(len(dials))
    deadline = time.monotonic() + within_s
    threads = [threading.Thread(target=one, args=item, daemon=True) for item in dials.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for node in dials:
        late = GenainetError(f"the agent on node {node} has not answered within {within_s:g} s")
        if answers.setdefault(node, late) is late and node in connections:
            connections[node].interrupt()
    return {node: answers[node] for node in dials}


def fabric_reports(
    dials: Mapping[str, Dial], addresses: Mapping[str, Sequence[str]], token: str = ""
) -> dict[str, FabricReport | GenainetError]:
    """The fabric of the nodes of `addresses`, with the TCP connections of who has these addresses there."""
    paths = {node: f"/v1/fabric?at={','.join(ips)}" if ips else "/v1/fabric" for node, ips in addresses.items()}
    answers = ask_all({node: dials[node] for node in paths}, paths, token)
    return {node: _one_of(FabricReport, node, answer) for node, answer in answers.items()}


def _one_of(shape: type[T], node: str, answer: list[Event] | GenainetError) -> T | GenainetError:
    if isinstance(answer, GenainetError):
        return answer
    return next((r for r in answer if isinstance(r, shape)), GenainetError(f"node {node} sent no report"))


def rulesets(
    dials: Mapping[str, Dial], token: str = "", *, conntrack: bool = False
) -> dict[str, list[RulesetDump] | GenainetError]:
    """Every node's rulesets; with `conntrack`, the connections whose destination was translated too."""
    answers = ask_all(dials, "/v1/rulesets" + ("?conntrack=1" if conntrack else ""), token, within_s=RULES_S)
    return {
        node: answer if isinstance(answer, GenainetError) else [d for d in answer if isinstance(d, RulesetDump)]
        for node, answer in answers.items()
    }


def node_reports(dials: Mapping[str, Dial], token: str = "") -> dict[str, NodeReport | GenainetError]:
    """Every node's namespaces."""
    answers = ask_all(dials, "/v1/node", token)
    return {node: _one_of(NodeReport, node, answer) for node, answer in answers.items()}


class Streams:
    """Traces on many nodes at once: `poll` for the records; `close` ends all of them.

    A node that is to open connections (TraceRequest.check) is asked when all others watch, have failed, or take too
    long: what it causes is then seen wherever it goes.
    """

    def __init__(self, dials: Mapping[str, Dial], requests: Mapping[str, TraceRequest], token: str = "") -> None:
        make_room(len(dials))
        self._dials, self._token = dials, token
        self._waiting = WaitingRecords(WAITING_RECORDS, WAITING_BYTES)
        self._line: deque[Event] = deque()  # the rest of the one that is being read
        self._closing = threading.Event()
        self._finishing = threading.Event()
        self._open: dict[str, AgentConnection] = {}
        self._sessions: dict[str, str] = {}
        self._asked: dict[str, float] = {}  # nodes that have not said who they are, since when
        self._threads = {
            node: threading.Thread(target=self._read, args=(node, request), daemon=True, name=f"stream-{node}")
            for node, request in requests.items()
        }
        self._running = len(self._threads)
        self._unfinished = set(self._threads)
        self._others = {node for node, request in requests.items() if request.check is None}
        self._others_watch = threading.Event()
        self._ready(None)
        for thread in self._threads.values():
            thread.start()

    def _ready(self, node: str | None) -> None:
        """The node watches, or never will."""
        self._others.discard(node or "")
        if not self._others:
            self._others_watch.set()

    def _read(self, node: str, request: TraceRequest) -> None:
        if request.check is not None:
            self._others_watch.wait(READY_S)
        try:
            if self._closing.is_set() or self._finishing.is_set():
                return
            connection = AgentConnection(node, self._dials[node], self._token)
            try:
                self._open[node] = connection
                if self._closing.is_set() or self._finishing.is_set():  # they may not have seen this one
                    return
                self._asked[node] = time.monotonic()
                response = connection.request("POST", "/v1/trace", msgspec.json.encode(request))
                self._sessions[node] = response.getheader("Genainet-Session", "")
                self._pump(connection, connection.lines(response))
            finally:
                connection.close()
        except GenainetError as error:
            if not self._closing.is_set():
                late = self._asked.get(node) == _LATE
                message = f"node {node} has not said who it is within {HELLO_S:g} s" if late else error.message
                self._put((AgentFailed(node=node, message=message, hint="" if late else error.hint),))
        finally:
            self._asked.pop(node, None)
            self._ready(node)
            self._unfinished.discard(node)
            self._put(None)

    def _pump(self, connection: AgentConnection, lines: Iterable[bytes]) -> None:
        node = connection.node
        ended = False
        early = ""
        for number, line in enumerate(lines):
            event = connection.decode(line)
            if number == 0:
                if not isinstance(event, Hello):
                    raise GenainetError(f"the process answering on node {node} is not a genainet agent")
                wire.check_hello(event)
                self._asked.pop(node, None)
            elif isinstance(event, Progress) and event.stage == "attached":
                self._ready(node)
            ended = ended or isinstance(event, Bye | AgentFailed)
            if isinstance(event, Bye):
                early = event.why_early(asked=self._finishing.is_set() or self._closing.is_set())
            self._put(tuple(wire.expand(event)), len(line))
        if not ended:
            raise GenainetError(f"the stream of node {node} ended without its last record: its agent was stopped")
        if early:
            raise GenainetError(f"{early}: what happened on node {node} from then on is not known")

    def _put(self, events: tuple[Event, ...] | None, size: int = 0) -> None:
        self._waiting.put(events, size, self._closing.is_set)

    def poll(self, timeout_s: float) -> Event | None:
        """The next record, or None after the time or at the end (see `done`)."""
        if self._line:
            return self._line.popleft()
        self._hang_up()
        deadline = time.monotonic() + timeout_s
        while self._running:
            try:
                events = self._waiting.get(deadline - time.monotonic())
            except TimeoutError:
                return None
            if events is None:
                self._running -= 1
            elif events:
                self._line.extend(events)
                return self._line.popleft()
        return None

    def poll_line(self) -> Event | None:
        """The next of the records that came in one line with the last one; None after the line's end."""
        return self._line.popleft() if self._line else None

    def _hang_up(self) -> None:
        """On nodes that do not say who they are: a byte now and then keeps each single wait short."""
        for node, asked in list(self._asked.items()):
            if time.monotonic() - asked > HELLO_S and node in self._asked:
                self._asked[node] = _LATE
                self._open[node].interrupt()

    @property
    def done(self) -> bool:
        return self._running == 0

    def overdue(self) -> list[AgentFailed]:
        """Nodes whose streams have not ended when the caller stops waiting: what they lost is not known."""
        text = "its agent has not ended the trace in time: what it lost is not known"
        return [AgentFailed(node=node, message=text) for node in sorted(self._unfinished)]

    def set_filters(self, filters: Filters) -> list[GenainetError]:
        """Changes what is followed, on all nodes, while they run; returns what went wrong."""
        sessions, body = dict(self._sessions), msgspec.json.encode(filters)

        def change(connection: AgentConnection) -> None:
            answer = connection.request("PUT", f"/v1/trace/{sessions[connection.node]}/filters", body)
            with contextlib.suppress(*BROKEN):  # it has taken them: what it says besides is of no interest
                answer.read(1 << 16)

        answers = _each({node: self._dials[node] for node in sessions}, self._token, change, CHANGE_S)
        return [answer for answer in answers.values() if answer is not None]

    def finish(self) -> None:
        """Asks the agents to end: they send what they have, and their last record. Keep polling until `done`."""
        self._finishing.set()
        for connection in list(self._open.values()):
            connection.say_no_more()

    def close(self) -> None:
        """Ends all traces; the agents take their probes away when the connection is gone."""
        self._closing.set()
        self._others_watch.set()
        for connection in list(self._open.values()):
            connection.interrupt()
