"""UpdateAgent that stages, RollbackAgent, and what a rollout under way holds back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_errors import AlreadyExists, FailedPrecondition, NotFound
from minion_postgres import Database
from minion_registry.agents.store import AgentStore
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as the service sees it."""
    async with await postgres.connect("registry") as database:
        yield database


async def update(caller: Caller, agent_id: str, *, request: dict[str, object], **fields: object) -> agent_pb2.Agent:
    """Updates the given fields."""
    message = pb.UpdateAgentRequest(
        agent=agent_pb2.Agent(agent_id=agent_id, **fields),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=list(fields)),
        **request,  # type: ignore[arg-type]
    )
    return (await caller.agents.UpdateAgent(message)).agent


async def stage(caller: Caller, agent_id: str, **fields: object) -> agent_pb2.Agent:
    """Stages the given fields over the live revision."""
    return await update(caller, agent_id, request={"stage": True}, **fields)


async def roll_back(caller: Caller, agent_id: str, revision: int, **fields: str) -> agent_pb2.Agent:
    """Brings an earlier revision's contents back."""
    request = pb.RollbackAgentRequest(agent_id=agent_id, revision=revision, **fields)
    return (await caller.agents.RollbackAgent(request)).agent


async def begin_rollout(app: Database, tenant: Caller, agent_id: str, rollout_id: UUID | None) -> None:
    """Does to the agent what beginning (or ending) a rollout does."""
    async with app.transaction(tenant.tenant_id) as transaction:
        await AgentStore().set_rollout(transaction, tenant.tenant_id, UUID(agent_id), rollout_id)


def numbers(agent: agent_pb2.Agent) -> tuple[int, int, int]:
    """The revision that is shown, the live one, and the newest."""
    return agent.revision, agent.live_revision, agent.latest_revision


async def found(caller: Caller, **filters: object) -> list[str]:
    """The ids that a list gives."""
    page = await caller.agents.ListAgents(pb.ListAgentsRequest(**filters))  # type: ignore[arg-type]
    return [agent.agent_id for agent in page.agents]


async def test_what_is_staged_leaves_the_live_revision_alone(tenant: Caller) -> None:
    made = await tenant.create(instructions="old", labels={"k": "old"}, capabilities=["old"])
    staged = await stage(tenant, made.agent_id, instructions="new", labels={"k": "new"}, capabilities=["new"])
    assert (staged.instructions, numbers(staged)) == ("new", (2, 1, 2))
    live = await tenant.get(made.agent_id)
    assert (live.instructions, numbers(live)) == ("old", (1, 1, 2))
    assert live.etag == staged.etag != made.etag
    assert await tenant.get(made.agent_id, revision=2) == staged
    assert await found(tenant, labels={"k": "old"}) == await found(tenant, capability="old") == [made.agent_id]
    assert await found(tenant, labels={"k": "new"}) == await found(tenant, capability="new") == []
    resolved = (await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=made.agent_id))).resolved_agent
    assert resolved.agent == live
    listed = await tenant.agents.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=made.agent_id))
    assert [numbers(revision) for revision in listed.revisions] == [(2, 1, 2), (1, 1, 2)]


async def test_a_live_update_takes_the_next_number_and_the_live_contents(tenant: Caller) -> None:
    made = await tenant.create(instructions="old", description="kept")
    await stage(tenant, made.agent_id, description="staged")
    changed = await update(tenant, made.agent_id, request={}, instructions="new")
    assert (changed.instructions, changed.description, numbers(changed)) == ("new", "kept", (3, 3, 3))
    again = await stage(tenant, made.agent_id, display_name="x")
    assert numbers(again) == (4, 3, 4)


@pytest.mark.parametrize("staged", [True, False])
async def test_changes_are_laid_over_the_revision_that_is_named(tenant: Caller, staged: bool) -> None:
    made = await tenant.create(name="first", instructions="1", description="1")
    await update(tenant, made.agent_id, request={}, name="second", instructions="2", description="2")
    made_of = await update(tenant, made.agent_id, request={"stage": staged, "base_revision": 1}, instructions="3")
    assert (made_of.instructions, made_of.description) == ("3", "1")
    # A name can't be staged, not by way of an earlier revision either.
    assert made_of.name == ("second" if staged else "first")
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND") as refusal:
        await update(tenant, made.agent_id, request={"stage": staged, "base_revision": 9}, instructions="3")
    assert refusal.metadata == {"agent_id": made.agent_id, "revision": "9"}


async def test_what_cannot_be_staged_is_named(tenant: Caller) -> None:
    made = await tenant.create()
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await update(tenant, made.agent_id, request={"stage": True, "base_revision": -1}, name="other")
    assert set(refusal.violations) == {"update_mask", "base_revision"}
    assert await tenant.get(made.agent_id) == made


async def test_a_repeated_staging_stages_once(tenant: Caller) -> None:
    made = await tenant.create()
    request: dict[str, object] = {"stage": True, "etag": made.etag, "request_id": str(uuid7())}
    first = await update(tenant, made.agent_id, request=request, instructions="new")
    assert await update(tenant, made.agent_id, request=request, instructions="new") == first
    assert (await tenant.get(made.agent_id)).latest_revision == 2
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await update(tenant, made.agent_id, request={"stage": True, "etag": made.etag}, instructions="new")


async def test_a_rollback_makes_a_new_revision_of_an_earlier_one(tenant: Caller) -> None:
    made = await tenant.create(
        name="before", instructions="1", labels={"k": "1"}, capabilities=["one"], metadata=struct({"m": 1})
    )
    changed = await update(
        tenant,
        made.agent_id,
        request={},
        name="after",
        instructions="2",
        labels={},
        capabilities=[],
        metadata=struct({}),
    )
    back = await roll_back(tenant, made.agent_id, 1, etag=changed.etag)
    assert numbers(back) == (3, 3, 3)
    assert (back.name, back.instructions, dict(back.labels), list(back.capabilities)) == (
        *("before", "1", {"k": "1"}, ["one"]),
    )
    assert await tenant.get(made.agent_id) == back
    assert await found(tenant, labels={"k": "1"}) == await found(tenant, capability="one") == [made.agent_id]
    assert await found(tenant, metadata=struct({"m": 1})) == [made.agent_id]


async def test_a_rollback_may_be_repeated(tenant: Caller) -> None:
    made = await tenant.create()
    changed = await update(tenant, made.agent_id, request={}, instructions="2")
    request_id = str(uuid7())
    first = await roll_back(tenant, made.agent_id, 1, etag=changed.etag, request_id=request_id)
    assert await roll_back(tenant, made.agent_id, 1, etag=changed.etag, request_id=request_id) == first
    assert (await tenant.get(made.agent_id)).revision == 3
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await roll_back(tenant, made.agent_id, 2, request_id=request_id)


async def test_a_rollback_that_cannot_be_is_refused(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.create(name="before")
    changed = await update(tenant, made.agent_id, request={}, name="after")
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await roll_back(tenant, made.agent_id, 1, etag=made.etag)
    for caller, agent_id, revision in (
        (tenant, made.agent_id, 3),
        (tenant, str(uuid4()), 1),
        (stranger, made.agent_id, 1),
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await roll_back(caller, agent_id, revision)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await roll_back(tenant, "x", 0, request_id="x")
    assert set(refusal.violations) == {"agent_id", "revision", "request_id"}
    await tenant.create(name="before")
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "AGENT_NAME_TAKEN"):
        await roll_back(tenant, made.agent_id, 1)
    assert await tenant.get(made.agent_id) == changed
    await tenant.archive(made.agent_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE"):
        await roll_back(tenant, made.agent_id, 2)


async def test_a_rollout_holds_the_live_revision(tenant: Caller, app: Database) -> None:
    made = await tenant.create(instructions="1")
    rollout_id = uuid7()
    await begin_rollout(app, tenant, made.agent_id, rollout_id)
    running = await tenant.get(made.agent_id)
    assert running.etag != made.etag
    refusals: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: update(tenant, made.agent_id, request={}, instructions="2"),
        lambda: roll_back(tenant, made.agent_id, 1),
        lambda: tenant.archive(made.agent_id),
    )
    for refusing in refusals:
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "ROLLOUT_RUNNING") as refusal:
            await refusing()
        assert refusal.metadata == {"agent_id": made.agent_id, "rollout_id": str(rollout_id)}
    assert await tenant.get(made.agent_id) == running
    assert numbers(await stage(tenant, made.agent_id, instructions="2")) == (2, 1, 2)
    await tenant.activate(made.agent_id)
    await begin_rollout(app, tenant, made.agent_id, None)
    assert numbers(await update(tenant, made.agent_id, request={}, instructions="3")) == (3, 3, 3)


async def test_a_promoted_revision_is_the_live_one_whole(tenant: Caller, app: Database) -> None:
    made = await tenant.create(
        instructions="1", labels={"k": "1"}, capabilities=["one"], metadata=struct({"m": 1}), description="apples"
    )
    staged = await stage(
        tenant,
        made.agent_id,
        instructions="2",
        labels={"k": "2"},
        capabilities=["two"],
        metadata=struct({"m": 2}),
        description="pears",
    )
    store, tenant_id = AgentStore(), tenant.tenant_id
    async with app.transaction(tenant_id) as transaction:
        agent = await store.lock(transaction, tenant_id, UUID(made.agent_id))
        live = await store.make_live(transaction, tenant_id, UUID(made.agent_id), 2)
    assert (live.revision, live.live_revision, live.latest_revision) == (2, 2, 2)
    assert live.version == agent.version + 1
    now = await tenant.get(made.agent_id)
    assert numbers(now) == (2, 2, 2)
    assert (now.instructions, now.description) == (staged.instructions, staged.description)
    searched = await tenant.agents.SearchAgents(pb.SearchAgentsRequest(query="pear"))
    assert [hit.agent for hit in searched.hits] == [now]
    assert not (await tenant.agents.SearchAgents(pb.SearchAgentsRequest(query="apple"))).hits
    for filters in ({"labels": {"k": "2"}}, {"capability": "two"}, {"metadata": struct({"m": 2})}):
        assert await found(tenant, **filters) == [made.agent_id]
    for filters in ({"labels": {"k": "1"}}, {"capability": "one"}, {"metadata": struct({"m": 1})}):
        assert await found(tenant, **filters) == []
    # An earlier one can be made live again, and the newest number stays.
    async with app.transaction(tenant_id) as transaction:
        again = await store.make_live(transaction, tenant_id, UUID(made.agent_id), 1)
    assert (again.revision, again.latest_revision) == (1, 2)
    assert numbers(await update(tenant, made.agent_id, request={}, instructions="3")) == (3, 3, 3)


async def test_a_revision_that_cannot_be_live_is_refused(tenant: Caller, app: Database) -> None:
    made = await tenant.create(name="one")
    await update(tenant, made.agent_id, request={}, name="two")
    await tenant.create(name="one")
    store, tenant_id, agent_id = AgentStore(), tenant.tenant_id, UUID(made.agent_id)
    with pytest.raises(NotFound):
        async with app.transaction(tenant_id) as transaction:
            await store.make_live(transaction, tenant_id, agent_id, 3)
    with pytest.raises(AlreadyExists):
        async with app.transaction(tenant_id) as transaction:
            await store.make_live(transaction, tenant_id, agent_id, 1, renames=True)
    # A rollout never renames an agent, so that no name can be in its way.
    async with app.transaction(tenant_id) as transaction:
        assert (await store.make_live(transaction, tenant_id, agent_id, 1)).contents.name == "two"
    await tenant.archive(made.agent_id)
    with pytest.raises(FailedPrecondition):
        async with app.transaction(tenant_id) as transaction:
            await store.make_live(transaction, tenant_id, agent_id, 1)


async def test_watchers_are_told(tenant: Caller, app: Database) -> None:
    call: Any = tenant.agents.WatchAgents(pb.WatchAgentsRequest())
    try:
        assert (await call.read()).kind == agent_pb2.AGENT_CHANGE_KIND_SYNCED
        made = await tenant.create()
        await stage(tenant, made.agent_id, instructions="2")
        await begin_rollout(app, tenant, made.agent_id, uuid7())
        await begin_rollout(app, tenant, made.agent_id, None)
        await roll_back(tenant, made.agent_id, 1)
        kinds: list[str] = []
        while len(kinds) < 5:
            change = await call.read()
            if change.kind != agent_pb2.AGENT_CHANGE_KIND_SYNCED:
                assert change.agent_id == made.agent_id
                kinds.append(agent_pb2.AgentChangeKind.Name(change.kind).removeprefix("AGENT_CHANGE_KIND_"))
        assert kinds == ["CREATED", "UPDATED", "ROLLOUT_CHANGED", "ROLLOUT_CHANGED", "UPDATED"]
    finally:
        call.cancel()


STEPS = st.one_of(
    st.tuples(st.sampled_from(["update", "stage"]), st.integers(0, 6), st.booleans()),
    st.tuples(st.sampled_from(["roll_back", "promote"]), st.integers(1, 6), st.booleans()),
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=10))
async def test_random_changes_go_as_the_rules_say(
    tenant: Caller, stranger: Caller, app: Database, steps: list[tuple[str, int, bool]]
) -> None:
    """Each revision says what it was made of; live and newest are told apart; a running rollout holds the live one."""
    made = await tenant.create(description="1", labels={"made": "1"})
    contents, live = [("1", "1")], 1
    for number, (action, revision, running) in enumerate(steps, start=2):
        await begin_rollout(app, tenant, made.agent_id, uuid7() if running else None)
        exists, base = (
            revision <= len(contents),
            contents[(revision or live) - 1] if revision <= len(contents) else None,
        )
        before = await tenant.get(made.agent_id)
        if action == "promote":
            # The rollouts' own way: allowed while one runs.
            if exists:
                async with app.transaction(tenant.tenant_id) as transaction:
                    await AgentStore().make_live(transaction, tenant.tenant_id, UUID(made.agent_id), revision)
                live = revision
        else:
            staged = action == "stage"
            request: dict[str, object] = {"stage": staged, "base_revision": revision}
            write = (
                roll_back(tenant, made.agent_id, revision)
                if action == "roll_back"
                else update(tenant, made.agent_id, request=request, description=str(number))
            )
            if running and not staged:
                async with refused(grpc.StatusCode.FAILED_PRECONDITION, "ROLLOUT_RUNNING"):
                    await write
            elif base is None:
                async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
                    await write
            else:
                written = await write
                contents.append(base if action == "roll_back" else (str(number), base[1]))
                live = live if staged else len(contents)
                assert numbers(written) == (len(contents), live, len(contents))
        now = await tenant.get(made.agent_id)
        assert numbers(now) == (live, live, len(contents))
        assert (now.description, now.labels["made"]) == contents[live - 1]
        assert now.name == before.name
    listed = await tenant.agents.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=made.agent_id))
    assert [(each.description, each.labels["made"]) for each in reversed(listed.revisions)] == contents
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
        await stranger.get(made.agent_id)
