"""DNS queries and a server that sends each back as its own response, 64 datagrams a system call.

`python -m benchmarks._dnsload serve ADDRESS`
`python -m benchmarks._dnsload ask ADDRESS RATE SECONDS`: RATE is queries a second, 0 as fast as answers come, with at most
WINDOW open. Prints the queries sent and the answers received. All queries are of one length: 1000 names, 8 ports.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from benchmarks._mmsg import MSG_DONTWAIT, Messages

BATCH = 64
WINDOW = 4 * BATCH
IDS = 1 << 16
NAMES = 1000
PAUSE_S = 0.0002
_MSG_WAITFORONE = 0x10000  # recvmmsg(2): wait for the first only


def query(number: int) -> bytes:
    name = b"\x08name%04d\7example\3com\0" % (number % NAMES)
    return struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\1\0\1"


SIZE = len(query(0))


def serve(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        sock.bind((address, 53))
        messages, fd = Messages(BATCH, SIZE, addressed=True), sock.fileno()
        while True:
            count = messages.receive(fd, _MSG_WAITFORONE)
            messages.data[2 : count * SIZE : SIZE] = b"\x81" * count  # QR, RD
            messages.send(fd, 0, count)


def ask(address: str, rate: float, seconds: float) -> tuple[int, int]:
    queries, answers = Messages(IDS, SIZE), Messages(BATCH, SIZE)
    for number in range(IDS):
        queries.data[number * SIZE : (number + 1) * SIZE] = query(number)
    socks = []
    for _ in range(8):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.connect((address, 53))
        socks.append(sock)
    fds = [sock.fileno() for sock in socks]
    sent = got = turn = 0

    def collect() -> int:
        return sum(answers.receive(fd, MSG_DONTWAIT) for fd in fds)

    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        allowed = int(now * rate) - sent if rate else WINDOW - (sent - got)
        if allowed >= BATCH:
            sent += queries.send(fds[turn % len(fds)], sent % IDS, min(BATCH, IDS - sent % IDS))
            turn += 1
        elif rate:
            time.sleep(PAUSE_S)
        got += collect()
    end = time.monotonic() + 0.5
    while got < sent and time.monotonic() < end:
        got += collect()
    return sent, got


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(*ask(sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
