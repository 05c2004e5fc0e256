"""`minion chat`: a conversation with an agent, in a terminal or from a pipe."""

import asyncio
import getpass
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Annotated

import typer
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.session.v1 import session_pb2, session_service_pb2
from minion_errors import FailedPrecondition, InvalidArgument
from rich.console import Console
from rich.text import Text
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import single
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.turn import Turn, TurnView

app = single("Talk to an agent; a line is a turn, an empty line or Ctrl-D ends it.")


@app.command()
def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.")] = "demo",
    session: Annotated[str, typer.Option(help="Go on in this session instead of a new one.")] = "",
    user: Annotated[str, typer.Option(help="Who talks; memories are kept for each user.")] = "",
) -> None:
    """Talk to an agent; a line is a turn, an empty line or Ctrl-D ends it."""

    async def work(services: Services) -> bool:
        return await _converse(services, agent, session, user or _login())

    if not call(work):
        raise typer.Exit(1)


def _login() -> str:
    """Names the user of this terminal; a container's may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


async def stream_turn(services: Services, session_id: str, text: str, view: TurnView) -> Turn:
    """Runs one turn and shows it as it happens."""
    request = run_service_pb2.StreamRunRequest(session_id=session_id, text=text, request_id=str(uuid7()))
    stream = services.runs.StreamRun(request)

    async def events() -> AsyncIterator[run_pb2.RunEvent]:
        async for response in stream:
            yield response.event

    try:
        return await view.follow(events())
    finally:
        # An abandoned call is never collected by grpc.
        stream.cancel()


async def open_session(services: Services, agent_id: str, user: str, display_name: str = "") -> session_pb2.Session:
    """Opens a session of a user with an agent."""
    request = session_service_pb2.CreateSessionRequest(
        agent_id=agent_id, user_id=user, display_name=display_name, request_id=str(uuid7())
    )
    return (await services.sessions.CreateSession(request)).session


async def _converse(services: Services, agent: str, session_id: str, user: str) -> bool:
    """Holds the conversation; returns whether every turn was answered."""
    console = output.console()
    if session_id:
        request = session_service_pb2.GetSessionRequest(session_id=session_id)
        session = (await services.sessions.GetSession(request)).session
        if session.status != session_pb2.SESSION_STATUS_ACTIVE:
            status = output.enum_text(session_pb2.SessionStatus, session.status)
            raise FailedPrecondition(f"The session is {status}.", reason="SESSION_NOT_ACTIVE")
        found = await find_agent(services, session.agent_id)
    else:
        found = await find_agent(services, agent)
        session = await open_session(services, found.agent_id, user, "minion chat")
    interactive = sys.stdin.isatty()
    if interactive:
        console.print(Text(f"{found.name} · session {session.session_id} · user {session.user_id}", "dim"))
    view = TurnView(console, speaker=found.name)
    answered = True
    # Summaries are made after a turn: what came meanwhile is told before the next one.
    summarized = found.behavior.summary.enabled
    seen = await _newest_summary(services, session.session_id) if summarized and session_id else None
    while (line := await _next_line(console if interactive else None)) is not None:
        if summarized:
            made = await _newest_summary(services, session.session_id)
            if made is not None and (seen is None or made.summary_id != seen.summary_id):
                view.tell_summary(made)
            seen = made
        turn = await stream_turn(services, session.session_id, line, view)
        view.close(turn)
        answered = answered and turn.run.state == run_pb2.RUN_STATE_COMPLETED
    if not interactive:
        console.print(Text(f"  session {session.session_id}", "dim"))
    return answered


async def _newest_summary(services: Services, session_id: str) -> session_pb2.Summary | None:
    """Gets the newest summary of a session, if it has one."""
    request = session_service_pb2.ListSummariesRequest(session_id=session_id, page_size=1)
    found = (await services.sessions.ListSummaries(request)).summaries
    return found[0] if found else None


async def _next_line(console: Console | None) -> str | None:
    """Waits for a line on a thread that nobody waits for: a pool's would hold up Ctrl-C until the next Enter."""
    line: Future[str | None] = Future()
    line.set_running_or_notify_cancel()

    def read() -> None:
        try:
            line.set_result(_read_line(console))
        except Exception as fault:  # noqa: BLE001 - whoever waits is told
            line.set_exception(fault)

    threading.Thread(target=read, name="minion-chat-input", daemon=True).start()
    return await asyncio.wrap_future(line)


def _read_line(console: Console | None) -> str | None:
    """Reads the next turn: in a terminal until an empty line, from a pipe until its end, empty lines passed over."""
    try:
        if console is not None:
            return console.input(Text("you  ", "bold")).strip() or None
        return next((line.strip() for line in sys.stdin if line.strip()), None)
    except UnicodeDecodeError:
        raise InvalidArgument("What was said is no text in UTF-8.") from None
    except EOFError:
        print()
    except OSError:
        # The terminal is gone.
        pass
    return None
