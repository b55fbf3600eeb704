"""A node's report where somebody else wrote the files and named the devices: what can't be read is named, the rest goes on."""

from __future__ import annotations

import errno
import os
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.node import containers, fields, inroot, inventory, kubeproxy, namespace
from kubectl_genainet.agent.node.containers import container_cpu
from kubectl_genainet.agent.node.inroot import Process, read_plain
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.kubeproxy import parse_metrics, read_kube_proxy
from kubectl_genainet.agent.node.namespace import Candidate
from kubectl_genainet.model.fabric import Fabric
from kubectl_genainet.model.node import KubeProxyState

OWN = os.stat("/proc/self/ns/net").st_ino
RESOLV_CONF = "nameserver 10.96.0.10\nroot:secret:19000\n"


def failing(*_: object, **__: object) -> Any:
    raise ValueError("something that nobody thought of")


@pytest.mark.parametrize(("number", "read"), [(errno.ENOSYS, True), (errno.EPERM, True), (errno.EXDEV, False)])
def test_only_where_there_is_no_openat2_is_there_a_fall_back(
    number: int, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(inroot, "open_in_root", refused)
    with Process("self") as process:
        assert process.read_in_root("/proc/version", 5) == ("Linux" if read else "")


def test_what_is_no_plain_file_or_no_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfea")
    assert read_plain(str(tmp_path / "file"), 100) == "��a"
    assert read_plain("/dev/zero", 100) == ""


class FakeProcess:
    """A process of a container, as its files and its network namespace say."""

    files: dict[str, str] = {}
    inode = 1

    def __init__(self, pid: str) -> None:
        self.pid = pid

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    @property
    def network_namespace(self) -> int:
        return self.inode

    def read(self, _: str, __: int) -> str:
        return f"0::/kubepods/{int(self.pid):064x}\n"

    def read_in_root(self, path: str, limit: int) -> str:
        return self.files.get(path, "")[:limit] if self.pid.isdigit() else ""


def test_of_a_containers_resolv_conf_the_fields_go_on_and_of_its_own_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "Process", FakeProcess)
    monkeypatch.setattr(FakeProcess, "files", {"/etc/resolv.conf": RESOLV_CONF})
    candidate = Candidate("/proc/7/ns/net")
    candidate.container_pids = ["7"]
    assert namespace._resolv_conf(candidate, 1) == "nameserver 10.96.0.10\n"
    assert namespace._resolv_conf(candidate, 2) == ""  # the PID is another's by now
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "resolv.conf").write_text(RESOLV_CONF)
    monkeypatch.setattr(namespace, "NETNS_FILES", [str(tmp_path)])
    assert namespace._resolv_conf(Candidate("/run/netns/named"), 1) == "nameserver 10.96.0.10\n"


def test_cpu_accounts_are_of_the_nodes_containers_and_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "Process", FakeProcess)
    monkeypatch.setattr(FakeProcess, "files", {"/sys/fs/cgroup/cpu.stat": "nr_periods 7\nnr_throttled 1\n"})
    monkeypatch.setattr(os, "listdir", lambda _: [str(pid) for pid in range(1, 30)])
    monkeypatch.setattr(containers, "MAX_CONTAINERS", 5)
    found = container_cpu({1})
    assert [account.container for account in found] == [f"{pid:064x}" for pid in range(1, 6)]
    assert {(account.periods, account.throttled) for account in found} == {(7, 1)}
    assert container_cpu({2}) == ()


def test_options_without_end_and_second_servers_are_left_out() -> None:
    text = f"options {'ndots:5 ' * 1000}\nnameserver 10.96.0.10 10.96.0.11\n"
    first, second = fields.resolv_conf_fields(text).splitlines()
    assert first.split() == ["options", *["ndots:5"] * 64]
    assert second == "nameserver 10.96.0.10"


def test_a_bucket_with_a_bound_or_a_count_that_is_none_is_not_counted() -> None:
    line = "kubeproxy_sync_proxy_rules_duration_seconds_bucket"
    for bucket in ('{le="-inf"} 7', '{le="-1"} 7', '{le="nan"} 7', f'{{le="1"}} {1 << 45}'):
        assert parse_metrics(f"{line}{bucket}\n", "").syncs.count == 0
    assert parse_metrics(f'{line}{{le="1"}} 7\n', "").syncs.count == 7


def test_an_answer_that_was_cut_off_in_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no length, so that its end looks like any other's."""
    over = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(f"HTTP/1.1 200 OK\r\n\r\n{kubeproxy._SYNC}_count 1\n".encode())
            over.wait(20)

    monkeypatch.setattr(kubeproxy, "TIMEOUT_S", 0.2)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        monkeypatch.setattr(kubeproxy, "PORT", server.server_address[1])
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        assert read_kube_proxy() is None
        over.set()
        server.shutdown()


def report_of(monkeypatch: pytest.MonkeyPatch, *others: int) -> Inventory:
    """An inventory of the host's namespace and of others, all of which are this one."""
    found = Inventory("node-1", "/proc/self/ns/net")
    candidates = {inode: Candidate("/proc/self/ns/net") for inode in (*others, OWN)}
    monkeypatch.setattr(found, "_own", lambda: dict(candidates))
    monkeypatch.setattr(inventory, "read_kube_proxy", lambda: KubeProxyState())
    return found


def test_a_namespace_that_has_gone_meanwhile_is_not_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    found, look = report_of(monkeypatch, OWN + 1), namespace.look_inside

    def looking(inode: int, *given: Any, **options: Any) -> Any:
        return failing() if inode != OWN else look(inode, *given, **options)

    monkeypatch.setattr(inventory, "look_inside", looking)
    report = found.report()
    assert ([netns.inode for netns in report.namespaces], report.unreadable) == ([OWN], ())


def test_the_host_and_pods_come_before_namespaces_that_anybody_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MAX_NAMESPACES", 3)
    own = {inode: Candidate("/proc/1/ns/net") for inode in range(10)}
    own[5] = Candidate("/run/netns/named")
    own[7].pod_uids = {"a-pod"}
    kept, said = Inventory._bounded(own, 9)
    assert (list(kept), said) == ([9, 5, 7], ["7 network namespaces: there are more than 3"])


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("read_kube_proxy", ("kube-proxy's metrics: ValueError: something that nobody thought of",)),
        ("receiving", ()),
    ],
)
def test_one_part_of_a_report_that_fails_costs_that_part(
    broken: str, says: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report_of(monkeypatch)
    monkeypatch.setattr(inventory, broken, failing)
    report = found.report()
    assert ([netns.inode for netns in report.namespaces], report.unreadable) == ([OWN], says)


def test_listeners_for_which_there_is_no_time_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "REPORT_S", -1.0)
    assert "listening sockets: no time left" in report_of(monkeypatch).report().unreadable


@pytest.mark.parametrize("ask", [lambda found: found.place_of_address("192.0.2.1"), lambda found: found.fabric(["x"])])
def test_a_namespace_that_can_not_be_read_ends_no_search(
    ask: Callable[[Inventory], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report_of(monkeypatch)
    monkeypatch.setattr(inventory, "look_inside", failing)
    assert ask(found)


class FakeRoutes:
    """The netlink answers of a namespace with ten devices, ten addresses and ten routes."""

    def __enter__(self) -> FakeRoutes:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def get_addr(self) -> list[dict[str, Any]]:
        return [{"index": 1, "attrs": [("IFA_LOCAL", f"10.0.0.{n}")]} for n in range(10)]

    def get_links(self) -> list[dict[str, Any]]:
        return [{"index": n, "flags": 1, "attrs": [("IFLA_IFNAME", f"eth{n}")]} for n in range(1, 11)]

    def get_routes(self, table: int) -> list[dict[str, Any]]:
        return [{"family": 2, "dst_len": 32, "attrs": [("RTA_DST", f"10.0.0.{n}"), ("RTA_OIF", 1)]} for n in range(10)]


@pytest.mark.parametrize(("host", "addresses"), [(False, 3), (True, 8)])
def test_what_a_pod_makes_of_its_namespace_has_bounds_and_what_is_beyond_is_said(
    host: bool, addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "IPRoute", FakeRoutes)
    for name, most in (("MAX_ADDRESSES", 3), ("MAX_HOST_ADDRESSES", 8), ("MAX_DEVICES", 4), ("MAX_ROUTES", 2)):
        monkeypatch.setattr(namespace, name, most)
    links = namespace._read_links(None, host=host)
    assert [len(links.devices), len(links.devices[0].addresses), len(links.routes)] == [4, addresses, 2]
    assert links.parts == 4 + addresses + 2
    assert links.left_out == (
        "6 devices are left out",
        f"{10 - addresses} addresses are left out",
        "routes beyond 2 are left out",
    )
    monkeypatch.setattr(namespace, "MAX_NICS", 3)
    assert len(namespace._hardware(links.devices)) == 3


def test_what_can_not_be_read_of_the_fabric_is_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report_of(monkeypatch)
    monkeypatch.setattr(inventory, "read_fabric", lambda: Fabric(unreadable=("who uses the RDMA devices: no",)))
    assert found.report().unreadable == ("who uses the RDMA devices: no",)


def test_a_reason_is_no_longer_than_a_line() -> None:
    assert len(inventory._reason(ValueError("x" * 10_000))) == 200
