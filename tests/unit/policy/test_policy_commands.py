"""`explain` and `matrix` as a user runs them, on manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import GenainetError, InputError
from tests.unit.policy.policy_cluster import labels, namespace, netpol, node, pod

RAG = pod("ai/rag", "10.1.0.3")
RAG["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "rag", "controller": True}]
PODS = (
    namespace("ai"),
    pod("ai/llama-0", "10.1.0.1", ports=(("http", "TCP", 8080),), labels={"app": "llama"}),
    pod("ai/llama-1", "10.1.0.2", ports=(("http", "TCP", 8080),), labels={"app": "llama"}),
    RAG,
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llama", "namespace": "ai"},
        "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "llama"}, "ports": [{"port": 80, "targetPort": "http"}]},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rag", "namespace": "ai"},
        "spec": {"selector": labels(app="rag"), "template": {"metadata": {"labels": {"app": "rag"}}, "spec": {}}},
    },
)
ISOLATED = netpol("ai/llama", podSelector=labels(app="llama"), ingress=[{"from": [{"podSelector": labels(app="ui")}]}])


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return write(tmp_path / "all.json", *PODS, ISOLATED)


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(json.dumps(objects))
    return path


def run(*arguments: str, text: str = "") -> Result:
    result = CliRunner().invoke(cli, arguments, input=text, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_both_ends_may_stand_in_one_pair_of_quotes(manifests: Path) -> None:
    options = ("explain", "--manifests", str(manifests), "-n", "ai", "-o", "json")
    assert run(*options, "pod/rag svc/llama").stdout == run(*options, "pod/rag", "svc/llama").stdout != ""
    with pytest.raises(click.UsageError, match="DST is missing"):
        run(*options, "pod/rag")


def test_what_is_not_live_is_not_watched(manifests: Path) -> None:
    for verb in (("explain", "pod/rag", "svc/llama"), ("doctor",)):
        with pytest.raises(click.UsageError, match="leave out --from and --manifests"):
            run(*verb, "--watch", "--manifests", str(manifests), "-n", "ai")


def test_a_service_stands_for_its_backends_and_target_ports(manifests: Path) -> None:
    result = run("explain", "--manifests", str(manifests), "-n", "ai", "pod/rag", "svc/llama", "-o", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(a["to"], a["port"], a["service"], a["verdict"]) for a in lines] == [
        ("ai/llama-0", 8080, "ai/llama", "deny"),
        ("ai/llama-1", 8080, "ai/llama", "deny"),
    ]
    (policy,) = lines[0]["ingress"]["policies"]
    assert policy["rules"][0]["failed"] == {
        "term": "pod labels",
        "wanted": "app=ui",
        "actual": "app=rag",
        "field": "spec.ingress[0].from[0].podSelector",
    }
    assert lines[0]["patch"]["edit"]["also_admits"] == [{"from": "ai/rag", "to": "ai/llama-1"}]
    assert result.return_value == 1


def test_the_address_of_a_service_is_the_service(manifests: Path) -> None:
    result = run("explain", "--manifests", str(manifests), "pod/ai/rag", "10.96.0.7:80", "-o", "json")
    assert [json.loads(line)["port"] for line in result.stdout.splitlines()] == [8080, 8080]


def test_ready_backends_only(tmp_path: Path) -> None:
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s", "namespace": "ai", "labels": {"kubernetes.io/service-name": "llama"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "conditions": {"ready": False}},
            {"addresses": ["10.1.0.2"], "targetRef": {"kind": "Pod", "name": "llama-1"}},
        ],
    }
    path = write(tmp_path / "x.json", *PODS, slices)
    result = run("explain", "--manifests", str(path), "-n", "ai", "deploy/rag", "svc/llama:80", "-o", "json")
    assert [json.loads(line)["to"] for line in result.stdout.splitlines()] == ["ai/llama-1"]
    assert result.return_value == 0


def test_text_says_who_isolates_which_term_fails_and_what_would_admit_it(manifests: Path) -> None:
    text = run("explain", "--manifests", str(manifests), "-n", "ai", "pod/rag", "svc/llama").stdout
    assert "DENY ai/rag → ai/llama-0 TCP 8080 (through Service ai/llama), and 1 more alike" in text
    assert "isolated by NetworkPolicy ai/llama; no rule admits the flow" in text
    assert "rule 1: the pod labels are app=rag; the rule requires app=ui (spec.ingress[0].from[0].podSelector)" in text
    assert "to admit it, new policy: NetworkPolicy ai/allow-llama-from-rag" in text
    assert "denies" not in text


def test_patch_prints_yaml_alone_and_it_admits_the_flow(manifests: Path, tmp_path: Path) -> None:
    result = run("explain", "--manifests", str(manifests), "-n", "ai", "pod/rag", "svc/llama", "--patch")
    documents = list(yaml.safe_load_all(result.stdout))
    assert [d["kind"] for d in documents] == ["NetworkPolicy"]
    changed = write(tmp_path / "changed.json", *PODS, *documents)
    after = run("explain", "--manifests", str(changed), "-n", "ai", "pod/rag", "svc/llama", "--patch")
    assert (after.stdout, after.return_value) == ("", 0)
    assert "passes already" in after.stderr


def test_a_batch_answers_line_by_line_in_order(manifests: Path) -> None:
    flows = [("ai/rag", "ai/llama-0"), ("ai/llama-0", "ai/rag"), ("203.0.113.9", "ai/llama-1")]
    text = "\n".join(json.dumps({"from": a, "to": b, "protocol": "TCP", "port": 80}) for a, b in flows)
    result = run("explain", "--manifests", str(manifests), "--flows", "-", "-o", "json", text=text)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [a["verdict"] for a in answers] == ["deny", "allow", "deny"]
    assert answers[0]["ingress"] == {
        "verdict": "deny",
        "isolated_by": ["ai/llama"],
        "admitted_by": [],
        "policies": [{"kind": "NetworkPolicy", "name": "ai/llama", "effect": "peer_not_matched", "rule": None}],
    }
    assert answers[1]["egress"] == {
        "verdict": "allow",
        "isolated_by": [],
        "admitted_by": [],
        "policies": [],
        "reason": "default",
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "<stdin>, line 1: "),
        ('{"from": "ai/rag", "to": "192.0.2.1"}', "192.0.2.1 needs a port number"),
        ("pod/rag", "'pod/rag' is no flow"),
        ('{"from": "ai/rag", "to": "ai/gone", "port": 80}', "no pod 'gone' in namespace ai"),
        ('{"from": "ai/rag", "to": "10.0.0", "port": 80}', "'10.0.0' is not an IP address"),
        ('{"from": "ai/rag", "to": "10.0.0.1", "port": 0}', "port 0 is not between 1 and 65535"),
        ('{"from": "ai/rag", "to": "10.0.0.1", "port": 1, "protocol": "tcp"}', "protocol 'tcp' is none of TCP"),
    ],
)
def test_a_bad_line_of_a_batch_is_named_and_the_others_are_judged(manifests: Path, line: str, problem: str) -> None:
    good = '{"from": "ai/rag", "to": "ai/llama-0", "port": 80}'
    result = run("explain", "--manifests", str(manifests), "--flows", "-", "-o", "json", text=f"{line}\n{good}\n")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["line"] == 1 and problem in first["error"] and first["error"].startswith("<stdin>, line 1")
    assert second["verdict"] == "deny"
    assert result.return_value == 2


def test_a_quoted_port_says_to_drop_the_quotes(manifests: Path) -> None:
    line = '{"from": "ai/rag", "to": "ai/llama-0", "port": "80"}'
    result = run("explain", "--manifests", str(manifests), "--flows", "-", text=line)
    assert 'drop the quotes, "port": 80' in result.stderr


def test_a_batch_takes_names(manifests: Path) -> None:
    lines = [
        {"from": "pod/ai/rag", "to": "huggingface.co", "port": 443},
        {"from": "huggingface.co", "to": "ai/rag", "port": 1},
    ]
    text = "\n".join(map(json.dumps, lines))
    result = run("explain", "--manifests", str(manifests), "--flows", "-", "-o", "json", text=text)
    assert [json.loads(line)["verdict"] for line in result.stdout.splitlines()] == ["allow", "allow"]


def test_a_batch_takes_targets_and_says_what_they_stand_for(manifests: Path) -> None:
    lines = ["pod/rag svc/llama", "nonsense", '{"from": "ai/rag", "to": "svc/llama", "port": 80}']
    arguments = ("explain", "--manifests", str(manifests), "-n", "ai", "--flows", "-")
    plain = run(*arguments, text="\n".join(lines))
    assert plain.return_value == 2
    assert plain.stdout.count("through Service ai/llama") == 2 and plain.stdout.count("DNS: ") == 2
    answers = [json.loads(line) for line in run(*arguments, "-o", "json", text="\n".join(lines)).stdout.splitlines()]
    assert [sorted({"verdict", "error"} & set(a)) for a in answers] == [["verdict"], ["error"], ["verdict"]]
    assert "dns" in answers[0] and answers[0]["verdict"] == answers[2]["verdict"]


@pytest.mark.parametrize(
    ("ends", "problem"),
    [
        (("pod/rags", "svc/llama"), "no pod 'rags' in namespace ai"),
        (("pod/rag", "svc/lama"), "no Service 'lama' in namespace ai"),
        (("pod/rag", "svc/llama:99"), "Service llama has no such port; it has 80/TCP"),
        (("pod/rag", "10.0.0.1"), "10.0.0.1 needs a port number"),
        (("pod/rag", "huggingface.co"), "huggingface.co needs a port number"),
        (("huggingface.co", "pod/rag:80"), "a flow can't start at the name 'huggingface.co'"),
        (("pod/llama-0", "pod/rag"), "pod ai/rag has no declared port"),
        (("pod/rag", "nonsense"), "'nonsense' is not a target"),
        (("pod/rag", "::ffff:10.1.0.1"), "10.1.0.1 needs a port number"),
    ],
)
def test_bad_ends_are_said_to_be_bad(manifests: Path, ends: tuple[str, str], problem: str) -> None:
    with pytest.raises(GenainetError) as caught:
        run("explain", "--manifests", str(manifests), "-n", "ai", *ends)
    assert caught.value.message == problem


def test_a_policy_that_is_not_valid_is_named_with_its_file(tmp_path: Path) -> None:
    bad = netpol("ai/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}])
    path = write(tmp_path / "x.json", *PODS, bad)
    with pytest.raises(InputError) as caught:
        run("explain", "--manifests", str(path), "-n", "ai", "pod/rag", "svc/llama")
    place = f"{path}, document 1, item {len(PODS) + 1}: NetworkPolicy ai/p: spec.ingress[0].from[0].ipBlock.cidr"
    assert caught.value.message == f"{place}: '10.0.0.0' is not a CIDR"


def test_a_policy_that_is_not_valid_does_not_end_what_it_cannot_change(tmp_path: Path) -> None:
    bad = netpol("elsewhere/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}])
    path = write(tmp_path / "x.json", *PODS, bad)
    result = run("explain", "--manifests", str(path), "-n", "ai", "pod/rag", "svc/llama", "-o", "json")
    assert result.return_value == 0
    assert {json.loads(line)["verdict"] for line in result.stdout.splitlines()} == {"allow"}
    assert "'10.0.0.0' is not a CIDR (refused by its API server)" in result.stderr


def test_matrix_and_its_difference(manifests: Path, tmp_path: Path) -> None:
    lines = run("matrix", "--manifests", str(manifests), "-n", "ai", "--port", "80", "-o", "json").stdout.splitlines()
    verdicts = {(a["from"], a["to"]): a["verdict"] for a in map(json.loads, lines)}
    assert verdicts[("ai/rag", "ai/llama-* (2)")] == "deny"
    assert verdicts[("ai/llama-* (2)", "ai/rag")] == "allow"
    opened = write(tmp_path / "new.json", {**ISOLATED, "spec": {"podSelector": {}, "ingress": [{}]}})
    changed = run("matrix", "--manifests", str(manifests), "-A", "--diff", str(opened), "-o", "json")
    found = [json.loads(line) for line in changed.stdout.splitlines()]
    assert ("ai/rag", "ai/llama-* (2)", 8080, "deny", "allow") in {
        (f["from"], f["to"], f["port"], f["before"], f["after"]) for f in found
    }
    assert changed.return_value == 1
    assert run("matrix", "--manifests", str(manifests), "-A", "--diff", str(manifests)).return_value == 0
    with pytest.raises(InputError, match="there are no pods in namespace nope"):
        run("matrix", "--manifests", str(manifests), "-n", "nope", "--diff", str(opened))


def test_a_destination_by_name_is_told_of_dns_and_of_the_enforcer(tmp_path: Path) -> None:
    egress = netpol(
        "ai/out", podSelector=labels(app="rag"), policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}]
    )
    path = write(tmp_path / "x.json", *PODS, egress)
    arguments = ("--manifests", str(path), "-n", "ai", "--enforcer", "calico", "pod/rag", "huggingface.co:443")
    record = json.loads(run("explain", *arguments, "-o", "json").stdout)
    assert (record["verdict"], record["dns"]["verdict"], record["enforcer"]["name"]) == ("allow", "deny", "calico")
    text = run("explain", *arguments).stdout
    assert text.startswith("Policies are enforced by Calico.")
    assert "DNS: ai/rag may not ask" in text and "would never start" in text
    by_address = run("explain", "--manifests", str(path), "-n", "ai", "pod/rag", "203.0.113.1:443", "-o", "json")
    assert "dns" not in json.loads(by_address.stdout)


def test_without_an_enforcer_it_is_said_first_that_policies_are_inert(manifests: Path) -> None:
    result = run("explain", "--manifests", str(manifests), "-n", "ai", "--enforcer", "none", "pod/rag", "svc/llama")
    assert result.stdout.startswith("Nothing enforces policies on this cluster: every policy is inert")
    assert result.return_value == 0


def test_a_patch_for_a_client_outside_names_every_node_that_it_may_come_through(tmp_path: Path) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "lb", "namespace": "ai"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "llama"}, "ports": [{"port": 443, "targetPort": "http"}]},
    }
    nodes = node("n1", "192.168.0.1"), node("n2", "192.168.0.2")
    manifests = write(tmp_path / "all.json", *PODS, *nodes, service, ISOLATED)
    asked = ("explain", "203.0.113.9", "svc/lb", "-n", "ai", "--manifests")
    patch = yaml.safe_load(run(*asked, str(manifests), "--patch").stdout)
    blocks = [
        peer["ipBlock"]["cidr"] for rule in patch["spec"]["ingress"] for peer in rule["from"] if "ipBlock" in peer
    ]
    assert blocks == ["192.168.0.1/32", "192.168.0.2/32"]
    mended = write(tmp_path / "mended.json", *PODS, *nodes, service, patch)
    assert "ALLOW" in run(*asked, str(mended)).stdout


@pytest.fixture
def of_a_revision(tmp_path: Path) -> Path:
    """A pod of Knative whose labels all change with the revision, and one that it may not reach."""
    changing = {"app": "rag-00001", "serving.knative.dev/revision": "rag-00001", "build-id": "4711"}
    client = pod("ai/rag-00001-deployment-7d9f8b6c5-x2x4k", "10.1.0.1", labels=changing)
    client["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "rag-00001-deployment-7d9f8b6c5"}]
    shut = netpol("ai/shut", policyTypes=["Ingress"])
    return write(tmp_path / "m.yaml", namespace("ai"), client, pod("ai/llm", "10.1.0.2"), shut)


ADDED = "the label app.kubernetes.io/name: rag to the pod template of Knative Service ai/rag"


def test_a_pod_without_a_label_that_lasts_is_told_which_to_add(of_a_revision: Path) -> None:
    ends = ("pod/rag-00001-deployment-7d9f8b6c5-x2x4k", "pod/llm:8000", "-n", "ai", "--manifests", str(of_a_revision))
    text = run("explain", *ends)
    assert f"First add {ADDED}" in text.stdout
    assert "allow-llm-from-rag\n" in text.stdout  # the name of the new policy outlasts the revision, too
    patched = run("explain", *ends, "--patch")
    peer = yaml.safe_load(patched.stdout)["spec"]["ingress"][0]["from"][0]
    assert peer == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "rag"}}}
    assert f"First add {ADDED}" in patched.stderr
    (label,) = json.loads(run("explain", *ends, "-o", "json").stdout)["patch"]["edit"]["labels"]
    assert (label["kind"], label["namespace"], label["name"]) == ("Knative Service", "ai", "rag")
    assert (label["key"], label["value"]) == ("app.kubernetes.io/name", "rag")
    assert label["pods"] == ["ai/rag-00001-deployment-7d9f8b6c5-x2x4k"]


def test_a_connection_whose_name_can_not_be_looked_up_is_something_found(tmp_path: Path) -> None:
    """The policies admit the flow itself, and not the query before it."""
    egress = netpol(
        "ai/out", podSelector=labels(app="rag"), policyTypes=["Egress"], egress=[{"ports": [{"port": 8080}]}]
    )
    ends = ("--manifests", str(write(tmp_path / "x.json", *PODS, egress)), "-n", "ai", "pod/rag")
    assert run("explain", *ends, "svc/llama").return_value == 1
    assert run("explain", *ends, "10.1.0.1:8080").return_value == 0
    patched = run("explain", *ends, "svc/llama", "--patch")
    assert (patched.return_value, patched.stdout) == (1, "")
    assert "would never start" in patched.stderr and "passes already" in patched.stderr
    batch = run("explain", *ends[:-1], "--flows", "-", "-o", "json", text="pod/rag svc/llama\npod/rag 10.1.0.1:8080\n")
    assert batch.return_value == 1


@pytest.mark.parametrize(("enforcer", "closed"), [("calico", True), ("cilium", False)])
def test_a_change_is_judged_for_the_lookup_too(tmp_path: Path, enforcer: str, closed: bool) -> None:
    """The rule for a domain name under Cilium comes with the one for DNS; for a Service there is none."""
    shut = netpol("ai/out", podSelector=labels(app="rag"), policyTypes=["Egress"])
    ends = ("--manifests", str(write(tmp_path / "x.json", *PODS, shut)), "-n", "ai", "--enforcer", enforcer, "pod/rag")
    target = "svc/llama" if closed else "api.openai.com:443"
    patched = run("explain", *ends, target, "--patch")
    assert ("would never start" in patched.stderr) is closed
