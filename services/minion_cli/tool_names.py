"""How commands name tools and labels."""

from uuid import UUID

import typer
from minion.registry.v1 import tool_pb2, tool_service_pb2

from minion_cli.connection import Services


def named(text: str) -> dict[str, str]:
    """Gives the field of a request by which a tool is named: a UUID is an id, anything else a name."""
    try:
        is_id = len(text) == 36 and bool(UUID(text))
    except ValueError:
        is_id = False
    return {"tool_id" if is_id else "name": text}


async def find_tool(services: Services, name_or_id: str, version: int = 0) -> tool_pb2.Tool:
    """Gets a tool by whichever of name and id is given."""
    fields = named(name_or_id)
    request = tool_service_pb2.GetToolRequest(
        tool_id=fields.get("tool_id", ""), name=fields.get("name", ""), version=version
    )
    return (await services.tools.GetTool(request)).tool


def labels(pairs: list[str]) -> dict[str, str]:
    """Reads key=value labels; anything else is a usage error."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not key=value.", param_hint="--label")
        found[key] = value
    return found
