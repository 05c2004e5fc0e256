"""What the database itself says of rollouts: their states, who may see and change them, and by which index."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from minion_errors import FailedPrecondition
from minion_postgres import Database, queries
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.rollouts_stage import NO_EVIDENCE, abort, promote, revised, started
from tests.minion_registry.stage import Caller

_QUERIES = queries.load("minion_registry.rollouts")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as its owner sees it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service sees it."""
    async with await postgres.connect("registry") as database:
        yield database


async def _set(owner: Database, rollout_id: str, change: str) -> None:
    await owner.execute(f"UPDATE registry.rollouts SET {change} WHERE rollout_id = $1", UUID(rollout_id))  # noqa: S608


@pytest.mark.parametrize("end", [promote, abort])
@pytest.mark.parametrize("change", ["status = 'running', end_time = NULL", "abort_reason = 'other'", "version = 9"])
async def test_what_has_ended_stays_whoever_asks(tenant: Caller, owner: Database, end: object, change: str) -> None:
    made = await started(tenant, evidence=NO_EVIDENCE)
    await end(tenant, made.rollout_id)  # type: ignore[operator]
    with pytest.raises(FailedPrecondition) as refused:
        await _set(owner, made.rollout_id, change)
    assert refused.value.reason == "ROLLOUT_ENDED"


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("step_index = 0, basis_points = 1", asyncpg.RestrictViolationError),
        ("candidate_revision = 7", asyncpg.RestrictViolationError),
        ('steps = \'[{"basis_points": 2}, {"basis_points": 2}]\'', asyncpg.RestrictViolationError),
        ("guardrails = '{}'", asyncpg.RestrictViolationError),
        ("evidence = 'none'", asyncpg.RestrictViolationError),
        ("principal = 'key:other'", asyncpg.RestrictViolationError),
        ("step_index = 3", asyncpg.CheckViolationError),
        ("basis_points = 3", asyncpg.CheckViolationError),
        ("status = 'promoted'", asyncpg.CheckViolationError),
        ("status = 'aborted', basis_points = 0, end_time = now()", asyncpg.CheckViolationError),
        ("status = 'promoted', basis_points = 2, end_time = now()", asyncpg.CheckViolationError),
    ],
)
async def test_a_running_rollout_moves_as_it_may(
    tenant: Caller, owner: Database, change: str, refusal: type[Exception]
) -> None:
    made = await started(tenant, 1, 2, 3)
    await _set(owner, made.rollout_id, "step_index = 1, basis_points = 2")
    with pytest.raises(refusal):
        await _set(owner, made.rollout_id, change)


async def test_a_rollout_begins_running(tenant: Caller, owner: Database) -> None:
    agent = await revised(tenant)
    with pytest.raises(asyncpg.RestrictViolationError):
        await owner.execute(
            "INSERT INTO registry.rollouts (tenant_id, rollout_id, agent_id, candidate_revision, baseline_revision,"
            " steps, basis_points, guardrails, evidence, status, principal, end_time) VALUES"
            " ($1, $2, $3, 1, 2, '[{\"basis_points\": 1}]', 10000, '{}', 'none', 'promoted', '', now())",
            tenant.tenant_id,
            uuid7(),
            UUID(agent.agent_id),
        )


async def test_a_tenant_sees_its_own_rollouts(app: Database, owner: Database, tenant: Caller, stranger: Caller) -> None:
    await started(tenant)
    count = "SELECT count(*) FROM registry.rollouts"
    assert await owner.fetch_value(count) > 0
    assert await app.fetch_value(count) == 0
    for caller, found in ((tenant, 1), (stranger, 0)):
        async with app.transaction(caller.tenant_id) as transaction:
            assert await transaction.fetch_value(count) == found


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM registry.rollouts",
        "UPDATE registry.rollouts SET candidate_revision = 1",
        "UPDATE registry.rollouts SET guardrails = '{}'",
        "UPDATE registry.rollouts SET principal = ''",
        "ALTER TABLE registry.rollouts DISABLE TRIGGER ALL",
    ],
)
async def test_the_service_may_not(app: Database, tenant: Caller, statement: str) -> None:
    await started(tenant)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with app.transaction(tenant.tenant_id) as transaction:
            await transaction.execute(statement)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowd(owner: Database) -> UUID:
    """A tenant with rollouts enough for the planner to think about, which it is told of."""
    tenant_id = uuid7()
    await owner.execute(
        "INSERT INTO registry.tenants (tenant_id, name, display_name) VALUES ($1, 'rollouts', '')", tenant_id
    )
    for statement in (
        """
        INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions,
                                     llm, capabilities, behavior, metadata, labels)
        SELECT $1, lpad(to_hex(number), 32, '0')::uuid, 'r-' || number, '', '', 'tool_use', '', '{}', '{}', '{}', '{}',
               '{}'
          FROM generate_series(1, 500) AS number
        """,
        """
        INSERT INTO registry.rollouts (tenant_id, rollout_id, agent_id, candidate_revision, baseline_revision, steps,
                                       basis_points, guardrails, evidence, principal, create_time)
        SELECT $1, gen_random_uuid(), lpad(to_hex(number), 32, '0')::uuid, 1, 2, '[{"basis_points": 1}]', 1, '{}',
               'none', '', now() - number * interval '1 minute'
          FROM generate_series(1, 500) AS number
        """,
        *[
            """
            WITH ended AS (
                UPDATE registry.rollouts SET status = 'aborted', basis_points = 0, abort_reason = 'x', end_time = now()
                 WHERE tenant_id = $1 AND status = 'running' RETURNING *
            )
            SELECT count(*) FROM ended
            """,
            """
            INSERT INTO registry.rollouts (tenant_id, rollout_id, agent_id, candidate_revision, baseline_revision,
                                           steps, basis_points, guardrails, evidence, principal, create_time)
            SELECT $1, gen_random_uuid(), lpad(to_hex(number), 32, '0')::uuid, 1, 2, '[{"basis_points": 1}]', 1, '{}',
                   'none', '', now() - number * interval '1 second'
              FROM generate_series(1, 500) AS number
            """,
        ]
        * 6,
    ):
        await owner.execute(statement, tenant_id)
    await owner.execute(
        "UPDATE registry.rollouts SET check_due_time = now() + interval '1 day' WHERE status = 'running'"
    )
    await owner.execute("VACUUM (ANALYZE) registry.rollouts")
    return tenant_id


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize(
    ("query", "extra", "index"),
    [
        ("list_rollouts", (), "rollouts_create_time"),
        ("list_rollouts_by_status", ("running",), "rollouts_status"),
        ("list_rollouts_by_agent", (UUID(int=7), None), "rollouts_agent"),
        ("list_rollouts_by_agent", (UUID(int=7), "aborted"), "rollouts_agent"),
    ],
)
async def test_rollouts_are_listed_by_an_index_in_its_order(
    app: Database, crowd: UUID, query: str, extra: tuple[object, ...], index: str, generic: bool
) -> None:
    async with app.transaction(crowd) as transaction:
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await transaction.execute(f"SET LOCAL plan_cache_mode = {mode}")
        arguments = (crowd, datetime.now(UTC), UUID(int=1), 51, *extra)
        plan = "\n".join(row[0] for row in await transaction.fetch(f"EXPLAIN {_QUERIES[query]}", *arguments))
    assert f"using {index} " in plan, plan
    assert "Sort" not in plan, plan


async def test_what_is_due_is_found_by_an_index(owner: Database, crowd: UUID) -> None:
    del crowd
    # The body of claim_rollouts, which runs as the owner.
    plan = "\n".join(
        row[0]
        for row in await owner.fetch(
            "EXPLAIN SELECT r.tenant_id, r.rollout_id FROM registry.rollouts r WHERE r.status = 'running'"
            " AND r.check_due_time <= now() ORDER BY r.check_due_time LIMIT 100 FOR UPDATE SKIP LOCKED"
        )
    )
    assert "using rollouts_due " in plan, plan
