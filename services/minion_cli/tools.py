"""`minion tools`: what agents can be given to call."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from google.protobuf.json_format import ParseDict, ParseError
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import by_id_or_name, find_tool
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.values import json_object, labels

app = group("Tools: what agents can be given to call.")

ToolArgument = Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name or id.")]
EtagOption = Annotated[str, typer.Option("--etag", help="Only if the tool is still as it was read with this etag.")]
NoteOption = Annotated[str, typer.Option("--note", help="Why, and what to use instead.")]
FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="The tool as YAML or JSON, with the contract's field names.")
]

# What the registry says of a tool, and nobody else.
_TOLD = frozenset({"tool_id", "version", "digest", "status", "status_note", "etag", "create_time", "update_time"})

_COLUMNS = (
    Column("NAME", lambda tool: tool.name),
    Column("STATUS", lambda tool: output.enum_text(tool_pb2.ToolStatus, tool.status)),
    Column("VERSION", lambda tool: str(tool.version), right=True),
    Column("TRANSPORT", lambda tool: output.enum_text(tool_pb2.ToolTransport, tool.transport)),
    Column("EFFECT", lambda tool: output.enum_text(tool_pb2.ToolEffect, tool.effect)),
    Column("APPROVAL", lambda tool: output.enum_text(tool_pb2.ToolApproval, tool.approval)),
    Column("TOOL ID", lambda tool: tool.tool_id),
    Column("DESCRIPTION", lambda tool: tool.description, wide=True),
)
_VERSION_COLUMNS = (
    Column("VERSION", lambda tool: str(tool.version), right=True),
    Column("MADE (UTC)", lambda tool: output.time_text(tool.update_time)),
    Column("DIGEST", lambda tool: tool.digest),
    Column("NAME", lambda tool: tool.name),
    Column("DESCRIPTION", lambda tool: tool.description, wide=True),
)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: active, deprecated or retired.")] = None,
    transport: Annotated[
        str | None, typer.Option(help="Only these: builtin, grpc, http, mcp, agent or client.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only tools with this key=value label; repeatable.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List tools by name."""
    request = pb.ListToolsRequest(
        status=output.enum_value(tool_pb2.ToolStatus, status, "--status"),
        transport=output.enum_value(tool_pb2.ToolTransport, transport, "--transport"),
        labels=labels(label or []),
    )
    tools = call(lambda services: take(services.tools.ListTools, request, "tools", tool_pb2.Tool, limit))
    output.show_list(tools, _COLUMNS, form)


@app.command()
def show(
    tool: ToolArgument,
    version: Annotated[int, typer.Option(help="An earlier version; 0 is the current one.", min=0)] = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show a tool."""
    output.show_one(call(lambda services: find_tool(services, tool, version)), form)


@app.command()
def register(file: FileOption, form: FormatOption = Format.TABLE) -> None:
    """Register a tool; its schemas are compiled, its examples and default settings checked."""
    tool, _, _ = from_file(file)

    async def work(services: Services) -> tool_pb2.Tool:
        return (await services.tools.RegisterTool(pb.RegisterToolRequest(tool=tool, request_id=str(uuid7())))).tool

    output.show_one(call(work), form)


@app.command()
def update(tool: ToolArgument, file: FileOption, etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Change the fields that a file holds, each as a whole, and make a new version.

    What `tools show -o yaml` writes can be changed and given back; the etag in it is asked for, so that nobody's change
    in between is overwritten. A change of what bindings are given for blocks every binding until it is bound again:
    `agents bind`.
    """
    changed, fields, read_etag = from_file(file)

    async def work(services: Services) -> pb.UpdateToolResponse:
        changed.tool_id = (await find_tool(services, tool)).tool_id
        request = pb.UpdateToolRequest(tool=changed, etag=etag or read_etag, request_id=str(uuid7()))
        request.update_mask.paths.extend(fields)
        return await services.tools.UpdateTool(request)

    output.show_one(call(work), form)


@app.command()
def deprecate(
    tool: ToolArgument, note: NoteOption = "", etag: EtagOption = "", form: FormatOption = Format.TABLE
) -> None:
    """Give a tool to no other agent; those that have it go on."""

    async def work(services: Services) -> tool_pb2.Tool:
        found = await find_tool(services, tool)
        request = pb.DeprecateToolRequest(tool_id=found.tool_id, note=note, etag=etag, request_id=str(uuid7()))
        return (await services.tools.DeprecateTool(request)).tool

    output.show_one(call(work), form)


@app.command()
def retire(tool: ToolArgument, note: NoteOption = "", etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Put a tool away for good: no agent can call it any more."""

    async def work(services: Services) -> pb.RetireToolResponse:
        found = await find_tool(services, tool)
        request = pb.RetireToolRequest(tool_id=found.tool_id, note=note, etag=etag, request_id=str(uuid7()))
        return await services.tools.RetireTool(request)

    output.show_one(call(work), form)


@app.command()
def versions(tool: ToolArgument, limit: LimitOption = 50, form: FormatOption = Format.TABLE) -> None:
    """List what a tool was in each of its versions, newest first."""

    async def work(services: Services) -> list[tool_pb2.Tool]:
        request = pb.ListToolVersionsRequest(tool_id=(await find_tool(services, tool)).tool_id)
        return await take(services.tools.ListToolVersions, request, "versions", tool_pb2.Tool, limit)

    output.show_list(call(work), _VERSION_COLUMNS, form)


@app.command()
def validate(
    tool: ToolArgument,
    arguments: Annotated[str, typer.Argument(metavar="ARGUMENTS", help="The arguments, a JSON object.")],
    version: Annotated[int, typer.Option(help="The version whose schema counts; 0 is the current one.", min=0)] = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check arguments against a tool's schema; the exit code is 1 when they don't fit."""
    tool_id, name = by_id_or_name(tool)
    request = pb.ValidateToolArgumentsRequest(
        tool_id=tool_id, name=name, version=version, arguments=json_object(arguments, "ARGUMENTS")
    )
    answer = call(lambda services: services.tools.ValidateToolArguments(request))
    if form is not Format.TABLE:
        output.show_one(answer, form)
    elif answer.valid:
        print("valid")
    else:
        for fault in answer.violations:
            print(f"{fault.path or '(all)'}: {output.one_line(fault.description)}")
    if not answer.valid:
        raise typer.Exit(1)


def from_file(path: Path) -> tuple[tool_pb2.Tool, list[str], str]:
    """Reads a tool, which of its fields a file holds, and its etag, from YAML or JSON with the contract's field names.

    What the registry alone can say is left out. Anything else than a tool is a usage error.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise typer.BadParameter(f"{path} holds no tool, but {type(content).__name__}.", param_hint="--file")
        given = {name: value for name, value in content.items() if name not in _TOLD}
        tool = ParseDict(given, tool_pb2.Tool())
    except (OSError, yaml.YAMLError, ParseError, AttributeError, UnicodeDecodeError) as fault:
        raise typer.BadParameter(f"{path} holds no tool: {output.one_line(str(fault))}", param_hint="--file") from None
    fields = [name for name in given if name in tool_pb2.Tool.DESCRIPTOR.fields_by_name]
    return tool, fields, str(content.get("etag", ""))
