"""The OpenAI Agents SDK, in the form that works: connected by `async with`, and patient enough for a call that
waits (five seconds are its default)."""

import asyncio
from importlib.metadata import version

from agents.mcp import MCPServerStreamableHttp
from mcp.shared.exceptions import MCPError
from walk import NOBODY, TOKEN, URL, causes, refused, report, told, turned_away, walk


def apixx(token):
    return MCPServerStreamableHttp(
        name="apixx",
        params={"url": URL, "headers": {"Authorization": f"Bearer {token}"}, "timeout": 10},
        client_session_timeout_seconds=60,
        cache_tools_list=True,
        max_retry_attempts=3,
    )


async def main():
    async with apixx(TOKEN) as server:
        tools = [tool.name for tool in await server.list_tools()]

        async def call(tool, arguments):
            try:
                return told(await server.call_tool(tool, arguments))
            except Exception as error:
                for cause in causes(error):
                    if isinstance(cause, MCPError):
                        return refused(cause.code, cause.message)
                raise

        answers = await walk(call)
        revision = server.session.protocol_version
    try:
        async with apixx(NOBODY) as server:
            await server.list_tools()
        stranger = "admitted"
    except Exception as error:
        stranger = turned_away(error)
    report(version=version("openai-agents"), revision=revision, tools=tools, answers=answers, stranger=stranger)


asyncio.run(main())
