"""`minion agents`: what runs are driven by."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from google.protobuf.json_format import ParseDict, ParseError
from minion.registry.v1 import agent_pb2, agent_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import agent_apply, agent_finding, output
from minion_cli.agent_tools import AgentArgument
from minion_cli.agent_tools import register as register_tools
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent, find_tool
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.values import json_object, labels

app = group("Agents: what runs are driven by.")
for _part in (agent_apply, agent_finding):
    _part.register(app)

EtagOption = Annotated[str, typer.Option("--etag", help="Only if the agent is still as it was read with this etag.")]

_COLUMNS = (
    Column("NAME", lambda agent: agent.name),
    Column("STATUS", lambda agent: output.enum_text(agent_pb2.AgentStatus, agent.status)),
    Column("REVISION", lambda agent: str(agent.revision), right=True),
    Column("BEHAVIOR", lambda agent: agent.behavior_type),
    Column("MODEL", lambda agent: agent.llm.model or "(default)"),
    Column("AGENT ID", lambda agent: agent.agent_id),
    Column("UPDATED (UTC)", lambda agent: output.time_text(agent.update_time)),
)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: draft, active, inactive or archived.")] = None,
    behavior: Annotated[str, typer.Option(help="Only agents of this behaviour type.")] = "",
    capability: Annotated[str, typer.Option(help="Only agents that name this capability.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Only agents with this key=value label; repeatable.")] = None,
    metadata: Annotated[str, typer.Option(help="Only agents whose metadata holds all of this JSON object.")] = "{}",
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List agents, newest first."""
    request = agent_service_pb2.ListAgentsRequest(
        status=output.enum_value(agent_pb2.AgentStatus, status, "--status"),
        behavior_type=behavior,
        capability=capability,
        labels=labels(label or []),
        metadata=json_object(metadata, "--metadata"),
    )
    agents = call(lambda services: take(services.agents.ListAgents, request, "agents", agent_pb2.Agent, limit))
    output.show_list(agents, _COLUMNS, form)


@app.command()
def get(
    agent: AgentArgument,
    revision: Annotated[int, typer.Option(help="Another revision, staged or earlier; 0 is the live one.", min=0)] = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show an agent."""
    output.show_one(call(lambda services: find_agent(services, agent, revision)), form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The agent's name, unique in the tenant.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The agent as YAML or JSON, with the contract's field names.")
    ] = None,
    behavior: Annotated[str, typer.Option(help="conversational (no tools) or tool_use.")] = "",
    instructions: Annotated[str, typer.Option(help="The system prompt.")] = "",
    model: Annotated[str, typer.Option(help="provider/model; empty is the gateway's default.")] = "",
    tool: Annotated[list[str] | None, typer.Option(help="A registered tool that it may call; repeatable.")] = None,
    recall: Annotated[bool, typer.Option(help="Whether memories of the user are recalled for each turn.")] = True,
    activate: Annotated[bool, typer.Option("--activate", help="Let it take turns at once.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Create an agent as a draft."""
    agent = from_file(file) if file is not None else agent_pb2.Agent()
    if file is None:
        agent.behavior.memory.recall = recall
    agent.name = name or agent.name
    agent.behavior_type = behavior or agent.behavior_type or ("tool_use" if tool else "conversational")
    agent.instructions = instructions or agent.instructions
    agent.llm.model = model or agent.llm.model
    if not agent.name:
        raise typer.BadParameter("Give a name, or a file that holds one.", param_hint="NAME")

    async def work(services: Services) -> agent_pb2.Agent:
        bindings = [await find_tool(services, found) for found in tool or []]
        created = (
            await services.agents.CreateAgent(
                agent_service_pb2.CreateAgentRequest(agent=agent, request_id=str(uuid7()))
            )
        ).agent
        for bound in bindings:
            await services.agents.BindTool(
                agent_service_pb2.BindToolRequest(
                    agent_id=created.agent_id, tool_id=bound.tool_id, request_id=str(uuid7())
                )
            )
        if activate:
            return await _activate(services, created.agent_id, "")
        return await find_agent(services, created.agent_id)

    output.show_one(call(work), form)


@app.command()
def activate(agent: AgentArgument, etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Let an agent take turns."""

    async def work(services: Services) -> agent_pb2.Agent:
        return await _activate(services, (await find_agent(services, agent)).agent_id, etag)

    output.show_one(call(work), form)


@app.command()
def deactivate(agent: AgentArgument, etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Pause an agent: runs that were accepted finish, new ones are refused."""

    async def work(services: Services) -> agent_pb2.Agent:
        found = await find_agent(services, agent)
        request = agent_service_pb2.DeactivateAgentRequest(agent_id=found.agent_id, etag=etag, request_id=str(uuid7()))
        return (await services.agents.DeactivateAgent(request)).agent

    output.show_one(call(work), form)


@app.command()
def archive(agent: AgentArgument, etag: EtagOption = "", form: FormatOption = Format.TABLE) -> None:
    """Put an agent away for good; it stays readable."""

    async def work(services: Services) -> agent_pb2.Agent:
        found = await find_agent(services, agent)
        request = agent_service_pb2.ArchiveAgentRequest(agent_id=found.agent_id, etag=etag, request_id=str(uuid7()))
        return (await services.agents.ArchiveAgent(request)).agent

    output.show_one(call(work), form)


async def _activate(services: Services, agent_id: str, etag: str) -> agent_pb2.Agent:
    request = agent_service_pb2.ActivateAgentRequest(agent_id=agent_id, etag=etag, request_id=str(uuid7()))
    return (await services.agents.ActivateAgent(request)).agent


def from_file(path: Path) -> agent_pb2.Agent:
    """Reads an agent from YAML or JSON with the contract's field names; anything else is a usage error."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        agent = ParseDict(content, agent_pb2.Agent())
    except (OSError, yaml.YAMLError, ParseError, AttributeError, UnicodeDecodeError) as fault:
        raise typer.BadParameter(f"{path} holds no agent: {output.one_line(str(fault))}", param_hint="--file") from None
    return agent


register_tools(app, find_agent)
