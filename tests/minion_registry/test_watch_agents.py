"""WatchAgents: what is told, to whom, in which order, and that nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2, tool_service_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_auth.authenticator import TENANT_METADATA
from minion_postgres import feed as feeds
from minion_registry.agents import service as agents
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, calling, over

SYNCED = agent_pb2.AGENT_CHANGE_KIND_SYNCED
CREATED = agent_pb2.AGENT_CHANGE_KIND_CREATED
UPDATED = agent_pb2.AGENT_CHANGE_KIND_UPDATED
STATUS_CHANGED = agent_pb2.AGENT_CHANGE_KIND_STATUS_CHANGED
TOOLS_CHANGED = agent_pb2.AGENT_CHANGE_KIND_TOOLS_CHANGED
DELETED = agent_pb2.AGENT_CHANGE_KIND_DELETED
TOOL_CHANGED = agent_pb2.AGENT_CHANGE_KIND_TOOL_CHANGED


class Watch:
    """One open watch."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[pb.WatchAgentsRequest, pb.WatchAgentsResponse]") -> None:
        self._call = call
        self.cursor = ""

    async def next(self) -> pb.WatchAgentsResponse:
        """Waits for what is told next."""
        async with asyncio.timeout(60):
            told = await self._call.read()
        assert isinstance(told, pb.WatchAgentsResponse)
        self.cursor = told.cursor
        return told

    async def change(self) -> pb.WatchAgentsResponse:
        """Waits for the next change."""
        while (told := await self.next()).kind == SYNCED:
            pass
        return told

    async def kinds(self, count: int) -> list[int]:
        """Waits for so many changes and gives their kinds."""
        return [(await self.change()).kind for _ in range(count)]


@asynccontextmanager
async def watching(caller: Caller, cursor: str = "") -> AsyncIterator[Watch]:
    """Watches for a block, in which the first SYNCED has come; with a cursor, what was missed is yet to come."""
    call = caller.agents.WatchAgents(pb.WatchAgentsRequest(cursor=cursor))
    try:
        watch = Watch(call)
        if not cursor:
            first = await watch.next()
            assert (first.kind, first.agent_id, first.tenant_id) == (SYNCED, "", "")
            assert first.cursor
        yield watch
    finally:
        call.cancel()


async def everything(caller: Caller) -> str:
    """Does to one agent all that can happen to it."""
    agent = await caller.create()
    tool = await caller.register()
    await caller.agents.UpdateAgent(
        pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=agent.agent_id, instructions="new"),
            update_mask=FieldMask(paths=["instructions"]),
        )
    )
    await caller.bind(agent.agent_id, tool.tool_id)
    await caller.agents.UnbindTool(pb.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id))
    await caller.activate(agent.agent_id)
    await caller.deactivate(agent.agent_id)
    await caller.archive(agent.agent_id)
    await caller.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent.agent_id))
    return agent.agent_id


ALL_KINDS = [CREATED, UPDATED, TOOLS_CHANGED, TOOLS_CHANGED, STATUS_CHANGED, STATUS_CHANGED, STATUS_CHANGED, DELETED]


async def test_every_change_is_told_in_order(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        agent_id = await everything(tenant)
        told = [await watch.change() for _ in ALL_KINDS]
    assert [change.kind for change in told] == ALL_KINDS
    assert {(change.agent_id, change.tenant_id) for change in told} == {(agent_id, str(tenant.tenant_id))}


async def test_a_refused_or_repeated_write_is_not_told(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        made = await tenant.create()
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_TRANSITION_ILLEGAL"):
            await tenant.deactivate(made.agent_id)
        request = pb.ActivateAgentRequest(agent_id=made.agent_id, request_id=str(uuid7()))
        await tenant.agents.ActivateAgent(request)
        await tenant.agents.ActivateAgent(request)
        await tenant.deactivate(made.agent_id)
        assert await watch.kinds(3) == [CREATED, STATUS_CHANGED, STATUS_CHANGED]
        assert (await watch.next()).kind == SYNCED


async def test_no_cursor_means_from_now_on(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        await tenant.create()
        # Told to one watcher, it is in the past of the next.
        await watch.change()
    async with watching(tenant) as watch:
        made = await tenant.create()
        assert (await watch.change()).agent_id == made.agent_id


async def test_silence_is_told(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        assert [(await watch.next()).kind for _ in range(3)] == [SYNCED] * 3
        await tenant.create()
        assert await watch.kinds(1) == [CREATED]


async def test_a_watch_resumes_behind_its_cursor(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        await tenant.create()
        first = await watch.change()
    second, third = await tenant.create(), await tenant.create()
    async with watching(tenant, first.cursor) as watch:
        told = [await watch.change() for _ in range(2)]
    assert [change.agent_id for change in told] == [second.agent_id, third.agent_id]
    async with watching(tenant, told[0].cursor) as watch:
        assert (await watch.change()).agent_id == third.agent_id


async def test_a_resumed_watch_is_synced_once_it_was_told_what_it_missed(
    tenant: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than is read at once.
    monkeypatch.setattr(agents, "_MISSED_AT_ONCE", 2)
    async with watching(tenant) as watch:
        await tenant.create()
        cursor = (await watch.change()).cursor
        missed = [(await tenant.create()).agent_id for _ in range(5)]
        # By now the feed gives them.
        assert [(await watch.change()).agent_id for _ in missed] == missed
    async with watching(tenant, cursor) as watch:
        told = [await watch.next() for _ in range(6)]
    assert [change.agent_id for change in told] == [*missed, ""]
    assert told[-1].kind == SYNCED
    assert told[-1].cursor == told[-2].cursor
    # Who missed nothing is told so first.
    async with watching(tenant, told[-1].cursor) as watch:
        assert (await watch.next()).kind == SYNCED


async def test_changes_of_tools_are_told_to_who_asks_for_them(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        cursor = watch.cursor
        tool = await tenant.register()
        made = await tenant.create()
        await tenant.tools.DeprecateTool(tool_service_pb2.DeprecateToolRequest(tool_id=tool.tool_id, note="Old."))
        other = await tenant.create()
        assert [(await watch.change()).agent_id for _ in range(2)] == [made.agent_id, other.agent_id]
    # What a release before this one can't read is left out of what was missed too, but who asks is told it.
    for include_tools, expected in ((False, [CREATED, CREATED]), (True, [CREATED, TOOL_CHANGED, CREATED])):
        call = tenant.agents.WatchAgents(pb.WatchAgentsRequest(cursor=cursor, include_tools=include_tools))
        resumed = Watch(call)
        told = [(await resumed.next()).kind for _ in expected]
        assert told == expected
        assert (await resumed.next()).kind == SYNCED
        call.cancel()


async def test_who_doesnt_ask_for_changes_of_tools_is_told_synced_meanwhile(
    database_factory: Any,
) -> None:
    # With a silence that is not over so soon: what is told comes of the change alone.
    async with (
        serve("registry", await database_factory(), watch_sync_seconds=20, feed_poll_seconds=0.02) as served,
        calling(served) as caller,
    ):
        tool = await caller.register()
        async with watching(caller) as watch:
            before = watch.cursor
            await caller.tools.DeprecateTool(tool_service_pb2.DeprecateToolRequest(tool_id=tool.tool_id, note="Old."))
            told = await watch.next()
            assert (told.kind, told.tool_id, told.cursor != before) == (SYNCED, "", True)


async def test_a_watch_resumes_behind_a_synced_cursor(tenant: Caller) -> None:
    async with watching(tenant) as watch:
        await tenant.create()
        await watch.change()
        while (await watch.next()).kind != SYNCED:
            pass
        cursor = watch.cursor
    made = await tenant.create()
    async with watching(tenant, cursor) as watch:
        assert (await watch.change()).agent_id == made.agent_id


async def test_a_watch_resumes_on_another_replica(tenant: Caller, postgres: ClonedDatabase) -> None:
    async with watching(tenant) as watch:
        cursor = watch.cursor
    made = await tenant.create()
    async with (
        serve("registry", postgres) as replica,
        replica.acting(tenant.tenant_id) as channel,
        watching(over(channel, tenant.tenant_id), cursor) as watch,
    ):
        assert (await watch.change()).agent_id == made.agent_id


async def test_a_tenant_sees_its_own_changes_alone(tenant: Caller, stranger: Caller) -> None:
    async with watching(tenant) as watch:
        await stranger.create()
        made = await tenant.create()
        assert (await watch.change()).agent_id == made.agent_id


async def test_a_service_that_acts_for_nobody_sees_all_tenants(
    registry: Served, tenant: Caller, stranger: Caller
) -> None:
    async with registry.acting(None) as channel:
        service = over(channel, tenant.tenant_id)
        async with watching(service) as watch:
            mine, theirs = await tenant.create(), await stranger.create()
            told = [await watch.change() for _ in range(2)]
        assert {(change.agent_id, change.tenant_id) for change in told} == {
            (mine.agent_id, str(tenant.tenant_id)),
            (theirs.agent_id, str(stranger.tenant_id)),
        }
        async with watching(service, told[0].cursor) as watch:
            assert await watch.change() == told[1]


async def test_a_service_that_acts_for_a_tenant_sees_that_tenant(
    registry: Served, tenant: Caller, stranger: Caller
) -> None:
    async with registry.acting(tenant.tenant_id) as channel, watching(over(channel, tenant.tenant_id)) as watch:
        await stranger.create()
        made = await tenant.create()
        assert (await watch.change()).agent_id == made.agent_id


async def test_an_operator_watches_the_tenant_it_names(tenant: Caller, operator: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
        await operator.agents.WatchAgents(pb.WatchAgentsRequest()).read()
    call = operator.agents.WatchAgents(pb.WatchAgentsRequest(), metadata=((TENANT_METADATA, str(tenant.tenant_id)),))
    watch = Watch(call)
    assert (await watch.next()).kind == SYNCED
    made = await tenant.create()
    assert (await watch.change()).agent_id == made.agent_id
    call.cancel()


@pytest.mark.parametrize("everyone", [False, True])
async def test_who_commits_late_is_not_lost(
    registry: Served, tenant: Caller, postgres: ClonedDatabase, everyone: bool
) -> None:
    insert = "INSERT INTO registry.changes (tenant_id, resource_id, kind) VALUES ($1, $2, 'updated')"
    late = uuid7()
    async with registry.acting(None if everyone else tenant.tenant_id) as channel:
        caller = over(channel, tenant.tenant_id)
        async with watching(caller) as watch, await postgres.connect("registry") as database:
            async with database.transaction(tenant.tenant_id) as transaction:
                await transaction.execute(insert, tenant.tenant_id, late)
                # Takes a later number and commits first.
                quick = await tenant.create()
            told = [(await watch.change()).agent_id for _ in range(2)]
    assert told == [str(late), quick.agent_id]


@pytest.mark.parametrize("spoil", [lambda cursor: "x", lambda cursor: cursor[:-2], lambda cursor: cursor * 50])
async def test_a_malformed_cursor_is_refused(tenant: Caller, spoil: Callable[[str], str]) -> None:
    async with watching(tenant) as watch:
        cursor = watch.cursor
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.WatchAgents(pb.WatchAgentsRequest(cursor=spoil(cursor))).read()
    assert list(refusal.violations) == ["cursor"]


async def test_a_cursor_of_another_tenant_is_refused(registry: Served, tenant: Caller, stranger: Caller) -> None:
    async with watching(tenant) as watch:
        cursor = watch.cursor
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await stranger.agents.WatchAgents(pb.WatchAgentsRequest(cursor=cursor)).read()
    async with registry.acting(None) as channel, refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await over(channel, tenant.tenant_id).agents.WatchAgents(pb.WatchAgentsRequest(cursor=cursor)).read()


async def test_a_cursor_older_than_what_is_kept_is_refused(
    registry: Served, tenant: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(tenant) as watch:
        cursor = watch.cursor

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Later":
            del tz
            return cls.fromtimestamp((datetime.now(UTC) + timedelta(days=7, seconds=1)).timestamp(), UTC)

    monkeypatch.setattr(feeds, "datetime", Later)
    async with refused(grpc.StatusCode.ABORTED, "CURSOR_EXPIRED"):
        await tenant.agents.WatchAgents(pb.WatchAgentsRequest(cursor=cursor)).read()
