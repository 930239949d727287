"""The Python SDK 2.x, in the era that is its fourth argument: `auto` or `legacy`."""

import asyncio
import sys
from importlib.metadata import version

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from walk import NOBODY, TOKEN, URL, refused, report, told, turned_away, walk


STATUSES = []


async def remember(response):
    STATUSES.append(response.status_code)


async def connected(token, use):
    headers, hooks = {"Authorization": f"Bearer {token}"}, {"response": [remember]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, event_hooks=hooks) as http,
        Client(streamable_http_client(URL, http_client=http), mode=sys.argv[4]) as client,
    ):
        return await use(client)


async def use(client):
    tools = await client.list_tools()

    async def call(tool, arguments):
        try:
            return told(await client.call_tool(tool, arguments))
        except MCPError as error:
            return refused(error.code, error.message)

    return client.protocol_version, [tool.name for tool in tools.tools], await walk(call)


async def main():
    revision, tools, answers = await connected(TOKEN, use)
    try:
        await connected(NOBODY, lambda client: client.list_tools())
        stranger = "admitted"
    except Exception as error:
        # The SDK keeps the status to itself.
        stranger = f"{STATUSES[-1]} {turned_away(error)}"
    report(version=version("mcp"), revision=revision, tools=tools, answers=answers, stranger=stranger)


asyncio.run(main())
