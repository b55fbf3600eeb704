"""Each incident gives what it promises, as the kernel itself reports it; clearing it gives the lab back."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.incidents import clear_incident, find_incident, incidents, make_incident
from kubectl_genainet.lab.spec import LabSpec, Overlay, ProxyMode
from kubectl_genainet.lab.state import LabFolder, lab_record
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.results.path import Verdict
from tests.lab.labtest import DropWatch, RunningLab, SeenDrop, broken, fresh_name, running

DROPPING = [n for n, i in incidents().items() if i.expected.reason]
POLICY_CHAIN = re.compile(r'"genainet lab: pod (\S+) is isolated \((\w+)\) by (\S+): no rule admits" -j DROP')


# These depend on how kube-proxy writes its rules, or on the way between nodes.
WITH_OVERLAY_TOO = ("no-endpoints", "stale-endpoint", "no-local-endpoint", "mtu-blackhole", "rp-filter")


@pytest.fixture(scope="module")
def overlay_lab() -> Iterator[RunningLab]:
    spec = LabSpec(name=fresh_name(), proxy_mode=ProxyMode.NFTABLES, overlay=Overlay.VXLAN)
    with running(spec) as found:
        yield found


def rules_of(lab: RunningLab) -> dict[str, list[str]]:
    """All rules, routes and device names of all nodes, without counters and numbers."""
    script = (
        "iptables-save; nft list table ip kube-proxy 2>/dev/null; ip -o route; ip -br -o link; "
        "sysctl net.ipv4.conf; cat /sys/class/net/*/mtu"
    )
    return {
        node: sorted(
            re.sub(r"@if\d+.*|\[\d+:\d+\]", "", line)
            for line in lab.node_output(node, "sh", "-c", script).splitlines()
            if not line.startswith("#")
        )
        for node in lab.record.nodes
    }


def state_of(lab: RunningLab) -> list[dict[str, Any]]:
    """All objects, without the time at which an EndpointSlice last changed."""
    objects = LabFolder(lab.name).read_objects()
    for obj in objects:
        if obj["kind"] == "EndpointSlice":
            obj["metadata"].pop("annotations")
    return sorted(objects, key=lambda o: (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]))


def lab_namespaces(lab: RunningLab) -> dict[int, str]:
    return {netns.inode(name): name for name in lab.record.netns}


def knock(lab: RunningLab) -> None:
    """SYNs enough that each backend has some: the lab's own clients may wait for an answer still."""
    for ip in lab.service("my-llama-svc").cluster_ips:
        for pod in lab.pods("chatbot-ui"):
            with netns.inside(lab.pod_netns(pod)):
                for _ in range(20):
                    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as caller:
                        caller.setblocking(False)
                        caller.connect_ex((ip, 80))


@pytest.mark.parametrize(
    ("which", "name"), [*(("lab", n) for n in DROPPING), *(("overlay_lab", n) for n in WITH_OVERLAY_TOO)]
)
def test_incident_drops_packets_as_promised_and_clear_undoes_it(
    which: str, name: str, drop_watch: DropWatch, request: pytest.FixtureRequest
) -> None:
    lab: RunningLab = request.getfixturevalue(which)
    expected = find_incident(name).expected
    spaces = lab_namespaces(lab)
    rules, state = rules_of(lab), state_of(lab)
    since = time.monotonic()
    make_incident(lab.name, name)
    request.addfinalizer(lambda: clear_incident(lab.name, name))  # should the test fail on the way

    def promised(drop: SeenDrop) -> bool:
        return (
            drop.netns in spaces
            and drop.reason == expected.reason
            and drop.hook == expected.hook
            and (drop.location == expected.location or expected.reason == "NETFILTER_DROP")
        )

    knock(lab)
    drop_watch.wait_for(promised, since=since)
    assert name in lab_record(lab.name).incidents
    assert clear_incident(lab.name, name)
    assert rules_of(lab) == rules
    assert state_of(lab) == state
    assert lab_record(lab.name).incidents == {}
    assert not clear_incident(lab.name, name)


def test_lab_without_incident_drops_nothing(lab: RunningLab, drop_watch: DropWatch) -> None:
    time.sleep(4)  # connections that the last incident broke, and drops that are read late
    spaces = lab_namespaces(lab)
    since = time.monotonic()
    time.sleep(2)
    assert [d for d in drop_watch.drops if d.t >= since and d.netns in spaces and d.reason == "NETFILTER_DROP"] == []


def test_policy_incidents_count_on_the_rule_that_names_the_policy(lab: RunningLab) -> None:
    for name, direction, policy in (
        ("policy-drop", "ingress", "default/my-llama-ingress-policy"),
        ("policy-drop-egress", "egress", "default/chatbot-ui-egress-policy"),
        ("dns-policy-egress", "egress", "default/chatbot-ui-egress-policy"),
    ):
        with broken(lab, name):
            assert wait_until(lambda d=direction, p=policy: (d, p) in counted_drops(lab))


def counted_drops(lab: RunningLab) -> set[tuple[str, str]]:
    """(direction, policy) of the LAB-POD- chains' DROP rules that have counted packets."""
    text = "".join(lab.node_output(node, "iptables-save", "-c") for node in lab.record.nodes)
    lines = [line for line in text.splitlines() if not line.startswith("[0:0]")]
    return {(m[2], m[3]) for line in lines if (m := POLICY_CHAIN.search(line))}


def wait_until(condition: object, timeout: float = 60.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_slow_backend_answers_late_and_connects_at_once(lab: RunningLab) -> None:
    with broken(lab, "slow-backend"):
        client, slow = lab.pods("chatbot-ui")[0], lab.pods("my-llama-finetuned")[-1]
        quick = lab.pods("my-llama-finetuned")[0]
        assert answer_seconds(lab, client, slow) >= 0.8
        # However busy the machine is, it has a moment for one of several.
        assert wait_until(lambda: answer_seconds(lab, client, slow) < 1.5)
        assert wait_until(lambda: answer_seconds(lab, client, quick) < 0.4)


def answer_seconds(lab: RunningLab, client: Pod, server: Pod) -> float:
    started = time.monotonic()
    lab.get(client, server.ips[0], 8080, path="/", timeout=20)
    return time.monotonic() - started


def test_reset_by_app_resets_an_established_connection(lab: RunningLab) -> None:
    with broken(lab, "reset-by-app"):
        client, bad = lab.pods("chatbot-ui")[0], lab.pods("my-llama-finetuned")[-1]
        with pytest.raises(ConnectionResetError):
            lab.get(client, bad.ips[0], 8080, path="/")
    assert lab.get(client, bad.ips[0], 8080, path="/")[0] == 200


def test_listen_overflow_counts_in_the_pods_namespace(lab: RunningLab) -> None:
    pod = lab.pods("my-llama-finetuned")[-1]

    def overflows() -> int:
        return lab.tcp_ext(pod, "ListenOverflows")

    before = overflows()
    assert find_incident("listen-overflow").expected.counter == "TcpExt:ListenOverflows"
    with broken(lab, "listen-overflow"):
        assert wait_until(lambda: overflows() > before)
    assert lab.get(lab.pods("chatbot-ui")[0], pod.ips[0], 8080)[0] == 200


def test_stale_endpoint_differs_between_nodes_and_api(lab: RunningLab) -> None:
    gone = {ip for p in lab.pods("my-llama-finetuned") for ip in p.ips}
    with broken(lab, "stale-endpoint"):
        left = {ip for p in lab.pods("my-llama-finetuned") for ip in p.ips}
        (stale,) = gone - left
        service = lab.service("my-llama-svc")
        assert stale not in {b.ip for b in lab.snapshot.backends(service, service.spec.ports[0])}
        nodes = {
            node: stale in lab.node_output(node, "sh", "-c", "iptables-save -t nat; nft list ruleset")
            for node in lab.record.nodes
        }
        assert list(nodes.values()).count(True) == 1
        deployment = lab.snapshot.of("Deployment", "apps")
        assert next(d.raw["spec"]["replicas"] for d in deployment if d.name == "my-llama-finetuned") == 2
    backend = next(p for p in lab.pods("my-llama-finetuned") if stale in p.ips)
    assert lab.get(lab.pods("chatbot-ui")[0], stale, 8080) == (200, f"default/{backend.metadata.name}")


def test_dns_incidents_show_in_what_the_pods_ask(lab: RunningLab) -> None:
    from kubectl_genainet.lab.incidents.dns import UPSTREAM_DELAY_MS

    with broken(lab, "dns-slow-upstream"):
        assert lookup_seconds(lab, "models.example.com.") >= UPSTREAM_DELAY_MS / 1000
        assert wait_until(lambda: lookup_seconds(lab, "models.example.com.") < 2)
        assert wait_until(lambda: lookup_seconds(lab, "rag-app.default.svc.cluster.local.") < 0.7)
    # dnsmasq joins a query to one for the same name that it has sent already, to an upstream that was slow then.
    assert wait_until(lambda: lookup_seconds(lab, "models.example.com.") < 0.4)


def lookup_seconds(lab: RunningLab, name: str) -> float:
    import asyncio
    import socket

    from kubectl_genainet.lab.programs.stub_resolver import Resolver, parse_resolv_conf

    space = lab.pod_netns(lab.pods("chatbot-ui")[0])

    def in_pod(family: int) -> socket.socket:
        with netns.inside(space):
            sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock

    started = time.monotonic()
    assert asyncio.run(Resolver(parse_resolv_conf("nameserver 10.96.0.10"), in_pod).resolve(name))
    return time.monotonic() - started


def test_every_incident_is_described_and_unknown_ones_are_named() -> None:
    for name, found in incidents().items():
        assert found.summary.endswith("."), name
        assert "Fault:" in found.description and "Diagnosis:" in found.description, name
        died = found.expected.verdict not in (Verdict.FORWARDED, Verdict.RESET)  # a reset has no reason of the kernel's
        assert died == bool(found.expected.reason or found.expected.counter), name
    with pytest.raises(GenainetError) as error:
        find_incident("mtu-blackhol")
    assert "mtu-blackhole" in error.value.hint


def test_two_incidents_do_not_change_the_same_object(lab: RunningLab) -> None:
    with broken(lab, "policy-drop"):
        with pytest.raises(GenainetError, match="policy-drop has changed"):
            make_incident(lab.name, "policy-service-port")
        assert msgspec.to_builtins(lab_record(lab.name).incidents).keys() == {"policy-drop"}
