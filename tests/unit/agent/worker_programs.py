"""Programs in the place of an agent's worker, for tests of the server alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager


def worker_that_is(program: str) -> Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]:
    """What stands for `Server._worker`: runs the program, whatever is asked."""

    @contextlib.asynccontextmanager
    async def worker(*_: object) -> AsyncIterator[asyncio.subprocess.Process]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(program, stdin=pipe, stdout=pipe)
        yield process
        await process.communicate()

    return worker
