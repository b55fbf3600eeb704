"""What the agent's command line lets nobody have: a port on the node, requests without a token, memory that is not there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet.agent import main
from kubectl_genainet.agent.serve import memory
from kubectl_genainet.agent.serve.auth import Capability
from kubectl_genainet.agent.serve.server import AnyCaller


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What the server is made with; nothing is served."""
    made: dict[str, Any] = {}

    def make(_inventory: object, _cache: str, authenticator: object, **options: object) -> None:
        made.update(options, authenticator=authenticator)

    monkeypatch.setattr(main, "Inventory", lambda *_: SimpleNamespace(host_netns=""))
    monkeypatch.setattr(main, "remove_leftovers", lambda _: ["a rule"])
    monkeypatch.setattr(main, "Server", make)
    monkeypatch.setattr(memory, "limit_mib", lambda: 400)
    monkeypatch.setattr(asyncio, "run", lambda serving: serving.close())
    monkeypatch.setattr("sys.argv", ["genainet-agent", "serve", "--node", "node-1", *arguments])
    main.main()
    return made


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]", "10.0.0.7", "192.168.0.1", "[fd00::1]"])
def test_the_agent_opens_no_port_on_the_node(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not a loopback address"):
        started(monkeypatch, "--listen", f"{address}:9912", "--token-file", str(tmp_path / "token"))


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_it_serves_on_the_loopback_to_who_shows_a_token(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = str(tmp_path / "token")
    made = started(monkeypatch, "--listen", f"{address}:9912", "--token-file", token)
    assert isinstance(made["authenticator"], Capability)
    assert (made["memory_mib"], made["readers"]) == (400, None)
    made = started(monkeypatch, "--listen", f"{address}:9912", "--token-file", token, "--history-token-file", token)
    assert isinstance(made["readers"], Capability)


def test_without_a_token_it_serves_on_its_owners_socket_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(started(monkeypatch, "--socket", str(tmp_path / "socket"))["authenticator"], AnyCaller)
    for arguments in (("--listen", "127.0.0.1:9912"), ("--socket", "x", "--token-file", "y")):
        with pytest.raises(SystemExit, match="2"):
            started(monkeypatch, *arguments)


def test_what_a_killed_agent_left_is_removed_and_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    started(monkeypatch, "--socket", str(tmp_path / "socket"))
    line = json.loads(capsys.readouterr().err)
    assert (line["audit"], line["what"], line["session"]) == ("removed", "a rule", "")
