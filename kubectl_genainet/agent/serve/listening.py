"""Listens for clients until SIGTERM or SIGINT, and ends what is served then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from kubectl_genainet.agent.serve.server import Server

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(server: Server, *, socket_path: str = "", host: str = "", port: int = 0) -> None:
    """Serves until SIGTERM or SIGINT. Exactly one of `socket_path` and `host` is given."""
    await serve_until_stopped(server.handle, server.end_sessions, socket_path=socket_path, host=host, port=port)


async def _nothing() -> None:
    """Nothing is to end."""


async def serve_until_stopped(
    handle: Handler,
    ending: Callable[[], Awaitable[None]] = _nothing,
    *,
    socket_path: str = "",
    host: str = "",
    port: int = 0,
) -> None:
    """Has `handle` serve each connection, until SIGTERM or SIGINT; then `ending` ends what is served."""
    if socket_path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
        old = os.umask(0o177)
        try:
            listener = await asyncio.start_unix_server(handle, path=socket_path)
        finally:
            os.umask(old)
    else:
        listener = await asyncio.start_server(handle, host, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    listener.close()  # not `async with`, which from Python 3.12 on waits for the connections that there are
    await ending()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
