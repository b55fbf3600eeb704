"""Incidents of Services, their endpoints and kube-proxy."""

from __future__ import annotations

import copy

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.api.controllers import set_ready
from kubectl_genainet.lab.change import Lab
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident, restore
from kubectl_genainet.lab.incidents.policies import CHATBOT, LLAMA
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import Memo
from kubectl_genainet.model.results.path import Verdict

HEALTH_CHECK_PORT = 32001


@incident(
    "no-endpoints",
    Expected(Verdict.REJECTED, "NETFILTER_DROP", "forward", "nft_do_chain"),
    Cause("no-endpoints", "has no ready endpoint"),
    felt=Symptom.REFUSED,
    clear=restore,
)
def no_endpoints(lab: Lab, memo: Memo) -> None:
    """No pod of the model is ready, so the Service has no endpoint.

    Fault: the readiness probe of all my-llama-finetuned pods fails (/healthz gives 503: the model is not loaded).
    Diagnosis: kube-proxy rejects connections to my-llama-svc on the client's node: NETFILTER_DROP in FORWARD with
    the destination still the ClusterIP, and an ICMP port-unreachable goes back to the client. No DNAT, no backend.
    """
    for pod in lab.pods_of(LLAMA):
        set_ready(lab.edit(pod, memo), False)
        memo.behaviours[programs.member_key(pod)] = {"unready": True}
    lab.sync()


def _clear_stale_endpoint(lab: Lab, memo: Memo) -> None:
    lab.restore_objects(memo)
    if memo.notes:
        lab.restore_pod(memo.notes["pod"], memo.notes["netns"])
    lab.release_proxies()


@incident(
    "stale-endpoint",
    Expected(Verdict.DROPPED, reason="NOT_SPECIFIED", location="ip_error"),
    Cause("stale-endpoint", "10.244."),
    felt=Symptom.SOME_FAIL,
    clear=_clear_stale_endpoint,
)
def stale_endpoint(lab: Lab, memo: Memo) -> None:
    """A node's rules still point at a pod that is gone.

    Fault: my-llama-finetuned is scaled from 3 to 2; its pod and the endpoint are gone, and kube-proxy on the node of
    one chatbot-ui pod has not caught up.
    Diagnosis: from that node, one connection in three is translated to the address of a pod that no longer exists, and
    dies on that pod's former node, where only the blackhole route of the pod range is left: ip_error, for which the
    kernel has no reason (NOT_SPECIFIED), no netfilter hook, no ICMP. The client's node has an endpoint in its rules
    that no EndpointSlice has.
    """
    client = lab.pods_of(CHATBOT)[0]
    node = client["spec"]["nodeName"]
    gone = next((p for p in reversed(lab.pods_of(LLAMA)) if p["spec"]["nodeName"] != node), lab.pods_of(LLAMA)[-1])
    deployment = lab.find("Deployment", LLAMA)
    owner = lab.find("ReplicaSet", gone["metadata"]["ownerReferences"][0]["name"])
    for obj in (gone, deployment, owner):
        lab.edit(obj, memo)
    memo.notes = {"pod": copy.deepcopy(gone), "netns": lab.record.pods[programs.member_key(gone)]}
    lab.hold_proxies([node])
    for obj in (deployment, owner):
        obj["spec"]["replicas"] -= 1
        obj["status"] = {k: v - 1 for k, v in obj["status"].items()}
    lab.save()
    lab.remove_pod(gone)


@incident(
    "nothing-listens",
    Expected(Verdict.REJECTED, reason="NO_SOCKET", location="tcp_v4_rcv"),
    Cause("closed-port", "nothing listens on TCP port 8081"),
    felt=Symptom.REFUSED,
    clear=restore,
)
def nothing_listens(lab: Lab, memo: Memo) -> None:
    """The Service's targetPort is a port on which the pods do not listen.

    Fault: targetPort of my-llama-svc (and the port in its policy) is 8081; the pods listen on 8080.
    Diagnosis: connections reach the backend pod and are answered with a RST: NO_SOCKET in tcp_v4_rcv, in the pod's
    namespace. No netfilter hook, no policy.
    """
    service = lab.edit(lab.find("Service", "my-llama-svc"), memo)
    policy = lab.edit(lab.find("NetworkPolicy", "my-llama-ingress-policy"), memo)
    service["spec"]["ports"][0]["targetPort"] = 8081
    policy["spec"]["ingress"][0]["ports"][0]["port"] = 8081
    lab.sync()


@incident(
    "no-local-endpoint",
    Expected(Verdict.DROPPED, "NETFILTER_DROP", "input", "nft_do_chain"),
    Cause("kube-proxy-drop", "has no local endpoints", target="svc/chatbot-ui"),
    felt=Symptom.HANGS,
    clear=restore,
)
def no_local_endpoint(lab: Lab, memo: Memo) -> None:
    """externalTrafficPolicy is Local, and a node without a pod of the Service gets its traffic.

    Fault: chatbot-ui has externalTrafficPolicy Local; its two pods leave one of three nodes without any.
    Diagnosis: connections from outside to the node port on that node are dropped there in INPUT: NETFILTER_DROP, by
    kube-proxy's rule "has no local endpoints". The other nodes answer.
    """
    if {p["spec"]["nodeName"] for p in lab.pods_of(CHATBOT)} == set(lab.record.nodes):
        raise GenainetError("every node of this lab has a pod of chatbot-ui", "Bring one up with three nodes or more.")
    service = lab.edit(lab.find("Service", "chatbot-ui"), memo)
    service["spec"]["externalTrafficPolicy"] = "Local"
    service["spec"]["healthCheckNodePort"] = HEALTH_CHECK_PORT
    lab.sync()
