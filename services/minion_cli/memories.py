"""`minion memories`: what agents remember of users."""

from typing import Annotated

import typer
from minion.memory.v1 import memory_pb2, memory_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import memory_jobs, output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.explanations import explained
from minion_cli.finding import find_agent
from minion_cli.memory_changes import MemoryArgument, register
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

app = group("Memories: what agents remember of users.")
register(app)
memory_jobs.register(app)

AgentOption = Annotated[str, typer.Option("--agent", help="The agent that remembers, by name or id.")]
UserOption = Annotated[str, typer.Option("--user", help="The user it is about.")]

_COLUMNS = (
    Column("TYPE", lambda memory: output.enum_text(memory_pb2.MemoryType, memory.type)),
    Column("USER", lambda memory: memory.user_id),
    Column("KEY", lambda memory: memory.key),
    Column("TRUST", lambda memory: output.enum_text(memory_pb2.MemoryTrust, memory.trust)),
    Column("UPDATED (UTC)", lambda memory: output.time_text(memory.update_time)),
    Column("MEMORY ID", lambda memory: memory.memory_id),
    Column("CONTENT", lambda memory: memory.content, wide=True),
)
_HIT_COLUMNS = (
    Column("SCORE", lambda hit: f"{hit.score:.3f}", right=True),
    Column("TYPE", lambda hit: output.enum_text(memory_pb2.MemoryType, hit.memory.type)),
    Column("MEMORY ID", lambda hit: hit.memory.memory_id),
    Column("CONTENT", lambda hit: hit.memory.content, wide=True),
)


@app.command("list")
def list_(
    agent: AgentOption = "",
    user: UserOption = "",
    type_: Annotated[
        str | None, typer.Option("--type", help="Only memories of this type: fact, preference, context or skill.")
    ] = None,
    session: Annotated[str, typer.Option(help="Only memories drawn from this session.")] = "",
    ended: Annotated[bool, typer.Option("--ended", help="Those that are no longer so too.")] = False,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List memories, newest first."""
    wanted = output.enum_value(memory_pb2.MemoryType, type_, "--type")

    async def work(services: Services) -> list[memory_pb2.Memory]:
        agent_id = (await find_agent(services, agent)).agent_id if agent else ""
        request = memory_service_pb2.ListMemoriesRequest(
            agent_id=agent_id, user_id=user, type=wanted, session_id=session, include_ended=ended
        )
        return await take(services.memories.ListMemories, request, "memories", memory_pb2.Memory, limit)

    output.show_list(call(work), _COLUMNS, form)


@app.command()
def get(memory: MemoryArgument, form: FormatOption = Format.TABLE) -> None:
    """Show a memory."""

    async def work(services: Services) -> memory_pb2.Memory:
        return (await services.memories.GetMemory(memory_service_pb2.GetMemoryRequest(memory_id=memory))).memory

    output.show_one(call(work), form)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    agent: Annotated[str, typer.Option(help="The agent that remembers, by name or id.")],
    user: Annotated[str, typer.Option(help="The user it is about.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="The most memories to find.")] = 10,
    minimum: Annotated[float | None, typer.Option("--min-score", help="Least cosine similarity, -1 to 1.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show why each was found, and how.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Find memories by meaning and by words, best first."""

    async def work(services: Services) -> memory_service_pb2.SearchMemoriesResponse:
        request = memory_service_pb2.SearchMemoriesRequest(
            agent_id=(await find_agent(services, agent)).agent_id,
            user_id=user,
            query=query,
            min_score=minimum,
            limit=limit,
        )
        return await services.memories.SearchMemories(request)

    found = call(work)
    if not explain:
        output.show_list(found.hits, _HIT_COLUMNS, form)
    elif form is Format.TABLE:
        for line in explained(found):
            print(line)
    else:
        output.show_one(found, form)


@app.command()
def store(
    content: Annotated[str, typer.Argument(help="What is to be remembered.")],
    agent: Annotated[str, typer.Option(help="The agent that is to remember it, by name or id.")],
    user: Annotated[str, typer.Option(help="The user it is about.")],
    type_: Annotated[str, typer.Option("--type", help="fact, preference, context or skill.")] = "fact",
    key: Annotated[str, typer.Option(help="What it is filed under; what stands there is replaced.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Store a memory."""
    kind = output.enum_value(memory_pb2.MemoryType, type_, "--type")

    async def work(services: Services) -> memory_service_pb2.StoreResult:
        memory = memory_pb2.Memory(
            agent_id=(await find_agent(services, agent)).agent_id, user_id=user, type=kind, key=key, content=content
        )
        request = memory_service_pb2.StoreMemoriesRequest(
            memories=[memory_service_pb2.NewMemory(memory=memory)], request_id=str(uuid7())
        )
        return (await services.memories.StoreMemories(request)).results[0]

    output.show_one(call(work), form)


@app.command()
def delete(memory: MemoryArgument) -> None:
    """Delete a memory for good."""

    async def work(services: Services) -> None:
        await services.memories.DeleteMemory(
            memory_service_pb2.DeleteMemoryRequest(memory_id=memory, request_id=str(uuid7()))
        )

    call(work)
    print(f"deleted {memory}")
