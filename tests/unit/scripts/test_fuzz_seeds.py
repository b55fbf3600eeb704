"""What scripts/fuzz.py begins with: each parser takes its whole inputs, or refuses them by a GenainetError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kubectl_genainet.errors import GenainetError
from scripts.fuzz_targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_but_a_genainet_error_comes_out(target: Target, tmp_path: Path) -> None:
    target.prepare(tmp_path)
    assert target.seeds
    for seed in target.seeds:
        with contextlib.suppress(GenainetError):
            target.parse(seed)
