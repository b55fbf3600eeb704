"""Incidents of name lookup."""

from __future__ import annotations

from kubectl_genainet.lab.change import Lab
from kubectl_genainet.lab.datapath.iptables import comment
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident, restore
from kubectl_genainet.lab.incidents.policies import CHATBOT, RAG
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import ExtraRule, Memo
from kubectl_genainet.model.results.path import Verdict

UPSTREAM_DELAY_MS = 800
STORM_NAME, STORM_RATE = "vector-db.prod.internal", 20
EXTERNAL_NAME, EXTERNAL_RATE = "models.example.com", 20


@incident(
    "dns-timeout",
    Expected(Verdict.DROPPED, "NETFILTER_DROP", "forward", "nft_do_chain"),
    Cause("rule-drop", "hardening: block udp"),
    felt=Symptom.NAMES,
    clear=restore,
)
def dns_timeout(lab: Lab, memo: Memo) -> None:
    """Packets to one of the two DNS pods are dropped.

    Fault: on the node of one DNS pod, a rule of FORWARD drops UDP/53 to it.
    Diagnosis: about half of the queries to kube-dns get no answer, and the client asks again after 5 s. They were last
    seen on that DNS pod's node, before its veth: NETFILTER_DROP in FORWARD, after DNAT.
    """
    pod = lab.pods_of("kube-dns", label="k8s-app")[-1]
    for ip in pod["status"]["podIPs"]:
        rule = f"-d {ip['ip']} -p udp --dport 53 {comment('hardening: block udp')} -j DROP"
        family = "IPv6" if ":" in ip["ip"] else "IPv4"
        lab.add_rule(
            ExtraRule(
                incident="dns-timeout",
                node=pod["spec"]["nodeName"],
                table="filter",
                chain="FORWARD",
                rule=rule,
                family=family,
            )
        )
    lab.sync()


def _clear_slow_upstream(lab: Lab, memo: Memo) -> None:
    lab.record.upstream_delay_ms = 0


@incident(
    "dns-slow-upstream",
    Expected(Verdict.FORWARDED),
    Cause("dns-slow-upstream", "waits for its upstream"),
    felt=Symptom.NAMES,
    clear=_clear_slow_upstream,
)
def dns_slow_upstream(lab: Lab, memo: Memo) -> None:
    """The DNS server beyond the cluster is slow.

    Fault: the upstream of the DNS pods answers after 800 ms.
    Diagnosis: names of the cluster are answered as quickly as ever, names outside it take 800 ms; the time passes
    between the DNS pod and its upstream, not between the client and the DNS pod.
    """
    lab.record.upstream_delay_ms = UPSTREAM_DELAY_MS
    lab.sync()


@incident(
    "dns-nxdomain-storm",
    Expected(Verdict.FORWARDED),
    Cause("dns-nxdomain-storm", "vector-db.prod.internal", target="deploy/chatbot-ui"),
    felt=Symptom.NAMES,
    clear=restore,
)
def dns_nxdomain_storm(lab: Lab, memo: Memo) -> None:
    """A pod asks again and again for a name that does not exist.

    Fault: one chatbot-ui pod looks up vector-db.prod.internal 20 times a second.
    Diagnosis: nearly all its queries end in NXDOMAIN, eight for each lookup (three search domains and the name itself,
    A and AAAA).
    """
    pod = lab.pods_of(CHATBOT)[0]
    memo.behaviours[programs.member_key(pod)] = {"storm": [STORM_NAME], "storm_rate": STORM_RATE}
    lab.sync()


@incident(
    "ndots-waste",
    Expected(Verdict.FORWARDED),
    Cause("dns-ndots-waste", "default/rag-app are wasted on search domains", target="deploy/rag-app"),
    felt=Symptom.NAMES,
    clear=restore,
)
def ndots_waste(lab: Lab, memo: Memo) -> None:
    """Lookups of an external name go through all search domains first.

    Fault: one rag-app pod looks up models.example.com (two dots, fewer than ndots:5, no dot at the end) 20 times a
    second.
    Diagnosis: six of its eight queries a lookup are wasted on search domains and end in NXDOMAIN; "models.example.com."
    or ndots:1 would save them.
    """
    pod = lab.pods_of(RAG)[0]
    memo.behaviours[programs.member_key(pod)] = {"storm": [EXTERNAL_NAME], "storm_rate": EXTERNAL_RATE}
    lab.sync()
