"""Packets through IPVS: virtual servers, schedulers, attribution."""

from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import (
    RulesetVerdict,
    attribute_nat,
    evaluate,
)
from tests.unit.proxy.test_proxy_evaluate import packet, ruleset

IPVS = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.0.10:53 wrr persistent 10800
  -> 10.244.0.2:53                Masq    3      0          1
  -> 10.244.0.3:53                Masq    1      0          0
  -> 10.244.0.4:53                Masq    0      0          0
UDP  10.96.0.11:53 lc
  -> 10.244.0.2:53                Masq    1      0          0
  -> 10.244.0.3:53                Masq    1      0          0
TCP  10.96.0.12:80 rr
FWM  7 rr
  -> 10.244.0.9:80                Masq    1      0          0
"""


def test_ipvs_schedulers_and_weights() -> None:
    rules = ruleset(IPVS)
    weighted = evaluate(rules, packet("10.96.0.10", 53))
    assert [(b.address, b.probability) for b in weighted.backends] == [("10.244.0.2:53", 0.75), ("10.244.0.3:53", 0.25)]
    least = evaluate(rules, packet("10.96.0.11", 53, protocol="UDP"))
    assert [b.probability for b in least.backends] == [None, None]
    assert evaluate(rules, packet("10.96.0.12", 80)).verdict is RulesetVerdict.REJECT
    assert evaluate(rules, packet("10.96.0.99", 80)).verdict is RulesetVerdict.NO_MATCH
    assert rules.virtual_servers[0].persistent_timeout == 10800
    assert rules.virtual_servers[3].fwmark == 7


def test_ipvs_saved_rules_are_the_listed_ones() -> None:
    saved = (
        "-A -t 10.96.0.10:53 -s rr -p 10800\n-a -t 10.96.0.10:53 -r 10.244.0.2:53 -m -w 1\n-A -t [fd96::1]:80 -s rr\n"
    )
    rules = ruleset(saved + "-a -t [fd96::1]:80 -r [fd44::2]:8080 -m -w 1\n")
    assert [b.address for b in evaluate(rules, packet("10.96.0.10", 53)).backends] == ["10.244.0.2:53"]
    assert [b.address for b in evaluate(rules, packet("fd96::1", 80, src="fd44::9")).backends] == ["[fd44::2]:8080"]


def test_ipvs_attribution_names_the_virtual_server() -> None:
    before = FiveTuple("10.0.0.2", 4000, "10.96.0.10", 53, Protocol.TCP)
    found = attribute_nat(ruleset(IPVS), before, FiveTuple("10.0.0.2", 4000, "10.244.0.3", 53, Protocol.TCP))
    assert found is not None
    assert (found.mode, found.service_chain, found.endpoint_chain) == (
        "ipvs",
        "TCP 10.96.0.10:53",
        "-> 10.244.0.3:53 Masq 1",
    )
