"""1,000 recorders asked at once: real agents' servers on unix sockets, with synthetic segments of an hour each.

`trace svc/… --since 1h` about one Service that 40 of the nodes serve or call, in a process of its own: time, peak memory; and
with 175 nodes that fail, in seven ways, whether they are named. The limits are 10 s and 300 MB. The servers run on the
same cores as the client (on a cluster each has its node's). Baseline: the same question of the 40 nodes alone.

    python -m benchmarks fleet
    GENAINET_FLEET=1000 python -m benchmarks fleet
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._failing_recorders import WAYS, behave
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.serve.history import History
from kubectl_genainet.agent.serve.server import AnyCaller, Server
from kubectl_genainet.cli import main as run_plugin
from kubectl_genainet.history.blocks import Flag, Span, encode_block
from kubectl_genainet.history.rows import OBJECTS
from kubectl_genainet.history.select import index_of, packed
from kubectl_genainet.model.events import ClusterChanged, Event, Hello, Sightings, Tick
from kubectl_genainet.model.history import Bucket, ConnectionSums
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.run.sources.choice import SourceChoice
from kubectl_genainet.wire import PROTOCOL
from kubectl_genainet.wire.sightings import PACKET, SIGHTING
from tests.recordertest import RecordedCluster

NODES = int(os.environ.get("GENAINET_FLEET", "1000"))
LIMIT_S, LIMIT_MB = 10.0, 300.0
SERVERS, CALLERS = 30, 10  # nodes with a backend of the Service, and with a client of it
SECOND = 1_000_000_000
HOUR_S, BLOCK_S = 3600, 5
MONO = 5_000 * SECOND
SERVICE, SERVICE_IP, PORT, BACKEND_PORT = "model", "10.96.0.5", 80, 8080
OTHERS = 1  # connections of other Services that a node keeps whole of each block
EACH = 6  # blocks: so often a caller's connection to the Service is kept whole
SYN, ACK, FIN = 2, 16, 1
EACH_TROUBLE = max(1, NODES // 40)  # nodes that fail in each way; none of them serves or calls the Service
_APART = max(1, (NODES - 200) // (EACH_TROUBLE * len(WAYS)))  # they lie among those that answer, the last one too
TROUBLE = {way: range(NODES - 1 - _APART * n, 200, -_APART * len(WAYS))[:EACH_TROUBLE] for n, way in enumerate(WAYS)}
_BOOT = bytes(15)


def pod_ip(node: int, pod: int = 0) -> str:
    return f"10.{64 + (node >> 8)}.{node & 255}.{pod + 2}"


def name_of(node: int) -> str:
    return f"node-{node:04d}"


def is_backend(node: int) -> bool:
    return 10 <= node < 10 + SERVERS


def is_caller(node: int) -> bool:
    return 100 <= node < 100 + CALLERS


def packet(t_ns: int, ends: tuple[str, int, str, int], place: tuple[int, int, str, int], flags: int, seq: int) -> bytes:
    src, sport, dst, dport = ends
    netns, ifindex, device, point = place
    nothing = (bytes(16), bytes(16), 0, 0, 0, 0)
    numbers = (netns, ifindex, seq, seq, 60, 0, 0)
    tuple_of = (packed(src), packed(dst), sport, dport, 6)
    seen = (1, SIGHTING, point, flags, 0, 0, 0, 0, device.encode(), 0, 0, 64)
    return PACKET.pack(t_ns, seq + 1, *tuple_of, *nothing, *numbers, *seen)


def connection(t_ns: int, client: tuple[str, int], asked: str, backend: str, *, here: str) -> list[bytes]:
    """What the client's node, or the server's, sees of a connection that is answered and ended."""
    seq = t_ns & 0x7FFFFFFF
    before, after = (*client, asked, PORT), (*client, backend, BACKEND_PORT)
    at_client = ((7, 2, "eth0", 1, before), (1, 5, "veth1", 0, before), (1, 2, "eth0", 1, after))
    at_server = ((1, 2, "eth0", 0, after), (1, 5, "veth1", 1, after), (7, 2, "eth0", 0, after))
    seen = []
    for step, (flags, back) in enumerate(((SYN, False), (SYN | ACK, True), (FIN | ACK, False), (FIN | ACK, True))):
        places = at_client if here == "client" else at_server
        for number, (netns, ifindex, device, point, ends) in enumerate(reversed(places) if back else places):
            way = (ends[2], ends[3], ends[0], ends[1]) if back else ends
            at_ns = t_ns + step * 400_000 + number * 20_000 + (100_000 if (here == "server") != back else 0)
            seen.append(packet(at_ns, way, (netns, ifindex, device, point ^ back), flags, seq + 7 * back))
    return seen


def report_of(node: int, t_ns: int) -> NodeReport:
    own = Device(name="eth0", ifindex=2, mtu=1500, addresses=(f"172.20.{node >> 8}.{node & 255}",))
    pods = Device(
        name="eth0", ifindex=2, mtu=1500, kind="veth", addresses=(pod_ip(node),), peer_ifindex=5, peer_netns=1
    )
    namespaces = (
        NetNs(inode=1, host=True, devices=(own,)),
        NetNs(inode=7, host=False, pod_uids=(f"uid-{node}",), devices=(pods,)),
    )
    return NodeReport(node=name_of(node), t_ns=t_ns, namespaces=namespaces)


def records_of(node: int, number: int, mono_ns: int, wall_ns: int) -> list[Event]:
    """Of one block: what a recorder on a busy node keeps."""
    name = name_of(node)
    seen: list[bytes] = []
    for other in range(OTHERS):
        client = (pod_ip(node, other + 1), 33_000 + (number * OTHERS + other) % 20_000)
        server = pod_ip((node + 300 + other) % NODES, 9)
        seen += connection(mono_ns + other * 600_000_000, client, f"10.97.0.{other}", server, here="client")
    if is_caller(node) or is_backend(node):
        ours = [(caller, 10 + (number + caller) % SERVERS) for caller in range(100, 100 + CALLERS)]
        ours = [pair for pair in ours if (number + pair[0]) % EACH == 0]
        for caller, backend in ours:
            if node in (caller, backend):
                client, here = (pod_ip(caller), 40_000 + number), "client" if node == caller else "server"
                at_ns = MONO + number * BLOCK_S * SECOND + (caller - 99) * 300_000_000
                seen += connection(at_ns, client, SERVICE_IP, pod_ip(backend), here=here)
    sums = tuple(
        ConnectionSums(
            side="client", client=pod_ip(node, pod + 1), server=f"10.97.0.{pod}", port=PORT, opened=9, established=9
        )
        for pod in range(OTHERS)
    )
    bucket = Bucket(node=name, since_ns=wall_ns - 5 * SECOND, until_ns=wall_ns + 5 * SECOND, connections=sums)
    ticks = [Tick(node=name, t_ns=mono_ns + second * SECOND) for second in range(BLOCK_S)]
    reports = [report_of(node, mono_ns)] if number % 12 == 0 else []
    return [*reports, *([bucket] if number % 2 else []), Sightings(node=name, data=b"".join(seen)), *ticks]


def write_node(folder: Path, node: int, wall_ns: int) -> None:
    """An hour's segments, from `wall_ns` on."""
    name = name_of(node)
    hello = Hello(
        node=name,
        protocol=PROTOCOL,
        version="0",
        kernel="6.1",
        boot_id="",
        t_ns=MONO,
        realtime_ns=wall_ns,
        tier="tracepoint",
    )
    blocks = []
    for number in range(HOUR_S // BLOCK_S):
        mono, wall = (begin + number * BLOCK_S * SECOND for begin in (MONO, wall_ns))
        records = records_of(node, number, mono, wall)
        flags = Flag.STATE if number % 12 == 0 else Flag(0)
        if number == 0:
            records.insert(0, hello)
            flags |= Flag.WHOLE_STATE | Flag.FIRST
        covers = Span(wall, wall + BLOCK_S * SECOND, mono, mono + BLOCK_S * SECOND)
        blocks.append(
            encode_block(
                records,
                covers,
                session=node + 1,
                number=number + 1,
                boot_id=_BOOT + bytes([node & 255]),
                flags=flags,
                addresses=index_of(records),
            )
        )
    (folder / name).mkdir()
    (folder / name / f"{1:020d}-{wall_ns:020d}.seg").write_bytes(b"".join(blocks))


def write_objects(folder: Path, wall_ns: int) -> None:
    cluster = ClusterChanged(objects=list(objects()))
    covers = Span(wall_ns, wall_ns + HOUR_S * SECOND, MONO, MONO + HOUR_S * SECOND)
    flags = Flag.STATE | Flag.WHOLE_STATE | Flag.FIRST
    (folder / OBJECTS).mkdir()
    block = encode_block([cluster], covers, session=1, number=1, boot_id=bytes(16), flags=flags)
    (folder / OBJECTS / f"{1:020d}-{wall_ns:020d}.seg").write_bytes(block)


def objects() -> Iterator[dict[str, Any]]:
    backends = [node for node in range(NODES) if is_backend(node)]
    ports: list[dict[str, Any]] = [{"port": PORT, "targetPort": BACKEND_PORT, "protocol": "TCP"}]
    spec = {"clusterIP": SERVICE_IP, "clusterIPs": [SERVICE_IP], "selector": {"app": SERVICE}, "ports": ports}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": "ai"}, "spec": spec}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{SERVICE}-1", "namespace": "ai", "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4",
        "ports": [{"port": BACKEND_PORT, "protocol": "TCP", "name": ""}],
        "endpoints": [
            {
                "addresses": [pod_ip(n)],
                "nodeName": name_of(n),
                "targetRef": {"kind": "Pod", "name": f"{SERVICE}-{n}", "namespace": "ai"},
            }
            for n in backends
        ],
    }
    for node in range(NODES):
        addresses = [{"type": "InternalIP", "address": f"172.20.{node >> 8}.{node & 255}"}]
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name_of(node)},
            "status": {"addresses": addresses},
        }
        if is_backend(node) or is_caller(node):
            app = SERVICE if is_backend(node) else "caller"
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{app}-{node}", "namespace": "ai", "uid": f"uid-{node}", "labels": {"app": app}},
                "spec": {"nodeName": name_of(node)},
                "status": {"phase": "Running", "podIP": pod_ip(node), "podIPs": [{"ip": pod_ip(node)}]},
            }


def serve(folder: Path, sockets: Path, names: list[str], ready: Connection) -> None:
    """Agents' servers of these nodes, until the process is ended."""

    async def nothing_waits() -> None:
        pass

    async def run() -> None:
        for name in names:
            server = Server(Inventory(name, "/proc/self/ns/net"), "", AnyCaller())
            server.history = History(folder / name, name, nothing_waits)
            await asyncio.start_unix_server(server.handle, str(sockets / f"{name}.sock"), backlog=100)
        ready.send(True)
        await asyncio.Event().wait()

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who read what, a line each
    asyncio.run(run())


def ask(sockets: str, since: str, until: str) -> None:
    """The command, in this process."""
    fleet = RecordedCluster(Path(sockets), namespace="ai")
    SourceChoice.open = lambda *_: fleet  # type: ignore[method-assign]
    sys.argv[1:] = ["trace", f"svc/{SERVICE}", "-n", "ai", "--since", since, "--until", until, "-o", "json"]
    run_plugin()


@dataclass(frozen=True)
class Answer:
    seconds: float
    cpu_s: float
    peak_mb: float
    paths: int
    status: int
    warnings: str


def asked(sockets: Path, wall_ns: int) -> Answer:
    times = [datetime.fromtimestamp(t, UTC).isoformat() for t in (wall_ns // SECOND, wall_ns // SECOND + HOUR_S)]
    command = [sys.executable, "-m", "benchmarks.fleet", "ask", str(sockets), *times]
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        paths = sum(line.startswith(b'{"kind":"path"') or b'"hops"' in line for line in out)
        warnings = err.read().decode()
    cpu_s = usage.ru_utime + usage.ru_stime
    return Answer(seconds, cpu_s, usage.ru_maxrss / 1024, paths, os.waitstatus_to_exitcode(status), warnings)


def describe(what: str, answer: Answer, expected: int = 0) -> None:
    within = answer.seconds <= LIMIT_S and answer.peak_mb <= LIMIT_MB
    print(
        f"{what}: {answer.seconds:.1f} s (client's CPU {answer.cpu_s:.1f} s), peak {answer.peak_mb:.0f} MB, "
        f"{answer.paths} paths, status {answer.status}{'' if answer.status == expected else f', NOT {expected}'}: "
        f"{'within' if within else 'ABOVE'} {LIMIT_S:g} s and {LIMIT_MB:g} MB",
        flush=True,
    )


def _sockets_of(folder: Path, nodes: Iterable[int]) -> list[Path]:
    return [folder / f"{name_of(node)}.sock" for node in nodes]


def main() -> None:
    wall_ns = (time.time_ns() // SECOND - HOUR_S - 60) * SECOND
    folder = Path(tempfile.mkdtemp(prefix="genainet-fleet-"))
    servers: list[multiprocessing.Process] = []
    try:
        segments, sockets, few = folder / "segments", folder / "all", folder / "few"
        for made in (segments, sockets, few):
            made.mkdir()
        began = time.monotonic()
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(write_node, [segments] * NODES, range(NODES), [wall_ns] * NODES, chunksize=20))
        write_objects(segments, wall_ns)
        size = sum(path.stat().st_size for path in segments.glob("*/*.seg"))
        print(f"{NODES} recordings of an hour in {time.monotonic() - began:.0f} s, {size / 1e6:.0f} MB", flush=True)
        names = sorted(path.name for path in segments.iterdir())
        for part in range(2):
            mine, its = multiprocessing.Pipe()
            servers.append(
                multiprocessing.Process(target=serve, args=(segments, sockets, names[part::2], its), daemon=True)
            )
            servers[-1].start()
            mine.recv()
        for node in range(NODES):
            if is_backend(node) or is_caller(node):
                (few / f"{name_of(node)}.sock").symlink_to(sockets / f"{name_of(node)}.sock")
        (few / f"{OBJECTS}.sock").symlink_to(sockets / f"{OBJECTS}.sock")
        describe(f"baseline, the {SERVERS + CALLERS} nodes of the Service", asked(few, wall_ns))
        describe(f"{NODES} nodes", asked(sockets, wall_ns))
        held = [sock for way, nodes in TROUBLE.items() for sock in behave(way, _sockets_of(sockets, nodes))]
        answer = asked(sockets, wall_ns)
        describe(f"with {EACH_TROUBLE} nodes that fail in each of {len(TROUBLE)} ways", answer, expected=2)
        for way, nodes in TROUBLE.items():
            named = [node for node in nodes if name_of(node) in answer.warnings]
            lines = [line for line in answer.warnings.splitlines() if any(name_of(node) in line for node in nodes)]
            print(f"  {way.__name__}: {len(named)} of {len(nodes)} named: {lines[0][:200] if lines else ''}")
        for sock in held:
            sock.close()
    finally:
        for process in servers:
            process.terminate()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(*sys.argv[2:])
    else:
        main()
