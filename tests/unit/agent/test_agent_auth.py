"""The capability: only who shows it may ask, and a damaged one lets nobody in."""

import asyncio
import hmac
from pathlib import Path

import pytest

from kubectl_genainet.agent.serve.auth import Capability

TOKEN = "c" * 64


def refusal(path: Path, authorization: str) -> str:
    return asyncio.run(Capability(path).refuse(authorization, "/v1/node"))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(TOKEN + "\n")
    return tmp_path / "token"


def test_the_capability_is_let_in(token_file: Path) -> None:
    assert refusal(token_file, f"Bearer {TOKEN}") == ""
    assert refusal(token_file, f"bearer {TOKEN}") == ""


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}c",
        "Bearer \x00\xff",
        "Bearer " + "c" * 100_000,
    ],
)
def test_everything_else_is_refused(token_file: Path, authorization: str) -> None:
    assert refusal(token_file, authorization) != ""
    assert TOKEN not in refusal(token_file, authorization)


def test_a_replaced_capability_counts_at_once(token_file: Path) -> None:
    caller = Capability(token_file)
    assert asyncio.run(caller.refuse(f"Bearer {TOKEN}", "/")) == ""
    token_file.write_text("d" * 64)
    assert asyncio.run(caller.refuse(f"Bearer {TOKEN}", "/")) != ""
    assert asyncio.run(caller.refuse("Bearer " + "d" * 64, "/")) == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"\xff" * 64])
def test_a_capability_that_is_none_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    for guess in ("", "short", "Bearer ", "Bearer short"):
        assert refusal(tmp_path / "token", guess) != ""
    assert refusal(tmp_path / "missing", f"Bearer {TOKEN}") != ""


def test_a_token_is_compared_in_one_time_and_only_up_to_a_size(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *given: compared.append(given))
    asyncio.run(Capability(token_file).refuse("Bearer guess", "/"))
    assert compared == [(b"guess", token_file.read_bytes().strip())]
    token_file.write_text("x" * 5000)
    assert asyncio.run(Capability(token_file).refuse(f"Bearer {'x' * 5000}", "/"))
    assert len(compared) == 1
