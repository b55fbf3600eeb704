"""A node on which somebody else wrote the files, named the devices and answers on the ports."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.node import inroot, inventory, kubeproxy, namespace
from kubectl_genainet.agent.node.containers import parse_cpu_stat
from kubectl_genainet.agent.node.fields import resolv_conf_fields
from kubectl_genainet.agent.node.inroot import Process, open_in_root, open_without_links, read_plain
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.kubeproxy import parse_metrics, read_kube_proxy
from kubectl_genainet.agent.node.namespace import Candidate, device_name
from kubectl_genainet.model.node import KubeProxyState
from kubectl_genainet.model.units import whole_number

SECRET = "root:secret:19000\n"


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A container's root beside a file of the node's."""
    (tmp_path / "shadow").write_text(SECRET)
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "plain").write_text("nameserver 10.96.0.10\n")
    return root


def _read(opener: Any, root: Path, path: str) -> str:
    fd = os.open(root, os.O_PATH)
    try:
        found = opener(fd, path)
        try:
            return read_plain(f"/proc/self/fd/{found}", 100)
        finally:
            os.close(found)
    except OSError:
        return ""
    finally:
        os.close(fd)


@pytest.mark.parametrize("opener", [open_in_root, open_without_links])
@pytest.mark.parametrize(
    "link", ["{out}/shadow", "../../shadow", "../../../../../../../../{out}/shadow", "/proc/self/root{out}/shadow"]
)
def test_a_link_of_a_container_leads_to_no_file_of_the_nodes(opener: Any, link: str, jail: Path) -> None:
    (jail / "etc" / "resolv.conf").symlink_to(link.format(out=jail.parent))
    assert _read(opener, jail, "/etc/resolv.conf") == ""
    assert _read(opener, jail, "/etc/plain") == "nameserver 10.96.0.10\n"


@pytest.mark.parametrize("opener", [open_in_root, open_without_links])
def test_a_folder_that_is_a_link_leads_nowhere_else_either(opener: Any, jail: Path) -> None:
    (jail / "run").symlink_to(jail.parent)
    assert _read(opener, jail, "/run/shadow") == ""


def test_a_link_of_proc_is_no_way_out_either() -> None:
    """/proc/PID/root of a container that sees the node's processes: openat2 alone would follow it within its root."""
    root = os.open("/", os.O_PATH)
    try:
        os.close(open_in_root(root, "/proc/version"))
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            open_in_root(root, "/proc/self/root/proc/version")
    finally:
        os.close(root)


def test_a_link_inside_the_container_is_followed_with_its_root(jail: Path) -> None:
    (jail / "etc" / "resolv.conf").symlink_to("/etc/plain")
    assert _read(open_in_root, jail, "/etc/resolv.conf") == "nameserver 10.96.0.10\n"


def test_without_openat2_the_fall_back_reads_plain_paths_and_no_links(
    jail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(inroot, "open_in_root", refused)
    with Process("self") as process:
        assert process.read_in_root("/proc/version", 5) == "Linux"
        assert process.read_in_root("/proc/self/root/proc/version", 5) == ""
        (jail / "etc" / "resolv.conf").symlink_to("/proc/version")
        assert process.read_in_root(str(jail / "etc" / "resolv.conf"), 5) == ""


@pytest.mark.timeout(20)
def test_a_container_makes_nobody_wait(jail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = jail / "etc" / "resolv.conf"
    os.mkfifo(fifo)
    assert read_plain(str(fifo), 100) == ""
    opened: list[str] = []
    monkeypatch.setattr(inroot, "read_plain", lambda path, _: opened.append(path))
    with Process("self") as process:
        assert process.read_in_root(str(fifo), 100) == ""
    assert opened == []  # opening alone does something where it is a device


def test_only_the_fields_of_a_resolv_conf_go_on() -> None:
    text = (
        "# a comment with a secret\nnameserver 10.96.0.10\nnameserver not-an-address\nnameserver fe80::1%eth0\n"
        "search a.svc.cluster.local svc.cluster.local $(reboot)\noptions ndots:5 secret=1 edns0\nroot:x:0:0\n"
        "nameserver fe80::1%\x1b[2J\n"
    )
    assert resolv_conf_fields(text) == (
        "nameserver 10.96.0.10\nnameserver fe80::1%eth0\n"
        "search a.svc.cluster.local svc.cluster.local\noptions ndots:5 edns0\n"
    )
    assert resolv_conf_fields(SECRET) == ""
    without_end = f"search {'a ' * 1000}\n" * 1000
    assert resolv_conf_fields(without_end).split() == ["search", *["a"] * 64] * 64


@pytest.mark.parametrize("text", ["²", "٣", "", "-1", "1e3", "0x10", "9" * 19 + "9", "1" * 5000, "1_000", "\0"])
def test_a_number_that_is_none_is_none(text: str) -> None:
    assert whole_number(text) is None
    assert parse_cpu_stat(f"nr_periods {text}\nnr_throttled 1\n", "a" * 64) is None


@pytest.mark.parametrize(
    "labels", ['le="x"', 'le="nan"', 'le="-inf"', 'le=""', 'le="0.5" "', 'le="1", le="2', "le=1", '\\"le="1"']
)
def test_a_bucket_that_is_none_is_left_out(labels: str) -> None:
    line = "kubeproxy_sync_proxy_rules_duration_seconds_bucket"
    found = parse_metrics(f'{line}{{{labels}}} 7\n{line}{{le="1"}} ²\n{line}{{le="1"}} 1e99\n{line}', "<b>")
    assert found.mode == ""
    assert found.syncs.p99_over_s == 0


def test_metrics_without_end_are_read_in_a_moment() -> None:
    name = "kubeproxy_sync_proxy_rules_duration_seconds_bucket{"
    begun = time.process_time()
    parse_metrics(name + 'le="1"' * 600_000, "")
    parse_metrics((name + 'le="1"' * 10 + "\n") * 60_000, "")
    assert time.process_time() - begun < 2


class _Drip(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while True:
                self.request.sendall(b"H")
                time.sleep(0.05)
        except OSError:
            return


def test_who_drips_on_kube_proxys_port_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeproxy, "TIMEOUT_S", 0.3)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Drip) as server:
        monkeypatch.setattr(kubeproxy, "PORT", server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun = time.monotonic()
        assert read_kube_proxy() is None
        assert time.monotonic() - begun < 3
        server.shutdown()


def test_a_device_may_have_any_name() -> None:
    assert device_name(b"d\xff\xfe0\0") == "d\\xff\\xfe0"
    assert device_name("eth0") == "eth0"
    assert device_name("ü") == "\\xc3\\xbc"


def _inventory(monkeypatch: pytest.MonkeyPatch, others: int) -> Inventory:
    found = Inventory("node-1", "/proc/self/ns/net")
    own = os.stat("/proc/self/ns/net").st_ino
    candidates = {own: Candidate("/proc/self/ns/net")}
    candidates |= {own + 1 + n: Candidate("/proc/self/ns/net") for n in range(others)}
    monkeypatch.setattr(found, "_own", lambda: dict(candidates))
    monkeypatch.setattr(inventory, "read_kube_proxy", lambda: KubeProxyState())
    monkeypatch.setattr(Candidate, "leads_to", lambda self, inode: True)
    return found


def test_one_namespace_that_cant_be_read_is_named_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _inventory(monkeypatch, 2)
    bad = os.stat("/proc/self/ns/net").st_ino + 1
    real = namespace.look_inside

    def look(inode: int, *args: Any, **kwargs: Any) -> Any:
        if inode == bad:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return real(inode, *args, **kwargs)

    monkeypatch.setattr(inventory, "look_inside", look)
    report = found.report()
    assert len(report.namespaces) == 2
    (text,) = report.unreadable
    assert text.startswith(f"network namespace {bad}: UnicodeDecodeError")


def test_what_happens_while_namespaces_are_read_is_after_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a namespace has counted since it was read is in the next report: this one must not say that it has it."""
    found, reads, real = _inventory(monkeypatch, 2), list[int](), namespace.look_inside

    def look(*args: Any, **kwargs: Any) -> Any:
        reads.append(time.monotonic_ns())
        return real(*args, **kwargs)

    monkeypatch.setattr(inventory, "look_inside", look)
    report = found.report()
    assert len(reads) == 3 and report.t_ns < min(reads)


def test_what_containers_did_to_their_files_costs_only_their_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _inventory(monkeypatch, 0)

    def broken(_: object) -> Any:
        raise ValueError("nr_periods ²")

    monkeypatch.setattr(inventory, "container_cpu", broken)
    report = found.report()
    assert len(report.namespaces) == 1
    assert report.unreadable == ("the containers' CPU accounts: ValueError: nr_periods ²",)


def test_namespaces_and_addresses_without_end_are_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MAX_NAMESPACES", 3)
    report = _inventory(monkeypatch, 9).report()
    assert report.namespaces[0].host and len(report.namespaces) == 3
    assert report.unreadable == ("7 network namespaces: there are more than 3",)
    monkeypatch.setattr(namespace, "MAX_HOST_ADDRESSES", 0)
    report = _inventory(monkeypatch, 0).report()
    assert report.namespaces[0].devices and not any(d.addresses for d in report.namespaces[0].devices)
    assert "addresses are left out" in report.unreadable[0]


def test_a_report_has_a_time_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "REPORT_S", -1.0)
    report = _inventory(monkeypatch, 4).report()
    assert report.namespaces == ()
    assert "5 network namespaces: no time left" in report.unreadable
    monkeypatch.setattr(inventory, "REPORT_S", 20.0)
    monkeypatch.setattr(inventory, "MAX_PARTS", 0)
    report = _inventory(monkeypatch, 4).report()
    assert len(report.namespaces) == 1
    assert "4 network namespaces: the others have more than 0 parts" in report.unreadable


def test_an_http_answer_that_is_none_is_no_kube_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bad) as server:
        monkeypatch.setattr(kubeproxy, "PORT", server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert read_kube_proxy() is None
        server.shutdown()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(kubeproxy, "PORT", closed.getsockname()[1])
    assert read_kube_proxy() is None


def test_an_answer_without_end_is_read_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    line = f'{kubeproxy._SYNC}_bucket{{le="1"}} 1\n'

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.wfile.write(f"{kubeproxy._SYNC}_count 1\n".encode() + line.encode() * 200_000)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            """Quiet."""

    monkeypatch.setattr(kubeproxy, "_MAX_BYTES", 1000)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        monkeypatch.setattr(kubeproxy, "PORT", server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = read_kube_proxy()
        server.shutdown()
    assert found is not None and 0 < found.syncs.count <= 1000 // len(line)
