"""One call of a tool, in a process of its own: it can be ended at its time limit, and what it prints is no answer.

Reads a Call, and writes an Answer or a Failure, as JSON.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.mcp.answer import Failure, ToolAnswer, bounded_answer
from kubectl_genainet.mcp.tools import TOOLS
from kubectl_genainet.render.data_text import json_text
from kubectl_genainet.run.sources.choice import SourceChoice

_PDEATHSIG = 1  # prctl(2)


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool by name, what it is asked, where the facts come from, and its limits."""

    tool: str
    arguments: dict[str, Any]
    choice: SourceChoice
    max_bytes: int
    max_s: float


def perform(call: ToolCall) -> ToolAnswer | Failure:
    tool = TOOLS[call.tool]
    try:
        asked = msgspec.convert(call.arguments, tool.arguments, strict=False)
        return bounded_answer(tool.run(call.choice, asked), call.max_bytes)
    except msgspec.ValidationError as error:
        return Failure(error=f"the arguments of {call.tool} can't be read: {error}")
    except GenainetError as error:
        return Failure.of(error)


def main() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            return
    answer_to = os.dup(1)
    os.dup2(2, 1)
    call = msgspec.json.decode(sys.stdin.buffer.read(), type=ToolCall)
    signal.alarm(int(call.max_s) + 2)  # where the server can no longer end it
    with os.fdopen(answer_to, "wb") as file:
        file.write(json_text(perform(call)).encode())


if __name__ == "__main__":
    main()
