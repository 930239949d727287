"""What the Python clients share: they take the steps of steps.json one after the other and report, as JSON on
stdout, what their library made of the answers. Whether that is right is judged outside, once for all clients."""

import json
import sys

URL, TOKEN, STEPS = sys.argv[1:4]
NOBODY = "mcp_" + "A" * 49


def told(result):
    """A tool's result, from its form on the wire."""
    wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return {
        "text": "".join(block.get("text", "") for block in wire["content"]),
        "structured": wire.get("structuredContent"),
        "is_error": wire.get("isError", False),
        "code": wire.get("_meta", {}).get("io.apixx/error", {}).get("code"),
    }


async def walk(call):
    """The answers to all steps. `call(tool, arguments)` gives `told(...)`, or `refused(...)`; an answer that the
    library does not take is reported too."""
    with open(STEPS, encoding="utf-8") as file:
        steps = json.load(file)["steps"]
    answers, run = [], None
    for step in steps:
        arguments = {name: run if value == "{run}" else value for name, value in step["arguments"].items()}
        try:
            answer = await call(step["tool"], arguments)
        except Exception as error:
            answer = {"not_taken": str(error)}
        run = (answer.get("structured") or {}).get("run_id", run)
        answers.append(answer)
    return answers


def refused(code, message):
    """A JSON-RPC error."""
    return {"rpc": {"code": code, "message": message}}


def causes(error, seen=()):
    """An exception and everything it wraps."""
    seen = seen or set()
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        for inner in (*getattr(error, "exceptions", ()), error.__cause__, error.__context__):
            yield from causes(inner, seen)


def turned_away(error):
    """What a client without a valid token was told."""
    told = []
    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        told.append(f"{type(cause).__name__} {status or ''} {cause}")
    return "; ".join(told)


def report(**found):
    json.dump(found, sys.stdout, ensure_ascii=False)
