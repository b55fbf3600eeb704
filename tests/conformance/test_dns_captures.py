"""The captures of the conformance folder, frame by frame through the agent's decoder, give the messages that are stated."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from kubectl_genainet.agent.dns.stream import TcpDirection, TcpStreams
from kubectl_genainet.agent.dns.wire import decode_message, message_id
from kubectl_genainet.model.dns import DnsMessage

FOLDER = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[2] / "../shared/conformance")) / "dns"
if not FOLDER.is_dir():
    pytest.skip(f"no conformance folder at {FOLDER}", allow_module_level=True)
CAPTURES = json.loads((FOLDER / "dns_expected.json").read_text())
PORTS = {53, 8053}
Found = list[tuple[dict[str, Any], bytes]]


def packets(name: str) -> Iterator[tuple[int, Any]]:
    """(frame number from 1, IP packet)."""
    with (FOLDER / name).open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        for number, (_, frame) in enumerate(reader, 1):
            if reader.datalink() == dpkt.pcap.DLT_NULL:
                yield number, dpkt.loopback.Loopback(frame).data
            else:
                yield number, dpkt.ethernet.Ethernet(frame).data


def address(ip: Any) -> tuple[str, str]:
    import ipaddress

    return str(ipaddress.ip_address(ip.src)), str(ipaddress.ip_address(ip.dst))


def messages(name: str) -> tuple[Found, list[tuple[tuple[Any, ...], TcpDirection]]]:
    """UDP messages with their frame, TCP messages, and the TCP streams that did not end whole."""
    found: Found = []
    streams = TcpStreams()
    frames: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, ip in packets(name):
        layer = ip.data
        if isinstance(layer, dpkt.udp.UDP) and {layer.sport, layer.dport} & PORTS:
            src, dst = address(ip)
            key = {"src": src, "sport": layer.sport, "dst": dst, "dport": layer.dport}
            found.append(({**key, "transport": "udp", "frame": number}, bytes(layer.data)))
        if isinstance(layer, dpkt.tcp.TCP) and {layer.sport, layer.dport} & PORTS:
            src, dst = address(ip)
            flow = (src, layer.sport, dst, layer.dport)
            if layer.flags & dpkt.tcp.TH_SYN:
                streams.syn(flow, layer.seq)
            size = len(layer.data)
            if size:
                frames[flow].append(number)
            for message in streams.feed(flow, layer.seq, bytes(layer.data), size) if size else ():
                key = dict(zip(("src", "sport", "dst", "dport"), flow, strict=True))
                found.append(({**key, "transport": "tcp"}, message))
    ended = [(flow, stream) for flow in frames if (stream := streams.end(flow)) is not None and stream.incomplete]
    return found, ended


def described(data: bytes, message: DnsMessage) -> dict[str, Any]:
    """The decoder's words in the index's."""
    edns = message.edns
    out: dict[str, Any] = {
        "id": message_id(data),
        "qr": message.qr,
        "opcode": message.opcode,
        "aa": message.aa,
        "tc": message.tc,
        "rd": message.rd,
        "ra": message.ra,
        "qdcount": message.counts[0],
        "ancount": message.counts[1],
        "nscount": message.counts[2],
        "arcount": message.counts[3],
        "len": message.length,
        "rcode": message.rcode,
        "question": [[q.name, q.type] for q in message.questions],
        "answers": [[a.name, a.type, a.ttl, sorted(a.data)] for a in message.answers or ()],
    }
    if edns is not None:
        options = sorted(edns.options)
        out["edns"] = {"version": edns.version, "payload": edns.payload, "do": edns.do, "options": options}
    return out


@pytest.mark.parametrize("capture", CAPTURES, ids=[c["file"] for c in CAPTURES])
def test_capture_gives_the_stated_messages(capture: dict[str, Any]) -> None:
    found, ended = messages(capture["file"])
    stated = [m for m in capture["messages"] if not m.get("incomplete_stream")]
    broken = [m for m in capture["messages"] if m.get("incomplete_stream")]
    assert sorted(f for f, _ in ended) == sorted((m["src"], m["sport"], m["dst"], m["dport"]) for m in broken)

    def order(place: dict[str, Any], number: int) -> tuple[Any, ...]:
        return (place["transport"], place.get("frame", 0), place["src"], place["sport"], number)

    def sort(items: list[tuple[dict[str, Any], Any]]) -> list[tuple[dict[str, Any], Any]]:
        return [items[i] for i in sorted(range(len(items)), key=lambda i: order(items[i][0], i))]

    mine, theirs = sort(list(found)), sort([(m, m) for m in stated])
    assert len(mine) == len(theirs)
    for (place, data), (expected, _) in zip(mine, theirs, strict=True):
        assert {k: expected[k] for k in place} == place
        message = decode_message(data, answers=True)
        got = described(data, message)
        if "dnspython_error" in expected:
            assert message.error.split(":")[0] == expected["dnspython_error"].split(":")[0]
            assert got["question"] == expected.get("question_partial", got["question"])
            expected = {k: expected[k] for k in ("id", "qr", "opcode", "aa", "tc", "rd", "ra", "len", "qdcount")}
        else:
            assert message.error == ""
            expected = dict(expected)
            expected["answers"] = [[n, t, ttl, sorted(d)] for n, t, ttl, d in expected["answers"]]
            if "edns" in expected:
                expected["edns"] = {**expected["edns"], "options": sorted(expected["edns"]["options"])}
            else:
                assert "edns" not in got
        assert {k: got[k] for k in expected.keys() & got.keys()} == {
            k: expected[k] for k in expected.keys() & got.keys()
        }


@pytest.mark.parametrize("capture", CAPTURES, ids=[c["file"] for c in CAPTURES])
def test_decoding_without_answers_differs_in_the_answers_only(capture: dict[str, Any]) -> None:
    for _, data in messages(capture["file"])[0]:
        whole, brief = decode_message(data, answers=True), decode_message(data)
        if not whole.error:
            assert brief.answers is None
            assert described(data, brief) | {"answers": None} == described(data, whole) | {"answers": None}
