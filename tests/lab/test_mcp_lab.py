"""`mcp` over a lab: a client of the SDK gets what the agents see now."""

from __future__ import annotations

from tests.lab.labtest import RunningLab, broken
from tests.mcptest import Asking, asked

SERVICE = "svc/my-llama-svc"


def test_a_client_is_told_what_is_broken_now_and_why(lab: RunningLab) -> None:
    async def ask(session: Asking) -> None:
        agents = await session.call("status")
        assert {record["state"] for record in agents["records"]} == {"ready"}
        for seconds in (4, 12, 24):  # on a busy machine the clients' next call may be late
            diagnosis = await session.call("diagnose", target=SERVICE, seconds=seconds)
            if diagnosis["status"] == "something found":
                break
        assert diagnosis["status"] == "something found"
        assert "policy-drop" in {cause["check"] for cause in diagnosis["records"][0]["causes"]}

    with broken(lab, "policy-service-port"):
        asked(ask, f"--lab={lab.name}")
