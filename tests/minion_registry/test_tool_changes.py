"""UpdateTool and ListToolVersions: versions, etags, repeats, and what is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_grpc import peer_errors
from minion_testing.errors import refused
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct
from tests.minion_registry.tool_moves import deprecate, read, retire, update, updated

NOWHERE = "018f0000-0000-7000-8000-000000000000"


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
