"""What `minion memories` changes, brings back, carries and erases; `minion_cli.memories` registers it."""

import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict, ParseError
from minion.memory.v1 import memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.connection import Services, call
from minion_cli.finding import find_agent
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

MemoryArgument = Annotated[str, typer.Argument(metavar="MEMORY", help="The memory's id.")]
EtagOption = Annotated[str, typer.Option("--etag", help="Only if the memory is still as it was read with this etag.")]
AgentOption = Annotated[str, typer.Option("--agent", help="Only memories of this agent, by name or id.")]
UserOption = Annotated[str, typer.Option("--user", help="Only memories about this user.")]

_REVISION_COLUMNS = (
    Column("REVISION", lambda revision: str(revision.memory.revision), right=True),
    Column("MADE (UTC)", lambda revision: output.time_text(revision.create_time)),
    Column("CAUSE", lambda revision: output.enum_text(memory_pb2.RevisionCause, revision.cause)),
    Column("BY", lambda revision: revision.principal),
    Column("REASON", lambda revision: revision.reason),
    Column("CONTENT", lambda revision: revision.memory.content, wide=True),
)


def register(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    for command in (update, history, rollback, export, erase):
        app.command()(command)
    app.command("import")(import_)


def update(
    memory: MemoryArgument,
    content: Annotated[str | None, typer.Option(help="What it says from now on.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="fact, preference, context or skill.")] = None,
    speaker: Annotated[str | None, typer.Option(help="Who said it.")] = None,
    importance: Annotated[float | None, typer.Option(help="How much it matters, 0 to 1.")] = None,
    confidence: Annotated[float | None, typer.Option(help="How sure it is, 0 to 1.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the revision.")] = "",
    etag: EtagOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Change a memory; what it was stays in its history."""
    kind = output.enum_value(memory_pb2.MemoryType, type_, "--type")
    given = {
        "content": content,
        "type": kind or None,
        "speaker": speaker,
        "importance": importance,
        "confidence": confidence,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        raise typer.BadParameter(f"name what changes: {', '.join(f'--{name}' for name in given)}")
    request = pb.UpdateMemoryRequest(
        memory=memory_pb2.Memory(memory_id=memory, **changed),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=list(changed)),
        etag=etag,
        reason=reason,
        request_id=str(uuid7()),
    )

    async def work(services: Services) -> memory_pb2.Memory:
        return (await services.memories.UpdateMemory(request)).memory

    output.show_one(call(work), form)


def history(memory: MemoryArgument, limit: LimitOption = 20, form: FormatOption = Format.TABLE) -> None:
    """Show the states that a memory was in, newest first."""
    request = pb.ListMemoryRevisionsRequest(memory_id=memory)

    async def work(services: Services) -> list[memory_pb2.MemoryRevision]:
        return await take(services.memories.ListMemoryRevisions, request, "revisions", memory_pb2.MemoryRevision, limit)

    output.show_list(call(work), _REVISION_COLUMNS, form)


def rollback(
    memory: MemoryArgument,
    revision: Annotated[int, typer.Argument(metavar="REVISION", help="Its state then, as in its history.", min=1)],
    etag: EtagOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Put a memory back into a former state, as its next revision."""
    request = pb.RollbackMemoryRequest(memory_id=memory, revision=revision, etag=etag, request_id=str(uuid7()))

    async def work(services: Services) -> memory_pb2.Memory:
        return (await services.memories.RollbackMemory(request)).memory

    output.show_one(call(work), form)


def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; standard output if none.")] = None,
    agent: AgentOption = "",
    user: UserOption = "",
    vectors: Annotated[bool, typer.Option("--vectors", help="Send their vectors along.")] = False,
) -> None:
    """Write memories to a file, one JSON object a line, newest first."""

    async def work(services: Services) -> int:
        agent_id = (await find_agent(services, agent)).agent_id if agent else ""
        request = pb.ExportMemoriesRequest(agent_id=agent_id, user_id=user, include_vectors=vectors)
        count = 0
        with nullcontext(sys.stdout) if file is None else file.open("w", encoding="utf-8") as sink:
            async for part in services.memories.ExportMemories(request):
                sink.write(json.dumps(output.as_dict(part.memory), ensure_ascii=False) + "\n")
                count += 1
        return count

    print(f"exported {call(work)}", file=sys.stderr)


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `minion memories export` wrote.", exists=True, dir_okay=False),
    ],
    form: FormatOption = Format.TABLE,
) -> None:
    """Store the memories of a file; importing again changes nothing that is there."""
    # A pipe can be read but once.
    kept = None if file.is_file() else file.read_bytes().split(b"\n")

    # Read once before: a fault met on the way would break the stream off, and nobody would hear of it.
    for _ in _read(file, kept):
        pass

    async def requests() -> AsyncIterator[pb.ImportMemoriesRequest]:
        for memory in _read(file, kept):
            yield pb.ImportMemoriesRequest(memory=memory)

    async def work(services: Services) -> pb.ImportMemoriesResponse:
        return await services.memories.ImportMemories(requests())

    output.show_one(call(work), form)


def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose memories are to go.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Delete all that the memory service keeps of a user, and show the receipt."""
    request = pb.EraseSubjectRequest(user_id=user, request_id=str(uuid7()))

    async def work(services: Services) -> pb.ErasureReceipt:
        return (await services.memories.EraseSubject(request)).receipt

    output.show_one(call(work), form)


def _read(file: Path, kept: Sequence[bytes] | None) -> Iterator[pb.NewMemory]:
    with file.open("rb") if kept is None else nullcontext(kept) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                given = json.loads(line)
                if not isinstance(given, dict):
                    raise ValueError("it is no JSON object")
                memory = ParseDict(given, pb.NewMemory())
            except (ValueError, ParseError, RecursionError) as fault:
                raise typer.BadParameter(
                    f"line {number} of {file} holds no memory: {output.one_line(str(fault))}", param_hint="FILE"
                ) from None
            yield memory
