"""What must stay as it is, measured: losses are counted to the last event, kills and ends leave nothing, sessions leak nothing.

    python -m scripts.kept [--runs 20] [--kills 46] [--sessions 220]

Each run sends 1,000 datagrams through probes with a ring buffer too small for them; emitted = received + lost. Each kill
(of a worker, of the agent, of the client) must leave no program, map or link of BPF in the kernel. After the sessions the
agent must have the descriptors, threads and processes that it had after the first ten, and at most 8 MiB more memory.
Needs root; exit status 1 where something of it does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.model.events import Bye, Progress
from kubectl_genainet.wire import FilterEntry
from tests.kernel.kerneltest import PORT, SERVER_IP, Row, send_datagrams, three_namespaces, udp_sink, watching
from tests.kernel.test_agent_lifecycle import Agent, bpf_objects, still_there

DATAGRAMS = 1000
PLACES = 4  # where each is seen
WARM = 10  # sessions after which the agent has all that it keeps
MORE_MEMORY = 8 << 20
WAIT_S = 30.0


def exact_losses(row: Row, runs: int) -> int:
    """Runs in which what was emitted is what was received and what was lost, and some was lost."""
    exact = 0
    for _ in range(runs):
        filters = FilterEntry(SERVER_IP, PORT, "UDP")
        with udp_sink(row), watching(row, filters, budget=Budget(ring_pages=1)) as watch:
            send_datagrams(row, DATAGRAMS)
            watch.settle()
            bye = watch.end()
        exact += bye.emitted == PLACES * DATAGRAMS == len(watch.seen) + bye.lost and bye.lost > 0
    return exact


def clean_kills(row: Row, kills: int) -> int:
    """Kills of the worker, the agent and the client in turn, of which nothing is left in the kernel."""
    clean = 0
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(row, Path(folder))
        try:
            for number in range(kills):
                client = agent.trace()
                client.until(Progress, "attached")
                (worker,) = agent.workers()
                objects = bpf_objects(worker)
                match number % 3:
                    case 0:
                        os.kill(worker, signal.SIGKILL)
                    case 1:
                        agent.stop()
                    case _:
                        client.close()
                clean += bool(objects["prog"]) and _comes_true(lambda: not still_there(objects))  # noqa: B023
                client.close()
                if agent.process.poll() is not None:
                    agent = Agent(row, Path(tempfile.mkdtemp(dir=folder)))  # not at the killed one's socket
        finally:
            agent.stop()
    return clean


def _comes_true(condition: object) -> bool:
    assert callable(condition)
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def held(pid: int) -> tuple[int, int, int]:
    """(descriptors, threads, bytes of resident memory) of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0]) << 10


def leaks(row: Row, sessions: int) -> list[str]:
    """What the agent has after the sessions that it had not after the first of them."""
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(row, Path(folder))
        try:
            before = (0, 0, 0)
            for number in range(sessions):
                if number == WARM:
                    before = held(agent.process.pid)
                client = agent.trace(timeout_s=0.05)
                client.until(Bye)
                client.close()
                _comes_true(lambda: not agent.workers())
            _comes_true(lambda: held(agent.process.pid)[:2] <= before[:2])
            after = held(agent.process.pid)
        finally:
            agent.stop()
    found = [f"{a - b} {what}" for what, b, a in zip(("descriptors", "threads"), before, after, strict=False) if a > b]
    if after[2] - before[2] > MORE_MEMORY:
        found.append(f"{after[2] - before[2] >> 20} MiB of memory")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, count in (("--runs", 20), ("--kills", 46), ("--sessions", 220)):
        parser.add_argument(option, type=int, default=count)
    options = parser.parse_args()
    with three_namespaces("kept") as row:
        exact = exact_losses(row, options.runs)
        print(f"losses exact in {exact} of {options.runs} runs", flush=True)
        clean = clean_kills(row, options.kills)
        print(f"nothing left after {clean} of {options.kills} kills", flush=True)
        leaked = leaks(row, options.sessions)
        print(f"leaks over {options.sessions} sessions: {', '.join(leaked) or 'none'}", flush=True)
    return 0 if exact == options.runs and clean == options.kills and not leaked else 1


if __name__ == "__main__":
    sys.exit(main())
