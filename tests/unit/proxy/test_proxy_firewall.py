"""The host's firewall on a Service's way: the change for each program, tried on a copy of the rules before it is told."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, dumps_of, parse_ruleset
from kubectl_genainet.proxy.firewall.opening import HostFirewall, ServicePacket, admitted, host_firewall

NODE = ["172.20.0.4"]
OUTSIDE = Packet(src="198.51.100.7", dst="172.20.0.4", dport=31000, protocol=Protocol.TCP, bridged=False)

NAT = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 172.20.0.4/32 -p tcp -m tcp --dport 31000 -j DNAT --to-destination 10.77.1.9:8000
COMMIT
"""


def _filter(rules: str, policy: str = "DROP", chains: str = "") -> str:
    heads = f":INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n{chains}"
    established = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    return f"*filter\n{heads}{established}{rules}COMMIT\n"


def _found(text: str, packet: Packet = OUTSIDE, nets: tuple[str, ...] = ("10.77.0.0/16",)) -> HostFirewall:
    return host_firewall(dumps_of(text), NODE, [ServicePacket("outside", packet)], nets)


def test_ufw_forwards_to_the_pods_network() -> None:
    ufw = _filter("-A FORWARD -j ufw-user-forward\n", chains=":ufw-user-forward - [0:0]\n:ufw-user-input - [0:0]\n")
    found = _found(NAT + ufw)
    assert (found.verdict, found.refusals[0].chain, found.refusals[0].index) == ("refused", "FORWARD", 0)
    assert [change.commands for change in found.changes] == [("ufw route allow proto tcp to 10.77.0.0/16 port 8000",)]
    assert found.trial.startswith("tried on a copy of the rules: 1 kind of packets")
    assert found.trial.endswith("another port is treated as before")


def test_ufw_allows_a_port_of_the_node() -> None:
    text = (
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:ufw-user-input - [0:0]\n"
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -j ufw-user-input\nCOMMIT\n"
    )
    assert _found(text).changes[0].commands == ("ufw allow proto tcp to 172.20.0.4 port 31000",)


FIREWALLD = """table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		jump filter_FORWARD_POLICIES_pre
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD_POLICIES_pre {
	}
	chain filter_INPUT_ZONES {
		goto filter_IN_public
	}
	chain filter_IN_public {
		jump filter_IN_public_allow
	}
	chain filter_IN_public_allow {
		tcp dport 22 accept
	}
}
"""


def test_firewalld_opens_a_port_of_the_zone_that_the_packet_came_by() -> None:
    found = _found(FIREWALLD)
    assert found.changes[0].firewall == "firewalld"
    assert found.changes[0].commands[0] == "firewall-cmd --permanent --zone=public --add-port=31000/tcp"
    assert found.trial


def test_firewalld_forwards_by_a_policy() -> None:
    found = _found(NAT + FIREWALLD)
    assert found.changes[0].chain == "filter_FORWARD_POLICIES_pre"
    assert any(
        'destination address="10.77.0.0/16" port port="8000"' in command for command in found.changes[0].commands
    )


def test_docker_leaves_a_chain_to_others() -> None:
    docker = _filter("-A FORWARD -j DOCKER-USER\n", chains=":DOCKER-USER - [0:0]\n")
    docker = docker.replace("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n", "")
    found = _found(NAT + docker)
    assert [change.commands[0] for change in found.changes] == [
        "iptables -I DOCKER-USER -d 10.77.0.0/16 -p tcp -m tcp --dport 8000 -j ACCEPT",
        "iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]


def test_a_rule_by_hand_gets_another_before_it() -> None:
    found = _found(NAT + _filter("-A FORWARD -d 10.77.0.0/16 -j REJECT\n", policy="ACCEPT"))
    assert found.changes[0].commands == ("iptables -I FORWARD 2 -d 10.77.0.0/16 -p tcp -m tcp --dport 8000 -j ACCEPT",)


def test_nft_gets_a_rule_before_the_handle_that_drops() -> None:
    base = {"family": "inet", "table": "guard"}
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 31000}}
    objects = [
        {"table": {"family": "inet", "name": "guard"}},
        {"chain": {**base, "name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
        {"rule": {**base, "chain": "in", "handle": 7, "expr": [match, {"drop": None}]}},
    ]
    found = _found(json.dumps({"nftables": objects}))
    assert found.changes[0].commands == (
        "nft insert rule inet guard in handle 7 ip daddr 172.20.0.4 tcp dport 31000 accept",
    )


def test_what_kube_proxy_refuses_is_no_matter_of_the_host() -> None:
    chains = ":KUBE-EXTERNAL-SERVICES - [0:0]\n"
    rules = "-A KUBE-EXTERNAL-SERVICES -p tcp -m tcp --dport 31000 -j REJECT\n"
    text = f"*filter\n:INPUT ACCEPT [0:0]\n{chains}-A INPUT -j KUBE-EXTERNAL-SERVICES\n{rules}COMMIT\n"
    found = _found(text)
    assert (found.verdict, found.changes) == ("other", ())


def test_a_policy_that_refuses_this_client_does_not_hide_what_the_firewall_refuses_of_all() -> None:
    policy = _filter(
        "-A FORWARD -d 10.77.1.9/32 -j KUBE-POD-FW-AAAA\n-A KUBE-POD-FW-AAAA -j REJECT\n",
        policy="ACCEPT",
        chains=":KUBE-POD-FW-AAAA - [0:0]\n",
    )
    guard = (
        "table inet g {{\n\tchain c {{\n\t\ttype filter hook forward priority {};\n\t\ttcp dport 8000 drop\n\t}}\n}}\n"
    )
    found = _found(NAT + policy + guard.format(-5))
    assert (found.verdict, len(found.changes)) == ("refused", 1)
    assert "0 kinds of packets, and the replies, pass, 1 more is refused by what is no firewall" in found.trial
    assert _found(NAT + policy + guard.format(5)).verdict == "other"


@pytest.mark.parametrize("position", ("before", "behind"))
def test_a_change_that_skips_policies_says_so(position: str) -> None:
    """ACCEPT ends the walk of the table: a pod's chain that stands behind it judges nobody any more."""
    guard = "-A FORWARD -p tcp -m tcp --dport 8000 -j DROP\n"
    pods = "-A FORWARD -d 10.77.1.9/32 -j KUBE-POD-FW-AAAA\n"
    policy = "-A KUBE-POD-FW-AAAA -s 198.51.100.0/24 -j RETURN\n-A KUBE-POD-FW-AAAA -j REJECT\n"
    rules = (guard + pods if position == "before" else pods + guard) + policy
    found = _found(NAT + _filter(rules, policy="ACCEPT", chains=":KUBE-POD-FW-AAAA - [0:0]\n"))
    assert (found.verdict, len(found.changes)) == ("refused", 1)
    skips = "it skips the policies that rules of kube-router enforce behind it, for every client"
    others = (
        "policies that rules of kube-router enforce in the same table may not judge other pods on this port any more"
    )
    assert found.trial.endswith(skips if position == "before" else others)
    one_pod = _found(NAT + _filter(rules, policy="ACCEPT", chains=":KUBE-POD-FW-AAAA - [0:0]\n"), nets=())
    assert one_pod.trial.endswith(skips if position == "before" else "another port is treated as before")


def test_a_pod_that_policies_admit_stands_for_the_pods() -> None:
    chains = ":KUBE-POD-FW-AAAA - [0:0]\n"
    rules = "-A FORWARD ! -s 10.77.2.2/32 -j KUBE-POD-FW-AAAA\n-A KUBE-POD-FW-AAAA -j REJECT\n"
    ruleset = parse_ruleset(dumps_of(_filter(rules, policy="ACCEPT", chains=chains)), node_ips=NODE)
    pods = tuple(
        KubeObject(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"p{number}", "namespace": "a"},
                "status": {"podIPs": [{"ip": f"10.77.2.{number}"}], "phase": "Running"},
            }
        )
        for number in (1, 2, 3)
    )
    packet = Packet(src="10.77.2.1", dst="10.77.1.9", dport=8000, protocol=Protocol.TCP, bridged=False)
    assert admitted(ruleset, ClusterSnapshot(pods), packet).src == "10.77.2.2"
    assert admitted(ruleset, ClusterSnapshot(pods[:1]), packet) == packet


@pytest.mark.parametrize("ruleset", [FIREWALLD, NAT])
def test_what_is_not_known_is_said_and_nothing_is_proposed(ruleset: str) -> None:
    text = ruleset.replace("jump filter_INPUT_ZONES", "meta cpu 3 accept") + (
        "table inet more {\n\tchain c {\n\t\ttype filter hook forward priority 0;\n\t\tmeta cpu 3 drop\n\t}\n}\n"
    )
    found = _found(text)
    assert (found.verdict, found.changes, found.trial) == ("unknown", (), "")
    assert any("meta cpu" in what for what in found.unknown)


def test_the_command_prints_what_to_run_and_exits_with_1() -> None:
    arguments = ["rules", "172.20.0.4:31000", "--host-firewall", "--ruleset", "-"]
    shown = CliRunner().invoke(cli, arguments, input=FIREWALLD, standalone_mode=False)
    assert shown.return_value is ExitStatus.FOUND
    assert "firewall-cmd --permanent --zone=public --add-port=31000/tcp" in shown.output
    record = json.loads(CliRunner().invoke(cli, [*arguments, "-o", "json"], input=FIREWALLD).output)
    assert (record["kind"], record["verdict"]) == ("host-firewall", "refused")
    open_port = FIREWALLD.replace("tcp dport 22 accept", "tcp dport 31000 accept")
    passes = CliRunner().invoke(cli, arguments, input=open_port, standalone_mode=False)
    assert passes.return_value is ExitStatus.OK
    assert "let all of it through" in passes.output
