"""UpdateTool, DeprecateTool, RetireTool, ListToolVersions: versions, blocked bindings, the feed, the audit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import agent_pb2, agent_service_pb2, tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_errors import FailedPrecondition
from minion_grpc import peer_errors
from minion_postgres import Database
from minion_registry.tools.domain import ToolStatus
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct

NOWHERE = "018f0000-0000-7000-8000-000000000000"
Move = Callable[..., Awaitable[tool_pb2.Tool]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """The database as migrations and maintenance see it."""
    async with await postgres.connect("registry", "owner") as database:
        yield database


def update(tool_id: str, *, etag: str = "", request_id: str = "", **fields: Any) -> pb.UpdateToolRequest:
    request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool_id, **fields), etag=etag, request_id=request_id)
    request.update_mask.paths.extend(fields)
    return request


async def updated(caller: Caller, tool_id: str, **fields: Any) -> pb.UpdateToolResponse:
    return await caller.tools.UpdateTool(update(tool_id, **fields))


async def deprecate(caller: Caller, tool_id: str, **fields: Any) -> tool_pb2.Tool:
    return (await caller.tools.DeprecateTool(pb.DeprecateToolRequest(tool_id=tool_id, **fields))).tool


async def retire(caller: Caller, tool_id: str, **fields: Any) -> tool_pb2.Tool:
    return (await caller.tools.RetireTool(pb.RetireToolRequest(tool_id=tool_id, **fields))).tool


MOVES = [
    pytest.param(deprecate, tool_pb2.TOOL_STATUS_DEPRECATED, id="deprecate"),
    pytest.param(retire, tool_pb2.TOOL_STATUS_RETIRED, id="retire"),
]


async def read(caller: Caller, tool_id: str, version: int = 0) -> tool_pb2.Tool:
    return (await caller.tools.GetTool(pb.GetToolRequest(tool_id=tool_id, version=version))).tool


async def states(caller: Caller, agent_id: str) -> list["agent_pb2.BindingState.ValueType"]:
    request = agent_service_pb2.ResolveAgentRequest(agent_id=agent_id)
    return [bound.state for bound in (await caller.agents.ResolveAgent(request)).resolved_agent.tools]


async def audit(owner: Database, caller: Caller) -> list[tuple[str, dict[str, Any], Any]]:
    """What the audit waits to send of a tenant's tools and bindings: name, details, agent."""
    rows = await owner.fetch(
        "SELECT payload, principal FROM registry.outbox WHERE tenant_id = $1 ORDER BY activity_id", caller.tenant_id
    )
    assert all(row["principal"] for row in rows)
    told = [(row["payload"]["name"], row["payload"]["input"], row["payload"]["agent_id"]) for row in rows]
    return [entry for entry in told if entry[0].startswith(("tool.", "binding."))]


async def test_a_change_makes_a_version_and_the_former_ones_stay(tenant: Caller) -> None:
    first = await tenant.register(labels={"a": "b"}, time_limit=Duration(seconds=1))
    second = (await updated(tenant, first.tool_id, description="Other.", labels={})).tool
    assert (second.version, second.description, dict(second.labels)) == (2, "Other.", {})
    assert second.digest != first.digest
    assert second.etag != first.etag
    assert second.time_limit == first.time_limit
    assert second.create_time == first.create_time
    assert second.update_time.ToMicroseconds() > first.update_time.ToMicroseconds()
    assert await read(tenant, first.tool_id) == await read(tenant, first.tool_id, 2) == second
    former = await read(tenant, first.tool_id, 1)
    assert former.etag == second.etag
    former.etag = first.etag
    assert former == first
    async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND") as refusal:
        await read(tenant, first.tool_id, 3)
    assert refusal.metadata == {"tool_id": first.tool_id, "version": "3"}


async def test_every_field_can_be_changed(tenant: Caller) -> None:
    made = await tenant.register()
    fields: dict[str, Any] = {
        "name": f"n_{made.name[:40]}",
        "description": "Other.",
        "input_schema": struct({"type": "object", "title": "other"}),
        "transport": tool_pb2.TOOL_TRANSPORT_MCP,
        "builtin": "",
        "effect": tool_pb2.TOOL_EFFECT_SIDE_EFFECT,
        "time_limit": Duration(seconds=3),
        "cost_per_call_nanos": 7,
        "labels": {"c": "d"},
        "output_schema": struct({"type": "string"}),
        "examples": [tool_pb2.ToolExample(arguments=struct({"a": 1}))],
        "documentation": "Other.",
        "grpc": None,
        "http": None,
        "mcp": tool_pb2.McpTarget(url="https://host/mcp"),
        "target_agent_id": "",
        "approval": tool_pb2.TOOL_APPROVAL_ALWAYS,
        "configuration_schema": struct({"type": "object"}),
        "default_configuration": struct({"a": 1}),
        "credentials": [tool_pb2.CredentialReference(name="a", secret="env:A")],
    }
    unchangeable = {"tool_id", "version", "digest", "status", "status_note", "etag", "create_time", "update_time"}
    assert set(fields) == set(tool_pb2.Tool.DESCRIPTOR.fields_by_name) - unchangeable
    changed = (await updated(tenant, made.tool_id, **fields)).tool
    for field, value in fields.items():
        if value is not None:
            assert getattr(changed, field) == value, field
    for field in sorted(unchangeable):
        request = update(made.tool_id)
        request.update_mask.paths.append(field)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await tenant.tools.UpdateTool(request)
        assert set(refusal.violations) == {"update_mask"}


async def test_a_change_that_leaves_the_target_wrong_is_refused(tenant: Caller) -> None:
    made = await tenant.register()
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await updated(tenant, made.tool_id, transport=tool_pb2.TOOL_TRANSPORT_HTTP)
    assert set(refusal.violations) == {"tool.builtin", "tool.http"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await updated(tenant, made.tool_id, mcp=tool_pb2.McpTarget(url="https://host"))
    assert set(refusal.violations) == {"tool.mcp"}
    assert await read(tenant, made.tool_id) == made


async def test_malformed_changes_are_told(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.UpdateTool(pb.UpdateToolRequest(request_id="x"))
    assert set(refusal.violations) == {"tool.tool_id", "update_mask", "request_id"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await updated(tenant, NOWHERE, name="A B", description="")
    assert set(refusal.violations) == {"tool.name", "tool.description"}
    for move in (deprecate, retire):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await move(tenant, "x", note="x" * 1_001, request_id="x")
        assert set(refusal.violations) == {"tool_id", "note", "request_id"}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.ListToolVersions(pb.ListToolVersionsRequest(page_size=-1))
    assert set(refusal.violations) == {"tool_id", "page_size"}


async def test_a_repeated_change_changes_once(tenant: Caller) -> None:
    made = await tenant.register()
    request = update(made.tool_id, description="Other.", etag=made.etag, request_id=str(uuid7()))
    first = await tenant.tools.UpdateTool(request)
    assert await tenant.tools.UpdateTool(request) == first
    assert (await read(tenant, made.tool_id)).version == 2
    # What it would be refused for by now is not looked at again.
    await retire(tenant, made.tool_id)
    assert await tenant.tools.UpdateTool(request) == first
    request.tool.description = "Another."
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.tools.UpdateTool(request)


async def test_a_stale_etag_changes_nothing(tenant: Caller) -> None:
    made = await tenant.register()
    changed = (await updated(tenant, made.tool_id, description="Other.", etag=made.etag)).tool
    for attempt in (
        updated(tenant, made.tool_id, description="Late.", etag=made.etag),
        deprecate(tenant, made.tool_id, etag=made.etag),
        retire(tenant, made.tool_id, etag=made.etag),
    ):
        async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
            await attempt
        assert refusal.metadata == {"tool_id": made.tool_id, "etag": changed.etag}
    assert await read(tenant, made.tool_id) == changed


async def test_changes_without_an_etag_take_turns(tenant: Caller) -> None:
    made = await tenant.register()
    await asyncio.gather(*(updated(tenant, made.tool_id, documentation=f"{number}") for number in range(8)))
    assert (await read(tenant, made.tool_id)).version == 9


async def test_changes_that_meet_are_checked_against_each_other(tenant: Caller) -> None:
    schema = struct({"type": "object", "properties": {"n": {"type": "string"}}})
    example = tool_pb2.ToolExample(arguments=struct({"n": 1}))
    for _ in range(10):
        made = await tenant.register()
        # Each fits the tool as it was; together they don't.
        answers = await asyncio.gather(
            updated(tenant, made.tool_id, input_schema=schema),
            updated(tenant, made.tool_id, examples=[example]),
            return_exceptions=True,
        )
        (refusal,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert peer_errors.reason_of(refusal) == "TOOL_EXAMPLE_INVALID"
        assert (await read(tenant, made.tool_id)).version == 2


async def test_another_tools_name_is_refused(tenant: Caller) -> None:
    made, other = await tenant.register(), await tenant.register()
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "TOOL_NAME_TAKEN"):
        await updated(tenant, made.tool_id, name=other.name)
    assert await read(tenant, made.tool_id) == made


async def test_tools_of_nobody_and_of_others_are_not_found(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.register()
    for caller, tool_id in ((tenant, NOWHERE), (stranger, made.tool_id)):
        attempts: list[Callable[[], Awaitable[Any]]] = [
            lambda: updated(caller, tool_id, description="Mine."),  # noqa: B023 - called at once
            lambda: deprecate(caller, tool_id),  # noqa: B023
            lambda: retire(caller, tool_id),  # noqa: B023
            lambda: caller.tools.ListToolVersions(pb.ListToolVersionsRequest(tool_id=tool_id)),  # noqa: B023
        ]
        for attempt in attempts:
            async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND") as refusal:
                await attempt()
            assert refusal.metadata == {"tool_id": tool_id}
    assert await read(tenant, made.tool_id) == made


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


async def test_versions_are_listed_newest_first_page_by_page(tenant: Caller) -> None:
    made = await tenant.register()
    for number in range(4):
        await updated(tenant, made.tool_id, documentation=f"{number}")
    found: list[tool_pb2.Tool] = []
    request = pb.ListToolVersionsRequest(tool_id=made.tool_id, page_size=2)
    while True:
        page = await tenant.tools.ListToolVersions(request)
        found.extend(page.versions)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [version.version for version in found] == [5, 4, 3, 2, 1]
    assert found == [await read(tenant, made.tool_id, number) for number in (5, 4, 3, 2, 1)]
    other = await tenant.register()
    for tool_id, token in ((other.tool_id, request.page_token), (made.tool_id, "x")):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.tools.ListToolVersions(pb.ListToolVersionsRequest(tool_id=tool_id, page_token=token))


async def test_a_page_of_versions_fits_into_a_message(tenant: Caller) -> None:
    made = await tenant.register(
        output_schema=struct({"title": "x" * 65_000}), input_schema=struct({"type": "object", "title": "x" * 65_000})
    )
    for number in range(10):
        await updated(tenant, made.tool_id, documentation=f"{number}")
    page = await tenant.tools.ListToolVersions(pb.ListToolVersionsRequest(tool_id=made.tool_id))
    assert 1 < len(page.versions) < 11
    assert page.ByteSize() < 3 * 1024 * 1024


async def test_labels_are_found_as_they_are_now(tenant: Caller) -> None:
    made = await tenant.register(name="before", labels={"a": "b", "c": "d"})
    await updated(tenant, made.tool_id, name="after", labels={"a": "x"})
    for labels, names in (({"a": "b"}, []), ({"c": "d"}, []), ({"a": "x"}, ["after"])):
        listed = await tenant.tools.ListTools(pb.ListToolsRequest(labels=labels))
        assert [tool.name for tool in listed.tools] == names


async def test_a_changed_digest_blocks_and_binding_again_frees_and_the_audit_tells_all_three(
    tenant: Caller, owner: Database
) -> None:
    tool = await tenant.register()
    agents = [await tenant.create() for _ in range(3)]
    for agent in agents:
        await tenant.bind(agent.agent_id, tool.tool_id)
    free = await updated(tenant, tool.tool_id, documentation="More.")
    assert (free.blocked_binding_count, free.tool.digest) == (0, tool.digest)
    changed = await updated(tenant, tool.tool_id, description="Other.")
    assert changed.blocked_binding_count == 3
    for agent in agents:
        assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_DIGEST_CHANGED]
    # What is blocked already is not blocked once more.
    again = await updated(tenant, tool.tool_id, description="Another.")
    assert again.blocked_binding_count == 0
    await tenant.bind(agents[0].agent_id, tool.tool_id)
    assert await states(tenant, agents[0].agent_id) == [agent_pb2.BINDING_STATE_USABLE]
    await tenant.agents.UnbindTool(
        agent_service_pb2.UnbindToolRequest(agent_id=agents[1].agent_id, tool_id=tool.tool_id)
    )

    told = await audit(owner, tenant)
    assert [name for name, _, _ in told] == [
        "tool.register",
        *["binding.bind"] * 3,
        "tool.update",
        "tool.update",
        *["binding.block"] * 3,
        "tool.update",
        "binding.bind",
        "binding.unbind",
    ]
    assert told[5][1] == {
        "tool_id": tool.tool_id,
        "name": tool.name,
        "version": 3,
        "digest": changed.tool.digest,
        "old_version": 2,
        "old_digest": tool.digest,
        "fields": ["description"],
        "blocked_binding_count": 3,
        "freed_binding_count": 0,
    }
    assert {agent for _, _, agent in told[6:9]} == {agent.agent_id for agent in agents}
    assert all(details["state"] == "DIGEST_CHANGED" for _, details, _ in told[6:9])
    assert [(details["again"], details["freed"]) for _, details, _ in told[1:4]] == [(False, False)] * 3
    assert (told[10][1]["again"], told[10][1]["freed"], told[10][2]) == (True, True, agents[0].agent_id)
    assert told[11][2] == agents[1].agent_id


async def test_retiring_blocks_every_binding(tenant: Caller, owner: Database) -> None:
    tool, agent = await tenant.register(), await tenant.create()
    await tenant.bind(agent.agent_id, tool.tool_id)
    await deprecate(tenant, tool.tool_id)
    assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_USABLE]
    answer = await tenant.tools.RetireTool(pb.RetireToolRequest(tool_id=tool.tool_id, note="Gone."))
    assert answer.blocked_binding_count == 1
    assert await states(tenant, agent.agent_id) == [agent_pb2.BINDING_STATE_TOOL_RETIRED]
    told = await audit(owner, tenant)
    assert [name for name, _, _ in told[2:]] == ["tool.deprecate", "tool.retire", "binding.block"]
    assert told[-1][1]["state"] == "TOOL_RETIRED"


async def test_what_is_refused_is_not_told(tenant: Caller, owner: Database) -> None:
    tool, agent = await tenant.register(name="now"), await tenant.create()
    other = await tenant.register(name="other")
    await retire(tenant, other.tool_id)
    before = await audit(owner, tenant)
    for attempt in (
        tenant.register(name="now"),
        updated(tenant, tool.tool_id, name="other"),
        updated(tenant, tool.tool_id, description="x", etag="stale"),
        updated(tenant, other.tool_id, description="x"),
        deprecate(tenant, other.tool_id),
        tenant.bind(agent.agent_id, other.tool_id),
        tenant.bind(agent.agent_id, tool.tool_id, expected_digest="0" * 64),
        tenant.agents.UnbindTool(agent_service_pb2.UnbindToolRequest(agent_id=agent.agent_id, tool_id=tool.tool_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await attempt
    assert await audit(owner, tenant) == before


async def test_of_many_blocked_bindings_the_audit_names_a_thousand(tenant: Caller, owner: Database) -> None:
    tool = await tenant.register()
    await owner.execute(
        "INSERT INTO registry.agents (tenant_id, agent_id, name, display_name, description, behavior_type,"
        " instructions, llm, capabilities, behavior, metadata, labels)"
        " SELECT $1, gen_random_uuid(), 'many-' || n, '', '', 'tool_use', '', '{}', '{}', '{}', '{}', '{}'"
        " FROM generate_series(1, 1100) n",
        tenant.tenant_id,
    )
    await owner.execute(
        "INSERT INTO registry.agent_tools (tenant_id, agent_id, tool_id, configuration, bound_digest)"
        " SELECT tenant_id, agent_id, $2::text::uuid, '{}', $3 FROM registry.agents WHERE tenant_id = $1",
        tenant.tenant_id,
        tool.tool_id,
        tool.digest,
    )
    assert (await updated(tenant, tool.tool_id, description="Other.")).blocked_binding_count == 1_100
    told = await audit(owner, tenant)
    assert told[1][1]["blocked_binding_count"] == 1_100
    assert len({agent for name, _, agent in told if name == "binding.block"}) == 1_000


async def test_an_agent_that_has_the_tool_must_still_fit_into_a_message(tenant: Caller, owner: Database) -> None:
    agent = await tenant.create()
    large = struct({"type": "object", "title": "x" * 65_000})
    tools = [await tenant.register(input_schema=large) for _ in range(10)]
    for tool in tools:
        await tenant.bind(agent.agent_id, tool.tool_id)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS") as refusal:
        for tool in tools:
            await updated(tenant, tool.tool_id, output_schema=large)
    assert refusal.metadata == {"limit_bytes": str(3 * 1024 * 1024), "agent_id": agent.agent_id}
    resolved = await tenant.agents.ResolveAgent(agent_service_pb2.ResolveAgentRequest(agent_id=agent.agent_id))
    assert resolved.ByteSize() < 4 * 1024 * 1024
    # What doesn't grow is taken, however full the agent is by now.
    await owner.execute(
        "UPDATE registry.tools SET documentation = repeat('x', 3500000) WHERE tool_id = $1::text::uuid",
        tools[0].tool_id,
    )
    await updated(tenant, tools[-1].tool_id, cost_per_call_nanos=3)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOOLS"):
        await updated(tenant, tools[-1].tool_id, documentation="x")


async def test_a_change_of_a_tool_is_told_to_watchers(tenant: Caller) -> None:
    tool = await tenant.register()
    watching = tenant.agents.WatchAgents(agent_service_pb2.WatchAgentsRequest(include_tools=True), timeout=20)
    told: list[agent_service_pb2.WatchAgentsResponse] = []
    try:
        async for change in watching:
            if change.kind != agent_pb2.AGENT_CHANGE_KIND_SYNCED:
                told.append(change)
                if len(told) == 3:
                    break
            elif not told:
                await updated(tenant, tool.tool_id, documentation="More.")
                await deprecate(tenant, tool.tool_id)
                await retire(tenant, tool.tool_id)
    finally:
        watching.cancel()
    for change in told:
        assert change.kind == agent_pb2.AGENT_CHANGE_KIND_TOOL_CHANGED
        assert (change.tool_id, change.agent_id) == (tool.tool_id, "")
        assert UUID(change.tenant_id) == tenant.tenant_id


async def test_a_tool_that_is_again_what_was_bound_is_freed_and_the_audit_says_so(
    tenant: Caller, owner: Database
) -> None:
    agent, tool = await tenant.create(), await tenant.register(description="Tells the time.")
    await tenant.bind(agent.agent_id, tool.tool_id)
    for description in ("Sends the time to a stranger.", "Tells the time."):
        changed = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=tool.tool_id, description=description))
        changed.update_mask.paths.append("description")
        await tenant.tools.UpdateTool(changed)
    told = (await audit(owner, tenant))[2:]
    assert [(name, agent_id) for name, _, agent_id in told] == [
        ("tool.update", None),
        ("binding.block", agent.agent_id),
        ("tool.update", None),
        ("binding.free", agent.agent_id),
    ]
    assert [details["freed_binding_count"] for name, details, _ in told if name == "tool.update"] == [0, 1]
