"""Opens connections from inside a pod's network namespace (`--check`), so that a Service without traffic can be traced."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable

from kubectl_genainet.agent.dns.lookup import look_up
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.model.events import CheckConnectionResult, NameLookup
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.untrusted_http import hung_up_after
from kubectl_genainet.wire import CheckRequest

TIMEOUT_S = 5.0
_OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EACCES: "administratively prohibited",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.ENOPROTOOPT: "protocol unreachable",
}


def open_connections(
    request: CheckRequest,
    inventory: Inventory,
    report: Callable[[CheckConnectionResult], object],
    stop: threading.Event,
) -> None:
    """Looks `request.name` up and opens `request.count` connections, one after the other; reports each with its lookup.

    Returns early when `stop` is set.
    """
    url = ("http://" if request.path else "tcp://") + address_text(request.host, request.port) + request.path
    path, resolv_conf = inventory.place_of_address(request.from_ip)
    if path is None:
        result = CheckConnectionResult(
            node=inventory.node, pod=request.from_ip, url=url, outcome="no such namespace on this node"
        )
        report(result)
        return
    lookup: NameLookup | None = None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number in range(request.count):
            if stop.wait(request.interval_s if number else 0):
                return
            if request.name and (lookup is None or lookup.addresses):  # one that failed is not tried again
                lookup = inside(fd, lambda: look_up(request.name, resolv_conf, ipv6=":" in request.host))
            outcome, connect_ns, total_ns = inside(fd, lambda: _open(request))
            report(
                CheckConnectionResult(
                    node=inventory.node,
                    pod=request.from_ip,
                    url=url,
                    outcome=outcome,
                    connect_ns=connect_ns,
                    total_ns=total_ns,
                    lookup=lookup,
                )
            )
    finally:
        os.close(fd)


def _open(request: CheckRequest) -> tuple[str, int | None, int | None]:
    """(outcome, ns until connected, ns until answered) of one connection."""
    start = time.monotonic_ns()
    connected = None
    try:
        with socket.create_connection((request.host, request.port), TIMEOUT_S) as sock:
            connected = time.monotonic_ns() - start
            if not request.path:
                return "connected", connected, None
            with hung_up_after(sock, TIMEOUT_S) as late:
                try:
                    outcome = _answer(request, sock)
                except ConnectionResetError:
                    if not late.is_set():  # else the kernel resets what comes after it was hung up
                        raise
                if late.is_set():
                    return "timeout", connected, None
            return outcome, connected, time.monotonic_ns() - start if outcome.startswith("http ") else None
    except TimeoutError:
        return "timeout", connected, None
    except OSError as error:
        return _OUTCOMES.get(error.errno or 0, str(error)), connected, None


def _answer(request: CheckRequest, sock: socket.socket) -> str:
    """Raises OSError. The process that answers is a pod's."""
    http_client = http.client.HTTPConnection(request.host, request.port, timeout=TIMEOUT_S)
    http_client.sock = sock
    headers = {"User-Agent": "kubectl-genainet", "Connection": "close"}
    if request.host_header:
        headers["Host"] = request.host_header
    try:
        http_client.request("GET", request.path, headers=headers)
        answer = http_client.getresponse()
        answer.read(65536)
        return f"http {answer.status}"
    except (http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of less than no bytes
        return f"no HTTP answer ({type(error).__name__})"
