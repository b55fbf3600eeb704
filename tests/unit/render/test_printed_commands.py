"""Every command that is printed for people to paste: what a name brought along is one word of it, and it runs as it stands."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import kubectl_genainet
from kubectl_genainet.cli import cli
from kubectl_genainet.kube.agents.paths import kubectl_describe
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses.rules import RULE_DROP
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.proxy.drift.nodes import remedy
from kubectl_genainet.proxy.firewall.changes import Opening
from kubectl_genainet.render.paragraphs import command_lines
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.diagnose.next_steps import next_steps
from kubectl_genainet.run.trace import watching_more
from tests.unit.commands.test_hostile_output import renamed
from tests.unit.proxy.test_proxy_firewall import _found

BUNDLES = Path(__file__).parents[2] / "golden" / "bundles"
HOSTILE = "'\";$(touch X)`touch X`\n--all"
PROGRAMS = (
    *("kubectl", "aws", "az", "gcloud", "helm", "istioctl", "eksctl", "sysctl", "iptables", "ip6tables", "nft"),
    *("conntrack", "ethtool", "ufw", "ip", "firewall-cmd", "sed", "podman", "docker"),
)
BEGIN = re.compile(rf"(?:^|[`\n:] ?)(?:{'|'.join(PROGRAMS)}) [^\n]*\0")
QUOTING = {"sh", "command", "named", "quote", "join", "kubectl", "kubectl_describe"}
# What is no name of anybody's: numbers, words of the tool's own, and what was quoted where it was made.
OWN = {
    "commands/lab.py": ("incident", "option"),
    "doctor/families/addresses/mtu.py": ("mtu", "common[0][0]"),
    "doctor/families/addresses/pod_ip.py": ("host.conntrack_max * 2",),
    "doctor/families/nodes/efa.py": ("way",),
    "doctor/families/policies/policy.py": ("port.port",),
    "doctor/families/services/nlb_health.py": ("label",),
    "doctor/families/services/kube_proxy.py": ("mode", "services", "endpoints", "counters"),
    "drops/counters.py": ("counter", "number"),
    "kube/agents/forward.py": ("name",),
    "kube/files/charts.py": ("place",),
    "proxy/cleanup.py": ("dump.removeprefix('nft ')",),
    "proxy/drift/connections.py": ("first", "to or target", "first.protocol.value.lower()", "first.dport"),
    "proxy/dumps/forms.py": ("_NFT_OBJECT",),
    "proxy/firewall/changes.py": ("verb", "opening.protocol", "to", "opening.port", "port", "place", "accepting"),
    "proxy/nftables/read.py": ("error", "advice"),
    "commands/rules.py": ("self.exact",),
    "proxy/services.py": ("table.family_name",),
    "run/diagnose/next_steps.py": ("named",),
    "trace/entries.py": ("protocol.lower()",),
    "why/sockets.py": ("invalid",),
    "why/netfilter.py": ("grown",),
    "why/remedies.py": ("protocol",),
}


def commands_of(path: Path) -> Iterator[str]:
    """The values in a module's commands, as they are written, but those that are quoted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values)
        if (begin := BEGIN.search(text)) is not None:
            values = [v.value for v in node.values if isinstance(v, ast.FormattedValue)]
            in_command = values[text[: begin.start()].count("\0") :]
            yield from (ast.unparse(value) for value in in_command if not is_quoted(value))


def is_quoted(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in QUOTING


def test_what_stands_in_a_command_is_quoted_or_no_name() -> None:
    package = Path(kubectl_genainet.__file__).parent
    modules = {str(path.relative_to(package)): path for path in package.rglob("*.py")}
    raw = {
        (name, value)
        for name, path in modules.items()
        if not name.startswith(("agent/", "lab/"))
        for value in commands_of(path)
    }
    assert raw == {(name, value) for name, values in OWN.items() for value in values}


def test_a_raw_name_would_be_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('x = f"kubectl -n {sh(a)} get {pod}"\ny = f"see {pod}"\nz = f"Run it: conntrack -D {dst}"')
    assert list(commands_of(module)) == ["pod", "dst"]


def in_a_shell(commands: list[str], folder: Path) -> list[str]:
    """What pasting them left in a folder: nothing, and no program found its quotation open."""
    inert = "".join(f"{program}() {{ :; }}\n" for program in PROGRAMS)
    script = f"{inert}command_not_found_handle() {{ :; }}\n" + "\n".join(commands)
    run = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert "syntax error" not in run.stderr and "unexpected" not in run.stderr
    return [path.name for path in folder.iterdir()]


def printed(value: Any) -> Iterator[str]:
    """The commands in an answer."""
    if isinstance(value, list):
        yield from (command for each in value for command in printed(each))
    elif isinstance(value, dict):
        for key, below in value.items():
            if key in ("command", "commands", "next"):
                yield from (c for c in ([below] if isinstance(below, str) else below) if c)
            yield from printed(below)


@pytest.mark.parametrize("verb", ["trace", "diagnose", "rules"])
def test_a_name_runs_nothing_in_a_command_of_any_verb(verb: str, tmp_path: Path) -> None:
    bundle = "stale-endpoint" if verb == "rules" else "policy-service-port"
    path = renamed(bundle, HOSTILE, tmp_path, ("Pod", "NetworkPolicy", "Node"))
    done = CliRunner().invoke(cli, [verb, "-A", "--from", path, "-o", "json"], standalone_mode=False)
    commands = [c for line in done.stdout.splitlines() for c in printed(json.loads(line))]
    assert commands
    folder = tmp_path / "folder"
    folder.mkdir()
    assert in_a_shell(commands, folder) == []


def test_nor_in_one_of_rules_and_nodes(tmp_path: Path) -> None:
    """Whoever may write rules chooses names of chains and tables; a dump that somebody posted names its node."""
    place = {"family": "inet", "table": f"t{HOSTILE}"}
    chain = {**place, "name": f"c{HOSTILE}", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    rule = {**place, "chain": chain["name"], "handle": 7, "expr": [{"drop": None}]}
    table = {"family": "inet", "name": place["table"]}
    found = _found(json.dumps({"nftables": [{"table": table}, {"chain": chain}, {"rule": rule}]}))
    assert found.changes and "touch X" in found.changes[0].commands[0]
    opening = Opening(6, "tcp", f"fe80::1%{HOSTILE}", 80)
    lines = [
        *found.changes[0].commands,
        f"iptables {opening.iptables()}",
        f"nft {opening.nft()}",
        remedy(HOSTILE).command,
    ]
    lines.append(kubectl_describe({"kind": "Pod", "metadata": {"name": f"--all{HOSTILE}", "namespace": HOSTILE}}))
    assert in_a_shell(lines, tmp_path) == []


def test_nor_in_one_that_is_advised(tmp_path: Path) -> None:
    spec = {"selector": {"app": "x"}, "ports": [{"port": 80}], "nodeName": "n"}
    status = {"podIP": "10.0.0.9", "phase": "Running"}
    objects = [
        {"kind": kind, "metadata": {"name": f"x{HOSTILE}", "namespace": f"y{HOSTILE}"}, "spec": spec, "status": status}
        for kind in ("Pod", "Service")
    ]
    snapshot = ClusterSnapshot(tuple(map(KubeObject, objects)))
    target = msgspec.structs.replace(parse_target("pod/x"), name=HOSTILE)
    cause: Any = SimpleNamespace(check=RULE_DROP.name)
    lines = list(next_steps((cause,), target, snapshot.services, snapshot, seen=True))
    lines += next_steps((), None, snapshot.services, snapshot, seen=False)
    assert len(lines) == 2
    assert in_a_shell(lines, tmp_path) == []


@pytest.mark.parametrize("option", ["--from", "-n"])
def test_an_option_that_stands_in_a_name_is_none(option: str) -> None:
    used = AsUsed(((option, "value"),)).command(f"kubectl genainet explain 'pod/a/x {option} y' z")
    assert shlex.split(used)[-2:] == [option, "value"]


@pytest.mark.parametrize(
    ("target", "namespace", "said"),
    [
        (parse_target("svc/llm:80"), "ai", "diagnose svc/llm:80 --lab x"),
        (msgspec.structs.replace(parse_target("pod/x"), name="a b"), "ai", "diagnose 'pod/a b' --lab x"),
        (None, "ai", "diagnose --lab x"),
        (None, "", "diagnose -A --lab x"),
    ],
)
def test_a_trace_without_a_fault_names_the_command_that_watches_more(
    target: Target | None, namespace: str, said: str
) -> None:
    source: Any = SimpleNamespace(options=(("--lab", "x"),), scope_namespace=namespace)
    assert watching_more(target, source) == f"kubectl genainet {said}"


@pytest.mark.parametrize("width", [20, 50, 300])
@pytest.mark.parametrize(
    "command",
    [
        "kubectl genainet explain 'pod/a/it'\"'\"'s (x) *' pod/b/~:80 --patch",
        "iptables -P FORWARD ACCEPT   # on node node-1",
        "conntrack -C   # on node 'a b'",
    ],
)
def test_a_command_runs_as_it_is_shown(command: str, width: int) -> None:
    """A comment behind it became words of the command: `iptables -P FORWARD ACCEPT '#' on node node-1`."""
    shown = "\n".join(line.plain for line in command_lines(command, width))
    assert shlex.split(shown.replace("\\\n", " "), comments=True) == shlex.split(command, comments=True)


@pytest.mark.parametrize(
    ("verb", "bundle", "more"), [("rules", "stale-endpoint", ()), ("trace", "policy-service-port", ("--each",))]
)
def test_commands_can_be_pasted_from_80_columns(verb: str, bundle: str, more: tuple[str, ...]) -> None:
    arguments = [verb, "svc/my-llama-svc", "--from", str(BUNDLES / f"{bundle}.gnb")]
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*arguments, *more]).stdout
    records = CliRunner().invoke(cli, [*arguments, "-o", "json"]).stdout
    meant = {shlex.join(shlex.split(json.loads(text))) for text in re.findall(r'"command":("kubectl [^"]*")', records)}
    printed = re.findall(r"^ *(kubectl (?:.*\\\n)*.*)$", shown, re.MULTILINE)
    assert {shlex.join(shlex.split(command.replace("\\\n", " "))) for command in printed} == meant
    assert any("\\\n" in command for command in printed)


def test_a_command_of_a_check_ends_its_lines_with_a_backslash_at_80_columns(tmp_path: Path) -> None:
    port = {"name": "v", "image": "vllm/vllm-openai", "ports": [{"containerPort": 8000}]}
    pod = {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [port]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "a-namespace-with-a-long-name"},
        "spec": {"selector": {"matchLabels": {"app": "llm"}}, "template": pod},
    }
    (tmp_path / "llm.json").write_text(json.dumps(deployment))
    arguments = ["doctor", "--manifests", str(tmp_path), "--only", "readiness-probe"]
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, arguments).stdout
    assert " patch deployment/llm \\\n" in shown
