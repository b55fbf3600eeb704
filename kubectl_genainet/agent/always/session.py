"""The always-on session behind `--metrics`, `--otlp-endpoint` and `--record`: one worker without end, its records fed to
consumers.

Its scrape listener is apart from the one that takes requests: it answers GET /metrics and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h11
import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from kubectl_genainet import wire
from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.agent.always.otlp import FlowLogs, LogExporter, OtlpEndpoint
from kubectl_genainet.agent.always.otlp_metrics import MetricsExporter
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.shipping import OwnerNames, Shipper
from kubectl_genainet.agent.dns.once import ExchangesOnce
from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.agent.serve.history import History
from kubectl_genainet.agent.serve.http import HttpConnection, HttpError
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.agent.serve.server import HEAD_S, Server
from kubectl_genainet.agent.session.job import FLUSH, Job
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Event, Progress
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.wire import FilterEntry, TraceRequest

PROBES = ("drops", "dns")
RECORDED = ("packet", "connections")  # and these, where the session records
ALL_TCP = (FilterEntry("::", 0, "TCP"),)  # matches() in probes/include/genainet.h
ALL_DNS = (FilterEntry("::", 53, "UDP"),)  # the address :: stands for all (probes/dns.bpf.c)
WITHOUT_END = 1 << 40  # seconds, events, bytes: none is reached
CPU_PERCENT = 5.0  # without a recorder nothing is followed, and no session needs less
EVENTS_PER_SECOND = 2_000  # a second and CPU: a tenth of what a trace may cost
NAMESPACES_S = 10.0
RECORDED_NAMESPACES_S = 2.0  # as for a trace: a drop's explanation waits for the node's counters
RECORDED_S = 3.0  # to write what was recorded until now
END_S = 10.0  # to detach its probes, and to write the recorder's last block
SILENT_S = 60.0  # a worker ticks every second; compiling the probes, once a kernel, takes several
BACKOFF_S = (1.0, 60.0)
STEADY_S = 300.0  # a session that lasted so long was well
MAX_SCRAPES = 8
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and resident bytes of a process with the children that it has waited for."""

    cpu_s: float
    memory: int

    @classmethod
    def of(cls, pid: int | str) -> Usage:
        """Zeros where the process is gone. Source: proc_pid_stat(5), fields 14 to 17 and 24."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return cls(0.0, 0)
        return cls(sum(map(int, fields[11:15])) / _TICKS, int(fields[21]) * _PAGE)


class OwnCost:
    """What the agent itself takes: its server, the always-on session, and the sessions that clients asked for.

    A process that was waited for is in its parent's times, so that the sum never goes back. What the kernel spends in
    the probes is charged to whoever was running, and is not in it.
    """

    def __init__(
        self, registry: CollectorRegistry, always: Callable[[], int | None], others: Callable[[], Iterable[int]]
    ):
        self._always, self._others = always, others
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        pid = self._always()
        server, session = Usage.of("self"), Usage.of(pid) if pid is not None else Usage(0.0, 0)
        others = [Usage.of(p) for p in self._others()]
        text = "CPU time of the agent's processes in user and kernel space."
        cpu = CounterMetricFamily("genainet_agent_cpu_seconds", text)
        cpu.add_metric([], server.cpu_s + session.cpu_s + sum(u.cpu_s for u in others))
        yield cpu
        memory = GaugeMetricFamily(
            "genainet_agent_memory_bytes", "Resident memory of the agent's processes.", labels=["process"]
        )
        memory.add_metric(["server"], server.memory)
        memory.add_metric(["session"], session.memory)
        memory.add_metric(["traces"], sum(u.memory for u in others))
        yield memory


class AlwaysOn:
    """Keeps the session running. `consumers` are called with each record, in the event loop, and must not block."""

    def __init__(
        self,
        node: str,
        host_netns: str,
        cache: str,
        metrics: Metrics,
        consumers: tuple[Callable[[Event], None], ...],
        record: RecordOptions | None = None,
    ) -> None:
        self.probes = PROBES if record is None else (*RECORDED, *PROBES)
        own_filters: dict[str, tuple[FilterEntry, ...]] = {"dns": ALL_DNS}
        if record is not None:
            own_filters |= {**dict.fromkeys(RECORDED, ALL_TCP), "drops": ()}
        request = TraceRequest(
            filters=() if record is None else (FilterEntry("::", 53, ""),),
            own_filters=own_filters,
            probes=self.probes,
            timeout_s=WITHOUT_END,
            max_events=WITHOUT_END,
            max_bytes=WITHOUT_END << 20,
            rulesets=record is not None,
            cpu_percent=record.cpu_percent if record is not None else CPU_PERCENT,
        )
        self._job = Job(
            request,
            node,
            host_netns,
            cache,
            Budget() if record is not None else Budget(events_per_second=EVENTS_PER_SECOND),
            namespaces_s=NAMESPACES_S if record is None else RECORDED_NAMESPACES_S,
            dns_over_tcp=record is not None,
            record=record,
        )
        self._recorded = asyncio.Event()
        self._consumers = consumers
        self.process: asyncio.subprocess.Process | None = None
        registry = metrics.registry
        self._up = Gauge("genainet_session_up", "1 while the probes are attached.", registry=registry)
        self._restarts = Counter(
            "genainet_session_restarts", "Ends of the session, by why.", ["reason"], registry=registry
        )
        self._unreadable = Counter("genainet_records_unreadable", "Records that could not be read.", registry=registry)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    async def flush(self) -> None:
        """Has what was recorded until now on the disk, if the session runs and is quick enough."""
        process = self.process
        if process is None or process.stdin is None:
            return
        self._recorded.clear()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(RECORDED_S):
                process.stdin.write(FLUSH + b"\n")
                await process.stdin.drain()
                await self._recorded.wait()

    async def run(self) -> None:
        """Runs sessions until it is cancelled, with a pause after each that grows where they fail at once."""
        pause, most = BACKOFF_S
        while True:
            began = time.monotonic()
            try:
                reason = await self._session()
            except Exception:  # a record that a consumer trips over must not end the counting for good, nor silently
                traceback.print_exc()
                reason = "error"
            self._up.set(0)
            self._restarts.labels(reason).inc()
            if time.monotonic() - began > STEADY_S:
                pause = BACKOFF_S[0]
            print(f"genainet-agent: the always-on session has ended ({reason}); again in {pause:g} s", file=sys.stderr)
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    async def _session(self) -> str:
        """One worker to its end; returns why it ended: "failed", "silent", "died", "error"."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "kubectl_genainet.agent.session.worker")
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=wire.MAX_RECORD)
        except OSError as error:
            print(f"genainet-agent: {error}", file=sys.stderr)
            return "error"
        self.process = process
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(self._job) + b"\n")
            await process.stdin.drain()
            return await self._consume(process)
        except (ConnectionError, ValueError):  # ValueError: a line beyond the limit
            return "error"
        finally:
            await self._end(process)
            self.process = None

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Has the worker end by itself, with the recorder's last block; kills it where it does not."""
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                await process.communicate()  # not wait(): see agent.server
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # always safe: nothing in the kernel outlives its descriptors
            await process.communicate()

    async def _consume(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        failed = False
        once = ExchangesOnce()
        while True:
            try:
                # Not wait_for, which until Python 3.12 swallows a cancellation that comes together with a line: the agent
                # would not end on SIGTERM.
                async with asyncio.timeout(SILENT_S):
                    line = await process.stdout.readline()
            except TimeoutError:
                return "silent"
            if not line:
                return "failed" if failed else "died"
            try:
                event = wire.decode(line)
            except GenainetError:
                self._unreadable.inc()
                continue
            if isinstance(event, AgentFailed):
                failed = True
                print(f"genainet-agent: {event.message}" + (f"\n  {event.hint}" if event.hint else ""), file=sys.stderr)
            elif isinstance(event, Progress) and event.stage == "attached":
                self._up.set(1)
            elif isinstance(event, Progress) and event.stage == "recorded":
                self._recorded.set()
            elif isinstance(event, Progress) and event.stage == "missing" and self._job.record is not None:
                print(f"genainet-agent: {event.detail}", file=sys.stderr)
            for known in once.feed(event):
                for consume in self._consumers:
                    consume(known)


class ScrapeServer:
    """Answers GET /metrics. Nothing of a request but its path and Accept is looked at."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; whatever a client sends, the agent goes on."""
        connection = HttpConnection(reader, writer)
        self._open += 1
        try:
            if self._open > MAX_SCRAPES:
                raise HttpError(503, "too many scrapes at a time")
            async with asyncio.timeout(HEAD_S):
                request = await connection.head()
            await self._answer(connection, request)
        except HttpError as error:
            await connection.refuse(error.status, f"{error}\n".encode(), "text/plain")
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        finally:
            self._open -= 1
            await connection.close()

    async def _answer(self, connection: HttpConnection, request: h11.Request) -> None:
        if request.target.partition(b"?")[0] != b"/metrics":
            raise HttpError(404, "there is /metrics only")
        if request.method != b"GET":
            raise HttpError(405, "GET only")
        fields: Mapping[bytes, bytes] = dict(request.headers)
        body, content_type = self.metrics.scrape(fields.get(b"accept", b"").decode("latin-1"))
        await connection.respond(200, body, content_type)


def listen_address(text: str) -> tuple[str | None, int]:
    """ "127.0.0.1:9913", "[::1]:9913", ":9913" (all addresses, as None). Raises GenainetError."""
    host, colon, port = text.rpartition(":")
    number = whole_number(port)
    if not colon or number is None or number > 65535:
        raise GenainetError(
            f"{text!r} is not ADDRESS:PORT", hint="For example 127.0.0.1:9913, or :9913 for all addresses."
        )
    return host.strip("[]") or None, number


@contextlib.asynccontextmanager
async def always_on(
    server: Server, listen: str, identities: str, otlp_endpoint: str, record: RecordOptions | None = None
) -> AsyncIterator[Metrics]:
    """The session; the exporter, the listener and the recorder where `otlp_endpoint`, `listen` and `record` are given."""
    address = listen_address(listen) if listen else None
    owners = Owners(identities)
    owners.reload()
    if owners.error:
        print(f"genainet-agent: {owners.error}", file=sys.stderr)
    metrics = Metrics(owners)
    consumers: tuple[Callable[[Event], None], ...] = (metrics.feed,)
    async with contextlib.AsyncExitStack() as stack:
        if otlp_endpoint:
            exporter = stack.enter_context(
                LogExporter(OtlpEndpoint.parse(otlp_endpoint), metrics.registry, server.inventory.node)
            )
            consumers += (FlowLogs(metrics, exporter.put).feed,)
            sending = asyncio.create_task(
                MetricsExporter(OtlpEndpoint.parse(otlp_endpoint), metrics.registry, server.inventory.node).run()
            )
            stack.callback(sending.cancel)
            if record is not None:
                names = OwnerNames(owners)
                stack.enter_context(Shipper(Path(record.folder), server.inventory.node, exporter, names))
        where = server.inventory
        session = AlwaysOn(where.node, where.host_netns, server.cache, metrics, consumers, record)
        OwnCost(
            metrics.registry, lambda: session.pid, lambda: [running.process.pid for running in server.sessions.values()]
        )
        if address is not None:
            listener = await asyncio.start_server(ScrapeServer(metrics).handle, *address)
            await stack.enter_async_context(listener)
        server.always_on = session.probes
        if record is not None:
            server.history = History(Path(record.folder), where.node, session.flush)
        running = asyncio.create_task(session.run())
        try:
            yield metrics
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
