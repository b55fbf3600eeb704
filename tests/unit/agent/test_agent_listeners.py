"""What the agent reads of sockets and of containers' cgroups."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kubectl_genainet.agent.node import details, sockets
from kubectl_genainet.agent.node.containers import parse_cpu_stat
from kubectl_genainet.agent.node.details import Details
from kubectl_genainet.agent.node.inroot import read_plain
from kubectl_genainet.agent.node.sockets import listeners
from kubectl_genainet.model.node import ContainerCpu, Listener

ID = "a" * 64
LINES = "nr_periods 4100\nnr_throttled 900\n"


def opened(kind: socket.SocketKind, family: socket.AddressFamily, ip: str, *, v6only: bool = False) -> socket.socket:
    found = socket.socket(family, kind)
    if family is socket.AF_INET6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    found.bind((ip, 0))
    return found


@pytest.mark.parametrize(
    ("family", "ip", "v6only"),
    [
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::", True),
        (socket.AF_INET6, "::1", True),
    ],
)
def test_a_tcp_socket_is_told_from_the_moment_that_it_listens(
    family: socket.AddressFamily, ip: str, v6only: bool
) -> None:
    with opened(socket.SOCK_STREAM, family, ip, v6only=v6only) as server:
        port = server.getsockname()[1]
        assert port not in {i.port for i in listeners(socket.IPPROTO_TCP) or ()}
        server.listen()
        found = [i for i in listeners(socket.IPPROTO_TCP) or () if i.port == port]
    assert found == [Listener(ip, port, v6only)]


def test_a_udp_socket_is_told_unless_it_is_connected() -> None:
    with (
        opened(socket.SOCK_DGRAM, socket.AF_INET, "127.0.0.1") as server,
        opened(socket.SOCK_DGRAM, socket.AF_INET, "127.0.0.1") as client,
    ):
        client.connect(server.getsockname())
        told = [(i.ip, i.port) for i in listeners(socket.IPPROTO_UDP) or ()]
        assert server.getsockname() in told
        assert client.getsockname() not in told


def test_more_sockets_than_can_be_sent_are_not_told_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MAX_LISTENERS", 0)
    with opened(socket.SOCK_STREAM, socket.AF_INET, "127.0.0.1") as server:
        server.listen()
        assert listeners(socket.IPPROTO_TCP) is None


@pytest.mark.parametrize(
    "text",
    [
        f"usage_usec 1\nuser_usec 1\nsystem_usec 0\n{LINES}throttled_usec 61000\nnr_bursts 0\n",
        f"{LINES}throttled_time 61000999\nwait_sum 5\n",
    ],
    ids=["v2", "v1"],
)
def test_cpu_stat_of_both_versions_of_cgroups(text: str) -> None:
    assert parse_cpu_stat(text, ID) == ContainerCpu(container=ID, periods=4100, throttled=900, throttled_us=61_000)


def test_the_root_cgroup_says_nothing_of_throttling() -> None:
    assert parse_cpu_stat("usage_usec 1\nuser_usec 1\nsystem_usec 0\n", ID) is None
    assert parse_cpu_stat("", ID) is None


def test_a_file_of_a_container_is_read_only_if_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nr_periods 1\n")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    assert read_plain(str(tmp_path / "file"), 6) == "nr_per"
    for name in ("fifo", "link", "missing", "."):
        assert read_plain(str(tmp_path / name), 100) == ""


def test_details_are_read_anew_when_a_namespace_comes_and_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    known = Details(now, frozenset({1, 2}), {1: ((Listener("::", 80),), ())})
    assert not known.outdated({1, 2})
    assert known.outdated({1, 2, 3})
    assert known.sockets(2) == (None, None)
    now += details.DETAILS_S + 1
    assert known.outdated({1, 2})
