"""What the agent counts with: the owners of addresses, and the metrics."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.agent.always.owners import Owners
from tests.unit.agent.measured import identities, report


@pytest.fixture
def owners(tmp_path: Path) -> Owners:
    file = tmp_path / "identities.json"
    file.write_bytes(msgspec.json.encode(identities()))
    found = Owners(str(file))
    found.reload()
    assert found.error == ""
    return found


@pytest.fixture
def metrics(owners: Owners) -> Metrics:
    made = Metrics(owners)
    made.feed(report())
    return made
