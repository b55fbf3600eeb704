"""`python -m benchmarks._flood ADDRESS PORT SECONDS RATE`: small UDP datagrams from one socket, 64 a system call.

RATE is datagrams a second, 0 as fast as it goes. Prints how many were sent, the seconds it took, and the CPU
seconds of the process (the
kernel's work on its packets included, as far as it runs on its behalf).
"""

from __future__ import annotations

import ctypes
import socket
import sys
import time

BATCH = 64


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    """struct msghdr, recvmsg(2)."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]  # fmt: skip


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("header", _Msghdr), ("length", ctypes.c_uint32)]


def main() -> None:
    address, port, seconds, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        iov = _Iovec(b"x", 1)
        batch = (_Mmsghdr * BATCH)()
        for message in batch:
            message.header.iov, message.header.iov_length = ctypes.pointer(iov), 1
        fd, sent, start, cpu = sock.fileno(), 0, time.monotonic(), time.process_time()
        while (now := time.monotonic()) < start + seconds:
            if rate and sent > rate * (now - start):
                continue
            sent += max(0, libc.sendmmsg(fd, batch, BATCH, 0))
        print(sent, time.monotonic() - start, time.process_time() - cpu)


if __name__ == "__main__":
    main()
