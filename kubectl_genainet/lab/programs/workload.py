"""The program of all the lab's pods: one process that serves and calls from every pod's network namespace.

Run as `python -m kubectl_genainet.lab.programs.workload CONFIG`. CONFIG is JSON (see `PodConfig`); the process follows a change
of the file when told "reload" on its control socket. Each connection is a real one, between real namespaces: only the
Python interpreter is shared, since one per pod would cost 15 MB and 0.1 s of start each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs.streams import (
    Rhythm,
    StreamLog,
    content_length,
    hold_connection,
    reset,
    serve_stream,
)
from kubectl_genainet.lab.programs.stub_resolver import Resolver, parse_resolv_conf
from kubectl_genainet.lab.programs.upstream import Upstream

CALL_TIMEOUT = 10.0
SERVE_TIMEOUT = 60.0  # of one request, with the wait for it


class Member:
    """A pod (or the clients outside the cluster): its servers, its calls, and how it misbehaves just now.

    `config`: name, netns, ips, ports, resolv_conf (a path), calls (URLs), period (seconds), upstream (a URL called once
    a request), request_bytes, response_bytes, behaviour. Behaviour: delay_ms before an answer; reset (RST instead of
    an answer); stall (the listener accepts nothing, with a queue of one); unready (/healthz gives 503); storm (names
    looked up again and again) and storm_rate (a second); stream (a Rhythm: the answers are token streams); hold (a URL
    asked again and again on one connection) and hold_rate (a second). `stream_log` is where streams are told of.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.behaviour: dict[str, Any] = config.get("behaviour", {})
        self._rhythm = Rhythm.of(self.behaviour)
        self._stream_log = StreamLog(config.get("stream_log", ""))
        self._servers: list[asyncio.Server] = []
        self._stalled: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._namespace = os.open(netns.RUN_NETNS / config["netns"], os.O_RDONLY | os.O_CLOEXEC)
        text = Path(config["resolv_conf"]).read_text() if config.get("resolv_conf") else ""
        self.resolver = Resolver(parse_resolv_conf(text), lambda family: self.open_socket(family, socket.SOCK_DGRAM))

    def open_socket(self, family: int, kind: int) -> socket.socket:
        """A non-blocking socket in the pod's namespace."""
        netns.setns(self._namespace)
        try:
            sock = socket.socket(family, kind)
        finally:
            netns.setns(_home)
        sock.setblocking(False)
        return sock

    async def start(self) -> None:
        stall = bool(self.behaviour.get("stall"))
        for ip in self.config["ips"]:
            for port in self.config.get("ports", ()):
                sock = self._bound(ip, port)
                if stall:
                    sock.listen(0)
                    self._stalled.append(sock)
                else:
                    self._servers.append(await asyncio.start_server(self._serve, sock=sock, backlog=128))
        for number, url in enumerate(self.config.get("calls", ())):
            self._tasks.append(asyncio.create_task(self._call_for_ever(url, number)))
        for name in self.behaviour.get("storm", ()):
            self._tasks.append(asyncio.create_task(self._storm(name, float(self.behaviour.get("storm_rate", 10)))))
        if url := self.behaviour.get("hold"):
            self._tasks.append(asyncio.create_task(self._hold(url, float(self.behaviour.get("hold_rate", 10)))))

    def _bound(self, ip: str, port: int) -> socket.socket:
        sock = self.open_socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        return sock

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await stop_listening(server)
        for sock in self._stalled:
            sock.close()
        os.close(self._namespace)
        self._namespace = -1  # calls still on their way fail here

    # --- serving ----------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(SERVE_TIMEOUT):
                    if not await self._answer(reader, writer):
                        break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that went away, or does not speak HTTP
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection is kept for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        await reader.readexactly(content_length(head))
        keep = b"\r\nconnection: keep-alive\r\n" in head.lower()  # who does not ask for it waits for the end
        if path == b"/healthz":
            self._respond(writer, 503 if self.behaviour.get("unready") else 200, b"", keep=keep)
        elif self.behaviour.get("reset"):
            reset(writer)
            return False
        elif self._rhythm is not None:
            await serve_stream(writer, self._rhythm, self.config["name"], self._stream_log)
            return False
        else:
            if delay := self.behaviour.get("delay_ms"):
                await asyncio.sleep(delay / 1000)
            upstream = self.config.get("upstream")
            served = not upstream or await self.call(upstream)
            self._respond(writer, 200 if served else 502, b"x" * self.config.get("response_bytes", 200), keep=keep)
        await writer.drain()
        return keep

    def _respond(self, writer: asyncio.StreamWriter, status: int, padding: bytes, *, keep: bool) -> None:
        body = json.dumps({"pod": self.config["name"], "padding": padding.decode()}).encode()
        reason = {200: "OK", 502: "Bad Gateway", 503: "Service Unavailable"}[status]
        writer.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + body
        )

    # --- calling ----------------------------------------------------------------------------------------------------

    async def _call_for_ever(self, url: str, number: int) -> None:
        period = float(self.config.get("period", 1.0))
        await asyncio.sleep(period * random.random())
        running: set[asyncio.Task[bool]] = set()
        while True:
            if len(running) < 20:  # a backend that hangs must not pile up calls without end
                running.add(task := asyncio.create_task(self.call(url)))
                task.add_done_callback(running.discard)
            await asyncio.sleep(period)

    async def _storm(self, name: str, rate: float) -> None:
        running: set[asyncio.Task[list[str]]] = set()
        while True:
            if len(running) < 200:
                running.add(task := asyncio.create_task(self.resolver.resolve(name)))
                task.add_done_callback(running.discard)
            await asyncio.sleep(1 / rate)

    async def call(self, url: str) -> bool:
        """Calls a URL on a connection of its own (http://…), or looks its host up (lookup://…)."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(CALL_TIMEOUT):
                addresses = [host] if _is_address(host) else await self.resolver.resolve(host)
                if parts.scheme == "lookup" or not addresses:
                    return bool(addresses)
                return await self._request(addresses[0], port, host, parts.path or "/")
        return False

    async def _request(self, address: str, port: int, host: str, path: str) -> bool:
        reader, writer = await self._connect(address, port)
        try:
            writer.write(self._post(host, path, keep=False))
            return (await reader.read()).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()

    async def _connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    def _post(self, host: str, path: str, *, keep: bool) -> bytes:
        body = b"x" * int(self.config.get("request_bytes", 200))
        kept = "keep-alive" if keep else "close"
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: {kept}\r\n\r\n"
        return head.encode() + body

    async def _hold(self, url: str, rate: float) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            async with asyncio.timeout(CALL_TIMEOUT):
                addresses = [host] if _is_address(host) else await self.resolver.resolve(host)
                if not addresses:
                    raise OSError(f"{host} has no address")
                return await self._connect(addresses[0], port)

        request = self._post(host, parts.path or "/", keep=True)
        await hold_connection(connect, request, rate, self.config["name"], self._stream_log)


async def stop_listening(server: asyncio.Server) -> None:
    """Ends a server; who was accepted is served.

    asyncio takes up a connection one turn of its loop after it accepted it. A server that is closed in between leaves the
    connection open and unread, until garbage collection resets it, seconds later (CPython 3.11).
    """
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    await asyncio.sleep(0)
    server.close()


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


class Members:
    """All members, kept in line with the configuration file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, Member] = {}
        self._upstream: Upstream | None = None

    async def apply(self) -> None:
        """Starts what is new in the file, stops what is gone, restarts what changed."""
        config = json.loads(self._path.read_text())
        wanted = {pod["name"]: pod for pod in config["pods"]}
        for name, member in list(self._members.items()):
            if wanted.get(name) != member.config:
                del self._members[name]
                await member.stop()
        for name, pod in wanted.items():
            if name not in self._members:
                self._members[name] = member = Member(pod)
                await member.start()
        if self._upstream is None:
            self._upstream = Upstream(config["upstream"])
            await self._upstream.start()
        self._upstream.delay_ms = int(config["upstream"].get("delay_ms", 0))

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One word a line: "reload" applies the file. The reply is "ok", or "error" and the reason."""
        while line := await reader.readline():
            reply = "ok"
            if line.strip() == b"reload":
                try:
                    await self.apply()
                except (OSError, ValueError, KeyError) as error:
                    reply = f"error {type(error).__name__}: {error}"
            writer.write(f"{reply}\n".encode())
            await writer.drain()
        writer.close()


async def run(path: Path) -> None:
    workload = Members(path)
    await workload.apply()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await asyncio.start_unix_server(workload.control, path.with_suffix(".sock"))
    await stopped.wait()


_home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
