"""What checks make of observations: by whom, of how many, and what is left unknown."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.report import CheckOutcome
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.finding import Certainty, Finding
from kubectl_genainet.model.node import Listener
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.doctor.faults.addresses import flannel
from tests.unit.doctor.faults.case import GPU1, known, packet, pod_netns
from tests.unit.doctor.faults.dns import measured
from tests.unit.doctor.faults.entry import model_in_ambient, model_with_a_sidecar
from tests.unit.doctor.faults.nodes import listen
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.world import NS, World, change_netns, container


def finding(world: World, check: str) -> Finding:
    return next(f for f in world.report().findings if f.check == check)


def test_the_port_that_all_silent_pods_listen_on_is_the_remedy() -> None:
    world = known(eks)()
    listen(world, "my-llama-finetuned", Listener("0.0.0.0", 8000), Listener("127.0.0.1", 9000))
    found = finding(world, "service-listener")
    assert found.title == "nothing listens on TCP port 8080 in 2 of 2 ready pods"
    assert found.evidence[0].statement.endswith("listens on TCP port 8000")
    assert (found.evidence[0].certainty, found.evidence[0].node) == (Certainty.OBSERVED, GPU1)
    assert found.remedy is not None and '"path": "/spec/ports/0/targetPort", "value": 8000' in found.remedy.command
    assert "policy-blocks-call" in found.remedy.trial
    for name in [
        policy["metadata"]["name"] for policy in world.of("NetworkPolicy") if policy["metadata"]["namespace"] == NS
    ]:
        world.remove("NetworkPolicy", name)
    remedy = finding(world, "service-listener").remedy
    assert remedy is not None and "policy-blocks-call" not in remedy.trial


def test_a_server_that_listens_in_some_pods_only_is_counted() -> None:
    world = known(eks)()
    where = pod_netns(world, "my-llama-finetuned")
    change_netns(world, *where, tcp_listeners=())
    assert finding(world, "service-listener").title == "nothing listens on TCP port 8080 in 1 of 2 ready pods"


def test_pods_of_which_no_agent_tells_the_sockets_are_not_checked() -> None:
    world = known(eks)()
    for index, report in enumerate(world.reports):
        for number in range(len(report.namespaces)):
            change_netns(world, index, number, tcp_listeners=None, udp_listeners=None)
    results = {r.check: r for r in world.report().checks}
    assert results["service-listener"].outcome is CheckOutcome.NOT_CHECKED
    assert results["service-listener"].reasons[0].startswith("no agent told what listens in chatbot-ui-")


def test_a_server_behind_a_sidecar_may_listen_on_loopback() -> None:
    world = known(kubeadm)()
    listen(world, "my-llama-finetuned", Listener("127.0.0.1", 8080))
    for pod in world.pods("my-llama-finetuned"):
        pod["spec"]["containers"].append(container("linkerd-proxy", "cr.l5d.io/linkerd/proxy:edge-25.1.1"))
    assert "listen-loopback" not in {f.check for f in world.report().findings}


def statements(world: World, check: str) -> list[str]:
    return [e.statement for e in finding(world, check).evidence if e.certainty is Certainty.OBSERVED and e.node]


def test_a_mesh_in_the_path_is_observed_by_its_sockets_and_by_packets() -> None:
    world = known(kubeadm)()
    model_with_a_sidecar.fault(world)
    listen(
        world, "my-llama-finetuned", Listener("0.0.0.0", 8080), Listener("0.0.0.0", 15001), Listener("0.0.0.0", 15006)
    )
    world.packets.append(packet(world, "chatbot-ui", "my-llama-finetuned", 15006, PacketSeen, point=Point.RX))
    listening, redirected = statements(world, "mesh-sidecar")
    assert listening == "a proxy listens on TCP 15001, 15006 inside it"
    assert redirected.startswith("redirect to the local proxy seen: ")
    ambient = known(kubeadm)()
    model_in_ambient.fault(ambient)
    listen(ambient, "my-llama-finetuned", Listener("0.0.0.0", 8080), Listener("::", 15008))
    ambient.packets.append(packet(ambient, "chatbot-ui", "my-llama-finetuned", 15008, PacketSeen, point=Point.RX))
    listening, hop = statements(ambient, "mesh-ambient")
    assert listening == "a proxy listens on TCP 15008 inside it"
    assert hop.startswith("HBONE seen: ")


def test_encapsulation_is_observed_where_a_packet_was_seen_inside_a_tunnel() -> None:
    world = known(kubeadm)()
    flannel(world)
    outer = FiveTuple("192.168.10.12", 50000, "192.168.10.13", 8472, Protocol.UDP)
    world.packets.append(packet(world, "chatbot-ui", "qdrant", 6333, PacketSeen, point=Point.TX, tunnel=outer))
    assert f"was seen inside {outer}" in statements(world, "cni-overlay")[0]


@pytest.mark.parametrize("check", ["dns-failures", "dns-nxdomain", "dns-search-waste"])
def test_a_client_of_few_queries_is_not_judged_by_shares(check: str) -> None:
    world = eks()
    world.dns.append(measured(queries=12, nxdomain=12, servfail=0))
    result = next(r for r in world.report().checks if r.check == check)
    assert (result.outcome, result.reasons) == (
        CheckOutcome.NOT_CHECKED,
        ("fewer than 20 DNS queries by chatbot/rag-app: measure longer",),
    )


@pytest.mark.parametrize(("length", "shown"), [(300, 300), (301, 299)])
def test_an_event_of_many_words_ends_with_a_sign_that_there_is_more(length: int, shown: int) -> None:
    world = eks()
    service = world.get("Service", "chatbot-ui")
    service["status"] = {"loadBalancer": {}}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "chatbot-ui.1", "namespace": NS},
        "involvedObject": {"kind": "Service", "namespace": NS, "name": "chatbot-ui"},
        "type": "Warning",
        "reason": "FailedBuildModel",
        "message": "x" * length,
    }
    world.add(event)
    told = finding(world, "load-balancer-pending").evidence[1].statement
    assert told == "x" * shown + ("…" if length > shown else "")
