"""The always-on session ends when it is told to, however many records come."""

from __future__ import annotations

import asyncio
import time

from kubectl_genainet import wire
from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.session import AlwaysOn
from kubectl_genainet.model.events import Tick


def test_a_session_that_is_cancelled_while_records_come_ends() -> None:
    """With asyncio.wait_for, Python 3.11 loses a cancellation that comes together with a line."""
    line = wire.encode(Tick(node="node-1", t_ns=1)).decode().strip()

    async def cancelled() -> float:
        process = await asyncio.create_subprocess_exec("yes", line, stdout=asyncio.subprocess.PIPE)
        try:
            session = asyncio.create_task(AlwaysOn("node-1", "", "", Metrics(Owners()), ())._consume(process))
            await asyncio.sleep(0.1)
            session.cancel()
            began = time.monotonic()
            await asyncio.wait({session}, timeout=5)
            assert session.cancelled()
            return time.monotonic() - began
        finally:
            process.kill()
            await process.communicate()  # what is left: a pipe that nobody reads keeps wait() waiting

    for _ in range(2):
        assert asyncio.run(cancelled()) < 2
