"""Agents that were there before revisions could be staged, and a release before this one beside it."""

from collections.abc import Awaitable, Callable
from importlib import resources
from uuid import UUID

import pytest
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import FailedPrecondition
from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.minion_registry.rollouts_stage import NO_EVIDENCE, promote, start
from tests.minion_registry.stage import calling, struct
from tests.minion_registry.test_staged_revisions import stage

BEFORE = "0005_agents"
INSERT = """
INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type, instructions, llm,
                             capabilities, behavior, metadata, labels)
     VALUES ($1, $2, $3, '', 'Waters roses', 'tool_use', '', '{}', '{}', '{}', $4, '{}')
"""
# What the release before this one writes for an update.
UPDATE = """
WITH agent AS (
    UPDATE registry.agents SET description = 'Prunes trees', metadata = $2, revision = revision + 1,
        version = version + 1 WHERE agent_id = $1 RETURNING *)
INSERT INTO registry.agent_revisions (tenant_id, agent_id, revision, name, display_name, description, behavior_type,
                                      instructions, llm, capabilities, behavior, metadata, labels)
SELECT tenant_id, agent_id, revision, name, display_name, description, behavior_type, instructions, llm, capabilities,
       behavior, metadata, labels FROM agent
"""


async def test_agents_of_before_are_found_and_unchanged(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with serve("registry", database) as registry:
        tenant = await new_tenant(registry)
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    names = [step.name for step in migrations.steps]
    dsn = database.dsn("registry", "owner")
    await migrations.down(dsn, len(names) - names.index(BEFORE))
    kept, archived = UUID(int=uuid7().int), UUID(int=uuid7().int)
    async with await database.connect("registry", "owner") as owner:
        for agent_id, name in ((kept, "kept"), (archived, "archived")):
            await owner.execute(INSERT, tenant.tenant_id, agent_id, name, {"team": "blue"})
            await owner.execute(UPDATE, agent_id, {"team": "red"})
        await owner.execute("UPDATE registry.agents SET status = 'archived' WHERE agent_id = $1", archived)
        state = "SELECT updated_at, version FROM registry.agents ORDER BY agent_id"
        before = await owner.fetch(state)
        await migrations.up(dsn)
        assert await owner.fetch(state) == before
        async with serve("registry", database) as registry, calling(registry, tenant) as caller:
            by_metadata = pb.ListAgentsRequest(metadata=struct({"team": "red"}))
            listed = await caller.agents.ListAgents(by_metadata)
            assert {agent.agent_id for agent in listed.agents} == {str(kept), str(archived)}
            assert {(agent.live_revision, agent.latest_revision) for agent in listed.agents} == {(2, 2)}
            assert len((await caller.agents.SearchAgents(pb.SearchAgentsRequest(query="tree"))).hits) == 2
            # A replica of the release before this one goes on writing for a while.
            await owner.execute(UPDATE, kept, {"team": "green"})
            now = await caller.get(str(kept))
            assert (now.revision, now.live_revision, now.latest_revision) == (3, 3, 3)
            assert now.status == agent_pb2.AGENT_STATUS_DRAFT
            assert [agent.name for agent in (await caller.agents.ListAgents(by_metadata)).agents] == ["archived"]


async def test_the_release_before_updates_an_agent_that_has_staged_revisions(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with (
        serve("registry", database) as registry,
        calling(registry) as caller,
        await database.connect("registry", "owner") as owner,
    ):
        made = await caller.create()
        for staged in ("two", "three"):
            await stage(caller, made.agent_id, instructions=staged)
        await owner.execute(UPDATE, made.agent_id, {"team": "red"})
        now = await caller.get(made.agent_id)
        assert (now.revision, now.live_revision, now.latest_revision) == (4, 4, 4)
        assert (now.description, now.instructions) == ("Prunes trees", "")
        assert (await caller.get(made.agent_id, 4)).description == "Prunes trees"
        assert [(await caller.get(made.agent_id, number)).instructions for number in (2, 3)] == ["two", "three"]
        # And again, where nothing is staged behind the live one.
        await owner.execute(UPDATE, made.agent_id, {"team": "green"})
        assert (await caller.get(made.agent_id)).revision == 5
        assert (await stage(caller, made.agent_id, instructions="six")).revision == 6


async def test_the_release_before_changes_no_revision_that_is_under_comparison(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with (
        serve("registry", database) as registry,
        calling(registry) as caller,
        await database.connect("registry", "owner") as owner,
    ):
        made = await caller.activate((await caller.create()).agent_id)
        for staged in ("two", "three"):
            await stage(caller, made.agent_id, instructions=staged)
        running = await start(caller, made.agent_id, candidate_revision=2, evidence=NO_EVIDENCE)
        for statement in (
            UPDATE,
            # Nor is another one than the candidate made live, by whoever knows of staged revisions.
            "UPDATE registry.agents SET revision = 3, latest_revision = 3, metadata = $2 WHERE agent_id = $1",
        ):
            with pytest.raises(FailedPrecondition) as refusal:
                await owner.execute(statement, made.agent_id, {})
            assert refusal.value.reason == "ROLLOUT_RUNNING"
            assert refusal.value.metadata == {"agent_id": made.agent_id, "rollout_id": running.rollout_id}
        await promote(caller, running.rollout_id)
        now = await caller.get(made.agent_id)
        assert (now.live_revision, now.latest_revision, now.instructions) == (2, 3, "two")
        await owner.execute(UPDATE, made.agent_id, {})
        assert (await caller.get(made.agent_id)).live_revision == 4


FILES = (
    "SELECT c.relname::text AS name, pg_relation_filenode(c.oid) AS file FROM pg_class c"
    " WHERE c.relnamespace = 'registry'::regnamespace AND c.relkind = 'r' AND c.relname <> 'schema_migrations'"
)


async def test_migrating_writes_no_table_anew_and_fills_in_batches(
    database_factory: Callable[[], Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    async with serve("registry", database) as registry:
        tenant = await new_tenant(registry)
    migrations = Migrations("registry", resources.files("minion_registry") / "migrations")
    dsn = database.dsn("registry", "owner")
    await migrations.down(dsn, len(migrations.steps) - 1)
    async with await database.connect("registry", "owner") as owner:
        for number in range(250):
            await owner.execute(INSERT, tenant.tenant_id, UUID(int=uuid7().int), f"a-{number}", {"n": number})
        before = await owner.fetch(FILES)
        await migrations.up(dsn)
        files = {row["name"]: row["file"] for row in await owner.fetch(FILES)}
        assert {row["name"]: row["file"] for row in before}.items() <= files.items()
        # Which transaction a row is of.
        batches = await owner.fetch_value("SELECT count(DISTINCT xmin::text) FROM registry.agent_metadata")
        assert batches == 3
        assert await owner.fetch_value("SELECT count(*) FROM registry.agent_metadata") == 250
        assert await owner.fetch_value("SELECT count(*) FROM registry.agents WHERE latest_revision = 1") == 250
        unchecked = (
            "SELECT count(*) FROM pg_constraint WHERE NOT convalidated AND connamespace = 'registry'::regnamespace"
        )
        assert await owner.fetch_value(unchecked) == 0
