"""IPVS by netlink: the kernel's own messages, recorded (tests/vm/test_ipvs_vm.py), read as ipvsadm prints them.

Made anew with GENAINET_WRITE_DUMPS=tests/data/agent on that test.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.node.ipvs import Attributes, Message, _attributes, _by_ipvsadm, read_ipvs, render
from kubectl_genainet.proxy.ipvs.read import parse_ipvs

RECORDED = json.loads((Path(__file__).parents[2] / "data/agent/ipvs.json").read_text())


def servers() -> list[tuple[Attributes, list[Attributes]]]:
    """The recorded services, all of which come before all destinations, each with its own."""
    decoded = []
    for name, data in RECORDED["messages"]:
        message = Message(bytes.fromhex(data))
        message.decode()
        decoded.append((name, _attributes(message, name)))
    services = [a for name, a in decoded if name == "IPVS_CMD_ATTR_SERVICE"]
    destinations = iter([a for name, a in decoded if name == "IPVS_CMD_ATTR_DEST"])
    counts = [len(s.real_servers) for s in parse_ipvs(RECORDED["ipvsadm"])[0]]
    # ipvsadm sorts, the kernel does not: how many destinations a service has is told by its line there.
    names = [line for line in RECORDED["ipvsadm"].splitlines() if line.startswith("-A")]
    by_name = dict(zip(names, counts, strict=True))
    return [(s, [next(destinations) for _ in range(by_name[render([(s, [])]).strip()])]) for s in services]


def test_recorded_messages_read_as_ipvsadm_prints_them() -> None:
    assert render(servers()).splitlines() == RECORDED["ipvsadm"].splitlines()


def test_ipv4_and_ipv6_persistence_marks_and_tunnels_are_among_them() -> None:
    text = RECORDED["ipvsadm"]
    for part in (
        "-p 600 -M 255.255.255.0",
        "-M 64",
        "-f 7 ",
        "-f 8 -6",
        "--sctp-service",
        " -o",
        "[fd44::5]:8080",
        "--tun-type gue --tun-port 6080 --tun-csum",
        "-b sh-fallback,sh-port",
    ):
        assert part in text
    assert len(parse_ipvs(text)[0]) == text.count("-A ")


def test_an_unknown_protocol_is_an_error_not_a_guess() -> None:
    service: dict[str, Any] = {**servers()[0][0], "FWMARK": 0, "PROTOCOL": socket.IPPROTO_ESP}
    with pytest.raises(ValueError, match="protocol 50"):
        render([(service, [])])


def test_a_kernel_without_ip_vs_has_nothing_to_say_and_is_not_made_to_load_it() -> None:
    if Path("/proc/net/ip_vs").exists():
        pytest.skip("this kernel has ip_vs")
    if os.geteuid() != 0:
        pytest.skip("entering a namespace needs root")
    assert read_ipvs("/proc/self/ns/net") == ("", "")
    assert not Path("/proc/net/ip_vs").exists()


def test_a_namespace_that_is_gone_is_an_error() -> None:
    assert read_ipvs("/run/netns/no-such") == ("", "/run/netns/no-such: No such file or directory")


def test_where_both_ways_fail_both_reasons_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("nsenter", 'shift; exec "$@"'), ("ipvsadm", "echo permission denied >&2; exit 2")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _by_ipvsadm("/proc/self/ns/net", "netlink: EPERM") == ("", "netlink: EPERM; ipvsadm: permission denied")
    (tmp_path / "ipvsadm").write_text("#!/bin/sh\necho -A -t 10.96.0.1:443 -s rr\n")
    text, error = _by_ipvsadm("/proc/self/ns/net", "netlink: EPERM")
    assert (text.splitlines()[0], error) == ("# read by ipvsadm, because of netlink: EPERM", "")
    assert [s.title for s in parse_ipvs(text)[0]] == ["TCP 10.96.0.1:443"]
