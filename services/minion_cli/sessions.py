"""`minion sessions`: what was said."""

from typing import Annotated

import typer
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.agents import find_agent
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.session_contexts import part_text, summary_lines
from minion_cli.session_contexts import register as register_contexts

app = group("Sessions: what was said.")

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]

_COLUMNS = (
    Column("SESSION ID", lambda session: session.session_id),
    Column("STATUS", lambda session: output.enum_text(session_pb2.SessionStatus, session.status)),
    Column("USER", lambda session: session.user_id),
    Column("MESSAGES", lambda session: str(session.last_sequence), right=True),
    Column("CREATED (UTC)", lambda session: output.time_text(session.create_time)),
    Column("AGENT ID", lambda session: session.agent_id),
    Column("NAME", lambda session: session.display_name, wide=True),
)


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only sessions with this agent, by name or id.")] = "",
    user: Annotated[str, typer.Option(help="Only sessions of this user.")] = "",
    status: Annotated[str | None, typer.Option(help="Only sessions that are active, closed or expired.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List sessions, newest first."""
    wanted = output.enum_value(session_pb2.SessionStatus, status, "--status")

    async def work(services: Services) -> list[session_pb2.Session]:
        agent_id = (await find_agent(services, agent)).agent_id if agent else ""
        request = session_service_pb2.ListSessionsRequest(agent_id=agent_id, user_id=user, status=wanted)
        return await take(services.sessions.ListSessions, request, "sessions", session_pb2.Session, limit)

    output.show_list(call(work), _COLUMNS, form)


@app.command()
def get(session: SessionArgument, form: FormatOption = Format.TABLE) -> None:
    """Show a session."""

    async def work(services: Services) -> session_pb2.Session:
        request = session_service_pb2.GetSessionRequest(session_id=session)
        return (await services.sessions.GetSession(request)).session

    output.show_one(call(work), form)


@app.command()
def show(session: SessionArgument, limit: LimitOption = 200, form: FormatOption = Format.TABLE) -> None:
    """Show what was said in a session, oldest first."""
    request = session_service_pb2.ListMessagesRequest(session_id=session)

    async def work(services: Services) -> list[message_pb2.Message]:
        if form is Format.TABLE:
            for line in await summary_lines(services, session):
                print(line)
        return await take(services.sessions.ListMessages, request, "messages", message_pb2.Message, limit)

    output.show_list(call(work), _MESSAGE_COLUMNS, form)


@app.command()
def close(session: SessionArgument, form: FormatOption = Format.TABLE) -> None:
    """Close a session; a run that had begun may still append its answer."""

    async def work(services: Services) -> session_pb2.Session:
        request = session_service_pb2.CloseSessionRequest(session_id=session, request_id=str(uuid7()))
        return (await services.sessions.CloseSession(request)).session

    output.show_one(call(work), form)


def message_text(message: message_pb2.Message) -> str:
    """Writes a message's parts as one text; calls of tools and their results as a person would note them."""
    return " ".join(_part_text(part) for part in message.parts)


def _part_text(part: message_pb2.Part) -> str:
    match part.WhichOneof("content"):
        case "text":
            return part.text
        case "tool_call":
            return f"→ {part.tool_call.name}({output.as_json(part.tool_call.arguments)})"
        case "tool_result":
            mark = "✗" if part.tool_result.is_error else "←"
            return f"{mark} {part.tool_result.name}: {output.as_json(part.tool_result.output)}{part_text(part)}"
        case _:
            return part_text(part)


_MESSAGE_COLUMNS = (
    Column("#", lambda message: str(message.sequence), right=True),
    Column("ROLE", lambda message: output.enum_text(message_pb2.MessageRole, message.role)),
    Column("TIME (UTC)", lambda message: output.time_text(message.create_time)),
    Column("TEXT", message_text, wide=True),
)

register_contexts(app, message_text)
