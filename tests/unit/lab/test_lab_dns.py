"""The lab's own resolver and upstream server, with dnspython as the other side."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from kubectl_genainet.lab.programs.stub_resolver import (
    TYPE_A,
    ResolverConfig,
    candidates,
    decode_answer,
    encode_query,
    parse_resolv_conf,
)
from kubectl_genainet.lab.programs.upstream import answer

POD = parse_resolv_conf(
    "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n"
    "options ndots:5 timeout:3\n"
)


def test_resolv_conf_is_read_as_resolv_conf_5_says() -> None:
    search = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert ResolverConfig(("10.96.0.10",), search, ndots=5, timeout=3, attempts=2) == POD
    assert parse_resolv_conf("# nothing\n") == ResolverConfig(())


def test_search_domains_come_first_below_ndots_and_last_above() -> None:
    assert candidates("models.example.com", POD) == [
        "models.example.com.default.svc.cluster.local",
        "models.example.com.svc.cluster.local",
        "models.example.com.cluster.local",
        "models.example.com",
    ]
    assert candidates("a.b.c.d.e.f", POD)[0] == "a.b.c.d.e.f"
    assert candidates("models.example.com.", POD) == ["models.example.com"]


def test_query_is_what_dnspython_reads() -> None:
    message = dns.message.from_wire(encode_query(0x1234, "rag-app.default.svc.cluster.local", TYPE_A))
    assert message.id == 0x1234
    assert message.flags == dns.flags.RD
    assert str(message.question[0]) == "rag-app.default.svc.cluster.local. IN A"


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("models.example.com", "A", dns.rcode.NOERROR, ["203.0.113.10"]),
        ("MODELS.Example.COM", "AAAA", dns.rcode.NOERROR, ["2001:db8::10"]),
        ("models.example.com", "TXT", dns.rcode.NOERROR, []),
        ("models.example.org", "A", dns.rcode.NXDOMAIN, []),
    ],
)
def test_upstream_answers_below_example_com_only(name: str, kind: str, code: int, addresses: list[str]) -> None:
    query = dns.message.make_query(name, kind)
    response = answer(query.to_wire())
    assert response is not None
    read = dns.message.from_wire(response)
    assert query.is_response(read) or read.rcode() == code
    assert read.rcode() == code
    assert [r.to_text() for rrset in read.answer for r in rrset] == addresses
    assert decode_answer(response) == (query.id, code, addresses)


def test_compressed_answers_are_read() -> None:
    text = "id 7\nopcode QUERY\nrcode NOERROR\nflags QR\n;QUESTION\na.example. IN A\n;ANSWER\n"
    text += "a.example. 5 IN CNAME b.example.\nb.example. 5 IN A 192.0.2.1\nb.example. 5 IN A 192.0.2.2\n"
    wire = dns.message.from_text(text).to_wire()
    number, code, addresses = decode_answer(wire)  # dnspython shuffles a record set as it writes it
    assert (number, code, sorted(addresses)) == (7, 0, ["192.0.2.1", "192.0.2.2"])
    for cut in range(12, len(wire) - 1):
        with pytest.raises(ValueError, match="cut short"):
            decode_answer(wire[:cut])


@pytest.mark.parametrize("wire", [b"", b"\0" * 12, bytes(3) + b"\x01" + bytes(13), b"\xff" * 40])
def test_upstream_ignores_what_is_no_query(wire: bytes) -> None:
    assert answer(wire) is None
