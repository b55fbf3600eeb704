"""sendmmsg(2) and recvmmsg(2): many datagrams a system call, of messages laid out beforehand."""

from __future__ import annotations

import ctypes

MSG_DONTWAIT = 0x40
LIBC = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    """struct msghdr, recvmsg(2)."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("header", Msghdr), ("length", ctypes.c_uint32)]


class Messages:
    """`count` messages of `size` bytes, one behind the other in `data`; with `addressed`, each with room for its sender's
    address, which is where it goes when it is sent."""

    def __init__(self, count: int, size: int, *, addressed: bool = False) -> None:
        self.count, self.size = count, size
        self.data = bytearray(count * size)
        start = ctypes.addressof((ctypes.c_char * len(self.data)).from_buffer(self.data))
        self._names = (ctypes.c_char * 16 * count)()
        self._iov = (Iovec * count)(*(Iovec(start + i * size, size) for i in range(count)))
        self._headers = (Mmsghdr * count)()
        for i, message in enumerate(self._headers):
            message.header.iov = ctypes.pointer(self._iov[i])
            message.header.iov_length = 1
            if addressed:
                message.header.name, message.header.name_length = ctypes.addressof(self._names[i]), 16

    def send(self, fd: int, first: int, count: int, flags: int = 0) -> int:
        """How many were sent."""
        at = ctypes.byref(self._headers, first * ctypes.sizeof(Mmsghdr))
        sent: int = LIBC.sendmmsg(fd, at, count, flags)
        return max(0, sent)

    def receive(self, fd: int, flags: int = 0) -> int:
        """How many were received, into the first ones."""
        received: int = LIBC.recvmmsg(fd, self._headers, self.count, flags, None)
        return max(0, received)
