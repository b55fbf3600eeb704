"""`python -m benchmarks._flood ADDRESS PORT SECONDS RATE [SEGMENTS]`: small UDP datagrams from one socket, 64 a system call.

RATE is datagrams a second, 0 as fast as it goes. With SEGMENTS (64 at most) a message is cut into so many datagrams at the
device (UDP_SEGMENT, udp(7)), which spares the sender most of its way down the stack: where the device can't, or may not
(`ethtool -K DEVICE tx-udp-segmentation off`), the kernel cuts it before it leaves, and each datagram is received, and
dropped, on its own. Prints how many were sent, the seconds it took, and the CPU seconds of the process (the kernel's
work on its packets included, as far as it runs on its behalf).
"""

from __future__ import annotations

import socket
import sys
import time

from benchmarks._mmsg import Messages

BATCH = 64
PAUSE_S = 0.0002  # of a sender that is ahead of its rate: the others, and the agent, want the core
_UDP_SEGMENT = 103  # include/uapi/linux/udp.h


def main() -> None:
    address, port, seconds, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    segments = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        if segments > 1:
            sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1)
        sock.connect((address, port))
        messages = max(1, BATCH // segments)
        batch = Messages(messages, segments)
        fd, sent, start, cpu = sock.fileno(), 0, time.monotonic(), time.process_time()
        while (now := time.monotonic()) < start + seconds:
            if rate and sent > rate * (now - start):
                time.sleep(PAUSE_S)
                continue
            sent += batch.send(fd, 0, messages) * segments
        print(sent, time.monotonic() - start, time.process_time() - cpu)


if __name__ == "__main__":
    main()
