"""Faults that people report, made with real packets one after the other beside one `trace`, each with its truth: what its client
got, and what the kernel's rules, queues and counters counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.lab.spec import LabSpec
from tests.lab.connections.faultbench import PORT
from tests.lab.connections.faults_of_answers import FAULTS, OWN_PORT
from tests.lab.connections.faults_of_nodes import NO_PROXY, PROXY
from tests.lab.connections.faults_of_time import IDLE_S, OLD_SEGMENTS
from tests.lab.connections.telling import Told, checks, one, tell
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import Record

SLOW = ("forgotten_while_idle", "errors_are_limited", "ports_used_up", "cut_while_idle", "cut_midway")


@pytest.fixture(scope="module")
def lab(quiet_manifests: Path) -> Iterator[RunningLab]:
    with running(LabSpec(name=fresh_name(), manifests=str(quiet_manifests))) as found:
        yield found


@pytest.fixture(scope="module")
def told(lab: RunningLab) -> Told:
    return tell(lab, FAULTS, SLOW)


def test_a_syn_ack_that_is_lost_once_decides_nothing(told: Told) -> None:
    done, path = one(told, "syn_ack_lost_once")
    assert [*done.got.values()] == ["answered"] and done.counted >= 1
    assert (path["outcome"], path["verdict"], path["drop"]) == ("answered", "forwarded", None)


def test_a_bad_checksum_is_invalid_and_a_rule_drops_what_is(told: Told) -> None:
    done, paths = told.of("bad_checksum")
    assert done.counted == 6 and [p["outcome"] for p in paths] == ["dropped", "dropped"]
    for path in paths:
        assert (path["drop"]["check"], path["drop"]["node"]) == ("conntrack-invalid", "node-1")
        assert "--ctstate INVALID -j DROP" in path["drop"]["rule"]
        assert "stale-connection" not in checks(path)  # not translated, as nothing is that is INVALID


def test_a_reply_that_is_not_translated_back_is_no_closed_port(told: Told) -> None:
    done, path = one(told, "not_translated_back")
    assert [*done.got.values()] == ["TimeoutError"] and done.counted >= 1
    assert (path["outcome"], path["drop"]["check"]) == ("reset", "reply-not-translated")
    assert "nothing listens" not in path["drop"]["explanation"]


def test_source_ports_that_are_used_up_are_no_race(told: Told) -> None:
    _, paths = told.of("ports_used_up")
    assert [p["outcome"] for p in paths] == ["dropped", "dropped"]
    assert {p["drop"]["check"] for p in paths} == {"snat-ports-exhausted"}
    assert all("--to-ports 61000-61001" in p["drop"]["rule"] for p in paths)


def test_a_rule_on_the_way_back_is_named(told: Told) -> None:
    done, path = one(told, "rule_on_the_way_back")
    assert done.counted >= 2 and path["outcome"] == "dropped"
    assert (path["drop"]["node"], path["drop"]["check"]) == ("node-3", "rule-drop")
    assert path["drop"]["rule"].startswith("inet back f rule 1:")


def way(hops: list[Record]) -> list[tuple[str, str, str]]:
    """(pod or node, device, point) of each hop."""
    return [(hop["pod"] or hop["node"], hop["device"], hop["point"]) for hop in hops]


def test_the_way_back_ends_where_the_syn_ack_died(told: Told) -> None:
    _, path = one(told, "rule_on_the_way_back")
    (pod, node), backend = [place for place, _, _ in way(path["back"])], path["backend"]["pod"]
    assert (pod, node, path["drop_direction"], path["back_data"]) == (backend, "node-3", "reply", [])


def test_first_data_that_dies_on_its_way_back_is_seen_to(told: Told) -> None:
    done, path = one(told, "first_data_lost")
    client, backend = path["flow"]["client"]["pod"], path["backend"]["pod"]
    assert done.counted >= 1 and (path["outcome"], path["drop"]["check"]) == ("dropped", "rule-drop")
    assert (path["drop"]["node"], path["drop_direction"]) == ("node-3", "reply")
    whole, cut = way(path["back"]), way(path["back_data"])
    assert [place for place, _, _ in whole] == [backend, "node-3", "node-3", "node-1", "node-1", client]
    assert cut == whole[:2]  # it came in on node-3, and was forwarded no more


def test_the_way_back_shows_where_a_source_translation_was_undone(told: Told) -> None:
    done, path = one(told, "masqueraded")
    assert ([*done.got.values()], done.counted, path["outcome"]) == (["answered"], 1, "answered")
    client, backend = path["flow"]["client"]["pod"], path["backend"]["pod"]
    for back in (path["back"], path["back_data"]):
        assert [place for place, _, _ in way(back)] == [backend, "node-3", "node-3", "node-1", "node-1", client]
        to = [hop["dst"] for hop in back]
        assert len(set(to[:4])) == len(set(to[4:])) == 1 and to[0].startswith("172.18.0.2:")
        assert to[4] == path["hops"][0]["src"] and to[0] == path["hops"][-1]["src"]


def test_answers_that_a_bridge_passes_by_the_rules_are_not_translated_back(told: Told) -> None:
    done, path = one(told, "bridge_without_rules")
    assert ([*done.got.values()], done.counted) == (["TimeoutError"], done.syns)  # the client resets each answer
    assert (path["outcome"], path["drop"]["check"]) == ("reset", "reply-not-translated")
    assert path["back"][-1]["src"] == f"{path['backend']['ip']}:80"
    done, path = one(told, "bridge_with_rules")
    assert ([*done.got.values()], done.counted, path["outcome"]) == (["answered"], 0, "answered")
    assert path["back"][-1]["src"] == path["hops"][0]["dst"] == path["nat"]["before"]


def test_a_rule_that_takes_what_a_bridge_passes_is_named(told: Told) -> None:
    done, path = one(told, "bridge_where_rules_drop")
    assert done.counted >= 1 and (path["outcome"], path["drop"]["hook"]) == ("dropped", "FORWARD")
    assert path["drop"]["rule"].startswith("filter FORWARD rule 1:") and path["drop"]["node"] == "node-1"


def test_errors_over_the_kernels_limit_reach_nobody(told: Told) -> None:
    done, paths = told.of("errors_are_limited")
    by_outcome = {
        got: [p for p, g in zip(paths, done.got.values(), strict=True) if g == got] for got in done.got.values()
    }
    refused, silent = by_outcome["ConnectionRefusedError"], by_outcome["TimeoutError"]
    assert len(refused) + len(silent) == len(paths) and done.counted == len(silent) > 0
    assert {p["outcome"] for p in refused} == {"refused"} and {p["outcome"] for p in silent} == {"dropped"}
    assert all("icmp-error" in checks(p) for p in refused)
    assert any("icmp-limited" in checks(p) for p in silent)  # a busy node counts late


def test_a_packet_for_the_proxys_own_port_was_not_redirected_there(told: Told) -> None:
    done, path = one(told, "proxys_own_port")
    assert ([*done.got.values()], done.counted) == (["ConnectionRefusedError"], 0)  # by the redirect's own counter
    assert (path["backend"]["port"], path["drop"]["check"], path["drop"]["rule"]) == (OWN_PORT, "closed-port", None)


def test_a_full_syn_queue_is_unanswered_and_counted(told: Told) -> None:
    done, paths = told.of("full_syn_queue")
    waiting = [p for p in paths if p["outcome"] == "unanswered"]
    assert done.counted > 0 and waiting
    assert [p for p in paths if p["verdict"] == "forwarded"] == []
    assert any("syn-queue-full" in checks(p) for p in waiting)


def test_segments_that_are_too_old_are_counted_as_drops_inside_tcp(told: Told) -> None:
    done, path = one(told, "old_timestamps")
    assert ([*done.got.values()], done.counted) == (["answered"], OLD_SEGMENTS)
    assert (path["outcome"], path["recovered_drops"]) == ("answered", OLD_SEGMENTS)


def test_a_connection_that_was_forgotten_while_idle_names_who_forgets_after_so_long(told: Told) -> None:
    done, path = one(told, "forgotten_while_idle")
    assert done.counted >= 2 and (path["outcome"], path["drop"]["check"]) == ("dropped", "conntrack-invalid")
    assert path["stream"]["idle_ns"] == pytest.approx(done.seconds * 1e9, rel=0.01)
    if abs(done.seconds - IDLE_S) < 0.4:  # the machine was not too busy for it
        (idle,) = [f["title"] for f in path["findings"] if f["check"] == "idle-time"]
        assert "Envoy" in idle


def test_a_wire_that_takes_no_large_packets_fails_the_connection(told: Told) -> None:
    done, path = one(told, "small_wire")
    assert [*done.got.values()] == ["TimeoutError"] and path["outcome"] == "dropped"
    assert path["drop"]["check"] == "peer-refused" and "MTU" in path["drop"]["explanation"]


def test_a_connection_that_is_cut_while_idle_is_unanswered(told: Told) -> None:
    done, path = one(told, "cut_while_idle")
    assert done.counted >= 2 and (path["outcome"], path["verdict"]) == ("unanswered", "unanswered")
    assert "stopped-arriving" in checks(path) and path["retransmits"] >= done.counted - 2


def test_a_rule_that_comes_in_the_middle_is_named(told: Told) -> None:
    done, path = one(told, "cut_midway")
    assert done.counted >= 2 and (path["outcome"], path["drop"]["check"]) == ("dropped", "rule-drop")
    assert path["drop"]["rule"].startswith("inet midway f rule 1:") and path["stream"]["reply_bytes"] == len(b"token")


def test_a_pods_own_redirect_is_told_from_the_backends_port(told: Told) -> None:
    done, path = one(told, "own_redirect")
    assert ([*done.got.values()], done.counted) == (["ConnectionRefusedError"], 1)
    assert (path["outcome"], path["backend"]["port"]) == ("refused", PORT)
    assert path["drop"]["check"] == "redirect-without-listener" and "port 15006" in path["drop"]["explanation"]


def test_a_rule_of_the_pod_itself_is_named(told: Told) -> None:
    done, path = one(told, "own_rule")
    assert done.counted >= 1
    assert (path["outcome"], path["drop"]["check"], path["drop"]["hook"]) == ("dropped", "rule-drop", "INPUT")
    assert path["drop"]["pod"] and "filter INPUT rule 1:" in path["drop"]["rule"]


def test_a_loop_is_no_malformed_header(told: Told) -> None:
    _, path = one(told, "loop")
    assert (path["drop"]["check"], path["verdict"]) == ("ttl-expired", path["verdict"])
    assert path["outcome"] in ("dropped", "refused") and "routing-loop" in checks(path)


def test_a_nodes_own_client_has_service_and_backend(told: Told) -> None:
    done, path = one(told, "nodes_own_client")
    assert [*done.got.values()] == ["answered"] and path["outcome"] == "answered"
    assert (path["flow"]["client"]["node"], path["flow"]["service"]["name"]) == ("node-1", "chatbot-ui")
    assert path["backend"]["pod"].startswith("chatbot-ui-") and path["nat"] is not None


def test_drops_of_a_queue_that_were_made_good_fail_nothing(told: Told) -> None:
    done, path = one(told, "short_queue")
    assert [*done.got.values()] == ["answered"] and (path["outcome"], path["drop"]) == ("answered", None)
    assert 1 <= path["retransmits"] <= done.counted  # of the whole pod, which repeats another's SYN-ACK meanwhile


def test_an_icmp_error_to_a_pod_refuses_what_it_is_about(told: Told) -> None:
    _, path = one(told, "udp_port_closed")
    assert (path["outcome"], path["drop"]["check"]) == ("refused", "closed-port")
    assert "icmp-error" in checks(path)
    done, path = one(told, "prohibited_by_a_rule")
    assert done.counted >= 1 and path["outcome"] == "refused"
    assert "the sender was told: administratively prohibited" in {f["title"] for f in path["findings"]}


def test_a_request_on_a_connection_that_the_server_had_closed_is_a_finding(told: Told) -> None:
    done, path = one(told, "sent_after_the_server_had_closed")
    assert set(done.got.values()) <= {"closed", "reset"} and "sent-after-close" in checks(path)


def test_a_client_that_has_said_fin_and_gets_its_answer_has_lost_nothing(told: Told) -> None:
    _, path = one(told, "half_closed")
    assert (path["outcome"], path["verdict"], path["drop"]) == ("answered", "forwarded", None)


def test_a_port_that_is_used_again_has_the_bytes_of_its_own_connection(told: Told) -> None:
    _, path = one(told, "port_used_again")
    assert path["stream"]["reply_bytes"] == len(b"one")


def test_a_stale_link_address_is_a_failure(told: Told) -> None:
    done, path = one(told, "stale_link_address")
    assert [*done.got.values()] == ["TimeoutError"] and path["outcome"] == "dropped"
    assert path["drop"]["reason"] == "OTHERHOST" and path["drop"]["node"] == "node-3"


def test_later_fragments_that_a_rule_takes_are_seen(told: Told) -> None:
    done, path = one(told, "later_fragments")
    assert done.counted == 4 and (path["outcome"], path["drop"]["check"]) == ("dropped", "device-rule-drop")
    assert (path["drop"]["hook"], path["drop"]["device"], path["drop"]["node"]) == ("INGRESS", "eth0", "node-3")


def test_a_rule_with_a_limit_is_named_and_no_other_blamed(told: Told) -> None:
    done, path = one(told, "limit_reached")
    assert done.counted >= 1 and (path["outcome"], path["drop"]["check"]) == ("dropped", "rule-drop")
    assert path["drop"]["rule"].startswith("inet limited f rule 1:")
    _, path = one(told, "rule_for_a_moment")
    assert path["drop"]["reason"] == "NETFILTER_DROP" and path["drop"]["check"] in ("netfilter-drop", "rule-drop")
    assert "INVALID" not in path["drop"]["explanation"]


def test_a_proxy_that_is_down_is_named_by_the_rule_that_sends_to_it(told: Told) -> None:
    _, path = one(told, "transparent_proxy_is_down")
    assert (path["outcome"], path["drop"]["check"]) == ("dropped", "redirect-without-listener")
    assert f"TPROXY --on-port {NO_PROXY}" in path["drop"]["rule"]
    done, path = one(told, "clients_own_proxy_is_down")
    assert [*done.got.values()] == ["ConnectionRefusedError"] and path["outcome"] == "refused"
    assert path["drop"]["check"] == "redirect-without-listener"
    assert f"REDIRECT --to-ports {NO_PROXY}" in path["drop"]["rule"]


def test_a_connection_through_its_own_proxy_is_one(told: Told) -> None:
    done, path = one(told, "clients_own_proxy")
    assert [*done.got.values()] == ["answered"] and (path["outcome"], path["backend"]["port"]) == ("answered", PROXY)
    assert path["stream"]["reply_bytes"] == len(b"answer")


def test_a_node_that_does_not_forward_is_no_martian(told: Told) -> None:
    done, path = one(told, "forwarding_is_off")
    assert done.counted >= 1 and (path["outcome"], path["drop"]["check"]) == ("dropped", "forwarding-off")


def test_a_pod_that_called_itself_is_told_that_nothing_masquerades(told: Told) -> None:
    done, path = one(told, "called_itself")
    assert [*done.got.values()] == ["TimeoutError"] and done.counted >= 1
    assert (path["outcome"], path["drop"]["reason"]) == ("dropped", "IP_LOCAL_SOURCE")
    assert path["drop"]["check"] == "hairpin-not-masqueraded"
    assert "called Service default/chatbot-ui, which sent it to itself" in path["drop"]["explanation"]


def test_a_handshake_that_waits_in_a_queue_is_slow_at_that_device(told: Told) -> None:
    done, path = one(told, "queue_is_slow")
    (found,) = [finding for finding in path["findings"] if finding["check"] == "slow-handshake"]
    assert done.seconds > 1 and path["attempts"] > 1  # the SYN is sent again meanwhile
    assert abs(path["handshake_ns"] / 1e9 - done.seconds) < 0.1
    assert re.match(
        r"the handshake was slow: at least \d+(?:\.\d)? m?s from \S+ of node node-3 \(.x\) to \S+ of ", found["title"]
    ), found


def test_an_ipsec_policy_that_blocks_is_named(told: Told) -> None:
    done, path = one(told, "ipsec_policy_blocks")
    assert done.counted >= 1 and (path["outcome"], path["drop"]["check"], path["drop"]["node"]) == (
        "dropped",
        "ipsec-policy",
        "node-3",
    )


def test_a_socket_that_wants_signed_segments_is_told(told: Told) -> None:
    _, path = one(told, "segments_must_be_signed")
    assert (path["drop"]["reason"], path["drop"]["check"]) == ("TCP_MD5NOTFOUND", "tcp-signature")


def test_datagrams_that_are_lost_between_answers_are_a_finding(told: Told) -> None:
    done, path = one(told, "some_datagrams_lost")
    assert ([*done.got.values()], done.counted) == (["6 answered"], 3)
    assert path["outcome"] == "answered" and "datagrams-lost" in checks(path)
    assert path["drop"]["rule"].startswith("inet sometimes f rule 1:")


def test_an_entry_from_before_the_rules_is_named(told: Told) -> None:
    done, path = one(told, "entry_before_the_rules")
    assert done.counted == 1 and path["nat"] is None and path["backend"] is None
    (found,) = [finding for finding in path["findings"] if finding["check"] == "stale-connection"]
    assert found["title"].startswith("node node-1 did not translate the packet for my-llama-svc")
    assert found["remedy"]["command"].endswith(f"--orig-port-src {path['flow']['client']['port']}")
    others = [p for p in told.paths.values() if p["flow"]["service"] and p["nat"] and p["nat"]["mode"] != "conntrack"]
    assert others and not any("stale-connection" in checks(p) for p in others)


def test_an_entry_of_datagrams_for_a_pod_that_is_gone_is_named(told: Told) -> None:
    done, path = one(told, "stale_datagram_entry")
    (gone,) = done.got.values()
    assert done.counted == 1 and path["backend"]["ip"] == gone and path["outcome"] in ("dropped", "refused")
    assert (path["flow"]["service"]["name"], path["nat"]["mode"]) == ("kube-dns", "conntrack")
    (found,) = [finding for finding in path["findings"] if finding["check"] == "stale-connection"]
    assert f"sends kube-dns to {gone}:53, which is no endpoint of it; no rule does" in found["title"]
    assert found["remedy"]["command"].startswith("conntrack -D -p udp ")
    assert found["remedy"]["command"].endswith(f"--orig-port-src {path['flow']['client']['port']}")
