"""ActivateAgent, DeactivateAgent, ArchiveAgent: over the wire, and in the database by itself."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import FailedPrecondition
from minion_registry.agents.domain import AgentStatus
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller

DRAFT, ACTIVE, INACTIVE, ARCHIVED = AgentStatus
Move = tuple[AgentStatus, Callable[[Caller, str, str, str], Awaitable[Any]]]


def _activate(caller: Caller, agent_id: str, etag: str, request_id: str) -> Awaitable[Any]:
    return caller.agents.ActivateAgent(pb.ActivateAgentRequest(agent_id=agent_id, etag=etag, request_id=request_id))


def _deactivate(caller: Caller, agent_id: str, etag: str, request_id: str) -> Awaitable[Any]:
    return caller.agents.DeactivateAgent(pb.DeactivateAgentRequest(agent_id=agent_id, etag=etag, request_id=request_id))


def _archive(caller: Caller, agent_id: str, etag: str, request_id: str) -> Awaitable[Any]:
    return caller.agents.ArchiveAgent(pb.ArchiveAgentRequest(agent_id=agent_id, etag=etag, request_id=request_id))


MOVES: Sequence[Move] = [(ACTIVE, _activate), (INACTIVE, _deactivate), (ARCHIVED, _archive)]
# The moves by which a draft comes to each status.
PATHS = {DRAFT: [], ACTIVE: [ACTIVE], INACTIVE: [ACTIVE, INACTIVE], ARCHIVED: [ARCHIVED]}


async def bring(tenant: Caller, status: AgentStatus) -> agent_pb2.Agent:
    """Creates an agent and brings it to a status."""
    made = await tenant.create()
    for step in PATHS[status]:
        made = (await dict(MOVES)[step](tenant, made.agent_id, "", "")).agent
    return made


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.sampled_from(MOVES), max_size=8))
async def test_random_moves_go_as_the_rules_say(tenant: Caller, steps: list[Move]) -> None:
    now = await tenant.create()
    status = DRAFT
    for to, move in steps:
        if status.may_become(to):
            moved = (await move(tenant, now.agent_id, now.etag, "")).agent
            assert moved.etag != now.etag
            assert moved.revision == now.revision
            now, status = moved, to
        else:
            async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_TRANSITION_ILLEGAL") as refusal:
                await move(tenant, now.agent_id, now.etag, "")
            assert (refusal.metadata["from"], refusal.metadata["to"]) == (status.name, to.name)
        assert await tenant.get(now.agent_id) == now
        assert agent_pb2.AgentStatus.Name(now.status) == f"AGENT_STATUS_{status.name}"


@pytest.mark.parametrize("to", AgentStatus)
@pytest.mark.parametrize("status", AgentStatus)
async def test_the_database_refuses_what_the_rules_refuse(
    tenant: Caller, postgres: ClonedDatabase, status: AgentStatus, to: AgentStatus
) -> None:
    made = await bring(tenant, status)
    update = "UPDATE registry.agents SET status = $2, version = version + 1 WHERE agent_id = $1::text::uuid"
    async with await postgres.connect("registry", "owner") as database:
        if (status is to and status is not ARCHIVED) or status.may_become(to):
            assert await database.execute(update, made.agent_id, to.value) == 1
        else:
            with pytest.raises(FailedPrecondition) as raised:
                await database.execute(update, made.agent_id, to.value)
            if status is not to:
                assert raised.value.reason == "AGENT_TRANSITION_ILLEGAL"
                assert (raised.value.metadata["from"], raised.value.metadata["to"]) == (status.name, to.name)


async def test_the_database_takes_drafts_and_known_statuses_alone(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await tenant.create()
    copy = (
        "INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type,"
        " instructions, llm, capabilities, behavior, metadata, labels, status)"
        " SELECT tenant_id, gen_random_uuid(), $2, display_name, description, behavior_type, instructions, llm,"
        " capabilities, behavior, metadata, labels, $3 FROM registry.agents WHERE agent_id = $1::text::uuid"
    )
    async with await postgres.connect("registry", "owner") as database:
        assert await database.execute(copy, made.agent_id, "copy", "draft") == 1
        with pytest.raises(FailedPrecondition):
            await database.execute(copy, made.agent_id, "other", "active")
        with pytest.raises(FailedPrecondition):
            await database.execute(copy, made.agent_id, "other", "retired")
        with pytest.raises(asyncpg.CheckViolationError):
            await database.execute(
                "UPDATE registry.agents SET version = 0 WHERE agent_id = $1::text::uuid", made.agent_id
            )


@pytest.mark.parametrize(("to", "move"), MOVES)
async def test_a_move_may_be_repeated(tenant: Caller, to: AgentStatus, move: Any) -> None:
    made = await bring(tenant, ACTIVE if to is INACTIVE else DRAFT)
    request_id = str(uuid7())
    first = await move(tenant, made.agent_id, made.etag, request_id)
    assert await move(tenant, made.agent_id, made.etag, request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await move(tenant, made.agent_id, "", request_id)


@pytest.mark.parametrize(("to", "move"), MOVES)
async def test_a_stale_etag_moves_nothing(tenant: Caller, to: AgentStatus, move: Any) -> None:
    made = await bring(tenant, ACTIVE if to is INACTIVE else DRAFT)
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await move(tenant, made.agent_id, "stale", "")
    assert await tenant.get(made.agent_id) == made


@pytest.mark.parametrize(("to", "move"), MOVES)
async def test_agents_of_nobody_and_of_others_are_not_found(
    tenant: Caller, stranger: Caller, to: AgentStatus, move: Any
) -> None:
    made = await bring(tenant, ACTIVE if to is INACTIVE else DRAFT)
    for caller, agent_id in ((tenant, str(uuid7())), (stranger, made.agent_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND") as refusal:
            await move(caller, agent_id, "", "")
        assert refusal.metadata == {"agent_id": agent_id}
    assert await tenant.get(made.agent_id) == made


@pytest.mark.parametrize(("to", "move"), MOVES)
async def test_a_malformed_move_is_told(tenant: Caller, to: AgentStatus, move: Any) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await move(tenant, "", "", "x")
    assert set(refusal.violations) == {"agent_id", "request_id"}
