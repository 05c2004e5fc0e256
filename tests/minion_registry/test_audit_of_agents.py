"""What the audit is told of agents: each change that stands, once, with who made it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, agent


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as maintenance sees it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


async def audit(owner: Database, tenant: Caller) -> list[dict[str, Any]]:
    """What was written down for a tenant, in order."""
    rows = await owner.fetch(
        "SELECT principal, payload FROM registry.outbox WHERE tenant_id = $1 AND payload ->> 'name' LIKE 'agent.%'"
        " ORDER BY activity_id",
        tenant.tenant_id,
    )
    assert all(row["principal"].startswith("key:") for row in rows)
    payloads = [row["payload"] for row in rows]
    return [json.loads(payload) if isinstance(payload, str | bytes) else payload for payload in payloads]


def change(agent_id: str, *, stage: bool = False, request_id: str = "", **fields: str) -> pb.UpdateAgentRequest:
    """A request that changes fields."""
    return pb.UpdateAgentRequest(
        agent=agent_pb2.Agent(agent_id=agent_id, **fields),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=list(fields)),
        stage=stage,
        request_id=request_id,
    )


async def test_each_change_is_told(tenant: Caller, owner: Database) -> None:
    made = await tenant.create(name="told", instructions="a secret wish")
    agent_id = made.agent_id
    await tenant.agents.UpdateAgent(change(agent_id, display_name="", instructions="another"))
    await tenant.agents.UpdateAgent(change(agent_id, stage=True, description="staged"))
    await tenant.agents.RollbackAgent(pb.RollbackAgentRequest(agent_id=agent_id, revision=1))
    await tenant.activate(agent_id)
    await tenant.deactivate(agent_id)
    await tenant.archive(agent_id)
    await tenant.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent_id))
    told = await audit(owner, tenant)
    assert [(entry["name"], entry["agent_revision"], entry["input"]) for entry in told] == [
        ("agent.create", 1, {"name": "told"}),
        ("agent.update", 2, {"staged": False, "base_revision": 1, "fields": ["instructions"]}),
        ("agent.update", 3, {"staged": True, "base_revision": 2, "fields": ["description"]}),
        ("agent.rollback", 4, {"from_revision": 1}),
        ("agent.activate", 4, {"from": "DRAFT"}),
        ("agent.deactivate", 4, {"from": "ACTIVE"}),
        ("agent.archive", 4, {"from": "INACTIVE"}),
        ("agent.delete", 4, {"name": "told"}),
    ]
    assert {entry["agent_id"] for entry in told} == {agent_id}
    assert "secret" not in json.dumps(told)


async def test_what_is_refused_or_repeated_is_not_told(tenant: Caller, stranger: Caller, owner: Database) -> None:
    create = pb.CreateAgentRequest(agent=agent(name="once"), request_id=str(uuid7()))
    made = (await tenant.agents.CreateAgent(create)).agent
    await tenant.agents.CreateAgent(create)
    request = change(made.agent_id, request_id=str(uuid7()), instructions="x")
    for _ in range(2):
        await tenant.agents.UpdateAgent(request)
    move = pb.ActivateAgentRequest(agent_id=made.agent_id, request_id=str(uuid7()))
    for _ in range(2):
        await tenant.agents.ActivateAgent(move)
    before = [entry["name"] for entry in await audit(owner, tenant)]
    assert before == ["agent.create", "agent.update", "agent.activate"]
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "AGENT_NAME_TAKEN"):
        await tenant.create(name="once")
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_TRANSITION_ILLEGAL"):
        await tenant.archive(made.agent_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE"):
        await tenant.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=made.agent_id))
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
        await tenant.agents.RollbackAgent(pb.RollbackAgentRequest(agent_id=made.agent_id, revision=9))
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
        await stranger.agents.UpdateAgent(change(made.agent_id, instructions="y"))
    assert [entry["name"] for entry in await audit(owner, tenant)] == before
    assert await audit(owner, stranger) == []
