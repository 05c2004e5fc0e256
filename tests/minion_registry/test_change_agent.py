"""UpdateAgent, DeleteAgent, GetAgent, ListAgentRevisions."""

import asyncio

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct

NOWHERE = "018f0000-0000-7000-8000-000000000000"


def change(agent: agent_pb2.Agent, *, etag: str = "", request_id: str = "", **fields: object) -> pb.UpdateAgentRequest:
    """A request that changes the given fields."""
    return pb.UpdateAgentRequest(
        agent=agent_pb2.Agent(agent_id=agent.agent_id, **fields),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=list(fields)),
        etag=etag,
        request_id=request_id,
    )


async def test_an_update_changes_the_named_fields_and_makes_a_revision(tenant: Caller) -> None:
    made = await tenant.create(
        instructions="old", display_name="kept", llm=agent_pb2.LlmConfig(model="a", temperature=1), labels={"a": "b"}
    )
    request = change(made, etag=made.etag, instructions="new", llm=agent_pb2.LlmConfig(model="b"), labels={"c": "d"})
    updated = (await tenant.agents.UpdateAgent(request)).agent
    assert (updated.instructions, updated.display_name) == ("new", "kept")
    assert updated.llm == agent_pb2.LlmConfig(model="b")
    assert dict(updated.labels) == {"c": "d"}
    assert updated.revision == 2
    assert updated.etag != made.etag
    assert updated.create_time == made.create_time
    assert await tenant.get(made.agent_id) == updated


async def test_every_field_can_be_changed_and_cleared(tenant: Caller) -> None:
    made = await tenant.create(name="before", capabilities=["a"], metadata=struct({"a": 1}), description="x")
    updated = (
        await tenant.agents.UpdateAgent(
            change(
                made,
                name="after",
                display_name="After",
                description="",
                behavior_type="conversational",
                instructions="i",
                llm=agent_pb2.LlmConfig(),
                capabilities=[],
                behavior=agent_pb2.BehaviorSettings(max_steps=1),
                metadata=struct({}),
                labels={},
            )
        )
    ).agent
    assert (updated.name, updated.behavior_type, updated.behavior.max_steps) == ("after", "conversational", 1)
    assert not updated.description
    assert not updated.capabilities
    assert not updated.metadata.fields


async def test_fields_outside_the_mask_are_not_even_checked(tenant: Caller) -> None:
    made = await tenant.create()
    request = change(made, display_name="x")
    request.agent.name = "No Name"
    assert (await tenant.agents.UpdateAgent(request)).agent.name == made.name


@pytest.mark.parametrize("path", ["status", "agent_id", "revision", "llm.model", "nonsense"])
async def test_a_mask_that_names_what_cannot_change_is_refused(tenant: Caller, path: str) -> None:
    made = await tenant.create()
    request = change(made, display_name="x")
    request.update_mask.paths.append(path)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.UpdateAgent(request)
    assert list(refusal.violations) == ["update_mask"]
    assert path in refusal.violations["update_mask"]


async def test_an_update_says_what_is_missing_and_what_is_wrong(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.UpdateAgent(pb.UpdateAgentRequest())
    assert set(refusal.violations) == {"agent.agent_id", "update_mask"}
    made = await tenant.create()
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.UpdateAgent(change(made, name="X", display_name="x" * 201))
    assert set(refusal.violations) == {"agent.name", "agent.display_name"}


async def test_a_repeated_update_makes_one_revision(tenant: Caller) -> None:
    made = await tenant.create()
    request = change(made, etag=made.etag, request_id=str(uuid7()), instructions="new")
    first = await tenant.agents.UpdateAgent(request)
    assert await tenant.agents.UpdateAgent(request) == first
    assert (await tenant.get(made.agent_id)).revision == 2
    request.agent.instructions = "other"
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.agents.UpdateAgent(request)


async def test_a_stale_etag_changes_nothing(tenant: Caller) -> None:
    made = await tenant.create()
    now = await tenant.activate(made.agent_id)
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
        await tenant.agents.UpdateAgent(change(made, etag=made.etag, instructions="new"))
    assert refusal.metadata == {"agent_id": made.agent_id, "etag": now.etag}
    assert await tenant.get(made.agent_id) == now


async def test_of_writers_who_read_the_same_one_wins(tenant: Caller) -> None:
    made = await tenant.create()

    requests = [change(made, etag=made.etag, instructions=str(number)) for number in range(8)]
    answers = await asyncio.gather(
        *(tenant.agents.UpdateAgent(request) for request in requests), return_exceptions=True
    )
    refusals = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert refusals == [grpc.StatusCode.ABORTED] * 7
    assert (await tenant.get(made.agent_id)).revision == 2


async def test_writers_with_no_etag_take_turns(tenant: Caller) -> None:
    made = await tenant.create()
    requests = [change(made, instructions=str(number)) for number in range(8)]
    answers = await asyncio.gather(*(tenant.agents.UpdateAgent(request) for request in requests))
    assert sorted(answer.agent.revision for answer in answers) == list(range(2, 10))


async def test_an_archived_agent_takes_no_changes(tenant: Caller) -> None:
    made = await tenant.create()
    await tenant.archive(made.agent_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE") as refusal:
        await tenant.agents.UpdateAgent(change(made, instructions="new"))
    assert refusal.metadata["status"] == "ARCHIVED"


async def test_a_name_that_is_taken_is_refused(tenant: Caller) -> None:
    await tenant.create(name="taken")
    made = await tenant.create()
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "AGENT_NAME_TAKEN"):
        await tenant.agents.UpdateAgent(change(made, name="taken"))


async def test_agents_of_nobody_and_of_others_cannot_be_changed(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.create()
    nobody = agent_pb2.Agent(agent_id=NOWHERE)
    for caller, agent in ((tenant, nobody), (stranger, made)):
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await caller.agents.UpdateAgent(change(agent, instructions="new"))
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await caller.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent.agent_id))
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await caller.get(agent.agent_id)
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await caller.agents.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=agent.agent_id))
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
        await stranger.agents.GetAgent(pb.GetAgentRequest(name=made.name))
    assert await tenant.get(made.agent_id) == made


async def test_a_draft_or_archived_agent_is_deleted_with_all_that_hangs_on_it(
    tenant: Caller, postgres: ClonedDatabase
) -> None:
    draft = await tenant.create(labels={"a": "b"}, capabilities=["c"], metadata=struct({"d": "e"}))
    archived = await tenant.create()
    tool = await tenant.register()
    await tenant.bind(draft.agent_id, tool.tool_id)
    await tenant.agents.UpdateAgent(change(archived, instructions="new"))
    await tenant.archive(archived.agent_id)
    for agent in (draft, archived):
        await tenant.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent.agent_id))
        async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"):
            await tenant.get(agent.agent_id)
    async with await postgres.connect("registry", "owner") as database:
        tables = ("agents", "agent_revisions", "agent_labels", "agent_capabilities", "agent_metadata", "agent_words")
        for table in (*tables, "agent_tools"):
            query = f"SELECT count(*) FROM registry.{table} WHERE tenant_id = $1"  # noqa: S608
            assert await database.fetch_value(query, tenant.tenant_id) == 0, table


@pytest.mark.parametrize("paused", [False, True])
async def test_an_agent_in_use_is_not_deleted(tenant: Caller, paused: bool) -> None:
    made = await tenant.create()
    await tenant.activate(made.agent_id)
    if paused:
        await tenant.deactivate(made.agent_id)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STATUS_UNSUITABLE") as refusal:
        await tenant.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=made.agent_id))
    assert refusal.metadata["status"] == ("INACTIVE" if paused else "ACTIVE")


async def test_a_repeated_deletion_is_no_error(tenant: Caller) -> None:
    made = await tenant.create()
    request = pb.DeleteAgentRequest(agent_id=made.agent_id, etag=made.etag, request_id=str(uuid7()))
    assert await tenant.agents.DeleteAgent(request) == await tenant.agents.DeleteAgent(request)
    request.agent_id = NOWHERE
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.agents.DeleteAgent(request)


async def test_a_deletion_with_a_stale_etag_is_refused(tenant: Caller) -> None:
    made = await tenant.create()
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await tenant.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=made.agent_id, etag="stale"))
    assert await tenant.get(made.agent_id) == made


async def test_an_earlier_revision_has_the_contents_of_then_and_the_status_of_now(tenant: Caller) -> None:
    made = await tenant.create(name="before", instructions="old", metadata=struct({"a": [1]}), labels={"k": "1"})
    await tenant.agents.UpdateAgent(change(made, name="after", instructions="new", labels={}))
    now = await tenant.activate(made.agent_id)
    then = await tenant.get(made.agent_id, revision=1)
    assert (then.status, then.etag, then.update_time) == (now.status, now.etag, made.update_time)
    assert (then.live_revision, then.latest_revision) == (2, 2)
    then.status, then.etag, then.live_revision, then.latest_revision = made.status, made.etag, 1, 1
    assert then == made
    assert await tenant.get(made.agent_id, revision=2) == now
    by_name = await tenant.agents.GetAgent(pb.GetAgentRequest(name="after", revision=1))
    assert by_name.agent.name == "before"


async def test_a_revision_that_is_none_is_not_found(tenant: Caller) -> None:
    made = await tenant.create()
    async with refused(grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND") as refusal:
        await tenant.get(made.agent_id, revision=2)
    assert refusal.metadata == {"agent_id": made.agent_id, "revision": "2"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await tenant.get(made.agent_id, revision=-1)


@pytest.mark.parametrize("fields", [{}, {"agent_id": NOWHERE, "name": "a"}])
async def test_an_agent_is_named_in_exactly_one_way(tenant: Caller, fields: dict[str, str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.agents.GetAgent(pb.GetAgentRequest(**fields))  # type: ignore[arg-type]
    assert set(refusal.violations) == {"agent_id", "name"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(**fields))


async def test_revisions_are_listed_newest_first_page_by_page(tenant: Caller) -> None:
    made = await tenant.create(instructions="1")
    for number in range(2, 6):
        await tenant.agents.UpdateAgent(change(made, instructions=str(number)))
    found: list[str] = []
    token = ""
    while True:
        page = await tenant.agents.ListAgentRevisions(
            pb.ListAgentRevisionsRequest(agent_id=made.agent_id, page_size=2, page_token=token)
        )
        found.extend(f"{revision.revision}/{revision.instructions}" for revision in page.revisions)
        token = page.next_page_token
        if not token:
            break
    assert found == ["5/5", "4/4", "3/3", "2/2", "1/1"]


async def test_a_page_of_revisions_fits_into_a_message(tenant: Caller) -> None:
    made = await tenant.create(instructions="🙂" * 100_000)
    for number in range(2, 12):
        await tenant.agents.UpdateAgent(change(made, display_name=str(number)))
    request = pb.ListAgentRevisionsRequest(agent_id=made.agent_id)
    numbers: list[int] = []
    pages = 0
    while not pages or request.page_token:
        page = await tenant.agents.ListAgentRevisions(request)
        assert page.ByteSize() < 3 * 1024 * 1024
        numbers.extend(revision.revision for revision in page.revisions)
        request.page_token = page.next_page_token
        pages += 1
    assert numbers == list(range(11, 0, -1))
    assert pages > 1


async def test_a_token_of_another_agents_revisions_is_refused(tenant: Caller) -> None:
    one, two = await tenant.create(), await tenant.create()
    await tenant.agents.UpdateAgent(change(one, instructions="new"))
    page = await tenant.agents.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=one.agent_id, page_size=1))
    for agent, token in ((two, page.next_page_token), (one, "x")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.agents.ListAgentRevisions(
                pb.ListAgentRevisionsRequest(agent_id=agent.agent_id, page_token=token)
            )
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await tenant.agents.ListAgentRevisions(pb.ListAgentRevisionsRequest(agent_id=one.agent_id, page_size=-1))


async def test_each_revision_keeps_the_policies_that_it_had(tenant: Caller) -> None:
    policies = agent_pb2.BehaviorSettings(
        memory=agent_pb2.MemoryPolicy(episodes=True, extract=True, extractor="facts-1", extract_after_messages=2),
        summary=agent_pb2.SummaryPolicy(enabled=True, trigger_tokens=256, keep_messages=0, model="local/stand-in"),
    )
    made = await tenant.create(behavior=policies)
    await tenant.agents.UpdateAgent(change(made, behavior=agent_pb2.BehaviorSettings()))
    now, before = await tenant.get(made.agent_id), await tenant.get(made.agent_id, revision=1)
    assert not now.behavior.memory.episodes
    assert not now.behavior.summary.enabled
    assert before.behavior.memory == policies.memory
    assert before.behavior.summary == policies.summary
    resolved = await tenant.agents.ResolveAgent(pb.ResolveAgentRequest(agent_id=made.agent_id))
    assert resolved.resolved_agent.agent.behavior == now.behavior


async def test_an_agent_of_an_earlier_release_has_no_policies(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await tenant.create()
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.agents SET behavior = (behavior - 'summary') || "
            "jsonb_build_object('memory', jsonb_build_object('recall', true)) WHERE agent_id = $1",
            made.agent_id,
        )
    found = await tenant.get(made.agent_id)
    assert found.behavior.memory == agent_pb2.MemoryPolicy(recall=True)
    assert found.behavior.summary == agent_pb2.SummaryPolicy()
