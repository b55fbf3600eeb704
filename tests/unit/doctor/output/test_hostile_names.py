"""What doctor tells people to paste, of objects whose names are made to be pasted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import to_yaml
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Remedy
from kubectl_genainet.model.kube import KubeObject
from tests.unit.doctor.faults.cases import CASES

HOSTILE = "'\";$(touch X)`touch X`\n- evil: true # {{x}}\nevil: true"
KEPT = {"", "default", "kube-system", "kube-proxy", "coredns", "kube-dns"}  # names that checks look for
PROGRAMS = ("kubectl", "aws", "az", "gcloud", "helm", "sed", "istioctl", "eksctl")


def remedies(before: str = "", behind: str = "", step: int = 9) -> Iterator[Remedy]:
    """Of faults among objects with these texts before and behind their names."""
    for case in CASES[::step]:
        world = case.base()
        case.fault(world)
        report = examine(Cluster(ClusterSnapshot(renamed([*world.objects.values()], before, behind))), all_checks())
        yield from (finding.remedy for finding in report.findings if finding.remedy is not None)


def renamed(objects: list[dict[str, Any]], before: str, behind: str) -> tuple[KubeObject, ...]:
    """The objects with these texts around every name, wherever it stands."""
    known = [KubeObject(raw) for raw in objects]
    names = {o.name for o in known if o.kind != "Node"} | {o.namespace for o in known}
    longest_first = sorted(map(re.escape, names - KEPT), key=len, reverse=True)
    name = re.compile(rf"(?<![\w.-])(?:{'|'.join(longest_first)})(?![\w-])")
    first, last = (json.dumps(text)[1:-1] for text in (before, behind))
    return tuple(map(KubeObject, json.loads(name.sub(lambda found: first + found[0] + last, json.dumps(objects)))))


def test_a_name_runs_nothing_in_a_command_of_doctors(tmp_path: Path) -> None:
    commands = [remedy.command for remedy in dict.fromkeys(remedies(behind=HOSTILE)) if "touch" in remedy.command]
    assert len(commands) > 10
    inert = "".join(f"{program}() {{ :; }}\n" for program in PROGRAMS)
    script = f"{inert}command_not_found_handle() {{ :; }}\n" + "\n".join(commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert "syntax error" not in done.stderr and "unexpected" not in done.stderr
    assert list(tmp_path.iterdir()) == []


TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from([HOSTILE, "yes", "No", "~", "null", "1e3", "0x1", "2026-01-01", "a: b", "=", "<<"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), 1 << 63), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_whatever_a_name_is_it_is_that_value_in_yaml(value: object) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


def test_kubectl_takes_no_name_for_an_option() -> None:
    """A Pod named --all: `kubectl delete pod --all` deletes every one."""
    words = [
        shlex.split(line) for remedy in dict.fromkeys(remedies(before="--x-", step=4)) for line in commands_in(remedy)
    ]
    taken = [
        line
        for line in words
        for before, word in pairwise(line)
        if word.startswith("--x-") and not takes_a_value(before)
    ]
    assert len(words) > 20
    assert taken == []


def commands_in(remedy: Remedy) -> list[str]:
    return [line.partition("   # ")[0] for line in remedy.command.splitlines() if line.startswith("kubectl ")]


def takes_a_value(option: str) -> bool:
    """Or ends the options."""
    return option in ("-n", "-l", "-c", "-p", "--")
