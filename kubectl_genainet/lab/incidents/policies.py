"""Incidents of NetworkPolicies and of rules that pass for one."""

from __future__ import annotations

from kubectl_genainet.lab.api.objects import Object, meta
from kubectl_genainet.lab.change import APP, Lab
from kubectl_genainet.lab.datapath.iptables import comment
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident, restore
from kubectl_genainet.lab.state import ExtraRule, Memo
from kubectl_genainet.model.results.path import Verdict

_DROPPED = Expected(Verdict.DROPPED, reason="NETFILTER_DROP", hook="forward", location="nft_do_chain")
LLAMA, CHATBOT, RAG = "my-llama-finetuned", "chatbot-ui", "rag-app"


def _ingress_rule(lab: Lab, memo: Memo) -> Object:
    policy = lab.edit(lab.find("NetworkPolicy", "my-llama-ingress-policy"), memo)
    rule: Object = policy["spec"]["ingress"][0]
    return rule


@incident(
    "policy-drop",
    _DROPPED,
    Cause("policy-drop", "isolated for ingress by default/my-llama-ingress-policy"),
    felt=Symptom.HANGS,
    clear=restore,
)
def policy_drop(lab: Lab, memo: Memo) -> None:
    """A policy isolates the model's pods and admits a client that does not exist.

    Fault: my-llama-ingress-policy admits app.kubernetes.io/name: chatbot; the pods are labelled chatbot-ui.
    Diagnosis: each new connection of chatbot-ui to my-llama-svc is dropped on the backend's node, after DNAT, in
    FORWARD: NETFILTER_DROP, by the last rule of the pod's LAB-POD- chain (ingress). The policy's rule
    1 covers the port and does not select the client.
    """
    _ingress_rule(lab, memo)["from"][0]["podSelector"]["matchLabels"][APP] = "chatbot"
    lab.sync()


@incident(
    "policy-service-port",
    _DROPPED,
    Cause("policy-drop", "isolated for ingress by default/my-llama-ingress-policy"),
    felt=Symptom.HANGS,
    clear=restore,
)
def policy_service_port(lab: Lab, memo: Memo) -> None:
    """The policy names the Service's port 80 instead of the pods' port 8080.

    Fault: my-llama-ingress-policy admits chatbot-ui on TCP/80. A policy sees the packet after the Service's
    translation, so it has to name 8080.
    Diagnosis: as policy-drop (NETFILTER_DROP in FORWARD on the backend's node); the policy's rule 1 selects the client
    and does not cover port 8080, while 80 is the port of the Service that was called.
    """
    _ingress_rule(lab, memo)["ports"][0]["port"] = 80
    lab.sync()


@incident(
    "policy-drop-egress",
    _DROPPED,
    Cause("policy-drop", "isolated for egress by default/chatbot-ui-egress-policy"),
    felt=Symptom.HANGS,
    clear=restore,
)
def policy_drop_egress(lab: Lab, memo: Memo) -> None:
    """A policy isolates the front end for egress and forgets the model.

    Fault: chatbot-ui-egress-policy admits DNS and rag-app, not my-llama-finetuned.
    Diagnosis: new connections of chatbot-ui to my-llama-svc are dropped on the client's node, after DNAT, in FORWARD:
    NETFILTER_DROP, by the last rule of the client's LAB-POD- chain (egress); no rule of the policy selects the peer.
    Where client and backend share a node, egress is judged first.
    """
    _isolate_egress(lab, memo, [_to_dns(), _to_app(RAG, 80)])
    lab.sync()


@incident(
    "dns-policy-egress",
    _DROPPED,
    Cause("policy-drop", "isolated for egress by default/chatbot-ui-egress-policy"),
    felt=Symptom.NAMES,
    clear=restore,
)
def dns_policy_egress(lab: Lab, memo: Memo) -> None:
    """Egress isolation forgets DNS.

    Fault: chatbot-ui-egress-policy admits rag-app and my-llama-finetuned, and nothing to kube-system.
    Diagnosis: every query of chatbot-ui is dropped on the client's node, after DNAT to a DNS pod, in FORWARD:
    NETFILTER_DROP, by the client's LAB-POD- chain (egress). All lookups time out, so no connection is even tried.
    """
    _isolate_egress(lab, memo, [_to_app(RAG, 80), _to_app(LLAMA, 8080)])
    lab.sync()


@incident(
    "disagreement",
    _DROPPED,
    Cause("rule-drop", "load test 2023"),
    felt=Symptom.HANGS,
    clear=restore,
)
def disagreement(lab: Lab, memo: Memo) -> None:
    """A rule that no policy stands behind drops the model's traffic.

    Fault: on each node, a rule of FORWARD (before all others) drops TCP/8080 from chatbot-ui's pods; its comment speaks
    of a test of 2023. The NetworkPolicies admit the traffic.
    Diagnosis: NETFILTER_DROP in FORWARD on the client's node, by that rule; the static verdict of the policies is
    that the connection is admitted: the two disagree.
    """
    for client in lab.pods_of(CHATBOT):
        for ip in client["status"]["podIPs"]:
            for node in lab.record.nodes:
                rule = f"-s {ip['ip']} -p tcp --dport 8080 {comment('load test 2023, remove after')} -j DROP"
                family = "IPv6" if ":" in ip["ip"] else "IPv4"
                lab.add_rule(
                    ExtraRule(
                        incident="disagreement", node=node, table="filter", chain="FORWARD", rule=rule, family=family
                    )
                )
    lab.sync()


@incident(
    "policy-bypassed",
    Expected(Verdict.FORWARDED),
    Cause("policy-not-enforced", "default/my-llama-ingress-policy does not admit"),
    felt=Symptom.POLICY_WITHOUT_EFFECT,
    clear=restore,
)
def policy_bypassed(lab: Lab, memo: Memo) -> None:
    """A rule accepts what a policy does not admit, before the policy's enforcer sees it.

    Fault: my-llama-ingress-policy admits app.kubernetes.io/name: chatbot (as policy-drop), and on each node a rule of FORWARD,
    before all others, accepts all TCP; its comment speaks of an upgrade.
    Diagnosis: nothing is dropped; connections of chatbot-ui to my-llama-finetuned are established although the policy admits
    none of them.
    """
    _ingress_rule(lab, memo)["from"][0]["podSelector"]["matchLabels"][APP] = "chatbot"
    for node in lab.record.nodes:
        rule = f"-p tcp {comment('open while the CNI is upgraded')} -j ACCEPT"
        lab.add_rule(ExtraRule(incident="policy-bypassed", node=node, table="filter", chain="FORWARD", rule=rule))
    lab.sync()


def _isolate_egress(lab: Lab, memo: Memo, rules: list[Object]) -> None:
    name = "chatbot-ui-egress-policy"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta("NetworkPolicy", name, "default"),
        "spec": {"podSelector": {"matchLabels": {APP: CHATBOT}}, "policyTypes": ["Egress"], "egress": rules},
    }
    lab.pods_of(CHATBOT)  # says kindly where the application is another
    lab.add(policy, memo)


def _to_app(app: str, port: int) -> Object:
    return {
        "to": [{"podSelector": {"matchLabels": {APP: app}}}],
        "ports": [{"protocol": "TCP", "port": port}],
    }


def _to_dns() -> Object:
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    pods = {"matchLabels": {"k8s-app": "kube-dns"}}
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {"to": [{"namespaceSelector": namespace, "podSelector": pods}], "ports": ports}
