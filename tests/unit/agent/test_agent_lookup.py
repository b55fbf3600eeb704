"""A name looked up before a check connection: the order of a resolver, against a DNS server on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from kubectl_genainet.agent.dns.lookup import candidates, look_up
from kubectl_genainet.model.dns import parse_resolv_conf

CONF = "nameserver 127.0.0.1\nsearch ai.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
KNOWN = {"vllm.ai.svc.cluster.local.": "10.96.3.4"}


@dataclass
class Server:
    port: int
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        found = Server(sock.getsockname()[1])

        def serve() -> None:
            while True:
                data, sender = sock.recvfrom(4096)
                if not data:
                    return
                query = dns.message.from_wire(data)
                name = query.question[0].name.to_text()
                found.asked.append(name)
                answer = dns.message.make_response(query)
                if name in KNOWN:
                    answer.answer.append(dns.rrset.from_text(name, 5, "IN", "A", KNOWN[name]))
                else:
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                sock.sendto(answer.to_wire(), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield found
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", found.port))
        thread.join(10)


def test_search_domains_are_tried_in_order(server: Server) -> None:
    found = look_up("vllm.ai", CONF, ipv6=False, port=server.port)
    assert server.asked == ["vllm.ai.ai.svc.cluster.local.", "vllm.ai.svc.cluster.local."]
    assert (found.outcome, found.addresses, found.asked) == ("answered", ("10.96.3.4",), server.asked[-1])
    assert (found.server, found.queries) == ("127.0.0.1", 2) and found.took_ns > 0


def test_a_name_that_is_nowhere_was_asked_for_everywhere(server: Server) -> None:
    found = look_up("gone", CONF, ipv6=False, port=server.port)
    assert (found.outcome, found.addresses, found.queries) == ("NXDOMAIN", (), 4)
    assert server.asked[-1] == "gone."


def test_a_port_where_nobody_answers_is_no_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    found = look_up("vllm", CONF, ipv6=False, port=port)
    assert found.addresses == () and found.outcome not in ("answered", "NXDOMAIN")


def test_without_a_name_server_nothing_is_asked() -> None:
    assert look_up("vllm", "search x\n", ipv6=False).outcome == "no name server in the pod's resolv.conf"


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("a.b.c.d.e.f", ["a.b.c.d.e.f.", "a.b.c.d.e.f.x."]),
        ("a.b", ["a.b.x.", "a.b."]),
        ("a.b.", ["a.b."]),
    ],
)
def test_dots_decide_what_is_asked_first(name: str, order: list[str]) -> None:
    assert list(candidates(name, parse_resolv_conf("search x\noptions ndots:5\n"))) == order
