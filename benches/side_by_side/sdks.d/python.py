"""A server on the official Python SDK: stateless, answering JSON, with the same statements and tools.

Arguments: port, file of the answer to tools/list, file of the statements.
"""

import json
import os
import sys
from datetime import datetime

import asyncpg
import uvicorn
from mcp import types
from mcp.server.lowlevel import Server

port, listing, texts = sys.argv[1:]
with open(listing, encoding="utf-8") as file:
    TOOLS = types.ListToolsResult.model_validate(json.load(file)["result"])
with open(texts, encoding="utf-8") as file:
    TEXTS = json.load(file)
moment = datetime.fromisoformat


async def prepared(connection):
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


def connected():
    settings = {"plan_cache_mode": "force_generic_plan", "jit": "off", "timezone": "UTC"}
    where = {"host": os.environ["PGHOST"], "user": os.environ["PGUSER"], "database": os.environ["PGDATABASE"]}
    size = int(os.environ["POOL_SIZE"])
    return asyncpg.create_pool(min_size=size, max_size=size, server_settings=settings, init=prepared, **where)


async def list_tools(_context, _params):
    return TOOLS


async def call_tool(_context, params):
    asked = params.arguments
    if params.name == "get_run":
        row = await POOL.fetchrow(TEXTS["get_run"], asked["customer"], moment(asked["now"]), asked["run_id"])
        answer = dict(row)
    else:
        times = [moment(asked[name]) for name in ("now", "since", "until", "window_at")]
        rows = await POOL.fetch(TEXTS["list_runs"], asked["customer"], *times[:3], 26, times[3], asked["run_id"])
        answer = {"runs": [dict(row) for row in rows[:25]]}
    text = json.dumps(answer, default=datetime.isoformat)
    content = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=content, structured_content=json.loads(text))


POOL = None
server = Server("side-by-side", on_list_tools=list_tools, on_call_tool=call_tool)
mcp = server.streamable_http_app(stateless_http=True, json_response=True)


async def app(scope, receive, send):
    """The SDK's application, with one pool of connections for all of it."""
    global POOL
    if scope["type"] != "lifespan":
        return await mcp(scope, receive, send)
    async with connected() as POOL:
        await mcp(scope, receive, send)


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
