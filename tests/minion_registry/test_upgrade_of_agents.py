"""Agents that were there before revisions could be staged, and a release before this one beside it."""

from collections.abc import Awaitable, Callable
from importlib import resources
from uuid import UUID

from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_postgres import Migrations
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import calling, struct

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
