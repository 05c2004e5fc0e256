"""What `minion agents` does about an agent's tools; `minion_cli.agents` registers it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.finding import find_tool
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.tools import ToolArgument
from minion_cli.values import json_object

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.")]
FindAgent = Callable[[Services, str], Awaitable[agent_pb2.Agent]]

_COLUMNS = (
    Column("NAME", lambda bound: bound.tool.name),
    Column("STATE", lambda bound: output.enum_text(agent_pb2.BindingState, bound.state)),
    Column("TRANSPORT", lambda bound: output.enum_text(tool_pb2.ToolTransport, bound.tool.transport)),
    Column("EFFECT", lambda bound: output.enum_text(tool_pb2.ToolEffect, bound.tool.effect)),
    Column("TOOL ID", lambda bound: bound.tool.tool_id),
    Column("DESCRIPTION", lambda bound: bound.tool.description, wide=True),
)


def register(app: typer.Typer, find_agent: FindAgent) -> None:
    """Adds the commands to the group; `find_agent` gets an agent by its name or id."""

    @app.command()
    def tools(agent: AgentArgument, limit: LimitOption = 128, form: FormatOption = Format.TABLE) -> None:
        """List the tools that an agent may call, blocked ones included."""

        async def work(services: Services) -> list[agent_pb2.AgentTool]:
            found = await find_agent(services, agent)
            request = agent_service_pb2.ListAgentToolsRequest(agent_id=found.agent_id)
            return await take(services.agents.ListAgentTools, request, "agent_tools", agent_pb2.AgentTool, limit)

        output.show_list(call(work), _COLUMNS, form)

    @app.command()
    def bind(
        agent: AgentArgument,
        tool: ToolArgument,
        configuration: Annotated[
            str, typer.Option(help="Settings of the tool for this agent, a JSON object; laid over the tool's own.")
        ] = "{}",
        expect: Annotated[
            str, typer.Option("--expect", metavar="DIGEST", help="Only if the tool still has this digest.")
        ] = "",
        form: FormatOption = Format.TABLE,
    ) -> None:
        """Let an agent call a tool; again, it replaces the settings and frees a binding that is blocked."""
        settings = json_object(configuration, "--configuration")

        async def work(services: Services) -> agent_pb2.AgentTool:
            request = agent_service_pb2.BindToolRequest(
                agent_id=(await find_agent(services, agent)).agent_id,
                tool_id=(await find_tool(services, tool)).tool_id,
                configuration=settings,
                expected_digest=expect,
                request_id=str(uuid7()),
            )
            return (await services.agents.BindTool(request)).agent_tool

        output.show_one(call(work), form)

    @app.command()
    def unbind(agent: AgentArgument, tool: ToolArgument) -> None:
        """Take a tool from an agent."""

        async def work(services: Services) -> None:
            request = agent_service_pb2.UnbindToolRequest(
                agent_id=(await find_agent(services, agent)).agent_id,
                tool_id=(await find_tool(services, tool)).tool_id,
                request_id=str(uuid7()),
            )
            await services.agents.UnbindTool(request)

        call(work)
        print("unbound")
