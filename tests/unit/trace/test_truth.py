"""The truth harness judges as it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    source = Path(__file__).resolve().parents[3] / "scripts" / "truth.py"
    spec = importlib.util.spec_from_file_location("truth", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["truth"] = module
    spec.loader.exec_module(module)
    return module


def path(port: int, outcome: str, pod: str | None, dst: str = "10.96.0.1:80", t_ns: int = 0) -> dict[str, Any]:
    client = {"ip": "10.244.1.2", "port": port}
    return {
        "t_ns": t_ns,
        "flow": {"protocol": "TCP", "client": client},
        "hops": [{"dst": dst}],
        "outcome": outcome,
        "backend": {"pod": pod} if pod else None,
    }


def test_outcome_and_backend_must_be_the_true_ones_or_unknown(truth: ModuleType) -> None:
    told = [path(1, "answered", "a"), path(2, "answered", "b"), path(3, "unknown", None), path(4, "refused", "a")]
    facts = [
        ["TCP", "10.244.1.2", n, "10.96.0.1", "answered" if n < 4 else "refused", "a" if n < 4 else ""]
        for n in range(1, 6)
    ]
    score, errors = truth.judge(told, facts)
    assert (score.right, score.wrong, score.unknown, score.missing) == (2, 1, 1, 1)
    assert errors[0].endswith("told answered b") and errors[1].endswith("no path")


def test_port_that_is_used_again_is_another_connection(truth: ModuleType) -> None:
    told = [
        path(1, "answered", "b", t_ns=9),
        path(1, "refused", "c", "172.18.0.2:82"),
        path(1, "answered", "a", t_ns=5),
    ]
    facts = [
        ["TCP", "10.244.1.2", 1, "10.96.0.1", "answered", "a"],
        ["TCP", "10.244.1.2", 1, "172.18.0.2", "refused", ""],
        ["TCP", "10.244.1.2", 1, "10.96.0.1", "answered", "b"],
    ]
    score, errors = truth.judge(told, facts)
    assert (score.right, errors) == (3, [])
