"""What the packet probe says of packets that die: the ICMP error, the hook, the missing socket."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import pytest

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import IcmpError
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.reasons import HARMLESS_REASONS
from kubectl_genainet.wire import FilterEntry
from tests.kernel.kerneltest import (
    ADDRESSES,
    PORT,
    SERVER_IP,
    Row,
    here,
    send_datagrams,
    udp_sink,
    udp_socket,
    watching,
)


@pytest.mark.parametrize("family", [4, 6])
def test_icmp_error_that_quotes_a_followed_flow_is_seen_with_its_mtu(row: Row, family: int) -> None:
    client, server = ADDRESSES[family]
    row.run(row.router, "ip", "link", "set", "to-server", "mtu", "1300")
    try:
        with watching(row, FilterEntry(server, PORT, "UDP")) as watch, udp_socket(row, row.client, family) as sock:
            if family == 4:
                sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
            sock.bind((client, 22000))
            sock.sendto(bytes(1400), (server, PORT))
            watch.settle()
            watch.end()
    finally:
        row.run(row.router, "ip", "link", "set", "to-server", "mtu", "1500")
        row.run(row.client, "ip", *(["-6"] if family == 6 else []), "route", "flush", "cache")
    errors = [e for e in watch.events if isinstance(e, IcmpError) and e.reason not in HARMLESS_REASONS]
    assert {(e.src, e.dst) for e in errors} == {("10.88.1.1" if family == 4 else "fd88:1::1", client)}
    assert {(e.family, e.type, e.code, e.mtu) for e in errors} == {(4, 3, 4, 1300) if family == 4 else (6, 2, 0, 1300)}
    assert {e.quoted for e in errors} == {FiveTuple(client, 22000, server, PORT, Protocol.UDP)}
    assert [(e.device, e.point.value) for e in errors] == [("to-client", "tx"), ("eth0", "rx")]
    assert [d.reason for d in watch.drops] == [here("PKT_TOO_BIG")]


def test_what_is_freed_in_the_normal_course_of_things_is_no_event(row: Row) -> None:
    """What a socket holds unread when it is closed: every connection whose owner reads no further ends so."""
    if not here("QUEUE_PURGE"):
        pytest.skip("this kernel gives no reasons: what is harmless is told by the function, in user space")
    with watching(row, FilterEntry(SERVER_IP, PORT)) as watch:
        with udp_sink(row):
            send_datagrams(row, 3)
            watch.settle()
        send_datagrams(row, 1)
        watch.end()
    assert [d.reason for d in watch.drops] == ["NO_SOCKET"]


# (namespace, table, chain, hook as the probe names it)
HOOKS = [
    ("router", "raw", "PREROUTING", "PRE_ROUTING"),
    ("router", "mangle", "FORWARD", "FORWARD"),
    ("router", "filter", "FORWARD", "FORWARD"),
    ("router", "mangle", "POSTROUTING", "POST_ROUTING"),
    ("server", "filter", "INPUT", "INPUT"),
    ("client", "filter", "OUTPUT", "OUTPUT"),
]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tool", ["nft", "legacy"])
def test_drop_names_its_hook_and_its_namespace(row: Row, family: int, tool: str) -> None:
    """One session for all hooks: each is tried with a port of its own."""
    client, server = ADDRESSES[family]
    tables = f"{'iptables' if family == 4 else 'ip6tables'}-{tool}"
    filters = [FilterEntry(server, PORT + i, "UDP") for i in range(len(HOOKS))]
    made: list[tuple[str, tuple[str, ...]]] = []
    try:
        for i, (where, table, chain, _) in enumerate(HOOKS):
            rule: tuple[str, ...] = (
                tables,
                "-t",
                table,
                "-I",
                chain,
                "-p",
                "udp",
                "--dport",
                str(PORT + i),
                "-j",
                "DROP",
            )
            try:
                row.run(getattr(row, where), *rule)
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                pytest.skip(f"{tables} does not work here: {getattr(error, 'stderr', error)}")
            made.append((getattr(row, where), rule))
        with watching(row, *filters) as watch:
            for i in range(len(HOOKS)):
                with udp_socket(row, row.client, family) as sock, contextlib.suppress(PermissionError):
                    sock.sendto(b"to be dropped", (server, PORT + i))  # OUTPUT says so: EPERM
            watch.settle()
            watch.end()
    finally:
        for name, added in made:
            row.run(name, *(w if w != "-I" else "-D" for w in added))
    by_port = {d.flow.dport: d for d in watch.drops}
    for i, (where, table, chain, hook) in enumerate(HOOKS):
        drop = by_port[PORT + i]
        assert (drop.reason, drop.hook) == ("NETFILTER_DROP", hook), (table, chain, drop.stack)
        assert drop.netns == row.inode(getattr(row, where)), (table, chain)
        assert (drop.flow.src, drop.flow.dst) == (client, server)
        assert drop.location and drop.stack and not drop.location.startswith("0x")


@pytest.mark.parametrize("family", [4, 6])
def test_packet_that_nobody_listens_for_is_dropped_for_want_of_a_socket(row: Row, family: int) -> None:
    server = ADDRESSES[family][1]
    with watching(row, FilterEntry(server, PORT)) as watch:
        with udp_socket(row, row.client, family) as sock:
            sock.sendto(b"anyone?", (server, PORT))
        with netns.inside(row.client):
            refused = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM)
        with refused, pytest.raises(ConnectionRefusedError):
            refused.connect((server, PORT))
        watch.settle()
        watch.end()
    assert {(d.flow.protocol, d.reason, d.hook) for d in watch.drops} == {
        (Protocol.UDP, here("NO_SOCKET"), ""),
        (Protocol.TCP, here("NO_SOCKET"), ""),
    }
    assert {d.netns for d in watch.drops} == {row.inode(row.server)}
    (error, *_) = [e for e in watch.events if isinstance(e, IcmpError)]
    assert (error.quoted.protocol, error.quoted.dport) == (Protocol.UDP, PORT)
