"""Documented kube-proxy dumps: every flow, through every form of the dump, as `rules --ruleset --flows` answers it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import (
    Packet,
    RuleRef,
    Ruleset,
    RulesetVerdict,
    dump_of,
    evaluate,
    parse_ruleset,
    policy_behind,
)
from kubectl_genainet.proxy.iptables.ipset import parse_ipset

FOLDER = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[2] / "../shared/conformance"))
if not FOLDER.is_dir():
    pytest.skip(f"no conformance material at {FOLDER}", allow_module_level=True)

ENFORCERS = FOLDER / "enforcers"


def _cases() -> list[Any]:
    found = []
    for path in sorted((FOLDER / "kubeproxy").glob("*/*.json")):
        if path.name.endswith(".nft.json"):
            continue
        case = json.loads(path.read_text())
        for key in ("dump", "dump_json", "restore_input", "transaction"):
            if key in case and case.get("flows"):
                found.append(pytest.param(path.parent, case, case[key], id=case[key]))
    return found


@pytest.mark.parametrize(("folder", "case", "dump"), _cases())
def test_every_flow_ends_as_expected(folder: Path, case: dict[str, Any], dump: str, tmp_path: Path) -> None:
    asked = ("sourceIP", "destIP", "destPort", "protocol")
    known = {"nodeIPs": case.get("node_ips", []), "podCIDR": case.get("pod_cidr"), "masqueradeAll": False}
    flows = tmp_path / "flows.ndjson"
    flows.write_text("".join(json.dumps({k: f[k] for k in asked if k in f} | known) + "\n" for f in case["flows"]))
    done = CliRunner().invoke(
        cli, ["rules", "--ruleset", str(folder / dump), "--flows", str(flows), "-o", "json"], catch_exceptions=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert len(answers) == len(case["flows"])
    for flow, answer in zip(case["flows"], answers, strict=True):
        got = (answer["verdict"], sorted(answer["backends"]), answer["masquerade"])
        expected_verdict = flow.get("expected_verdict", "DNAT")
        expected = (expected_verdict, sorted(flow["expected_dnat"]), flow.get("expected_masquerade", False))
        assert got == expected, flow.get("name")
        assert answer["rules"]
        if answer["verdict"] == "DNAT" and folder.name != "ipvs":
            services = {f"{s['namespace']}/{s['name']}:{p['name']}" for s in case["services"] for p in s["ports"]}
            assert answer["service"] in services


@pytest.mark.parametrize("path", sorted((FOLDER / "kubeproxy").glob("nftables/*.nft.json")), ids=lambda p: p.name)
def test_listing_transaction_and_json_give_the_same_rules(path: Path) -> None:
    forms = [path, *(path.with_name(path.name.replace(".nft.json", end)) for end in (".txt", ".transaction.txt"))]
    rulesets = [parse_ruleset([dump_of(p.read_text())]) for p in forms]
    shapes = [
        {(t.title, c.name): (c.hook, c.priority, len(c.rules)) for t in r.tables for c in t.chains.values()}
        for r in rulesets
    ]
    assert shapes[0] == shapes[1]
    assert {k: v[2] for k, v in shapes[0].items()} == {k: v[2] for k, v in shapes[2].items()}
    unknown = [
        label
        for r in rulesets
        for t in r.tables
        for c in t.chains.values()
        for rule in c.rules
        for check, label in zip(rule.conditions, rule.labels, strict=True)
        if check.__name__ == "always_unknown"
    ]
    assert unknown == []


def test_ipvs_servers_are_read_as_listed() -> None:
    case = json.loads((FOLDER / "kubeproxy/ipvs/kind-web.ipvsadm.json").read_text())
    path = FOLDER / "kubeproxy/ipvs" / case["dump"]
    done = CliRunner().invoke(cli, ["rules", "--ruleset", str(path), "-o", "json"], catch_exceptions=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    servers = [
        {k: v for k, v in r.items() if k not in ("kind", "fwmark")} for r in rows if r["kind"] == "virtual-server"
    ]
    assert servers == case["expected_virtual_servers"]


def test_ipsets_are_read_as_listed() -> None:
    case = json.loads((FOLDER / "kubeproxy/ipvs/minikube.ipset.json").read_text())
    sets = parse_ipset((FOLDER / "kubeproxy/ipvs" / case["dump"]).read_text())
    assert {s.name: {"type": s.type, "members": list(s.members)} for s in sets} == case["expected_sets"]


def test_ipvs_mode_excerpt_with_its_sets_masquerades_outside_clients_only() -> None:
    folder = FOLDER / "kubeproxy/ipvs"
    rules = (folder / "ipvs-mode.iptables.txt").read_text()
    # The excerpt leaves this chain out.
    postrouting = "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MASQUERADE\n"
    web: dict[str, Any] = {"dst": "10.97.181.101", "dport": 80, "protocol": Protocol.TCP}
    others = [
        dump_of((folder / "minikube.ipset.txt").read_text()),
        dump_of("TCP  10.97.181.101:80 rr\n  -> 172.17.0.5:8000 Masq 1 0 0\n"),
        dump_of("Name: KUBE-NODE-PORT-TCP\nType: bitmap:port\nMembers:\n"),
    ]
    assert (
        "target KUBE-POSTROUTING"
        in evaluate(
            parse_ruleset([dump_of(rules), *others], node_ips=["192.168.49.2"]), Packet(src="192.168.1.1", **web)
        ).unknown
    )
    ruleset = parse_ruleset([dump_of(rules + postrouting), *others], node_ips=["192.168.49.2"])
    outside = evaluate(ruleset, Packet(src="192.168.1.1", **web))
    assert (outside.verdict, outside.masquerade) == (RulesetVerdict.DNAT, True)
    assert [b.address for b in outside.backends] == ["172.17.0.5:8000"]
    inside = evaluate(ruleset, Packet(src="10.244.0.5", **web))
    assert (inside.verdict, inside.masquerade) == (RulesetVerdict.DNAT, False)


CALICO = "calico_iptables_gke_three_policies.txt"
EXPECT = json.loads((ENFORCERS / "expect.json").read_text())
DEVICE = "cali92d634f8f03"


def _calico() -> Ruleset:
    """The excerpt, with the chains that it leaves out (host endpoints, profiles) declared as empty."""
    left_out = ("cali-from-hep-forward", "cali-to-hep-forward", "cali-pi-_kxgQy6VBWOo3Mj1GNsy")
    head = "".join(f":{chain} - [0:0]\n" for chain in ("FORWARD", *left_out)).replace("FORWARD -", "FORWARD ACCEPT")
    rules = "*filter\n" + head + "-A FORWARD -j cali-FORWARD\n" + (ENFORCERS / CALICO).read_text() + "\nCOMMIT\n"
    sets = (ENFORCERS / "calico_iptables_gke_ipsets.txt").read_text()
    return parse_ruleset([dump_of(rules), dump_of(sets)], node_ips=[])


@pytest.mark.parametrize("flow", EXPECT[CALICO]["flows"], ids=lambda f: f"{f['src']}-{f['dst']}-{f['port']}")
def test_calicos_chains_admit_and_drop_as_posted(flow: dict[str, Any]) -> None:
    egress = flow.get("direction") == "egress"
    packet = Packet(
        src=flow["src"],
        dst=flow["dst"],
        dport=flow["port"],
        protocol=Protocol(flow["proto"]),
        in_device=DEVICE if egress else "eth0",
        out_device="eth0" if egress else DEVICE,
    )
    ruleset = _calico()
    result = evaluate(ruleset, packet)
    if flow["expected"] == "allow":
        assert result.verdict is RulesetVerdict.ACCEPT
        return
    assert result.verdict is RulesetVerdict.DROP
    known = [("alpha", "access-nginx"), ("alpha", "access-nginx-complex"), ("beta", "other")]
    behind = policy_behind(result.dropping_rules[0], ruleset, known)
    assert behind is not None
    if egress:
        assert (behind.policies, behind.direction) == (tuple(flow["policies"]), "egress")
    else:
        assert behind.policies == ("alpha/access-nginx", "alpha/access-nginx-complex")
        assert behind.unnamed == ("cali-pi-_kxgQy6VBWOo3Mj1GNsy",)


@pytest.mark.parametrize("chain", [c for c, e in EXPECT[CALICO]["chain_to_policy"].items() if e["verified_by_hash"]])
def test_calicos_hashed_chains_lead_back_to_their_policies(chain: str) -> None:
    entry = EXPECT[CALICO]["chain_to_policy"][chain]
    known = [("alpha", "access-nginx"), ("alpha", "access-nginx-complex")]
    behind = policy_behind(RuleRef("filter", chain, 1, ""), None, known)
    assert behind is not None
    assert (behind.enforcer, behind.policies, behind.direction) == ("calico", (entry["policy"],), entry["direction"])


def test_kube_network_policies_leaves_the_verdict_to_a_program() -> None:
    text = (ENFORCERS / "kube_network_policies_nft.txt").read_text()
    listing = text[text.index("## default with pod IPs") : text.index("## divert all")]
    ruleset = parse_ruleset([dump_of(listing)], node_ips=[])
    packet = Packet(src="10.0.0.9", dst="10.0.0.1", dport=80, protocol=Protocol.TCP)
    result = evaluate(ruleset, packet)
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert any("queue to 102" in reason for reason in result.unknown)
    behind = policy_behind(result.rules[-1], ruleset)
    assert behind is not None
    assert (behind.enforcer, behind.policies) == ("kube-network-policies", ())
    assert evaluate(ruleset, Packet(src="10.9.9.9", dst="10.9.9.8", dport=80, protocol=Protocol.TCP)).verdict in (
        RulesetVerdict.NO_MATCH,
        RulesetVerdict.ACCEPT,
    )
