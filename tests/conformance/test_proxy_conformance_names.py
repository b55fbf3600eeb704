"""The chain names of the documented dumps are the ones this package computes."""

import json
import os
from pathlib import Path

import pytest

from kubectl_genainet.proxy import names

FOLDER = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[2] / "../shared/conformance")) / "kubeproxy"
if not FOLDER.is_dir():
    pytest.skip(f"no conformance material at {FOLDER}", allow_module_level=True)


@pytest.mark.parametrize("path", sorted((FOLDER / "iptables").glob("*.json")), ids=lambda p: p.stem)
def test_iptables_chain_names(path: Path) -> None:
    case = json.loads(path.read_text())
    protocols = {p["protocol"] for s in case["services"] for p in s["ports"]}
    for chain, meaning in case["chain_names"].items():
        service_port, *endpoint = meaning.split(" -> ")
        if endpoint:
            computed = {names.iptables_endpoint_chain(service_port, p, endpoint[0]) for p in protocols}
        else:
            service_port, kind = service_port.split(" ")
            computed = {names.iptables_service_chain(service_port, p, f"KUBE-{kind}-") for p in protocols}
        assert chain in computed


@pytest.mark.parametrize("path", sorted((FOLDER / "nftables").glob("*.nft.json")), ids=lambda p: p.stem)
def test_nftables_chain_names(path: Path) -> None:
    entries = json.loads(path.read_text())["nftables"]
    seen = 0
    for chain in (e["chain"]["name"] for e in entries if "chain" in e):
        parsed = names.parse_nftables_chain(chain)
        if parsed is None:
            continue
        seen += 1
        service, _, port_name = parsed.service_port.partition(":")
        namespace, name = service.split("/")
        if parsed.endpoint:
            ip, port = parsed.endpoint.split("/")
            assert names.nftables_endpoint_chain(namespace, name, port_name, parsed.protocol, ip, int(port)) == chain
        else:
            computed = names.nftables_service_chain(namespace, name, port_name, parsed.protocol, parsed.prefix)
            assert computed == chain
    assert seen > 0
