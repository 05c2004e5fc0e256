"""What the gateway asks of the memory service, where that has no vectors of the gateway's embedding model."""

from array import array
from uuid import UUID, uuid4

import asyncpg
import pytest
from minion_gateway.runs.peer import MemoryPeer, NewMemory
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve


def said(agent_id: UUID, model: str) -> NewMemory:
    return NewMemory(
        agent_id=agent_id,
        user_id="ann",
        session_id=uuid4(),
        key="",
        kind="FACT",
        content="Ann drinks tea.",
        quote="",
        said_by_user=True,
        message_sequence=1,
        model=model,
        vector=array("f", [1.0, 0.0, 0.0]),
    )


@pytest.mark.parametrize("is_registered", [False, True], ids=["unknown", "installing"])
async def test_a_model_that_memory_has_no_vectors_of_is_left_to_its_own(
    postgres: ClonedDatabase, is_registered: bool
) -> None:
    model, agent_id, request_id = f"acme/{uuid4().hex}", uuid4(), uuid4()
    if is_registered:
        connection = await asyncpg.connect(postgres.dsn("memory"))
        await connection.fetch("SELECT memory.register_embedding_model($1, 3)", model)
        await connection.close()
    async with (
        serve("memory", postgres, gateway_address="127.0.0.1:1") as served,
        served.acting(uuid4()) as channel,
    ):
        peer, memory = MemoryPeer(channel), said(agent_id, model)
        assert [await peer.store(memory, request_id) for _ in range(2)] == ["CREATED", "CREATED"]
        found = await peer.search(
            agent_id, "ann", query="Tea?", model=model, vector=array("f", [1.0, 0.0, 0.0]), limit=5, min_score=0.1
        )
        assert [each.content for each in found] == ["Ann drinks tea."]
