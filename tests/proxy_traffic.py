"""Real packets around a node: an outside client and a namespace full of pods, wired to a node's network namespace.

    client 192.0.2.10, .11, 198.51.100.7, 2001:db8::10 ── node (any rules) ── pods 10.244.1.0/24, fd44::/64
    and a pod that calls, 10.244.2.50, fd44::2:50

A pod among the others can only call itself: its answers to a neighbour would not pass the node.

`Traffic(node).send(flows)` opens each flow for real and says what came of it. Nothing of the product is used here.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

CALLER, CALLER6 = "10.244.2.50", "fd44::2:50"
CLIENT_IPS = ("192.0.2.10", "192.0.2.11", "198.51.100.7", "2001:db8::10")
SCTP = 132


def run(*argv: str, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-2000:]}")
    return done.stdout


def inside(netns: str, *argv: str, check: bool = True, stdin: str | None = None) -> str:
    return run("nsenter", f"--net=/run/netns/{netns}", "--", *argv, check=check, stdin=stdin)


class Namespace:
    """A network namespace of this run, removed by `delete`."""

    _numbers = itertools.count(1)  # several nodes of one run have namespaces around them

    def __init__(self, name: str) -> None:
        self.name = f"gnproxy{os.getpid()}-{name}{next(self._numbers)}"
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")

    def delete(self) -> None:
        run("ip", "netns", "del", self.name, check=False)


class Traffic:
    """Client and pods around the namespace `node`. `endpoints` are (ip, port, "TCP" | "UDP" | "SCTP") to serve."""

    def __init__(self, node: str, endpoints: Sequence[tuple[str, int, str]]) -> None:
        self.node = node
        self.client, self.pods = Namespace("client"), Namespace("pods")
        self.server: subprocess.Popen[str] | None = None
        try:
            self._wire()
            for ip in sorted({ip for ip, _, _ in endpoints}):
                nodad = ["nodad"] if ":" in ip else []
                run("ip", "-n", self.pods.name, "addr", "add", ip, "dev", "lo", *nodad)
            self.server = self._python(self.pods.name, "serve", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.server.stdin and self.server.stdout
            self.server.stdin.write(json.dumps(list(endpoints)) + "\n")
            self.server.stdin.flush()
            assert self.server.stdout.readline() == "ready\n"
        except BaseException:
            self.stop()
            raise

    def _wire(self) -> None:
        for other, device, node_ips in (
            (self.client, "client", ("192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64")),
            (self.pods, "pods", ("169.254.1.1/30", "fd00:1::1/64")),
        ):
            run(
                "ip",
                "-n",
                self.node,
                "link",
                "add",
                device,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                other.name,
            )
            run("ip", "-n", self.node, "link", "set", device, "up")
            run("ip", "-n", other.name, "link", "set", "eth0", "up")
            for ip in node_ips:
                run("ip", "-n", self.node, "addr", "add", ip, "dev", device, *(["nodad"] if ":" in ip else []))
        for ip in (*(f"{ip}/24" for ip in CLIENT_IPS[:3]), f"{CLIENT_IPS[3]}/64"):
            run("ip", "-n", self.client.name, "addr", "add", ip, "dev", "eth0", *(["nodad"] if ":" in ip else []))
        for ip in ("169.254.1.2/30", "fd00:1::2/64"):
            run("ip", "-n", self.pods.name, "addr", "add", ip, "dev", "eth0", *(["nodad"] if ":" in ip else []))
        for netns, gateway, gateway6 in (
            (self.client, "192.0.2.1", "2001:db8::1"),
            (self.pods, "169.254.1.1", "fd00:1::1"),
        ):
            run("ip", "-n", netns.name, "route", "add", "default", "via", gateway)
            run("ip", "-n", netns.name, "-6", "route", "add", "default", "via", gateway6)
        for ip in (CALLER, CALLER6):
            run("ip", "-n", self.client.name, "addr", "add", ip, "dev", "lo", *(["nodad"] if ":" in ip else []))
        run("ip", "-n", self.node, "route", "add", CALLER, "via", "192.0.2.10")
        run("ip", "-n", self.node, "-6", "route", "add", CALLER6, "via", "2001:db8::10")
        # What is for nobody leaves the node by the client, which forwards nothing.
        run("ip", "-n", self.node, "route", "add", "default", "via", "192.0.2.10")
        run("ip", "-n", self.node, "-6", "route", "add", "default", "via", "2001:db8::10")
        quiet = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"
        inside(self.client.name, "sh", "-c", quiet)
        run("ip", "-n", self.node, "route", "add", "10.244.0.0/16", "via", "169.254.1.2")
        run("ip", "-n", self.node, "-6", "route", "add", "fd44::/64", "via", "fd00:1::2")
        settings = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done; "
        settings += "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; "
        settings += "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; "
        settings += "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit"
        inside(self.node, "sh", "-c", settings)
        inside(self.pods.name, "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")

    def _python(self, netns: str, *argv: str, **pipes: Any) -> subprocess.Popen[str]:
        command = ["nsenter", f"--net=/run/netns/{netns}", "--", sys.executable, __file__, *argv]
        return subprocess.Popen(command, text=True, **pipes)

    def node_ips(self) -> list[str]:
        """All addresses of the node's namespace."""
        devices = json.loads(inside(self.node, "ip", "-j", "addr"))
        return [a["local"] for d in devices for a in d.get("addr_info", [])]

    def send(self, flows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Opens each flow {"from": "client"|"pods"|"node", "src", "dst", "dport", "protocol"}; what came of it:

        {"end": "answer", "backend": "ip:port", "seen_as": source address at the backend}, or {"end": "refused"},
        "timeout", "unreachable", "forbidden" (dropped or rejected on the sender's own node).
        """
        results: list[dict[str, Any]] = [{} for _ in flows]
        netns = {"client": self.client.name, "pods": self.pods.name, "node": self.node}
        for origin, name in netns.items():
            chosen = [i for i, flow in enumerate(flows) if flow["from"] == origin]
            if not chosen:
                continue
            process = self._python(name, "send", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            out, _ = process.communicate(json.dumps([flows[i] for i in chosen]), timeout=120)
            for i, answer in zip(chosen, json.loads(out), strict=True):
                results[i] = answer
        return results

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            for pipe in (self.server.stdin, self.server.stdout):
                if pipe:
                    pipe.close()
        for device in ("client", "pods"):
            run("ip", "-n", self.node, "link", "del", device, check=False)
        self.client.delete()
        self.pods.delete()

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# ---- what runs inside the namespaces -------------------------------------------------------------------------------


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


async def _serve(endpoints: list[tuple[str, int, str]]) -> None:
    loop = asyncio.get_running_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        writer.write(json.dumps([own[0], own[1], peer[0]]).encode())
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def __init__(self, own: tuple[str, int]) -> None:
            self.own = own

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, peer: Any) -> None:
            self.transport.sendto(json.dumps([*self.own, peer[0]]).encode(), peer)

    for ip, port, protocol in endpoints:
        if protocol == "TCP":
            await asyncio.start_server(answer, ip, port)
        elif protocol == "UDP":
            await loop.create_datagram_endpoint(functools.partial(Datagrams, (ip, port)), local_addr=(ip, port))
        else:
            raw = socket.socket(_family(ip), socket.SOCK_RAW, SCTP)
            raw.bind((ip, 0))
            raw.setblocking(False)
            loop.add_reader(raw, _answer_sctp, raw, ip, port)
    print("ready", flush=True)
    await asyncio.Event().wait()


def _answer_sctp(raw: socket.socket, ip: str, port: int) -> None:
    """An INIT gets one packet back whose chunk holds the answer: enough for the client, and for conntrack."""
    data, peer = raw.recvfrom(4096)
    data = data[20:] if raw.family == socket.AF_INET else data
    sport, dport = struct.unpack("!HH", data[:4])
    if dport == port and data[12] == 1:
        text = json.dumps([ip, port, peer[0]]).encode()
        tag = struct.unpack("!I", data[16:20])[0]
        raw.sendto(sctp_packet(dport, sport, tag, 2, struct.pack("!IIHHI", 1, 65535, 1, 1, 1) + text), (peer[0], 0))


def sctp_packet(sport: int, dport: int, tag: int, chunk: int, body: bytes) -> bytes:
    chunk_bytes = struct.pack("!BBH", chunk, 0, 4 + len(body)) + body
    chunk_bytes += b"\0" * (-len(chunk_bytes) % 4)
    head = struct.pack("!HHI", sport, dport, tag)
    checksum = struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk_bytes))
    return head + checksum + chunk_bytes


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _attempt(flow: dict[str, Any], number: int) -> dict[str, Any]:
    kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}.get(flow["protocol"])
    try:
        if kind is None:
            return _attempt_sctp(flow, 20000 + number)
        with socket.socket(_family(flow["dst"]), kind) as s:
            # An ICMP error that comes while connect() still holds the socket is only felt at the next SYN, 1 s later.
            s.settimeout(2.5 if kind == socket.SOCK_STREAM else 1.0)
            if flow.get("src"):
                s.bind((flow["src"], 0))
            s.connect((flow["dst"], flow["dport"]))
            if kind == socket.SOCK_DGRAM:
                s.send(b"?")
            return _told(s.recv(4096))
    except TimeoutError:
        return {"end": "timeout"}
    except ConnectionRefusedError:
        return {"end": "refused"}
    except PermissionError:
        return {"end": "forbidden"}  # a rule of OUTPUT ended it, and the sender's own kernel tells
    except OSError as error:
        return {"end": "unreachable", "error": str(error)}


def _told(data: bytes) -> dict[str, Any]:
    ip, port, peer = json.loads(data)
    return {"end": "answer", "backend": f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", "seen_as": peer}


def _attempt_sctp(flow: dict[str, Any], sport: int) -> dict[str, Any]:
    v6 = ":" in flow["dst"]
    errors = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    with socket.socket(_family(flow["dst"]), socket.SOCK_RAW, SCTP) as raw:
        raw.setsockopt(errors, 25 if v6 else 11, 1)  # IPV6_RECVERR, IP_RECVERR: ICMP errors show on the socket
        if flow.get("src"):
            raw.bind((flow["src"], 0))
        raw.connect((flow["dst"], 0))
        raw.settimeout(0.1)
        raw.send(sctp_packet(sport, flow["dport"], 0, 1, struct.pack("!IIHHI", 7, 65535, 1, 1, 1)))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                data = raw.recv(4096)
            except TimeoutError:
                continue
            data = data if v6 else data[20:]
            if struct.unpack("!HH", data[:4])[1] == sport and data[12] == 2:
                return _told(data[32 : 12 + struct.unpack("!H", data[14:16])[0]])
    return {"end": "timeout"}


def _send(flows: list[dict[str, Any]]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(32) as pool:
        print(json.dumps(list(pool.map(_attempt, flows, range(len(flows))))))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(json.loads(sys.stdin.readline())))
    else:
        _send(json.load(sys.stdin))
