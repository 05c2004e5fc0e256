"""DeprecateTool and RetireTool: the life of a tool, held by the database too."""

from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
import pytest_asyncio
from minion.registry.v1 import tool_pb2
from minion_errors import FailedPrecondition
from minion_postgres import Database
from minion_registry.tools.domain import ToolStatus
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller
from tests.minion_registry.tool_moves import MOVES, Move, deprecate, read, retire, updated


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as migrations and maintenance see it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


@pytest.mark.parametrize(("move", "status"), MOVES)
async def test_a_tool_moves_along_its_life(tenant: Caller, move: Move, status: "tool_pb2.ToolStatus.ValueType") -> None:
    made = await tenant.register()
    request_id = str(uuid7())
    moved = await move(tenant, made.tool_id, note="Use now_2.", etag=made.etag, request_id=request_id)
    assert (moved.status, moved.status_note, moved.version, moved.digest) == (status, "Use now_2.", 1, made.digest)
    assert moved.etag != made.etag
    assert await read(tenant, made.tool_id) == moved
    assert await move(tenant, made.tool_id, note="Use now_2.", etag=made.etag, request_id=request_id) == moved
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await move(tenant, made.tool_id, request_id=request_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOOL_TRANSITION_ILLEGAL") as refusal:
        await move(tenant, made.tool_id)
    name = tool_pb2.ToolStatus.Name(status).removeprefix("TOOL_STATUS_")
    assert refusal.metadata == {"tool_id": made.tool_id, "from": name, "to": name}


async def test_a_retired_tool_takes_no_changes_and_a_deprecated_one_does(tenant: Caller) -> None:
    made = await tenant.register()
    await deprecate(tenant, made.tool_id, note="Old.")
    changed = (await updated(tenant, made.tool_id, description="Other.")).tool
    assert (changed.status, changed.status_note) == (tool_pb2.TOOL_STATUS_DEPRECATED, "Old.")
    await retire(tenant, made.tool_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOOL_STATUS_UNSUITABLE") as refusal:
        await updated(tenant, made.tool_id, description="More.")
    assert refusal.metadata == {"tool_id": made.tool_id, "status": "RETIRED"}
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOOL_TRANSITION_ILLEGAL"):
        await deprecate(tenant, made.tool_id)


@pytest.mark.parametrize("to", ToolStatus)
@pytest.mark.parametrize("status", ToolStatus)
async def test_the_database_holds_the_lifecycle_too(
    tenant: Caller, owner: Database, status: ToolStatus, to: ToolStatus
) -> None:
    made = await tenant.register()
    if status is not ToolStatus.ACTIVE:
        await (deprecate if status is ToolStatus.DEPRECATED else retire)(tenant, made.tool_id)
    statement = "UPDATE registry.tools SET status = $2 WHERE tool_id = $1::text::uuid"
    if status.may_become(to) or (status is to and status is not ToolStatus.RETIRED):
        assert await owner.execute(statement, made.tool_id, to.value) == 1
        return
    with pytest.raises(FailedPrecondition) as raised:
        await owner.execute(statement, made.tool_id, to.value)
    if status is not to:
        assert raised.value.reason == "TOOL_TRANSITION_ILLEGAL"
        assert (raised.value.metadata["from"], raised.value.metadata["to"]) == (status.name, to.name)


async def test_the_database_takes_active_tools_and_known_words_alone(tenant: Caller, owner: Database) -> None:
    made = await tenant.register()
    copy = (
        "INSERT INTO registry.tools (tenant_id, tool_id, name, description, input_schema, transport, builtin, effect,"
        " cost_per_call_nanos, labels, digest, status) SELECT tenant_id, gen_random_uuid(), 'copy', '', '{}', $2, '',"
        " effect, 0, '{}', digest, $3 FROM registry.tools WHERE tool_id = $1::text::uuid"
    )
    with pytest.raises(FailedPrecondition):
        await owner.execute(copy, made.tool_id, "builtin", "deprecated")
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(copy, made.tool_id, "pigeon", "active")
