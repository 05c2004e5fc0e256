"""What `minion agents` finds agents by, and shows of what they were; `minion_cli.agents` registers it."""

from typing import Annotated

import typer
from minion.registry.v1 import agent_pb2, agent_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent, is_id
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.")]


def _standing(agent: agent_pb2.Agent) -> str:
    if agent.revision == agent.live_revision:
        return "live"
    return "newest" if agent.revision == agent.latest_revision else ""


_HIT_COLUMNS = (
    Column("SCORE", lambda hit: f"{hit.score:.3f}", right=True),
    Column("NAME", lambda hit: hit.agent.name),
    Column("STATUS", lambda hit: output.enum_text(agent_pb2.AgentStatus, hit.agent.status)),
    Column("AGENT ID", lambda hit: hit.agent.agent_id),
    Column("CAPABILITIES", lambda hit: ", ".join(hit.agent.capabilities), wide=True),
    Column("DESCRIPTION", lambda hit: hit.agent.description, wide=True),
)
_REVISION_COLUMNS = (
    Column("REVISION", lambda agent: str(agent.revision), right=True),
    Column("IS", _standing),
    Column("NAME", lambda agent: agent.name),
    Column("MODEL", lambda agent: agent.llm.model or "(default)"),
    Column("MADE (UTC)", lambda agent: output.time_text(agent.update_time)),
    Column("INSTRUCTIONS", lambda agent: agent.instructions, wide=True),
)


def register(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    for command in (search, card, revisions, rollback):
        app.command()(command)


def search(
    query: Annotated[str, typer.Argument(help="Words to look for in names, capabilities and descriptions.")] = "",
    capability: Annotated[list[str] | None, typer.Option(help="A capability that it must name; repeatable.")] = None,
    status: Annotated[str | None, typer.Option(help="Only these: draft, active, inactive or archived.")] = None,
    limit: LimitOption = 20,
    form: FormatOption = Format.TABLE,
) -> None:
    """Find agents by what they can do, those that fit best first."""
    request = agent_service_pb2.SearchAgentsRequest(
        query=query, capabilities=capability or [], status=output.enum_value(agent_pb2.AgentStatus, status, "--status")
    )
    hits = call(lambda services: take(services.agents.SearchAgents, request, "hits", agent_pb2.AgentHit, limit))
    output.show_list(hits, _HIT_COLUMNS, form)


def card(agent: AgentArgument) -> None:
    """Print an active agent's A2A card, as JSON."""
    named = agent_service_pb2.GetAgentCardRequest(**{"agent_id" if is_id(agent) else "name": agent})

    async def work(services: Services) -> object:
        return output.plain((await services.agents.GetAgentCard(named)).card)

    output.dump(call(work), Format.JSON)


def revisions(agent: AgentArgument, limit: LimitOption = 50, form: FormatOption = Format.TABLE) -> None:
    """List an agent's revisions, staged ones included, newest first."""

    async def work(services: Services) -> list[agent_pb2.Agent]:
        request = agent_service_pb2.ListAgentRevisionsRequest(agent_id=(await find_agent(services, agent)).agent_id)
        return await take(services.agents.ListAgentRevisions, request, "revisions", agent_pb2.Agent, limit)

    output.show_list(call(work), _REVISION_COLUMNS, form)


def rollback(
    agent: AgentArgument,
    revision: Annotated[int, typer.Argument(help="The revision whose contents come back.", min=1)],
    etag: Annotated[str, typer.Option(help="Only if the agent is still as it was read with this etag.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Make a new live revision with the contents of an earlier one."""

    async def work(services: Services) -> agent_pb2.Agent:
        found = await find_agent(services, agent)
        request = agent_service_pb2.RollbackAgentRequest(
            agent_id=found.agent_id, revision=revision, etag=etag, request_id=str(uuid7())
        )
        return (await services.agents.RollbackAgent(request)).agent

    output.show_one(call(work), form)
