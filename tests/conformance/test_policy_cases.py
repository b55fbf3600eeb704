"""The policy cases of other projects' suites, judged through the batch format: verdict, direction, blame and reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli

FOLDER = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[3] / "shared" / "conformance"))
FILES = ("netpol_cases.json", "anp_cases.json", "explain_cases.json")


def _cases() -> list[Any]:
    if not FOLDER.is_dir():
        reason = f"the conformance cases are not at {FOLDER} (GENAINET_CONFORMANCE)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="no-cases")]
    return [pytest.param(case, id=case["id"]) for name in FILES for case in json.loads((FOLDER / name).read_text())]


@pytest.mark.parametrize("case", _cases())
def test_the_batch_output_agrees_with_the_case(case: dict[str, Any], tmp_path: Path) -> None:
    manifests, flows = tmp_path / "manifests.json", tmp_path / "flows.json"
    manifests.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": case["manifests"]}))
    lines = [{k: probe[k] for k in ("from", "to", "protocol", "port")} for probe in case["probes"]]
    flows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["explain", "--manifests", str(manifests), "--flows", str(flows), "-o", "json"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(case["probes"])
    wrong = [(p, a) for p, a in zip(case["probes"], answers, strict=True) if disagreements(p, a)]
    assert not wrong, f"{len(wrong)} of {len(answers)}: {disagreements(*wrong[0])} in {wrong[0]}"
    assert result.return_value == int(any(p["expected"] != "allow" for p in case["probes"]))


def disagreements(probe: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """What an answer says otherwise than the case does."""
    found = []
    if answer["verdict"] != probe["expected"]:
        found.append(f"verdict {answer['verdict']}, expected {probe['expected']}")
    for direction in ("egress", "ingress"):
        side = answer[direction]
        wanted = probe.get(f"expected_{direction}", side["verdict"])
        if side["verdict"] != wanted:
            found.append(f"{direction} {side['verdict']}, expected {wanted}")
        if "why" in probe and (reason := _reason(probe["why"][direction], side)):
            found.append(f"{direction}: {reason}")
    if "why" not in probe:
        blamed = {b["direction"]: set(b["policies"]) for b in probe.get("derived_blame", [])}
        actual = {d: _blamed(answer[d]) for d in ("egress", "ingress") if answer[d]["verdict"] == "deny"}
        if blamed != actual:
            found.append(f"blame {actual}, expected {blamed}")
    return found


def _blamed(side: dict[str, Any]) -> set[str]:
    denying = {
        f"{p['kind']}/{p['name']} rule {p.get('rule_name', '#' + str((p['rule'] or 0) - 1))}"
        for p in side["policies"]
        if p["effect"] == "denies"
    }
    return denying or set(side["isolated_by"])


def _reason(why: dict[str, Any], side: dict[str, Any]) -> str:
    if side["verdict"] != why["verdict"]:
        return f"{side['verdict']}, expected {why['verdict']}"
    if (why.get("reason") == "default") != (side.get("reason") == "default"):
        return f"reason {side.get('reason')}, expected {why.get('reason')}"
    wanted = [(p["kind"], p["name"], p["effect"], p.get("rule_number") or p.get("rule")) for p in why["policies"]]
    actual = [(p["kind"], p["name"], p["effect"], p.get("rule_name") or p["rule"]) for p in side["policies"]]
    return f"{actual}, expected {wanted}" if wanted != actual else ""
