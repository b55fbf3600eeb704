"""Faults that time makes: segments that are too old, connections that something on their way forgets while they are idle."""

from __future__ import annotations

import socket
import struct
import threading
import time

from kubectl_genainet.lab.datapath import netns
from tests.lab.connections.faultbench import ASK, Bench, Done, held
from tests.lab.connections.faults_of_nodes import FAULTS, fault

__all__ = ["FAULTS"]

OLD_SEGMENTS = 6
IDLE_S = 15.0  # after which Envoy closes upstream connections of some set-ups
_TIMEOUT, _LOOSE = "net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_tcp_loose"


def checksum(data: bytes) -> int:
    """Of the Internet protocols (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def _old(segment: bytes) -> bytes:
    """The IP packet of a data segment as one that comes after it, by a clock that runs days behind."""
    header, offset = segment[20:], (segment[32] >> 4) * 4
    options = header[20:offset]
    stamp = options.index(b"\x08\x0a")
    (value,) = struct.unpack_from("!I", options, stamp + 2)
    sequence = struct.unpack_from("!I", header, 4)[0] + len(header) - offset
    payload = b"old"
    options = options[: stamp + 2] + struct.pack("!I", (value - 2_000_000_000) % 2**32) + options[stamp + 6 :]
    tcp = bytearray(header[:4] + struct.pack("!I", sequence % 2**32) + header[8:16] + bytes(4) + options + payload)
    pseudo = segment[12:20] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    struct.pack_into("!H", tcp, 16, checksum(pseudo + bytes(tcp)))
    return segment[:2] + struct.pack("!H", 20 + len(tcp)) + segment[4:10] + bytes(2) + segment[12:20] + bytes(tcp)


@fault
def old_timestamps(bench: Bench) -> Done:
    """Segments with an old time stamp, as from another machine behind the same address; the connection goes on."""
    done, kind = Done(), socket.htons(3)  # ETH_P_ALL
    with netns.inside(bench.space(bench.client)):
        wire = bench.until_the_end.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, kind))
        raw = bench.until_the_end.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    wire.bind(("eth0", 3))
    wire.settimeout(5)
    sock, own = held(bench)
    while True:
        packet = wire.recv(65536)[14:]
        ports = struct.unpack_from("!H", packet, 20)[0] if len(packet) > 34 and packet[9] == socket.IPPROTO_TCP else 0
        if ports == own and packet.endswith(ASK):
            break

    def inject() -> None:
        for _ in range(OLD_SEGMENTS):
            raw.sendto(_old(packet), (bench.open_pod.ips[0], 0))
        sock.sendall(ASK)
        done.got[own] = "answered" if sock.recv(65536) == b"token" else "closed"

    done.counted = bench.grown(bench.open_pod, "TcpExtPAWSEstab", inject)
    return done


@fault
def forgotten_while_idle(bench: Bench) -> Done:
    """The node's connection tracking forgets a connection before its client goes on, and takes none up in the middle: what comes
    is INVALID, and a rule drops that. The faults that follow fill the time."""
    done = Done()
    kept = {name: bench.run("node-1", "sysctl", "-n", name).strip() for name in (_TIMEOUT, _LOOSE)}
    bench.run("node-1", "sysctl", "-w", f"{_TIMEOUT}=10")
    sock, own = held(bench)
    began = time.monotonic()
    bench.run("node-1", "sysctl", "-w", f"{_TIMEOUT}={kept[_TIMEOUT]}")

    def go_on() -> None:
        bench.run("node-1", "sysctl", "-w", f"{_LOOSE}=0")
        bench.until_the_end.callback(bench.run, "node-1", "sysctl", "-w", f"{_LOOSE}={kept[_LOOSE]}")
        invalid = ("-p", "tcp", "--sport", str(own), "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        bench.until_the_end.enter_context(bench.iptables("node-1", "mangle", "FORWARD", *invalid, done=done))
        done.seconds = time.monotonic() - began
        sock.sendall(ASK)

    timer = threading.Timer(IDLE_S - (time.monotonic() - began), go_on)
    timer.start()
    bench.before_the_end.append(timer)
    done.got[own] = "nothing"
    return done
