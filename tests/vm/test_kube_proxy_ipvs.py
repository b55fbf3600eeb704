"""The real kube-proxy in ipvs mode: every evaluation agrees with what real packets do, as in iptables mode."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.model.packet import address_text
from tests.cluster.harness.binaries import NEWEST, Binaries
from tests.cluster.harness.controlplane import VM_HOST, ControlPlane
from tests.cluster.harness.services import install_services
from tests.proxy_services import NAMESPACE, NODE, SERVICES, write_dump
from tests.vm.guest_kube_proxy import NODE_IPS
from tests.vm.machine import run_in_vm

pytestmark = pytest.mark.vm
MODULES = (
    "veth",
    "dummy",
    "sctp",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
    "nf_conntrack",
    "nft_compat",
    "nft_chain_nat",
    "nft_counter",
    "nft_reject_inet",
    "xt_comment",
    "xt_mark",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_conntrack",
    "xt_set",
    "xt_nat",
    "xt_tcpudp",
    "xt_physdev",
    "xt_statistic",
    "ipt_REJECT",
    "ip6t_REJECT",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "ip_set_hash_net",
    "ip_set_bitmap_port",
)


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Any]]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    binaries = Binaries.built()
    # Not below /tmp, which is the machine's own in there.
    with tempfile.TemporaryDirectory(dir=binaries.root) as folder, ControlPlane(binaries, Path(folder), "vm") as plane:
        api = plane.api()
        install_services(api)
        api.apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {}}])
        addresses = [*({"type": "InternalIP", "address": a} for a in NODE_IPS), {"type": "Hostname", "address": NODE}]
        api.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"addresses": addresses}})
        services = {s["metadata"]["name"]: s for s in api.get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]}
        (Path(folder) / "services.json").write_text(json.dumps(services))
        kubeconfig = plane.kubeconfig("system:kube-proxy")
        port = plane.server.rpartition(":")[2]
        kubeconfig.write_text(kubeconfig.read_text().replace(f"{plane.ip}:6443", f"{VM_HOST}:{port}"))
        text = run_in_vm(
            f"python tests/vm/guest_kube_proxy.py {kubeconfig} {folder}/services.json",
            MODULES,
            timeout=420,
            network=True,
        )
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, text[-6000:]
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    if kept := os.environ.get("GENAINET_WRITE_DUMPS"):
        texts = {f"{source}.txt": text for source, text in found["dumps"].items() if source != "nft"}
        write_dump(Path(kept), f"kube-proxy-{NEWEST}-ipvs", texts, found["node_ips"], found["flows"], found["came"])
    yield {**found, "services": services}


def test_every_evaluation_agrees_with_real_packets(report: dict[str, Any]) -> None:
    assert report["errors"] == []
    assert {"ipvs", "ipset", "iptables-nft", "ip6tables-nft"} <= set(report["sources"])
    assert report["wrong"] == []
    assert len(report["flows"]) > 200
    assert set(report["ends"]) >= {"answer", "refused", "timeout"}


def test_every_address_of_a_service_has_its_endpoints(report: dict[str, Any]) -> None:
    wrong = []
    for name, _, suffixes, _ in SERVICES:
        spec = report["services"][name]["spec"]
        for ip, port in ((ip, port) for ip in spec["clusterIPs"] if ip != "None" for port in spec["ports"]):
            pods = "fd44::{}" if ":" in ip else "10.244.1.{}"
            wanted = sorted(address_text(pods.format(n), port["targetPort"]) for n in suffixes)
            found = report["programmed"].get(f"{port['protocol']} {address_text(ip, port['port'])}")
            if found != wanted:
                wrong.append(f"{name} {ip}: {found}, not {wanted}")
    assert wrong == []
