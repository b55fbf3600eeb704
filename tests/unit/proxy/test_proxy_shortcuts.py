"""Indexes and shared ways change how long a walk takes, never what it finds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, Ruleset, dump_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.evaluator.ir import Chain
from kubectl_genainet.proxy.evaluator.walk import Walk

ADDRESSES = [f"10.0.0.{n}" for n in range(1, 5)]
MATCHES = st.lists(
    st.one_of(
        st.sampled_from(ADDRESSES).map(lambda ip: f"-d {ip}/32"),
        st.sampled_from(["-p tcp", "-p udp", "-d 10.0.0.0/30", "! -d 10.0.0.2/32", "-m mark --mark 0x1/0x1"]),
        st.sampled_from([80, 443]).map(lambda port: f"-p tcp -m tcp --dport {port}"),
        st.sampled_from(["-s 192.168.0.0/24", "! -s 192.168.0.8/31", "-s 10.0.0.1/32", "-p tcp -m tcp --sport 40000"]),
        st.sampled_from(["-m statistic --mode random --probability 0.5", "-m addrtype --dst-type LOCAL", "-i eth0"]),
    ),
    max_size=2,
    unique=True,
).map(" ".join)
NAT_TARGETS = ["-j ACCEPT", "-j RETURN", "-j MARK --set-xmark 0x1/0x1", "-j USER"] + [
    f"-j DNAT --to-destination {ip}:{port}" for ip in ADDRESSES[:3] for port in (80, 8080)
]
FILTER_TARGETS = ["-j ACCEPT", "-j DROP", "-j REJECT", "-j RETURN", "-j USER", "-g USER", "-j MARK --set-xmark 0x0/0x1"]


def _table(name: str, hook: str, targets: list[str]) -> st.SearchStrategy[str]:
    def rules(chain: str, allowed: list[str]) -> st.SearchStrategy[list[str]]:
        rule = st.tuples(MATCHES, st.sampled_from(allowed)).map(lambda p: f"-A {chain} {p[0]} {p[1]}")
        return st.lists(rule, min_size=4, max_size=14)

    def text(parts: tuple[list[str], list[str]]) -> str:
        return f"*{name}\n:{hook} ACCEPT [0:0]\n:USER - [0:0]\n" + "\n".join([*parts[0], *parts[1]]) + "\nCOMMIT\n"

    inner = [t for t in targets if "USER" not in t]
    return st.tuples(rules(hook, targets), rules("USER", inner)).map(text)


def _shape(ruleset: Ruleset, packet: Packet) -> object:
    result = evaluate(ruleset, packet)
    ways = [
        (
            o.verdict,
            o.backend and o.backend.address,
            round(o.probability or 0, 9),
            o.masquerade,
            o.presumed,
            [(r.table, r.chain, r.index) for r in o.rules],
        )
        for o in result.outcomes
    ]
    return result.verdict, result.backends, result.masquerade, set(result.unknown), sorted(ways, key=repr)


@settings(max_examples=120, deadline=None)
@given(
    nat=_table("nat", "PREROUTING", NAT_TARGETS),
    forward=_table("filter", "FORWARD", FILTER_TARGETS),
    dst=st.sampled_from(ADDRESSES),
    dport=st.sampled_from([80, 443, 8080, None]),
)
def test_the_quick_walk_finds_what_the_plain_one_finds(nat: str, forward: str, dst: str, dport: int | None) -> None:
    text = (
        nat + forward + "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m mark --mark 0x1/0x1 -j MASQUERADE\nCOMMIT\n"
    )
    packet = Packet(src="192.168.0.9", dst=dst, dport=dport, protocol=Protocol.TCP)
    quick = _shape(parse_ruleset([dump_of(text)], node_ips=["10.0.0.4"]), packet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "candidates", lambda self, state: self.rules)
        patch.setattr(Ruleset, "destinations_asked", lambda self, family: None)
        plain = _shape(parse_ruleset([dump_of(text)], node_ips=["10.0.0.4"]), packet)
    assert quick == plain


SOURCES = [("192.168.0.9", 40000), ("192.168.0.8", 40001), ("192.168.1.9", 40000), ("10.0.0.1", 1), (None, None)]


@settings(max_examples=120, deadline=None)
@given(
    nat=_table("nat", "PREROUTING", NAT_TARGETS),
    forward=_table("filter", "FORWARD", FILTER_TARGETS),
    dst=st.sampled_from(ADDRESSES),
    order=st.lists(st.sampled_from(SOURCES), min_size=3, max_size=12),
)
def test_what_is_remembered_is_what_a_new_walk_finds(
    nat: str, forward: str, dst: str, order: list[tuple[str | None, int | None]]
) -> None:
    dump = dump_of(nat + forward)
    ruleset = parse_ruleset([dump], node_ips=["10.0.0.4"])
    for src, sport in order:
        packet = Packet(src=src, sport=sport, dst=dst, dport=80, protocol=Protocol.TCP)
        assert _shape(ruleset, packet) == _shape(parse_ruleset([dump], node_ips=["10.0.0.4"]), packet)


def test_a_source_that_no_rule_tells_apart_is_not_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SVC-A - [0:0]\n-A PREROUTING -d 10.0.0.1/32 -j KUBE-SVC-A\n"
        "-A KUBE-SVC-A ! -s 10.244.0.0/16 -j MARK --set-xmark 0x4000/0x4000\n"
        "-A KUBE-SVC-A -p tcp -j DNAT --to-destination 10.244.1.5:80\n:POSTROUTING ACCEPT [0:0]\n"
        "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\nCOMMIT\n"
    )
    ruleset = parse_ruleset([dump_of(text)], node_ips=["192.168.0.1"])
    first = [
        evaluate(ruleset, Packet(src=ip, dst="10.0.0.1", dport=80, protocol=Protocol.TCP))
        for ip in ("10.244.1.1", "192.0.2.1")
    ]
    assert [e.masquerade for e in first] == [False, True]

    def walked(*_: object) -> None:
        pytest.fail("walked again")

    monkeypatch.setattr(Walk, "run", walked)
    again = [
        evaluate(ruleset, Packet(src=ip, dst="10.0.0.1", dport=80, protocol=Protocol.TCP))
        for ip in ("10.244.9.9", "198.51.100.1")
    ]
    assert again == first
