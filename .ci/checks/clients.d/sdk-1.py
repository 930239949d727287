"""The Python SDK 1.x."""

import asyncio
from importlib.metadata import version

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError
from walk import NOBODY, TOKEN, URL, refused, report, told, turned_away, walk


async def connected(token, use):
    async with (
        streamablehttp_client(URL, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        return await use(session)


async def use(session):
    agreed = await session.initialize()
    tools = await session.list_tools()

    async def call(tool, arguments):
        try:
            return told(await session.call_tool(tool, arguments))
        except McpError as error:
            return refused(error.error.code, error.error.message)

    return agreed.protocolVersion, [tool.name for tool in tools.tools], await walk(call)


async def main():
    revision, tools, answers = await connected(TOKEN, use)
    try:
        await connected(NOBODY, lambda session: session.initialize())
        stranger = "admitted"
    except Exception as error:
        stranger = turned_away(error)
    report(version=version("mcp"), revision=revision, tools=tools, answers=answers, stranger=stranger)


asyncio.run(main())
