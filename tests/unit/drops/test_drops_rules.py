"""Rows beside rules and policies: the rule that took the packets, and whether the policies ask for that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_genainet.context.account import Account
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.model.events import (
    Event,
    IcmpError,
    PacketDropped,
    Point,
    RetransmitCount,
)
from kubectl_genainet.model.finding import Certainty, Severity
from kubectl_genainet.model.node import NetnsRules, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import Agreement, DropOutcome
from kubectl_genainet.proxy import RuleRef
from kubectl_genainet.why.netfilter import told_by
from tests.unit.drops.droprows import (
    HOST,
    LLAMA,
    LLAMA_NS,
    NODE,
    REQUEST,
    UI,
    VIP,
    dropped,
    error_that_died,
    report,
    rows,
    rules,
    sample,
    sampled,
    snapshot,
    tcp,
)


def test_sample_gives_hook_and_rule_and_a_foreign_rule_disagrees_with_the_policies() -> None:
    rule = '-A FORWARD -s 10.244.1.2/32 -p tcp -m tcp --dport 8080 -m comment --comment "old test" -j DROP'
    (row,) = rows(rules(rule), sample(), dropped())
    assert row.drop is not None and row.policy is not None
    assert (row.check, row.outcome, row.drop.hook) == ("rule-drop", DropOutcome.DROPPED, "FORWARD")
    assert row.drop.rule is not None and "old test" in row.drop.rule
    assert (row.policy.agreement, row.policy.causes) == (Agreement.API_ADMITS, ())


def test_rule_that_rejects_is_told_from_one_that_drops() -> None:
    rule = "-A FORWARD -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"
    (row,) = rows(rules(rule), sample(), dropped())
    assert row.drop is not None
    assert (row.check, row.outcome, row.drop.told) == ("rejected-by-rule", DropOutcome.REJECTED, "tcp-reset")


CALICO = (":cali-tw-cali1 - [0:0]", "-A cali-tw-cali1 -j cali-pi-llama", ":cali-pi-llama - [0:0]")


@pytest.mark.parametrize(
    ("beside", "check"), [((), "policy-drop"), (CALICO, "rule-drop"), (("COMMIT", "*mangle", *CALICO), "rule-drop")]
)
def test_a_rule_beside_the_enforcers_is_no_policys_though_the_policies_do_not_admit_the_flow_either(
    beside: tuple[str, ...], check: str
) -> None:
    """The policy was blamed alone: mending it left the rule in place."""
    rule = '-A FORWARD -p tcp -m tcp --dport 8080 -m comment --comment "old test" -j DROP'
    (row,) = rows(rules(rule, *beside), sample(), dropped(), admits=False)
    assert row.drop is not None
    assert (row.check, row.drop.policies) == (check, ("default/llama-in",))
    assert ("old test" in row.title) == bool(beside)
    said = [e.statement for e in row.drop.evidence if e.certainty is Certainty.ASSUMED]
    assert any("isolated for ingress by default/llama-in" in statement for statement in said) == bool(beside)


@pytest.mark.parametrize(
    ("to", "verdict", "check", "said"),
    [
        (
            (VIP, 8081),
            "REJECT",
            "no-such-port",
            "Service default/my-llama-svc (10.96.0.65) has no port 8081/TCP; it has 80/TCP",
        ),
        (("10.96.7.7", 80), "DROP", "kube-proxy-drop", "kube-proxy's rule on node-1 drops it: unallocated"),
        (("203.0.113.9", 80), "DROP", "kube-proxy-drop", "kube-proxy's rule on node-1 drops it: unallocated"),
    ],
)
def test_what_kube_proxy_itself_refuses_is_no_matter_of_policies(
    to: tuple[str, int], verdict: str, check: str, said: str
) -> None:
    flow = tcp(UI, 40000, *to)
    chains = [
        ":KUBE-SERVICES - [0:0]",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        f'-A KUBE-SERVICES -d {to[0]}/32 -p tcp -m tcp --dport {to[1]} -m comment --comment "unallocated" -j {verdict}',
    ]
    (row,) = rows(rules(*chains), sample(flow), dropped(flow))
    assert (row.check, row.title, row.policy) == (check, said, None)


@pytest.mark.parametrize(
    ("reason", "location", "died"),
    [
        ("NEIGH_FAILED", "neigh_invalidate", "node node-1 gets no answer"),
        ("NOT_SPECIFIED", "ip_error+0x12", "node node-1 has no route to 10.96.0.65"),
    ],
)
def test_what_kube_proxy_leaves_alone_is_sent_to_a_port_that_the_service_lacks(
    reason: str, location: str, died: str
) -> None:
    """In iptables mode it takes the Service's own ports only: the packet dies where the node's routes lead."""
    (row,) = rows(dropped(tcp(UI, 40000, VIP, 8081), reason=reason, location=location))
    assert (row.check, row.policy) == ("no-such-port", None)
    assert row.title.startswith(
        "Service default/my-llama-svc (10.96.0.65) has no port 8081/TCP; it has 80/TCP. No rule"
    )
    assert any(e.statement.startswith(died) for e in row.evidence)
    (own,) = rows(dropped(tcp(UI, 40000, VIP, 80), reason=reason, location=location))
    assert own.check in ("neighbour-failed", "no-route")


def test_an_icmp_packet_to_a_service_has_no_port_to_miss() -> None:
    flow = FiveTuple(UI, 0, VIP, 0, Protocol.ICMP)
    (row,) = rows(dropped(flow, reason="NEIGH_FAILED", location="neigh_invalidate"))
    assert row.check == "neighbour-failed"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-A FORWARD -j REJECT", "icmp-port-unreachable"),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", "icmp-host-prohibited"),
        ("tcp dport 80 reject with tcp reset", "tcp reset"),
        ("-A FORWARD -j DROP", None),
    ],
)
def test_how_a_rule_answers_is_read_from_it(text: str, told: str | None) -> None:
    assert told_by(RuleRef("filter", "FORWARD", 1, text)) == told


def test_drop_without_a_known_rule_names_causes_and_says_that_none_is_known() -> None:
    (row,) = rows(rules(), sample(), dropped())
    assert row.policy is not None
    assert row.policy.agreement is Agreement.API_ADMITS
    assert [c.split(":")[0] for c in row.policy.causes] == [
        "the policy enforcer on node-1 lags behind the API, or has stopped",
        "another enforcer",
    ]


@pytest.mark.parametrize("hook", ["FORWARD\x1b[2J", "BR_BROUTING", "x" * 2_000])
def test_a_hook_that_no_rules_stand_at_is_named_and_no_failure(hook: str) -> None:
    """A kernel may have another; who has a node, or wrote a bundle, may say anything."""
    (row,) = rows(rules("-A FORWARD -j DROP"), sample(hook=hook), dropped())
    assert row.drop is not None and row.drop.rule is None
    assert f"no rules stand at {hook}" in row.drop.explanation


def test_drop_that_policies_ask_for_agrees() -> None:
    (row,) = rows(rules(), sample(), dropped(), admits=False)
    assert row.policy is not None
    assert (row.policy.verdict, row.policy.agreement, row.policy.policies) == (
        "deny",
        Agreement.AGREE,
        ("default/llama-in",),
    )
    assert "isolated for ingress by default/llama-in" in row.title


def test_ebpf_drop_names_the_kind_of_data_plane() -> None:
    (row,) = rows(dropped(reason="TC_EGRESS", location="tcf_classify"), admits=False)
    assert (row.check, row.severity) == ("ebpf-drop", Severity.ERROR)
    assert "eBPF data plane decides here" in row.title and row.policy is not None
    assert row.policy.agreement is Agreement.AGREE


def test_dropped_icmp_error_names_the_rule_for_its_type_and_no_other() -> None:
    def error(netns: int = HOST) -> IcmpError:
        return IcmpError(
            node="node-1",
            t_ns=9,
            netns=netns,
            ifindex=2,
            device="eth0",
            point=Point.DROP,
            src=NODE,
            dst=LLAMA,
            family=4,
            type=3,
            code=4,
            mtu=1300,
            quoted=REQUEST.reversed,
            hook="OUTPUT",
            reason="NETFILTER_DROP",
            location="nft_do_chain+0x1",
        )

    counted = error_that_died(REQUEST.reversed, packets=5)
    dump = rules(
        "-A OUTPUT -p icmp -m icmp --icmp-type 8 -j DROP",
        "-A OUTPUT -p icmp -m icmp --icmp-type 3/3 -j DROP",
        "-A OUTPUT -p tcp -j DROP",
        '-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -m comment --comment "no icmp" -j DROP',
    )
    (row,) = rows(error(), counted, dump)
    assert (row.check, row.packets) == ("icmp-dropped", 5)
    assert row.drop is not None and row.drop.rule is not None
    assert row.drop.rule.startswith("filter OUTPUT rule 4:")
    assert row.title.endswith("is dropped in OUTPUT on node-1: a rule of node-1 drops it: no icmp")
    big = dropped(REQUEST.reversed, reason="PKT_TOO_BIG", location="ip_forward", opening=False)
    (row,) = rows(big, error(), counted, dump)
    said = [e for e in row.evidence if e.statement.startswith("the ICMP error is dropped by filter OUTPUT rule 4:")]
    assert [e.certainty.value for e in said] == ["derived"]


def test_drop_where_connections_are_confirmed_is_the_race_if_insertions_failed_and_no_rule_drops() -> None:
    lost = FiveTuple(UI, 40000, LLAMA, 53, Protocol.UDP)
    seen = (dropped(lost, opening=False), sample(lost, hook="POST_ROUTING"), rules("-A FORWARD -j ACCEPT"))
    (row,) = [r for r in rows(*seen, report(2, conntrack_insert_failed=1)) if r.drop is not None]
    assert row.check == "netfilter-drop"  # the first report had no such counter: it may be old
    counted = (report(1, conntrack_insert_failed=0), *seen, report(2, conntrack_insert_failed=1))
    correlator = DropCorrelator(snapshot())
    for event in counted:
        correlator.feed(event)
    built = Rows(correlator).build()
    (row,) = [r for r in built if r.drop is not None]
    assert row.check == "conntrack-race"
    counters = sum(r.packets for r in built if r.drop is None)
    assert (row.packets, counters) == (5, 1)  # the node counts the flow's packet too: the total has it once
    assert summary_of("all", built, correlator, Account()).packets == {"dropped": 5}
    assert "insert_failed grew by 1" in "\n".join(e.statement for e in row.evidence)


def test_rule_that_takes_only_invalid_packets_is_named_as_such() -> None:
    invalid = rules("-A FORWARD -m conntrack --ctstate INVALID -j DROP", "-A FORWARD -j ACCEPT")
    (row,) = rows(invalid, *sampled("NETFILTER_DROP", flow=REQUEST.reversed, hook="FORWARD", flags=24))
    assert row.check == "conntrack-invalid" and row.drop is not None and row.policy is None
    assert row.drop.rule is not None and "INVALID" in row.drop.rule and row.drop.certainty is Certainty.DERIVED


@pytest.mark.parametrize(
    ("flags", "payload", "again", "level"),
    [
        (17, 0, "LAST_ACK", Severity.INFO),  # a FIN after the other end's reset
        (4, 0, "", Severity.INFO),
        (17, 0, "ESTABLISHED", Severity.ERROR),  # data went missing too
        (17, 0, "SYN_RECV", Severity.ERROR),
        (17, 30, "FIN_WAIT1", Severity.ERROR),
        (16, 0, "", Severity.ERROR),
    ],
)
def test_invalid_packets_that_come_after_their_connections_end_are_no_fault(
    flags: int, payload: int, again: str, level: Severity
) -> None:
    invalid = rules("-A FORWARD -m conntrack --ctstate INVALID -j DROP", "-A FORWARD -j ACCEPT")
    packet, count = sampled("NETFILTER_DROP", flow=REQUEST.reversed, hook="FORWARD", flags=flags)
    assert isinstance(packet, PacketDropped)
    events: list[Event] = [invalid, msgspec.structs.replace(packet, payload=payload), count]
    if again:
        late = RetransmitCount(node="node-1", t_ns=10, netns=LLAMA_NS, flow=REQUEST.reversed, packets=2, state=again)
        events.append(late)
    (row,) = [row for row in rows(*events) if row.check == "conntrack-invalid"]
    assert row.severity is level
    assert any("nobody sent data or a handshake again" in e.statement for e in row.evidence) == (level is Severity.INFO)


def test_rules_of_a_pods_own_namespace_are_read_for_what_dies_in_it() -> None:
    own = rules("-A INPUT -p tcp --dport 8080 -j DROP")
    nodes = rules("-A INPUT -j ACCEPT")
    died = sampled("NETFILTER_DROP", netns=LLAMA_NS, hook="INPUT")
    (row,) = rows(nodes, NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,)), *died)
    assert row.check == "rule-drop" and row.drop is not None and "--dport 8080 -j DROP" in (row.drop.rule or "")
    assert row.title.startswith("a rule of pod default/my-llama drops it")
    (row,) = rows(nodes, *died)
    assert row.check == "netfilter-drop" and "the rules of pod default/my-llama were not read" in row.title


def test_port_that_the_pod_itself_redirects_to_is_its_proxys() -> None:
    own = RulesetDump(
        node="node-1",
        t_ns=1,
        source="iptables-nft",
        text="*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 15006\nCOMMIT\n",
    )
    redirected = tcp(UI, 40000, LLAMA, 15006)
    died = sampled("NO_SOCKET", flow=redirected, netns=LLAMA_NS, location="tcp_v4_rcv")
    (row,) = rows(NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,)), *died)
    assert row.check == "redirect-without-listener" and "targetPort" not in row.title
    assert row.drop is not None and "REDIRECT --to-ports 15006" in (row.drop.rule or "")


def test_port_that_a_pod_of_the_target_redirects_to_is_the_targets_whenever_its_rules_come() -> None:
    own = RulesetDump(
        node="node-1",
        t_ns=1,
        source="iptables-nft",
        text="*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 15006\nCOMMIT\n",
    )
    read = NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,))
    died = [
        event
        for port in (15006, 9999)  # the other has nothing to do with the target
        for event in sampled("NO_SOCKET", flow=tcp(UI, 40000, LLAMA, port), netns=LLAMA_NS, location="tcp_v4_rcv")
    ]
    of_target: dict[str, Any] = {"concerns": lambda flow: flow.dport == 8080, "pods": lambda: {LLAMA}}
    for events in ((read, *died), (*died, read)):
        (row,) = rows(*events, **of_target)
        assert row.check == "redirect-without-listener" and row.server is not None and row.server.port == 15006
    assert rows(*died, **of_target) == []


def test_rule_that_is_gone_is_found_in_what_was_read_before() -> None:
    before, now = rules("-A FORWARD -p tcp --dport 8080 -j DROP"), rules("-A FORWARD -j ACCEPT")
    (row,) = rows(before, now, *sampled("NETFILTER_DROP", hook="FORWARD"))
    assert row.check == "rule-drop" and row.title.endswith("(the rule is gone now)")


def test_rule_of_a_device_is_told_from_the_stacks() -> None:
    (row,) = rows(rules("-A FORWARD -j ACCEPT"), *sampled("NETFILTER_DROP", hook="INGRESS"))
    assert row.check == "device-rule-drop" and "ingress of eth0" in row.title


def test_closed_port_that_a_pods_rules_redirect_to_may_have_been_asked_for_itself() -> None:
    text = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 8080\nCOMMIT\n"
    dump = RulesetDump(node=NODE, t_ns=1, source="iptables-nft", text=text)
    of_pod = NetnsRules(node="node-1", t_ns=1, netns=LLAMA_NS, dumps=(dump,))
    (row,) = rows(of_pod, *sampled("NO_SOCKET", netns=LLAMA_NS, location="tcp_v4_rcv"))
    assert row.check == "redirect-without-listener"
    assert "whether these packets came for another port or for this one is not known" in row.title
