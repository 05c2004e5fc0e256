"""`minion sessions`: what was said."""

from typing import Annotated

import typer
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.session_contexts import part_text, summary_lines
from minion_cli.session_contexts import register as register_contexts
from minion_cli.session_life import SessionArgument, register

app = group("Sessions: what was said.")

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
    status: Annotated[str | None, typer.Option(help="Only these: active, closed, expired or archived.")] = None,
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
    """Show how a session stands and what was said in it, oldest first; programs get the messages alone."""
    request = session_service_pb2.ListMessagesRequest(session_id=session)

    async def work(services: Services) -> list[message_pb2.Message]:
        if form is Format.TABLE:
            found = (
                await services.sessions.GetSession(session_service_pb2.GetSessionRequest(session_id=session))
            ).session
            workspace = await services.sessions.GetWorkspace(
                session_service_pb2.GetWorkspaceRequest(session_id=session)
            )
            print(_summary(found, len(workspace.entries)), end="\n\n")
            for line in await summary_lines(services, session):
                print(line)
        return await take(services.sessions.ListMessages, request, "messages", message_pb2.Message, limit)

    output.show_list(call(work), _MESSAGE_COLUMNS, form)


def _summary(session: session_pb2.Session, entries: int) -> str:
    """Writes what a person wants to know of a session beside what was said in it."""
    facts = [
        ("session", session.session_id),
        ("name", session.display_name),
        ("status", output.enum_text(session_pb2.SessionStatus, session.status)),
        ("user", session.user_id),
        ("agent", session.agent_id),
        ("created", f"{output.time_text(session.create_time)} UTC"),
        ("expires", f"{output.time_text(session.expire_time)} UTC" if session.HasField("expire_time") else "never"),
        ("closed", f"{output.time_text(session.close_time)} UTC" if session.HasField("close_time") else ""),
        ("archived", f"{output.time_text(session.archive_time)} UTC" if session.HasField("archive_time") else ""),
        (
            "parent",
            f"{session.parent_session_id} up to message {session.fork_sequence}" if session.parent_session_id else "",
        ),
        ("messages", str(session.last_sequence)),
        ("workspace", f"{entries} entries"),
    ]
    return "\n".join(f"{name:<10} {output.one_line(fact)}" for name, fact in facts if fact)


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

register(app, message_text)
register_contexts(app, message_text)
