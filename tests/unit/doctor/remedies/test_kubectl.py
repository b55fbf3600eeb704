"""The remedy of every check, on its own fault: tried on a copy where that can be, and taken by kubectl as it was tried.

kubectl runs on files (--local): nothing is asked of a cluster. Its result is compared with that of the copy.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.doctor.changes import Addition, applied, changes_something
from kubectl_genainet.doctor.trial import NOT_TRIED, stands_for_a_state
from kubectl_genainet.kube.resources import KINDS
from kubectl_genainet.model.finding import Finding, Remedy
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import TEMPLATE_PLACES
from tests.unit.doctor.faults.case import Case
from tests.unit.doctor.faults.cases import CASES, report_on

# Verbs whose outcome is made by an editor, another file, or a controller of the cluster.
NOT_A_CHANGE_OF_AN_OBJECT = ("edit", "delete", "rollout", "apply", "create", "drain")
RESTARTS = ("deployment", "daemonset", "statefulset")  # kinds that `kubectl rollout restart` takes
LOCAL = ("patch", "annotate", "label", "set")


def own_findings(case: Case) -> list[Finding]:
    return [f for f in report_on(case).findings if f.check == case.check and f.remedy is not None]


def commands(remedy: Remedy) -> Iterator[list[str]]:
    yield from (shlex.split(line, comments=True) for line in remedy.command.splitlines() if line.strip())


def verb_and_rest(words: list[str]) -> tuple[str, list[str]]:
    rest = words[3:] if words[1] == "-n" else words[1:]
    return rest[0], rest[1:]


def left_to_others(remedy: Remedy) -> bool:
    """Whether a remedy has a step that no copy of the objects can take: another program's, an editor's, a controller's, or
    with values that the user fills in."""
    steps = list(commands(remedy))
    fill_in = bool(remedy.yaml.strip()) and not isinstance(remedy, Addition)
    return fill_in or any(w[0] != "kubectl" or verb_and_rest(w)[0] in NOT_A_CHANGE_OF_AN_OBJECT for w in steps)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.name}")
def test_a_remedy_is_tried_or_says_that_it_could_not_be(case: Case) -> None:
    world = case.base()
    case.fault(world)
    for finding in own_findings(case):
        remedy = finding.remedy
        assert remedy is not None
        restarted = [verb_and_rest(w)[1][1] for w in commands(remedy) if w[0] == "kubectl" and "rollout" in w]
        assert all(target.partition("/")[0] in RESTARTS for target in restarted)
        if not changes_something(remedy):
            assert remedy.trial == "" or "no change is given" in remedy.trial or "so none is given" in remedy.trial
        elif remedy.trial.startswith(NOT_TRIED):
            assert left_to_others(remedy) or remedy.trial.endswith("was not read"), remedy
            assert remedy.trial.removeprefix(NOT_TRIED).startswith(": "), remedy
        elif remedy.trial.endswith("only the cluster shows whether it heals what was measured"):
            assert stands_for_a_state(world.cluster(), finding), remedy
        else:
            assert remedy.trial.startswith("tried: heals it")


def _groups_by_kind() -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for kind, group in [(r.kind, r.group) for r in KINDS] + [(kind, group) for group, kind in TEMPLATE_PLACES]:
        groups[kind.lower()].add(group.removeprefix("crd."))  # Calico's two groups are one set of objects
    return groups


def test_a_kind_of_several_groups_is_named_with_its_own() -> None:
    """`kubectl edit gateway` takes Istio's or that of the Gateway API, as the cluster lists them; built-in kinds go first."""
    groups = _groups_by_kind()
    shared = {
        kind for kind, of in groups.items() if len(of) > 1 and not of & {"", "apps", "batch", "networking.k8s.io"}
    }
    assert {"gateway", "inferencepool"} <= shared
    targets = []
    for case in CASES:
        for finding in own_findings(case):
            assert finding.remedy is not None
            steps = [verb_and_rest(w) for w in commands(finding.remedy) if w[0] == "kubectl"]
            targets += [
                rest[0].partition("/")[0] for verb, rest in steps if verb in ("edit", "describe", "patch", "delete")
            ]
    assert targets and not shared & set(targets)


def changed_locally(raw: dict[str, Any], verb: str, rest: list[str], folder: Path) -> dict[str, Any]:
    """The object after kubectl, of which a command line without the object's name is left."""
    file = folder / "object.json"
    file.write_text(json.dumps(raw))
    options = rest[1:] if "/" in rest[0] else rest[2:]
    if verb == "set":
        options = rest[2:]
    namespace = ["-n", raw["metadata"]["namespace"]] if raw["metadata"].get("namespace") else []
    words = [
        "kubectl",
        *namespace,
        verb,
        *(["env"] if verb == "set" else []),
        "--local",
        "-f",
        str(file),
        *options,
        "-o",
        "json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (words, done.stderr)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def plain(value: Any) -> Any:
    """Without what is empty: kubectl writes such members where it knows an object's type."""
    if isinstance(value, dict):
        members = {key: plain(below) for key, below in value.items()}
        return {key: below for key, below in members.items() if below not in (None, {}, [], "")}
    return [plain(item) for item in value] if isinstance(value, list) else value


def variables(raw: dict[str, Any]) -> list[Any]:
    return [c.get("env") for c in raw["spec"]["template"]["spec"]["containers"]]


WITH_CHANGES = [
    case
    for case in CASES
    if any(
        w[0] == "kubectl" and verb_and_rest(w)[0] in LOCAL
        for f in own_findings(case)
        if f.remedy
        for w in commands(f.remedy)
    )
]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("case", WITH_CHANGES, ids=lambda c: f"{c.check}-{c.name}")
def test_kubectl_changes_an_object_as_the_copy_was_changed(case: Case, tmp_path: Path) -> None:
    world = case.base()
    case.fault(world)
    snapshot = world.cluster().snapshot
    for finding in own_findings(case):
        remedy = finding.remedy
        assert remedy is not None
        if not all(w[0] == "kubectl" and verb_and_rest(w)[0] in LOCAL for w in commands(remedy)):
            continue
        before = {(o.kind, o.namespace, o.name): o for o in snapshot.objects}
        for words in commands(remedy):
            verb, rest = verb_and_rest(words)
            target = named(before, words, rest[1:] if verb == "set" else rest)
            if target is None:  # the remedy names an object that the snapshot has not read
                continue
            line = Remedy("", shlex.join(words))
            after = next(o for o in applied(snapshot, line).objects if o.ref == target.ref)
            told = changed_locally(target.raw, verb, rest, tmp_path)
            if verb == "set":
                assert plain(variables(told)) == plain(variables(after.raw)), words
            else:
                assert plain(told) == plain(after.raw), words


def named(objects: dict[tuple[str, str, str], KubeObject], words: list[str], rest: list[str]) -> KubeObject | None:
    kind, _, name = rest[0].partition("/")
    namespace = words[2] if words[1] == "-n" else ""
    wanted = (kind.partition(".")[0].removesuffix("s"), namespace, name or rest[1])
    return next((o for (k, ns, n), o in objects.items() if (k.lower().removesuffix("s"), ns, n) == wanted), None)
