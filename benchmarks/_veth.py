"""Three network namespaces on a veth path, client – router – server, as pods on one node are joined; and load on it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLIENT, ROUTER, SERVER = (f"gnbench{os.getpid()}-{name}" for name in ("client", "router", "server"))
CLIENT_IP, SERVER_IP = "10.77.1.2", "10.77.2.2"
PORT = 5201


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def veth_path() -> Iterator[None]:
    """Makes the namespaces and an iperf3 server in the last; removes all again."""
    for name in (CLIENT, ROUTER, SERVER):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    server = None
    try:
        for name in (CLIENT, ROUTER, SERVER):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for name, net, device in ((CLIENT, "10.77.1", "to-client"), (SERVER, "10.77.2", "to-server")):
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", device, "netns", ROUTER)
            _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
            _ip("-n", ROUTER, "addr", "add", f"{net}.1/24", "dev", device)
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", ROUTER, "link", "set", device, "up")
            _ip("-n", name, "route", "add", "default", "via", f"{net}.1")
        inside(ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        server = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{SERVER}", "iperf3", "-s", "-p", str(PORT)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        iperf("-t", "1")  # retries until the server listens
        yield
    finally:
        if server is not None:
            server.kill()
            server.wait()
        for name in (CLIENT, ROUTER, SERVER):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def inside(name: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["nsenter", f"--net=/run/netns/{name}", *command], check=True, capture_output=True)


def iperf(*options: str) -> dict[str, float]:
    """One run from the client to the server; iperf3's own sums: bits_per_second, packets, lost_packets, …"""
    for attempt in range(30):
        command = ["nsenter", f"--net=/run/netns/{CLIENT}", "iperf3", "-J", "-c", SERVER_IP, "-p", str(PORT), *options]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if done.returncode == 0 and b"sum" in done.stdout:
            break
        if attempt == 29:
            raise RuntimeError(done.stdout.decode()[-300:])
        subprocess.run(["sleep", "0.1"], check=True)
    end: dict[str, dict[str, float]] = json.loads(done.stdout)["end"]
    return end["sum_received"] if "sum_received" in end else end["sum"]


def netns_inode(name: str) -> int:
    return os.stat(f"/run/netns/{name}").st_ino
