"""What `minion sessions` does to a session's life, and how it is watched; `minion_cli.sessions` registers it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from minion.session.v1 import message_pb2, session_pb2
from minion.session.v1 import session_service_pb2 as pb
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.output import Format, FormatOption
from minion_cli.spans import span

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
EtagOption = Annotated[str, typer.Option("--etag", help="Only if the session is still as it was read with this etag.")]


def register(app: typer.Typer, message_text: Callable[[message_pb2.Message], str]) -> None:
    """Adds the commands to the group; `message_text` writes a message's parts as one text."""
    for command in (update, extend, close, archive, delete, cleanup, erase):
        app.command()(command)

    @app.command()
    def watch(
        session: Annotated[
            str,
            typer.Argument(metavar="[SESSION]", help="Show its messages; without one, what happens to all sessions."),
        ] = "",
        after: Annotated[int, typer.Option(help="Only messages after this sequence.", min=0)] = 0,
        cursor: Annotated[str, typer.Option(help="Go on behind this cursor of an earlier watch of all sessions.")] = "",
        until_synced: Annotated[
            bool, typer.Option("--until-synced", help="Stop once all that is there was shown.")
        ] = False,
        form: FormatOption = Format.TABLE,
    ) -> None:
        """Show messages as they come, or what happens to sessions; programs get one JSON object a line."""
        # A list has an end, a stream hasn't: what is written must be whole after each line.
        as_lines = form is not Format.TABLE

        async def messages(services: Services) -> None:
            request = pb.WatchMessagesRequest(session_id=session, after_sequence=after)
            async for sent in services.sessions.WatchMessages(request):
                if sent.HasField("message"):
                    _say(sent.message, _message_line(sent.message, message_text(sent.message)), as_lines=as_lines)
                elif until_synced:
                    return

        async def changes(services: Services) -> None:
            synced = 0
            async for sent in services.sessions.WatchSessions(pb.WatchSessionsRequest(cursor=cursor)):
                if sent.kind != session_pb2.SESSION_CHANGE_KIND_SYNCED:
                    _say(sent, _change_line(sent), as_lines=as_lines)
                    continue
                # The first one comes before the changes behind a cursor.
                synced += 1
                if until_synced and (synced > 1 or not cursor):
                    _say(sent, f"cursor {sent.cursor}", as_lines=as_lines)
                    return

        call(messages if session else changes)


def update(
    session: SessionArgument,
    name: Annotated[str | None, typer.Option("--name", help="The new name; empty takes it away.")] = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="A YAML or JSON file that holds the new metadata.")
    ] = None,
    etag: EtagOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Change a session's name or metadata."""
    changed = session_pb2.Session(session_id=session)
    paths = []
    if name is not None:
        changed.display_name = name
        paths.append("display_name")
    if metadata is not None:
        changed.metadata.CopyFrom(_struct_from(metadata))
        paths.append("metadata")
    if not paths:
        raise typer.BadParameter("Say what changes.", param_hint="--name or --metadata")
    request = pb.UpdateSessionRequest(
        session=changed, update_mask=FieldMask(paths=paths), etag=etag, request_id=str(uuid7())
    )

    async def work(services: Services) -> session_pb2.Session:
        return (await services.sessions.UpdateSession(request)).session

    output.show_one(call(work), form)


def extend(
    session: SessionArgument,
    ttl: Annotated[
        str | None, typer.Option(help="How long it lives from now on, such as 90s, 15m, 12h or 30d; else for ever.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Give a session that is active or expired another time to live."""
    request = pb.ExtendSessionRequest(session_id=session, ttl=span(ttl, "--ttl"), request_id=str(uuid7()))

    async def work(services: Services) -> session_pb2.Session:
        return (await services.sessions.ExtendSession(request)).session

    output.show_one(call(work), form)


def close(session: SessionArgument, form: FormatOption = Format.TABLE) -> None:
    """Close a session; a run that had begun may still append its answer."""
    request = pb.CloseSessionRequest(session_id=session, request_id=str(uuid7()))

    async def work(services: Services) -> session_pb2.Session:
        return (await services.sessions.CloseSession(request)).session

    output.show_one(call(work), form)


def archive(session: SessionArgument, form: FormatOption = Format.TABLE) -> None:
    """Put a session away that is closed or expired; it stays readable and changes no more."""
    request = pb.ArchiveSessionRequest(session_id=session, request_id=str(uuid7()))

    async def work(services: Services) -> session_pb2.Session:
        return (await services.sessions.ArchiveSession(request)).session

    output.show_one(call(work), form)


def delete(session: SessionArgument) -> None:
    """Delete a session with its messages, blobs, summaries and working memory."""
    request = pb.DeleteSessionRequest(session_id=session, request_id=str(uuid7()))

    async def work(services: Services) -> None:
        await services.sessions.DeleteSession(request)

    call(work)


def cleanup(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The most sessions to take.")] = 1_000,
    form: FormatOption = Format.TABLE,
) -> None:
    """Tell of sessions whose time is up that they expired, and delete those that did long ago."""
    request = pb.CleanupExpiredSessionsRequest(limit=limit)

    async def work(services: Services) -> pb.CleanupExpiredSessionsResponse:
        return await services.sessions.CleanupExpiredSessions(request)

    done = call(work)
    if form is Format.TABLE:
        print(f"{done.expired_count} expired, {done.deleted_count} deleted")
    else:
        output.show_one(done, form)


def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user, as sessions name them.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Delete all that the session service keeps of a user, and show the receipt."""
    request = pb.EraseSubjectRequest(user_id=user, request_id=str(uuid7()))

    async def work(services: Services) -> pb.ErasureReceipt:
        return (await services.sessions.EraseSubject(request)).receipt

    output.show_one(call(work), form)


def _message_line(message: message_pb2.Message, text: str) -> str:
    role = output.enum_text(message_pb2.MessageRole, message.role)
    return f"{message.sequence:>6}  {role:<9}  {output.one_line(text)}"


def _change_line(change: pb.WatchSessionsResponse) -> str:
    kind = output.enum_text(session_pb2.SessionChangeKind, change.kind)
    return f"{output.time_text(change.create_time)}  {kind:<8}  {change.session_id}"


def _say(message: Message, line: str, *, as_lines: bool) -> None:
    print(json.dumps(output.as_dict(message), ensure_ascii=False) if as_lines else line, flush=True)


def _struct_from(path: Path) -> Struct:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ParseDict(content, Struct())
    except (OSError, yaml.YAMLError, ParseError, AttributeError, TypeError, UnicodeDecodeError) as fault:
        raise typer.BadParameter(
            f"{path} holds no object: {output.one_line(str(fault))}", param_hint="--metadata"
        ) from None
