"""Rules against the API: each kind of drift is found, with its evidence, and being in step is silent."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.proxy import Ruleset, compare, dump_of, parse_ruleset, proxy_modes, service_rules
from kubectl_genainet.proxy.drift.connections import stale_connections
from kubectl_genainet.proxy.hits import connections_by_backend, parse_conntrack, since
from kubectl_genainet.proxy.names import iptables_endpoint_chain, iptables_service_chain
from kubectl_genainet.proxy.report import RulesReport, rules_report

NAME = "default/my-llama-svc:http"
VIP = "10.96.0.10"


def service(name: str = "my-llama-svc", ip: str = VIP, **spec: Any) -> KubeObject:
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
    metadata = {"name": name, "namespace": "default", **spec.pop("metadata", {})}
    return KubeObject(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [port], **spec},
        }
    )


def endpoints(*ips: str, name: str = "my-llama-svc", changed: str = "", **more: Any) -> KubeObject:
    annotations = {"endpoints.kubernetes.io/last-change-trigger-time": changed} if changed else {}
    return KubeObject(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {
                "name": f"{name}-x",
                "namespace": "default",
                "annotations": annotations,
                "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, **more} for ip in ips],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
    )


def iptables(*ips: str, name: str = NAME, vip: str = VIP, count: int = 0) -> str:
    chain = iptables_service_chain(name, "tcp")
    lines = [
        f'[{count}:0] -A KUBE-SERVICES -d {vip}/32 -p tcp -m comment --comment "{name} cluster IP" -m tcp '
        f"--dport 80 -j {chain}"
    ]
    for number, ip in enumerate(ips):
        sep = iptables_endpoint_chain(name, "tcp", f"{ip}:8080")
        left = len(ips) - number
        chance = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
        lines.append(f'[{count}:0] -A {chain} -m comment --comment "{name} -> {ip}:8080"{chance} -j {sep}')
        lines.append(f'[{count}:0] -A {sep} -p tcp -m comment --comment "{name}" -j DNAT --to-destination {ip}:8080')
    return "*nat\n:KUBE-SERVICES - [0:0]\n" + "\n".join(lines) + "\nCOMMIT\n"


def rules(*texts: str, node: str = "node-1") -> Ruleset:
    return parse_ruleset([dump_of(text, node=node) for text in texts], node_ips=["192.168.0.2"])


def found(snapshot: ClusterSnapshot, *texts: str) -> dict[str, Finding]:
    return {f.check: f for f in compare(snapshot, {"node-1": rules(*texts)})}


SNAPSHOT = ClusterSnapshot((service(), endpoints("10.244.0.1", "10.244.0.2")))


def test_rules_in_step_are_silent() -> None:
    assert found(SNAPSHOT, iptables("10.244.0.1", "10.244.0.2")) == {}


def test_rules_for_an_endpoint_that_is_gone() -> None:
    finding = found(SNAPSHOT, iptables("10.244.0.1", "10.244.0.2", "10.244.0.9"))["stale-endpoint-rules"]
    assert finding.severity is Severity.ERROR
    assert "10.244.0.9:8080" in finding.title
    assert finding.evidence[0].node == "node-1"
    assert finding.object is not None
    assert finding.object.name == "my-llama-svc"


def test_an_endpoint_without_rules_and_the_age_of_the_difference() -> None:
    snapshot = ClusterSnapshot(
        (service(), endpoints("10.244.0.1", "10.244.0.2", changed="2026-01-01T10:00:00Z")),
        taken_at="2026-01-01T10:00:41Z",
    )
    finding = found(snapshot, iptables("10.244.0.1"))["missing-endpoint-rules"]
    assert finding.severity is Severity.WARNING
    assert "10.244.0.2:8080" in finding.title
    assert "41 s" in finding.title
    assert found(snapshot, iptables())["missing-endpoint-rules"].severity is Severity.ERROR


def test_a_service_without_rules_and_rules_without_a_service() -> None:
    both = found(SNAPSHOT, iptables("10.244.0.5", name="default/old:http", vip="10.96.0.99"))
    assert f"{VIP}:80 (TCP) of Service default/my-llama-svc" in both["service-without-rules"].title
    assert "default/old:http" in both["rules-without-service"].title


@pytest.mark.parametrize(
    "skipped",
    [
        service(ip="None"),
        service(type="ExternalName"),
        service(metadata={"labels": {"service.kubernetes.io/service-proxy-name": "other"}}),
    ],
)
def test_services_that_kube_proxy_leaves_alone_need_no_rules(skipped: KubeObject) -> None:
    assert "service-without-rules" not in found(ClusterSnapshot((skipped,)), iptables(name="a/b", vip="10.96.0.99"))


def test_both_policies_local_want_only_the_nodes_own_endpoints() -> None:
    local = service(internalTrafficPolicy="Local")
    slices = endpoints("10.244.0.1", nodeName="node-2")
    refused = (
        f"*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n*filter\n-A KUBE-SERVICES -d {VIP}/32 -p tcp -m comment --comment "
    )
    refused += f'"{NAME} has no local endpoints" -m tcp --dport 80 -j DROP\nCOMMIT\n'
    other = iptables("10.244.0.7", name="default/other:http", vip="10.96.0.98")
    snapshot = ClusterSnapshot((local, slices, service("other", "10.96.0.98"), endpoints("10.244.0.7", name="other")))
    assert found(snapshot, refused, other) == {}


def test_topology_hints_leave_endpoints_out_on_purpose() -> None:
    hinted = endpoints("10.244.0.1", "10.244.0.2", hints={"forZones": [{"name": "a"}]})
    assert found(ClusterSnapshot((service(), hinted)), iptables("10.244.0.1")) == {}


def test_objects_that_could_not_be_read_make_no_findings() -> None:
    no_slices = ClusterSnapshot((service(),), left_out=(LeftOut("EndpointSlice", "forbidden"),))
    assert found(no_slices, iptables("10.244.0.1")) == {}
    nothing = ClusterSnapshot((), left_out=(LeftOut("Service", "forbidden"),))
    assert found(nothing, iptables("10.244.0.1")) == {}


def test_a_mode_other_than_the_config_maps() -> None:
    config = KubeObject(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "data": {"config.conf": 'apiVersion: x\nkind: KubeProxyConfiguration\nmode: "ipvs"\n'},
        }
    )
    snapshot = ClusterSnapshot((*SNAPSHOT.objects, config))
    finding = found(snapshot, iptables("10.244.0.1", "10.244.0.2"))["proxy-mode-mismatch"]
    assert "iptables mode, its ConfigMap says ipvs" in finding.title
    default = KubeObject({**config.raw, "data": {"config.conf": 'kind: KubeProxyConfiguration\nmode: ""\n'}})
    assert found(ClusterSnapshot((*SNAPSHOT.objects, default)), iptables("10.244.0.1", "10.244.0.2")) == {}


def test_rules_of_an_old_mode_left_behind() -> None:
    ipvs = f"TCP  {VIP}:80 rr\n  -> 10.244.0.1:8080 Masq 1 0 0\n  -> 10.244.0.2:8080 Masq 1 0 0\n"
    finding = found(SNAPSHOT, iptables("10.244.0.1", "10.244.0.2"), ipvs)["leftover-proxy-rules"]
    assert "iptables, ipvs" in finding.evidence[0].statement
    legacy = "# Generated by iptables-save v1.8.9 (legacy)\n" + iptables("10.244.0.1", "10.244.0.2")
    finding = found(SNAPSHOT, iptables("10.244.0.1", "10.244.0.2"), legacy)["leftover-proxy-rules"]
    assert "both iptables-legacy and iptables-nft" in finding.title
    told = "iptables-legacy-save | grep -v KUBE- | iptables-legacy-restore or iptables-nft-save"
    assert finding.remedy is not None and told in finding.remedy.text


@pytest.mark.parametrize(
    ("configured", "lines"),
    [
        ("iptables", ["ipvsadm --clear", "ip link delete kube-ipvs0"]),
        ("ipvs", ["iptables-nft-save | grep -v KUBE- | iptables-nft-restore"]),
        ("nftables", []),
    ],
)
def test_the_rules_of_the_mode_in_use_stay(configured: str, lines: list[str]) -> None:
    """Never `kube-proxy --cleanup`, which takes away those of every mode."""
    config = KubeObject(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "data": {"config.conf": f"kind: KubeProxyConfiguration\nmode: {configured}\n"},
        }
    )
    ipvs = f"TCP  {VIP}:80 rr\n  -> 10.244.0.1:8080 Masq 1 0 0\n  -> 10.244.0.2:8080 Masq 1 0 0\n"
    snapshot = ClusterSnapshot((*SNAPSHOT.objects, config))
    told = found(snapshot, iptables("10.244.0.1", "10.244.0.2"), ipvs)["leftover-proxy-rules"]
    assert told.remedy is not None
    assert [line.partition("   #")[0] for line in told.remedy.command.splitlines()] == lines


def test_ipvs_rules_are_matched_by_address() -> None:
    ipvs = f"TCP  {VIP}:80 rr\n  -> 10.244.0.1:8080 Masq 1 0 0\n  -> 10.244.0.9:8080 Masq 1 0 0\n"
    findings = found(SNAPSHOT, ipvs)
    assert "10.244.0.9:8080" in findings["stale-endpoint-rules"].title
    assert "10.244.0.2:8080" in findings["missing-endpoint-rules"].title
    report = rules_report(SNAPSHOT, {"node-1": [dump_of(ipvs, node="node-1")]}, parse_target("svc/my-llama-svc"))
    assert [(r.service, r.mode, r.expected) for r in report.rows] == [(NAME, "ipvs", 2)]


def test_nodes_that_disagree() -> None:
    rulesets = {
        "node-1": rules(iptables("10.244.0.1", "10.244.0.2")),
        "node-2": rules(iptables("10.244.0.1", "10.244.0.2"), node="node-2"),
        "node-3": rules(iptables("10.244.0.1"), node="node-3"),
    }
    findings = {f.check: f for f in compare(SNAPSHOT, rulesets)}
    assert "node-1, node-2 against node-3" in findings["nodes-disagree"].title
    assert "10.244.0.2:8080" in findings["nodes-disagree"].evidence[0].statement


def test_a_node_without_kube_proxy_and_one_that_could_not_be_read() -> None:
    findings = compare(SNAPSHOT, {"node-1": rules("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n")})
    assert [(f.check, f.severity) for f in findings] == [("no-proxy-rules", Severity.ERROR)]
    failed = parse_ruleset([RulesetDump(node="node-1", t_ns=0, source="iptables-nft", text="", error="not permitted")])
    assert [(f.check, f.severity) for f in compare(SNAPSHOT, {"node-1": failed})] == [
        ("no-proxy-rules", Severity.WARNING)
    ]


def report(*dumps: str, target: str = "svc/my-llama-svc", earlier: str = "") -> RulesReport:
    before = {"node-1": [dump_of(earlier, node="node-1")]} if earlier else None
    now = {"node-1": [dump_of(text, node="node-1") for text in dumps]}
    return rules_report(SNAPSHOT, now, parse_target(target), earlier=before)


def test_the_report_counts_hits_since_the_earlier_reading() -> None:
    now, before = iptables("10.244.0.1", "10.244.0.2", count=9), iptables("10.244.0.1", "10.244.0.2", count=4)
    (row,) = report(now, earlier=before).rows
    assert (row.address.packets, row.expected, row.state) == (5, 2, "in step")
    assert [b.connections for b in row.address.backends] == [5, 5]
    (reset,) = since(service_rules(rules(now)), service_rules(rules(before)))
    assert reset.connections == 8


def test_the_report_counts_conntracks_connections() -> None:
    entry = "tcp      6 86398 ESTABLISHED src=10.244.3.3 dst=10.96.0.10 sport=5000 dport=80 "
    conntrack = entry + "src=10.244.0.1 dst=10.244.3.3 sport=8080 dport=5000 [ASSURED] mark=0 use=1\n"
    conntrack += "udp 17 20 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n"
    (row,) = report(iptables("10.244.0.1", "10.244.0.2"), conntrack).rows
    assert row.conntrack == 1
    counts = connections_by_backend(parse_conntrack("ipv4     2 " + conntrack))
    assert counts == {("TCP", VIP, 80, "10.244.0.1", 8080): 1}


@pytest.mark.parametrize(
    ("entry", "severity"),
    [
        ("tcp 6 86398 ESTABLISHED", Severity.INFO),
        ("tcp 6 60 SYN_SENT", Severity.INFO),
        ("tcp 6 117 TIME_WAIT", None),
        ("ipv4 2 tcp 6 9 CLOSE", None),
    ],
)
def test_an_entry_of_tcp_to_a_removed_endpoint_misleads_its_own_connection_only(
    entry: str, severity: Severity | None
) -> None:
    gone = "src=10.244.0.9 dst=10.244.3.3 sport=8080 dport=5000 [ASSURED] mark=0 use=1\n"
    found = report(iptables("10.244.0.1", "10.244.0.2"), f"{entry} src=10.244.3.3 dst={VIP} sport=5000 dport=80 {gone}")
    assert [f.severity for f in found.findings] == ([] if severity is None else [severity])
    assert found.rows[0].state == "in step"


def test_an_entry_of_udp_to_a_removed_endpoint_misleads_every_packet_of_its_client() -> None:
    port = {"name": "http", "port": 80, "protocol": "UDP", "targetPort": 8080}
    slices = endpoints("10.244.0.1")
    slices.raw["ports"][0]["protocol"] = "UDP"
    found = stale_connections(
        ClusterSnapshot((service(ports=[port]), slices)),
        "node-1",
        parse_conntrack(
            f"udp 17 20 src=10.244.3.3 dst={VIP} sport=5000 dport=80 "
            "src=10.244.0.9 dst=10.244.3.3 sport=8080 dport=5000 mark=0 use=1\n"
        ),
    )
    (finding,) = found
    assert finding.severity is Severity.ERROR
    assert finding.remedy is not None
    assert finding.remedy.command == f"conntrack -D -p udp --orig-dst {VIP} --orig-port-dst 80"


def test_the_report_says_what_is_not_in_step_and_refuses_unknown_targets() -> None:
    drifted = report(iptables("10.244.0.1"))
    assert drifted.rows[0].state == "missing endpoints"
    assert drifted.found_something
    assert report(iptables("10.244.0.1"), target=VIP).rows[0].service == NAME
    with pytest.raises(InputError, match="no Service 'my-lama-svc'") as wrong:
        report(iptables("10.244.0.1"), target="svc/my-lama-svc")
    assert "my-llama-svc" in wrong.value.hint


def test_modes_are_told_by_what_kube_proxy_fills() -> None:
    assert proxy_modes(rules("*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n")) == {}
    assert proxy_modes(rules(iptables("10.244.0.1"))) == {"iptables": ("iptables-nft",)}
