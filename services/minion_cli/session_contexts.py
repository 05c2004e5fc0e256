"""`minion sessions context · summaries · fork · put-blob · get-blob`: what a model is shown of a session, and more."""

import mimetypes
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from minion.session.v1 import blob_pb2, blob_service_pb2, message_pb2, session_pb2, session_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]

_CHUNK_BYTES = 256 * 1024
_SYNTHETIC = "minion_synthetic"
_SUMMARY_COLUMNS = (
    Column("MESSAGES", lambda summary: f"{summary.first_sequence}-{summary.last_sequence}", right=True),
    Column("TOKENS", lambda summary: str(summary.token_count), right=True),
    Column("SAVED (UTC)", lambda summary: output.time_text(summary.create_time)),
    Column("MODEL", lambda summary: summary.model),
    Column("TEXT", lambda summary: summary.text, wide=True),
)


def register(app: typer.Typer, message_text: Callable[[message_pb2.Message], str]) -> None:
    """Adds the commands to `minion sessions`; `message_text` writes a message for a person."""
    columns = (
        Column("#", lambda message: str(message.sequence or "-"), right=True),
        Column("ROLE", lambda message: output.enum_text(message_pb2.MessageRole, message.role)),
        Column("TOKENS", lambda message: str(message.token_count), right=True),
        Column("TEXT", lambda message: ("(made) " if _is_made(message) else "") + message_text(message), wide=True),
    )

    @app.command()
    def context(
        session: SessionArgument,
        budget: Annotated[int, typer.Option(help="The most tokens; 0 means 8,000.")] = 0,
        messages: Annotated[int, typer.Option(help="The most messages; 0 means 50.")] = 0,
        form: FormatOption = Format.TABLE,
    ) -> None:
        """Show what a model is shown of a session: its summary and as many of the newest messages as fit."""
        request = session_service_pb2.GetContextRequest(session_id=session, token_budget=budget, max_messages=messages)

        async def work(services: Services) -> session_service_pb2.GetContextResponse:
            return await services.sessions.GetContext(request)

        found = call(work)
        if form is not Format.TABLE:
            output.show_one(found, form)
            return
        left_out = "; older messages are left out" if found.truncated else ""
        print(f"{found.token_count} tokens in {len(found.messages)} messages{left_out}")
        if found.HasField("summary"):
            print(summary_line(found.summary))
        output.show_list(found.messages, columns, form)

    app.command()(summaries)
    app.command()(fork)
    app.command("put-blob")(put_blob)
    app.command("get-blob")(get_blob)


def summaries(session: SessionArgument, limit: LimitOption = 20, form: FormatOption = Format.TABLE) -> None:
    """List what a session's messages up to a place come to, the newest first."""
    request = session_service_pb2.ListSummariesRequest(session_id=session)
    found = call(
        lambda services: take(services.sessions.ListSummaries, request, "summaries", session_pb2.Summary, limit)
    )
    output.show_list(found, _SUMMARY_COLUMNS, form)


def fork(
    session: SessionArgument,
    at: Annotated[int, typer.Option(help="The last message that the fork begins with; 0 means the last of all.")] = 0,
    name: Annotated[str, typer.Option(help="A name for people; the session's own when not given.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Open a session that begins with another one's messages."""

    async def work(services: Services) -> session_pb2.Session:
        request = session_service_pb2.ForkSessionRequest(
            session_id=session, at_sequence=at, display_name=name, request_id=str(uuid7())
        )
        return (await services.sessions.ForkSession(request)).session

    output.show_one(call(work), form)


def put_blob(
    session: SessionArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What to store.")],
    media_type: Annotated[str, typer.Option(help="Its media type; guessed from its name when not given.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Store a file beside a session's messages."""
    guessed = media_type or mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    async def work(services: Services) -> blob_pb2.Blob:
        header = blob_service_pb2.BlobHeader(
            session_id=session, media_type=guessed, name=file.name, size_bytes=file.stat().st_size
        )
        with file.open("rb") as content:
            return (await services.blobs.PutBlob(_pieces(header, content))).blob

    output.show_one(call(work), form)


def get_blob(
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="The blob's id.")],
    to: Annotated[Path | None, typer.Option(help="The file to write; standard output when not given.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="The first byte, from 0.")] = 0,
    length: Annotated[int, typer.Option(min=0, help="The most bytes; 0 means all that follow.")] = 0,
) -> None:
    """Write a blob's bytes, or a range of them."""
    request = blob_service_pb2.GetBlobRequest(blob_id=blob, offset=offset, length=length)

    async def write(services: Services, target: BinaryIO) -> None:
        async for piece in services.blobs.GetBlob(request):
            target.write(piece.chunk)
        target.flush()

    async def work(services: Services) -> None:
        if to is None:
            await write(services, sys.stdout.buffer)
            return
        with to.open("wb") as target:
            await write(services, target)

    call(work)


async def summary_lines(services: Services, session: str) -> list[str]:
    """Writes a session's summaries for a person, the newest first, a line each."""
    request = session_service_pb2.ListSummariesRequest(session_id=session)
    return [summary_line(summary) for summary in (await services.sessions.ListSummaries(request)).summaries]


def summary_line(summary: session_pb2.Summary) -> str:
    """Writes a summary for a person, in one line."""
    return f"summary of {summary.first_sequence}-{summary.last_sequence}: {output.one_line(summary.text)}"


def part_text(part: message_pb2.Part) -> str:
    """Writes what is no text, call or plain result as a person would note it: media, thinking, where a blob is."""
    match part.WhichOneof("content"):
        case "media":
            place = f"blob {part.media.blob_id}" if part.media.blob_id else part.media.uri
            return f"[{' '.join(filter(None, (part.media.media_type, part.media.name, place)))}]"
        case "thinking":
            return f"({part.thinking.text})"
        case "tool_result" if part.tool_result.blob_id:
            return f" [blob {part.tool_result.blob_id}]"
        case _:
            return ""


def _is_made(message: message_pb2.Message) -> bool:
    return message.metadata.fields[_SYNTHETIC].bool_value if _SYNTHETIC in message.metadata.fields else False


async def _pieces(
    header: blob_service_pb2.BlobHeader, content: BinaryIO
) -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
    yield blob_service_pb2.PutBlobRequest(header=header)
    while chunk := content.read(_CHUNK_BYTES):
        yield blob_service_pb2.PutBlobRequest(chunk=chunk)
