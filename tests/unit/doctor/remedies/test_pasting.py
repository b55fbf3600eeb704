"""What doctor tells a user to paste: commands a shell reads as meant, YAML that parses, also with hostile names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
import yaml

from kubectl_genainet.doctor.objects.raw import q, sh
from kubectl_genainet.doctor.report import Report
from kubectl_genainet.model.finding import Remedy
from tests.unit.doctor.faults.case import Case
from tests.unit.doctor.faults.cases import CASES, report_on
from tests.unit.doctor.worlds.world import World

HOSTILE = "chat; touch /tmp/pwned $(id)\n`id` 'x\" #\u2028y"


def remedies(report: Report) -> Iterator[Remedy]:
    yield from (f.remedy for f in report.findings if f.remedy is not None)


def words(line: str) -> list[str]:
    """The words of a line as a shell splits it, operators apart, comments left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += "{}[]%^,@+!"
    return list(lexer)


def broken(case: Case, name: str = "") -> World:
    world = case.base()
    case.fault(world)
    if name:
        for key, raw in list(world.objects.items()):
            del world.objects[key]
            world.add(json.loads(json.dumps(raw).replace("chatbot", json.dumps(name)[1:-1])))
    return world


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.name}")
def test_remedies_can_be_pasted(case: Case) -> None:
    for remedy in remedies(report_on(case)):
        for line in remedy.command.splitlines():
            assert words(line)[0] in (
                "kubectl",
                "helm",
                "aws",
                "sysctl",
                "ip",
                "modprobe",
                *(f"{tool}{variant}-save" for tool in ("iptables", "ip6tables") for variant in ("", "-nft", "-legacy")),
                "ipvsadm",
                "kubeadm",
                "ethtool",
                "rdma",
                "conntrack",
                "iptables",
                "iptables-legacy",
                "nft",
            ), line
        for document in yaml.safe_load_all(remedy.yaml):
            assert isinstance(document, dict | list)
            if isinstance(document, dict) and "apiVersion" in document:
                assert document["metadata"]["name"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.name}")
def test_hostile_names_stay_one_word(case: Case) -> None:
    for remedy in remedies(broken(case, HOSTILE).report()):
        for line in remedy.command.splitlines():
            found = words(line)
            assert "touch" not in found and ";" not in found, line
            assert not found[0].startswith(("`", "$", "'", "x"))
        list(yaml.safe_load_all(remedy.yaml))


@pytest.mark.parametrize("text", [HOSTILE, "a b", "$(x)", "plain-1.2", "true", "1e3", "", "- x", "a: b", "#c", "ü"])
def test_quoting_keeps_a_value_whole(text: str) -> None:
    assert yaml.safe_load(f"key: {q(text)}") == {"key": text}
    assert len(shlex.split(f"echo {sh(text)}")) == 2
    assert "\n" not in sh(text)
