"""The agent's side of fabrics: sysfs, netlink and queries, each as the kernel gives it, or as somebody damaged it."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.fabric import connections, netlink, nics, report
from kubectl_genainet.agent.fabric.nics import _TROUBLE
from kubectl_genainet.agent.fabric.report import read_fabric, users_of
from kubectl_genainet.agent.fabric.sysfs import MAX_COUNTERS, MAX_DEVICES, MAX_GIDS, read_devices
from kubectl_genainet.agent.serve.limits import MAX_ADDRESSES, checked_addresses
from kubectl_genainet.errors import InputError
from tests.unit.fabric.fabric_nodes import device_answer, message, queue_pair_answer, word, write_tree


def test_devices_are_read_with_their_ports_counters_and_gids(tmp_path: Path) -> None:
    mlx, efa = read_devices(write_tree(tmp_path))
    (port,) = efa.ports
    assert (efa.name, port.number, port.state, port.link_layer) == ("rdmap0s6", 1, "ACTIVE", "Unspecified")
    assert port.rate == "100 Gb/sec (4X EDR)"
    assert port.gids == ("fe80:0000:0000:0000:0a70:1eff:fe03:0001",)  # the one that is not set is left out
    assert port.counters["retrans_timeout_events"] == 2 and port.data_bytes == (6000, 7000)
    assert (mlx.ports[0].state, mlx.ports[0].link_layer) == ("DOWN", "InfiniBand")
    assert mlx.ports[0].data_bytes == (4000, 8000)  # words of four bytes
    assert mlx.ports[0].counters["out_of_sequence"] == 5


def test_a_node_without_rdma_is_asked_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> object:
        raise AssertionError

    monkeypatch.setattr(report, "RdmaNetlink", refuse)
    assert read_fabric(tmp_path / "nothing").devices == ()


def test_counters_that_are_none_or_without_end_are_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = tmp_path / "rdmap0s6/ports/1/hw_counters"
    for i in range(2 * MAX_COUNTERS):
        (folder / f"aa_{i:04}").write_text("1\n")
    (folder / "aa_0000").write_text("²\n")
    (folder / "aa_0001").write_bytes(b"\xff" * 100_000)
    (folder / "aa_0002").unlink()
    (folder / "aa_0002").mkdir()
    counters = read_devices(tmp_path)[1].ports[0].counters
    assert len(counters) == MAX_COUNTERS - 3 and "aa_0000" not in counters


def test_devices_ports_gids_and_words_have_bounds(tmp_path: Path) -> None:
    """A driver writes these files; names and words that are none do no harm."""
    for number in range(MAX_DEVICES + 4):
        (tmp_path / f"mlx5_{number}").mkdir()
    (tmp_path / "a\x1b[2J\nname").mkdir()
    (tmp_path / os.fsdecode(b"b\xff")).mkdir()
    ports = tmp_path / "mlx5_0" / "ports"
    for number in range(20):
        (ports / str(number)).mkdir(parents=True)
    (ports / "0" / "state").write_bytes(b"4: \xff" + b"x" * 10_000)
    (ports / "0" / "gids").mkdir()
    for number in range(MAX_GIDS + 6):
        (ports / "0" / "gids" / str(number)).write_text("fe80::1\n")
    found = read_devices(tmp_path)
    assert len(found) == MAX_DEVICES and all(device.name.startswith("mlx5_") for device in found)
    assert len(found[0].ports) == 16
    assert len(found[0].ports[0].gids) == MAX_GIDS
    assert found[0].ports[0].state.startswith("\ufffdxxx") and len(found[0].ports[0].state) < 200


def test_queue_pairs_are_counted_by_process_and_the_kernels_left_out() -> None:
    assert netlink.queue_pairs_of(queue_pair_answer(0, 41, 41, 0, 42)) == Counter({41: 2, 42: 1})
    assert netlink.device_of(device_answer(3, "mlx5_0")) == (3, "mlx5_0")
    assert netlink.device_of(netlink.attribute(1, word(3))) is None
    assert netlink.netns_mode_of(netlink.attribute(66, b"\1")) == "shared"
    assert netlink.netns_mode_of(netlink.attribute(66, b"\0")) == "exclusive"
    assert netlink.netns_mode_of(b"") == ""


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_damaged_answers_end_where_they_make_no_sense(cut: int) -> None:
    whole = queue_pair_answer(0, 41, 42)
    assert netlink.queue_pairs_of(whole[:cut]).total() <= 2
    assert len(list(netlink.messages(message(20, whole)[: cut + 16]))) <= 1
    assert list(netlink.attributes(b"\0\0\0\0" * 10)) == []


class Kernel:
    """Answers as the kernel does, by the command that it is asked."""

    def __init__(self, answers: dict[int, list[bytes]]) -> None:
        self._answers, self._waiting = answers, list[bytes]()

    def send(self, data: bytes) -> None:
        ((kind, _),) = netlink.messages(data)
        found = self._answers.get(kind & 0x3FF)
        error = message(2, (-95).to_bytes(4, "little", signed=True))
        self._waiting = [error] if found is None else [*(message(kind, b) for b in found), message(3, word(0))]

    def recv(self, size: int) -> bytes:
        return self._waiting.pop(0)

    def settimeout(self, seconds: float) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, list[bytes]]], None]:
    def answering(answers: dict[int, list[bytes]]) -> None:
        monkeypatch.setattr(socket, "socket", lambda *_: Kernel(answers))

    return answering


def test_users_are_namespaces_of_the_processes_that_hold_queue_pairs(
    tmp_path: Path, kernel: Callable[[dict[int, list[bytes]]], None]
) -> None:
    me = os.getpid()
    answers = {
        1: [device_answer(0, "rdmap0s6"), device_answer(1, "mlx5_0")],
        6: [b"\5\0\x42\0\1\0\0\0"],  # RDMA_NLDEV_SYS_ATTR_NETNS_MODE 1
        10: [queue_pair_answer(0, me, me, 0)],
    }
    kernel(answers)
    found = read_fabric(write_tree(tmp_path))
    assert found.netns_mode == "shared" and found.unreadable == ()
    own = os.stat("/proc/self/ns/net").st_ino
    assert {device.name: device.users for device in found.devices} == {"rdmap0s6": ((own, 2),), "mlx5_0": ((own, 2),)}


def test_a_kernel_that_refuses_leaves_the_users_unknown_and_says_so(
    tmp_path: Path, kernel: Callable[[dict[int, list[bytes]]], None]
) -> None:
    kernel({})
    found = read_fabric(write_tree(tmp_path))
    assert [device.users for device in found.devices] == [None, None]
    assert found.unreadable == ("who uses the RDMA devices: rdma netlink refuses",)


def test_devices_of_other_namespaces_are_named_as_not_seen(
    tmp_path: Path, kernel: Callable[[dict[int, list[bytes]]], None]
) -> None:
    kernel({1: [], 6: [netlink.attribute(66, b"\0")], 10: []})
    (text,) = read_fabric(write_tree(tmp_path)).unreadable
    assert text.startswith("RDMA devices that were given to other network namespaces")


def test_a_process_that_has_ended_uses_nothing() -> None:
    assert users_of({2**22 + 1: 3}) == ()


@pytest.mark.parametrize(
    "refuses", [OSError(95, "Operation not supported"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "bad")]
)
def test_what_a_driver_counts_has_a_bound_and_one_that_refuses_counts_nothing(
    refuses: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = [(f"rx_queue_{n:05}_drops", 1) for n in range(50_000)] + [("tx_bytes", 5), ("rx_dropped", 0)]
    closed = []

    class Driver:
        def __init__(self, device: str) -> None:
            self.device = device

        def get_statistics(self) -> list[tuple[str, int]]:
            if self.device == "bad":
                raise refuses
            return counters

        def close(self) -> None:
            closed.append(self.device)

    monkeypatch.setattr(nics, "IoctlEthtool", Driver)
    assert nics.statistics("eth0") == dict(counters[: nics.MAX_STATISTICS])
    assert nics.statistics("bad") == {} and closed == ["eth0", "bad"]
    monkeypatch.undo()
    assert nics.statistics("a name that is longer than a device may have") == {}
    assert nics.statistics("none-such") == {}


@pytest.mark.parametrize(
    ("query", "addresses"), [("", []), ("at=", []), ("at=10.0.0.1,fd00:0::1", ["10.0.0.1", "fd00::1"])]
)
def test_addresses_are_parsed_values(query: str, addresses: list[str]) -> None:
    assert checked_addresses(query) == addresses


@pytest.mark.parametrize(
    "query", ["of=10.0.0.1", "at=fe80::1%x", "at=;reboot", "at=" + ",".join(["10.0.0.1"] * (MAX_ADDRESSES + 1))]
)
def test_any_other_query_is_refused(query: str) -> None:
    with pytest.raises(InputError):
        checked_addresses(query)


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        *((f"{n}_allowance_exceeded", True) for n in ("bw_in", "bw_out", "pps", "conntrack", "linklocal")),
        *((n, True) for n in ("rx_out_of_buffer", "rx_discards_phy", "rx_dropped", "tx_timeout", "port.rx_dropped")),
        *((n, False) for n in ("rx_packets", "tx_bytes", "conntrack_allowance_available", "rx_queue_0_cnt")),
    ],
)
def test_statistics_of_trouble_are_known_by_their_names(name: str, trouble: bool) -> None:
    assert bool(_TROUBLE.search(name)) is trouble


def test_of_a_namespaces_connections_those_that_carried_most_are_kept_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Diag:
        def __enter__(self) -> Diag:
            return self

        def __exit__(self, *_: object) -> None: ...

        def get_sock_stats(self, *, family: int, **_: object) -> Iterator[dict[str, Any]]:
            for number in range(1000 if family == socket.AF_INET else 0):
                info = {"tcpi_bytes_acked": number, "tcpi_bytes_received": 0}
                ends = {"idiag_src": "10.0.0.1", "idiag_dst": "10.0.0.2", "idiag_sport": number, "idiag_dport": 80}
                yield {**ends, "attrs": [("INET_DIAG_INFO", info)]}
            yield (
                {**ends, "idiag_src": "127.0.0.1", "attrs": [("INET_DIAG_INFO", info)]}
                if family == socket.AF_INET
                else {"idiag_src": "::1", "idiag_dst": "::1", "attrs": [("INET_DIAG_INFO", {})]}
            )

    monkeypatch.setattr(connections, "DiagSocket", Diag)
    monkeypatch.setattr(connections, "MAX_READ", 700)
    found = connections.connections(7)
    assert len(found.connections) == connections.MAX_CONNECTIONS == 500
    assert {c.sent for c in found.connections} == set(range(200, 700)) and found.left_out == 500


def test_a_namespace_whose_connections_can_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> Any:
        raise ValueError("x" * 10_000)

    monkeypatch.setattr(report, "inside_path", unreadable)
    paths = {"10.0.0.1": (7, "/proc/1/ns/net"), "10.0.0.2": (8, "/proc/2/ns/net")}
    found = report.fabric_report("node-1", paths, tmp_path)
    assert [text.partition(": ")[0] for text in found.unreadable] == [
        "TCP connections of network namespace 7",
        "TCP connections of network namespace 8",
    ]
    assert {len(text) for text in found.unreadable} == {200}
    monkeypatch.setattr(report, "REPORT_S", -1.0)
    found = report.fabric_report("node-1", paths, tmp_path)
    assert (found.namespaces, found.unreadable) == ((), ("TCP connections of 2 network namespaces: no time left",))


def test_a_kernel_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Silent:
        def __init__(self, *_: object) -> None:
            """It is never used."""

        settimeout = staticmethod(waits.append)

    monkeypatch.setattr(socket, "socket", Silent)
    netlink.RdmaNetlink()
    assert waits == [netlink._WAIT_S]
