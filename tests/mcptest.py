"""What the tests of `mcp` share: the server as a process of its own, asked by the SDK's client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import jsonschema
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "kubectl_genainet", "mcp"]


class Asking:
    """A session with the server. `call` checks every answer against the schema that the server gave for it."""

    def __init__(self, client: Client, tools: list[types.Tool]) -> None:
        self.client = client
        self.tools = {tool.name: tool for tool in tools}

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result.content
        answer = result.structured_content
        assert isinstance(answer, dict)
        jsonschema.validate(answer, self.tools[name].output_schema or {"not": {}})
        return answer

    async def refused(self, name: str, **arguments: Any) -> str:
        """What the server says instead of an answer."""
        result = await self.client.call_tool(name, arguments)
        assert result.is_error, result.structured_content
        text = result.content[0]
        assert isinstance(text, types.TextContent)
        return text.text


def asked(ask: Callable[[Asking], Awaitable[T]], *options: str) -> T:
    """What `ask` makes of a session with a server that was started with these options."""

    async def session() -> T:
        parameters = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *options])
        async with Client(stdio_client(parameters)) as client:
            return await ask(Asking(client, (await client.list_tools()).tools))

    return asyncio.run(session())
