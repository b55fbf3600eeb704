"""The pods' program of the lab: what it leaves of connections when its configuration changes."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from kubectl_genainet.lab.programs.workload import stop_listening


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_was_accepted_is_served_though_its_server_stops(turns: int) -> None:
    """However many turns of the loop after it came. Nobody waits in the listener's queue where no turn passed: it is refused."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    async def ask() -> bytes | type[OSError]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(b"ping")
            for _ in range(turns):
                await asyncio.sleep(0)
            await stop_listening(server)
            await asyncio.sleep(0.1)
            gc.collect()
            client.settimeout(0)
            try:
                return client.recv(4)
            except ConnectionResetError:
                return ConnectionResetError

    assert asyncio.run(ask()) == (ConnectionResetError if turns < 2 else b"ping")
