"""A lab that another user brought up. As root every file can be written, so what the system says of it is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.run.sources.lab import LabSource


def test_agents_that_do_not_answer_this_user_are_said_once_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agent.sock").touch()
    monkeypatch.setattr("kubectl_genainet.lab.state.lab_agents", lambda _: {"node-1": str(tmp_path / "agent.sock")})
    monkeypatch.setattr("kubectl_genainet.run.sources.lab.os.access", lambda *_: False)
    with pytest.raises(GenainetError, match="the lab 'mine' belong to another user") as raised:
        LabSource("mine").agents()
    assert "sudo" in raised.value.hint


def test_an_agent_that_is_gone_is_the_node_s_own_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_genainet.lab.state.lab_agents", lambda _: {"node-1": str(tmp_path / "gone.sock")})
    assert set(LabSource("mine").agents().dials) == {"node-1"}
