"""Faults of policies, also those by name and those of the whole cluster."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.events import PacketDropped, PacketSeen, Point
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import fault, known, openai, packet, pod_netns
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.policies import egress_policy, policy
from tests.unit.doctor.worlds.world import NS, World, each, meta


@fault("policy-none", eks, "Namespace chatbot", "spec.template.metadata.labels[*]")
def qdrant_without_a_policy(world: World) -> None:
    world.remove("NetworkPolicy", "qdrant-ingress-policy")


@fault("policy-blocks-outside", eks, "Deployment chatbot/chatbot-ui", "spec.ingress")
def users_of_the_balancer_shut_out(world: World) -> None:
    world.add(policy("ui-ingress", "chatbot-ui", 8080, "rag-app"))


@fault("policy-selects-nothing", eks, "NetworkPolicy chatbot/typo", "spec.podSelector")
def policy_for_nobody(world: World) -> None:
    world.add(policy("typo", "rag-apps", 80, "chatbot-ui"))


@fault("egress-without-dns", eks, "Deployment chatbot/rag-app", "spec.egress")
def egress_without_dns(world: World) -> None:
    world.add(egress_policy("rag-egress", "rag-app", {"to": [{"podSelector": {}}]}))


@fault("policy-refused", kubeadm, "NetworkPolicy chatbot/odd", "spec.policyTypes[0]")
def misspelt_policy_type(world: World) -> None:
    odd = policy("odd", "nobody-has-this-name", 80, "chatbot-ui")
    odd["spec"] |= {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "qdrant"}}, "policyTypes": ["Ingres"]}
    world.add(odd)


@fault("policy-refused", eks, "NetworkPolicy chatbot/odd", "spec.podSelectr")
def misspelt_field(world: World) -> None:
    odd = policy("odd", "qdrant", 6333, "rag-app")
    odd["spec"]["podSelectr"] = odd["spec"].pop("podSelector")
    world.add(odd)


@fault("policy-not-enforced", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers")
def policy_agent_off(world: World) -> None:
    world.spec("DaemonSet", "aws-node", "kube-system")["containers"][1]["args"][1] = "--enable-network-policy=false"


@fault(
    "policy-service-port",
    eks,
    "NetworkPolicy chatbot/my-llama-ingress-policy",
    "spec.ingress[0].ports[0].port",
    also=("policy-blocks-call",),
)
def policy_names_the_services_port(world: World) -> None:
    world.get("NetworkPolicy", "my-llama-ingress-policy")["spec"]["ingress"][0]["ports"][0]["port"] = 80


@fault("policy-blocks-call", eks, "StatefulSet chatbot/qdrant", "spec.template.spec.containers[0].env[0].value")
def caller_not_admitted(world: World) -> None:
    rule = world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"][0]
    rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] = "chatbot-ui"


@fault(
    "policy-peer-nobody",
    eks,
    "NetworkPolicy chatbot/my-llama-ingress-policy",
    "spec.ingress[0].from",
    also=("policy-blocks-call",),
)
def rule_for_a_client_that_does_not_exist(world: World) -> None:
    rule = world.get("NetworkPolicy", "my-llama-ingress-policy")["spec"]["ingress"][0]
    rule["from"] = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "chat-ui"}}}]


@fault("policy-blocks-call", eks, "Deployment chatbot/chatbot-ui", "spec.egress")
def egress_forgets_the_model(world: World) -> None:
    label = "app.kubernetes.io/name"
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    rag = {"to": [{"podSelector": {"matchLabels": {label: "rag-app"}}}], "ports": [{"protocol": "TCP", "port": 80}]}
    world.add(egress_policy("ui-egress", "chatbot-ui", dns, rag))


@fault("policy-one-sided", eks, "Deployment chatbot/chatbot-ui", "spec.ingress[0].from")
def egress_forgets_a_call_that_only_a_policy_tells_of(world: World) -> None:
    for spec in each(world, "Deployment", "chatbot-ui"):
        env = spec["containers"][0]["env"]
        env[:] = [e for e in env if "my-llama-svc" not in e["value"]]
    egress_forgets_the_model.fault(world)


@fault("external-policy-local", eks, "Service chatbot/chatbot-ui", "spec.externalTrafficPolicy", severity=Severity.INFO)
def load_balancer_keeps_away_from_nodes(world: World) -> None:
    world.get("Service", "chatbot-ui")["spec"] |= {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32001}


@fault("policy-against-traffic", known(eks), "Pod chatbot/qdrant-0", "verdict")
def dropped_although_admitted(world: World) -> None:
    world.packets.append(
        packet(world, "rag-app", "qdrant", 6333, PacketDropped, reason="NETFILTER_DROP", location="nft_do_chain")
    )


@fault("policy-against-traffic", known(eks), "Pod chatbot/qdrant-0", "verdict")
def arrived_although_not_admitted(world: World) -> None:
    report, netns = pod_netns(world, "qdrant")
    inode = world.reports[report].namespaces[netns].inode
    world.packets.append(packet(world, "chatbot-ui", "qdrant", 6333, PacketSeen, point=Point.RX, netns=inode))


@fault("policy-open-to-all", eks, "NetworkPolicy chatbot/qdrant-ingress-policy", "spec.ingress[0]")
def policy_for_everyone(world: World) -> None:
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"] = [{}]


def cilium_policy(name: str, *egress: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": meta(name, NS),
        "spec": {"endpointSelector": {"matchLabels": {"app.kubernetes.io/name": "rag-app"}}, "egress": list(egress)},
    }


DNS_RULE = {
    "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}}],
    "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
}
INSIDE = {"toEntities": ["cluster"]}
NAMED = {"toFQDNs": [{"matchName": "api.openai.com"}], "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]}


@fault("policy-not-evaluated", gke, "CiliumNetworkPolicy chatbot/rag-egress", "spec.egress[2].toFQDNs")
def names_in_a_policy(world: World) -> None:
    openai(world)
    world.add(cilium_policy("rag-egress", DNS_RULE, INSIDE, NAMED))


@fault(
    "cilium-fqdn-dns",
    gke,
    "CiliumNetworkPolicy chatbot/rag-egress",
    "spec.egress[1].toFQDNs",
    also=("policy-not-evaluated",),
)
def names_without_the_dns_rule(world: World) -> None:
    openai(world)
    world.add(cilium_policy("rag-egress", INSIDE, NAMED))


@fault("policy-kind-unenforced", kubeadm, "CiliumNetworkPolicy chatbot/left", "apiVersion")
def cilium_policy_under_calico(world: World) -> None:
    world.add(cilium_policy("left", DNS_RULE, INSIDE, {"toEntities": ["world"]}))


@fault("fqdn-egress", eks, "Deployment chatbot/rag-app", "spec.template.spec.containers[0].env[2].value")
def api_on_the_internet_not_admitted(world: World) -> None:
    openai(world)
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    world.add(egress_policy("rag-egress", "rag-app", dns, {"to": [{"podSelector": {}}]}))


@fault(
    "fqdn-pinned", eks, "NetworkPolicy chatbot/rag-egress", "spec.egress[2].to[0].ipBlock.cidr", also=("fqdn-egress",)
)
def api_admitted_by_address(world: World) -> None:
    api_on_the_internet_not_admitted.fault(world)
    rule = {"to": [{"ipBlock": {"cidr": "162.159.140.245/32"}}], "ports": [{"protocol": "TCP", "port": 443}]}
    world.get("NetworkPolicy", "rag-egress")["spec"]["egress"].append(rule)
