"""`rules` on saved files: forms of output, exit status, and errors that say what to do."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import GenainetError, InputError

RULES = """*nat
:KUBE-SERVICES - [0:0]
[7:420] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A PREROUTING -j KUBE-SERVICES
[7:420] -A KUBE-SVC-A -m comment --comment "default/web:http -> 10.244.0.1:8080" -j KUBE-SEP-A
[7:420] -A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.244.0.1:8080
COMMIT
"""  # noqa: E501


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "rules.txt"
    path.write_text(RULES)
    return str(path)


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["rules", *arguments], input=stdin, catch_exceptions=False, standalone_mode=False)


def test_json_is_one_object_a_line(saved: str) -> None:
    result = run("--ruleset", saved, "-o", "json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["service"] for r in rows] == ["default/web:http"]
    assert rows[0]["address"]["packets"] == 7
    assert rows[0]["address"]["backends"][0]["chain"] == "KUBE-SEP-A"
    assert result.return_value == 0


def test_yaml_table_wide_and_tree(saved: str) -> None:
    documents = list(yaml.safe_load_all(run("--ruleset", saved, "-o", "yaml").stdout))
    assert documents[0]["address"]["chain"] == "KUBE-SVC-A"
    assert "10.96.0.10:80" in run("--ruleset", saved).stdout
    assert "10.244.0.1:8080" in run("--ruleset", saved, "-o", "wide").stdout
    assert "└── 10.244.0.1:8080  100%  KUBE-SEP-A  7 connections" in run("--ruleset", saved, "-o", "tree").stdout


def test_a_target_limits_the_rows(saved: str) -> None:
    assert "KUBE-SVC-A" in run("--ruleset", saved, "svc/web").stdout
    assert "KUBE-SVC-A" not in run("--ruleset", saved, "svc/other").stdout
    assert "KUBE-SVC-A" in run("--ruleset", saved, "10.96.0.10:80").stdout
    assert "KUBE-SVC-A" not in run("--ruleset", saved, "10.96.0.11").stdout


def test_flows_are_answered_in_order_from_standard_input(saved: str) -> None:
    flows = [
        {"sourceIP": "10.0.0.1", "destIP": "10.96.0.10", "destPort": 80, "protocol": "TCP", "nodeIPs": ["192.168.0.2"]},
        {
            "source_ip": "10.0.0.1",
            "dest_ip": "10.96.0.10",
            "dest_port": "81",
            "protocol": "tcp",
            "node_ips": "192.168.0.2",
            "masqueradeAll": True,
            "pod_cidr": None,
            "expected_output": "x",
        },
    ]
    result = run("--ruleset", saved, "--flows", "-", "-o", "json", stdin="\n".join(map(json.dumps, flows)) + "\n\n")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(a["verdict"], a["backends"], a["service"]) for a in answers] == [
        ("DNAT", ["10.244.0.1:8080"], "default/web:http"),
        ("NO_MATCH", [], None),
    ]
    assert answers[0]["rules"][-1] == {
        "table": "nat",
        "chain": "KUBE-SEP-A",
        "index": 1,
        "text": "-A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.244.0.1:8080",
    }
    assert "DNAT" in run("--ruleset", saved, "--flows", "-", stdin=json.dumps(flows[0])).stdout


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "this is no flow"),
        ("[]", "not a JSON object"),
        ('{"destPort": 80}', "no 'dst'"),
        ('{"destIP": "x"}', "'x'"),
        ('{"destIP": "10.0.0.1", "protocol": "GRE"}', "'GRE' is no protocol"),
    ],
)
def test_a_line_that_is_no_flow_is_named(saved: str, line: str, problem: str) -> None:
    with pytest.raises(InputError) as wrong:
        run("--ruleset", saved, "--flows", "-", stdin=f'{{"destIP":"10.0.0.1"}}\n{line}\n')
    assert wrong.value.message.startswith("-:2: ")
    assert problem in wrong.value.message


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(GenainetError, match="can't read"):
        run("--ruleset", str(tmp_path / "missing.txt"))
    (tmp_path / "poem.txt").write_text("Roses are red\n")
    with pytest.raises(InputError, match=r"poem\.txt: this is no ruleset") as wrong:
        run("--ruleset", str(tmp_path / "poem.txt"))
    assert "iptables-save -c" in wrong.value.hint


def test_a_damaged_dump_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"nftables": [{"metainfo": {"ver')
    with pytest.raises(GenainetError, match="can't read the dump: nft"):
        run("--ruleset", str(tmp_path / "cut.json"))


def test_what_needs_live_nodes_says_so(saved: str) -> None:
    for option in (["--hits", "1"], ["svc/web", "--exact", "1"]):
        with pytest.raises(GenainetError, match="live nodes"):
            run("--ruleset", saved, *option)


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("Name: EVIL\x1b[2J\nType: hash:ip\nMembers:\n10.0.0.1\n")
    out = run("--ruleset", str(path)).stdout
    assert "\x1b" not in out
    assert "\\x1b[2J" in out


NODE_PORT = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DNAT --to-destination 10.244.0.1:8080
COMMIT
"""


def _node(name: str, ip: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    }


def test_addresses_of_the_manifests_node_are_the_flows_and_the_walks_node_addresses(tmp_path: Path) -> None:
    dump, manifests = tmp_path / "rules.txt", tmp_path / "cluster.yaml"
    dump.write_text(NODE_PORT)
    manifests.write_text(yaml.safe_dump(_node("node-1", "192.168.7.2")))
    files = ("--ruleset", str(dump), "--manifests", str(manifests))
    flow = '{"src": "10.9.0.1", "dst": "192.168.7.2", "port": 30080}'
    assert json.loads(run(*files, "--flows", "-", "-o", "json", stdin=flow).stdout)["verdict"] == "DNAT"
    assert json.loads(run("why", "10.9.0.1", "192.168.7.2:30080", *files, "-o", "json").stdout)["verdict"] == "DNAT"
    unknown = run("--ruleset", str(dump), "--flows", "-", "-o", "json", stdin=flow).stdout
    assert json.loads(unknown)["verdict"] == "UNKNOWN"


def test_of_several_nodes_the_dumps_node_has_to_be_named(tmp_path: Path) -> None:
    dump, manifests = tmp_path / "rules.txt", tmp_path / "cluster.yaml"
    dump.write_text(NODE_PORT)
    manifests.write_text(yaml.safe_dump_all([_node("node-1", "192.168.7.2"), _node("node-2", "192.168.7.3")]))
    arguments = ("--ruleset", str(dump), "--manifests", str(manifests), "--flows", "-", "-o", "json")
    flow = '{"src": "10.9.0.1", "dst": "192.168.7.3", "port": 30080}'
    unnamed = run(*arguments, stdin=flow)
    assert json.loads(unnamed.stdout)["verdict"] == "UNKNOWN"
    assert "--node NAME" in unnamed.stderr
    assert json.loads(run(*arguments, "--node", "node-2", stdin=flow).stdout)["verdict"] == "DNAT"
    assert json.loads(run(*arguments, "--node", "node-1", stdin=flow).stdout)["verdict"] == "NO_MATCH"


@pytest.mark.parametrize("output", ["table", "wide", "tree", "markdown"])
def test_rules_without_services_are_said_to_have_none(output: str) -> None:
    """Not the head of a table without rows; and what was read is not called unread."""
    plain = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    shown = run("--ruleset", "-", "-o", output, stdin=plain).stdout
    assert "No Service is programmed in the rules that were read." in shown
    assert "SERVICE PORT" not in shown
    of_a_service = run("svc/web", "--ruleset", "-", "-o", output, stdin=plain).stdout
    assert "Nothing is programmed for svc/web in the rules that were read." in of_a_service


def test_rules_that_nothing_was_compared_with_are_not_called_right(saved: str) -> None:
    shown = run("--ruleset", saved, "-o", "markdown").stdout
    assert "The rules were not compared with anything: there was no API to read." in shown
    assert "what the API says" not in shown
