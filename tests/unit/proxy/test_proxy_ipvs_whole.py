"""ipvsadm marks no end of its list: what is not in a saved one is not known to be missing on the node."""

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Finding, NotChecked
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, Ruleset, RulesetVerdict, dumps_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.drift import comparison
from kubectl_genainet.proxy.drift.node_rules import NodeRules

SERVERS = """-A -t 10.96.0.1:443 -s rr
-a -t 10.96.0.1:443 -r 192.168.0.2:6443 -m -w 1
"""
CLUSTER_IPS = """Name: KUBE-CLUSTER-IP
Type: hash:ip,port
Revision: 5
Header: family inet hashsize 1024 maxelem 65536
Size in memory: 512
References: 2
Number of entries: 2
Members:
10.96.0.10,udp:53
10.96.0.1,tcp:443
"""


def of(text: str) -> Ruleset:
    return parse_ruleset(dumps_of(text), node_ips=["192.168.0.2"])


def live_list(text: str = SERVERS) -> Ruleset:
    """As an agent dumps it: it knows that ipvsadm came to its end."""
    dumps = [msgspec.structs.replace(dump, t_ns=1) for dump in dumps_of(text)]
    return parse_ruleset(dumps, node_ips=["192.168.0.2"])


def dns(ruleset: Ruleset, src: str = "10.1.0.2") -> Evaluation:
    return evaluate(ruleset, Packet(src=src, dst="10.96.0.10", dport=53, protocol=Protocol.UDP))


def test_a_virtual_server_that_only_a_set_of_kube_proxy_names_is_unknown() -> None:
    for src in ("10.1.0.2", "192.168.0.2"):
        evaluation = dns(of(SERVERS + CLUSTER_IPS), src)
        assert evaluation.verdict is RulesetVerdict.UNKNOWN
        assert "not in the list" in evaluation.unknown[0]


def test_without_the_sets_the_list_is_taken_for_whole_and_that_is_said() -> None:
    evaluation = dns(of(SERVERS))
    assert evaluation.verdict is RulesetVerdict.NO_MATCH
    assert any("marks no end" in what for what in evaluation.assumed)


def test_what_is_listed_needs_no_assumption() -> None:
    packet = Packet(src="10.1.0.2", dst="10.96.0.1", dport=443, protocol=Protocol.TCP)
    evaluation = evaluate(of(SERVERS), packet)
    assert (evaluation.verdict, evaluation.assumed) == (RulesetVerdict.DNAT, ())


def test_a_live_list_is_whole() -> None:
    evaluation = dns(live_list(SERVERS + CLUSTER_IPS))
    assert (evaluation.verdict, evaluation.assumed) == (RulesetVerdict.NO_MATCH, ())


def test_a_real_server_whose_weight_is_cut_off_is_not_read() -> None:
    assert "not read" in of(SERVERS + "-a -t 10.96.0.1:443 -r 192.168.0.3:6443 -m -w\n").unread[0].what


def test_a_service_that_a_saved_list_lacks_is_not_checked_and_one_that_a_live_list_lacks_is_a_finding() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dns", "namespace": "kube-system"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 53, "protocol": "UDP"}]},
    }
    snapshot = ClusterSnapshot((KubeObject(service),))
    saved = comparison(snapshot, [NodeRules("node-1", of(SERVERS))])
    assert any(isinstance(item, NotChecked) and "10.96.0.10:53" in item.what for item in saved)
    live = comparison(snapshot, [NodeRules("node-1", live_list())])
    assert any(isinstance(item, Finding) and item.check == "service-without-rules" for item in live)
    assert not any(isinstance(item, Finding) and item.check == "service-without-rules" for item in saved)
