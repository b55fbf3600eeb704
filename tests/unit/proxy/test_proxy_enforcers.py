"""The policy behind a rule: kube-router's comments, Calico's chains, the lab's own."""

import pytest

from kubectl_genainet.lab import extension
from kubectl_genainet.proxy import RuleRef, dump_of, parse_ruleset, policy_behind
from kubectl_genainet.proxy.enforcers import PolicyBehind, register_enforcer
from kubectl_genainet.proxy.names import calico_policy_chain


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (
            "genainet lab: pod default/qdrant-0 is isolated (ingress) by default/a, default/b: no rule admits",
            PolicyBehind("lab", ("default/a", "default/b"), "ingress", "default/qdrant-0"),
        ),
        (
            "genainet lab: policy default/rag-app-ingress-policy ingress rule 1",
            PolicyBehind("lab", ("default/rag-app-ingress-policy",), "ingress"),
        ),
        ("genainet lab: pod default/qdrant-0 egress", PolicyBehind("lab", (), "egress", "default/qdrant-0")),
    ],
)
def test_the_lab_registers_its_own_comments(comment: str, expected: PolicyBehind) -> None:
    register_enforcer(extension.lab_policy)
    assert policy_behind(RuleRef("filter", "LAB-POD-X", 3, "", comment)) == expected


ROUTER = """*filter
:KUBE-POD-FW-OBX3V7ZEDQ7OBNBW - [0:0]
:KUBE-NWPLCY-GTYPYTCVRHXT3JOA - [0:0]
-A KUBE-POD-FW-OBX3V7ZEDQ7OBNBW -m comment --comment "rule for stateful firewall for pod" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-OBX3V7ZEDQ7OBNBW -m comment --comment "run through nw policy rag-app-ingress-policy" -j KUBE-NWPLCY-GTYPYTCVRHXT3JOA
-A KUBE-POD-FW-OBX3V7ZEDQ7OBNBW -m comment --comment "rule to log dropped traffic POD name:rag-app-0 namespace: default" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min -j NFLOG --nflog-group 100
-A KUBE-POD-FW-OBX3V7ZEDQ7OBNBW -m comment --comment "rule to REJECT traffic destined for POD name:rag-app-0 namespace: default" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-NWPLCY-GTYPYTCVRHXT3JOA -p tcp -m comment --comment "rule to ACCEPT traffic from source pods to dest pods selected by policy name rag-app-ingress-policy namespace default" -m tcp --dport 80 -j MARK --set-xmark 0x10000/0x10000
COMMIT
"""  # noqa: E501


def test_kube_routers_reject_names_the_policies_that_the_pod_runs_through() -> None:
    ruleset = parse_ruleset([dump_of(ROUTER)])
    chain = ruleset.chain("filter", "KUBE-POD-FW-OBX3V7ZEDQ7OBNBW")
    assert chain is not None
    behind = policy_behind(chain.rules[3].ref, ruleset)
    assert behind == PolicyBehind("kube-router", ("default/rag-app-ingress-policy",), pod="default/rag-app-0")
    admitting = ruleset.chain("filter", "KUBE-NWPLCY-GTYPYTCVRHXT3JOA")
    assert admitting is not None
    assert policy_behind(admitting.rules[0].ref) == PolicyBehind("kube-router", ("default/rag-app-ingress-policy",))


def test_calicos_short_names_need_no_hash() -> None:
    chain = calico_policy_chain("a", "b", "ingress")
    assert chain == "cali-pi-a/knp.default.b"
    assert policy_behind(RuleRef("filter", chain, 1, "")) == PolicyBehind("calico", ("a/b",), "ingress")


def test_a_hash_of_no_known_policy_stays_a_chain() -> None:
    behind = policy_behind(RuleRef("filter", "cali-po-_w6rJoXTmbxiadSPZU3_", 1, ""), None, [("alpha", "other")])
    assert behind == PolicyBehind("calico", (), "egress", unnamed=("cali-po-_w6rJoXTmbxiadSPZU3_",))


def test_other_rules_have_no_policy_behind_them() -> None:
    assert policy_behind(RuleRef("filter", "KUBE-FORWARD", 1, "-A KUBE-FORWARD -j DROP")) is None
