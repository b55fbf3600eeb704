"""Datagrams whose way has ended when the call returns.

A busy kernel leaves packets to ksoftirqd, and so to later: a datagram that was sent may arrive when its socket is closed already.
"""

from __future__ import annotations

import time
from pathlib import Path

from kubectl_genainet.agent.bpf import syscalls
from kubectl_genainet.lab.datapath import netns
from tests.kernel.kerneltest import WAIT_S, Row, send_datagrams, udp_sink


def send_received(row: Row, count: int, family: int = 4) -> None:
    """To a socket that receives them."""
    with udp_sink(row, family) as sink:
        sink.settimeout(WAIT_S)
        send_datagrams(row, count, family)
        for _ in range(count):
            sink.recv(100)
    syscalls.wait_for_programs()


def send_unreceived(row: Row, count: int, family: int = 4) -> None:
    """To a port that nobody listens at."""
    wanted = _for_no_port(row, family) + count
    send_datagrams(row, count, family)
    deadline = time.monotonic() + WAIT_S
    while (counted := _for_no_port(row, family)) < wanted:
        assert time.monotonic() < deadline, f"{wanted - counted} did not arrive"
        time.sleep(0.01)
    syscalls.wait_for_programs()  # a packet is freed a moment after it is counted


def _for_no_port(row: Row, family: int) -> int:
    """What the server has counted: NoPorts of UDP."""
    with netns.inside(row.server):
        text = Path(f"/proc/thread-self/net/snmp{'6' if family == 6 else ''}").read_text()
    if family == 6:
        return int(dict(line.split() for line in text.splitlines())["Udp6NoPorts"])
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    return int(dict(zip(names, values, strict=True))["NoPorts"])
