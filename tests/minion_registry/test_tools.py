"""RegisterTool, GetTool, ListTools."""

import hashlib

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.stalls import longest_stall
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct, tool

SCHEMA = {
    "type": "object",
    "properties": {"zone": {"type": "string", "maxLength": 40}, "offset": {"minimum": -1.5}},
    "required": ["zone"],
}


async def test_a_tool_is_registered_with_all_that_it_was_given(tenant: Caller) -> None:
    wanted = tool_pb2.Tool(
        tool_id=str(uuid7()),
        name="now",
        description="Tells the time.",
        input_schema=struct(SCHEMA),
        transport=tool_pb2.TOOL_TRANSPORT_BUILTIN,
        builtin="clock",
        effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
        time_limit=Duration(seconds=2, nanos=500_000_000),
        cost_per_call_nanos=10**15,
        labels={"kind": "time"},
    )
    made = (await tenant.tools.RegisterTool(pb.RegisterToolRequest(tool=wanted))).tool
    assert made.version == 1
    assert made.create_time == made.update_time
    given = tool_pb2.Tool()
    given.CopyFrom(made)
    for field in ("version", "digest", "create_time", "update_time", "status", "etag"):
        given.ClearField(field)
    assert given == wanted
    assert (await tenant.tools.GetTool(pb.GetToolRequest(tool_id=made.tool_id))).tool == made
    assert (await tenant.tools.GetTool(pb.GetToolRequest(name="now"))).tool == made


async def test_the_digest_is_over_canonical_json_of_what_is_pinned(tenant: Caller) -> None:
    made = await tenant.register(
        name="now",
        description="Zeit für 🙂",
        input_schema=struct({"type": "object", "maxProperties": 3, "$comment": "b"}),
        credentials=[tool_pb2.CredentialReference(name="token", secret="env:TOKEN")],
    )
    canonical = (
        '{"approval":"never","builtin":"clock","configuration_schema":null,"credentials":{"token":"env:TOKEN"},'
        '"description":"Zeit für 🙂","effect":"read_only","grpc":null,"http":null,'
        '"input_schema":{"$comment":"b","maxProperties":3,"type":"object"},"mcp":null,"name":"now",'
        '"output_schema":null,"target_agent_id":null,"transport":"builtin"}'
    )
    assert made.digest == hashlib.sha256(canonical.encode()).hexdigest()


async def test_the_digest_changes_with_what_is_pinned_alone(tenant: Caller, stranger: Caller) -> None:
    first = await tenant.register(name="now")
    assert (await stranger.register(name="now", cost_per_call_nanos=3, labels={"a": "b"})).digest == first.digest
    assert (await tenant.register(name="now_2")).digest != first.digest


async def test_the_first_version_is_kept(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await tenant.register()
    async with await postgres.connect("registry", "owner") as database:
        row = await database.fetch_one(
            "SELECT version, digest FROM registry.tool_versions WHERE tenant_id = $1", tenant.tenant_id
        )
    assert row is not None
    assert (row["version"], row["digest"]) == (1, made.digest)


async def test_a_repeat_returns_the_first_result(tenant: Caller) -> None:
    request = pb.RegisterToolRequest(
        tool=tool(input_schema=struct(SCHEMA), time_limit=Duration(nanos=10_000_000)), request_id=str(uuid7())
    )
    first = await tenant.tools.RegisterTool(request)
    assert await tenant.tools.RegisterTool(request) == first
    assert len((await tenant.tools.ListTools(pb.ListToolsRequest())).tools) == 1


async def test_the_same_request_id_with_another_body_is_refused(tenant: Caller) -> None:
    request_id = str(uuid7())
    await tenant.tools.RegisterTool(pb.RegisterToolRequest(tool=tool(), request_id=request_id))
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await tenant.tools.RegisterTool(pb.RegisterToolRequest(tool=tool(), request_id=request_id))


async def test_a_name_or_id_that_is_taken_is_refused(tenant: Caller) -> None:
    first = await tenant.register(name="now")
    for again in (tool(name="now"), tool(tool_id=first.tool_id)):
        async with refused(grpc.StatusCode.ALREADY_EXISTS, "TOOL_NAME_TAKEN"):
            await tenant.tools.RegisterTool(pb.RegisterToolRequest(tool=again))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tool_id": "now"}, "tool.tool_id"),
        ({"name": "a" * 65}, "tool.name"),
        ({"name": "a-b"}, "tool.name"),
        ({"name": "_a"}, "tool.name"),
        ({"description": ""}, "tool.description"),
        ({"description": "x" * 4_001}, "tool.description"),
        ({"input_schema": struct({"type": "object", "title": "x" * 65_536})}, "tool.input_schema"),
        ({"input_schema": struct({"type": "object", "title": "\0"})}, "tool.input_schema"),
        ({"transport": tool_pb2.TOOL_TRANSPORT_UNSPECIFIED}, "tool.transport"),
        ({"transport": 77}, "tool.transport"),
        ({"builtin": "rm"}, "tool.builtin"),
        ({"effect": tool_pb2.TOOL_EFFECT_UNSPECIFIED}, "tool.effect"),
        ({"time_limit": Duration(nanos=9_999_000)}, "tool.time_limit"),
        ({"time_limit": Duration(seconds=601)}, "tool.time_limit"),
        ({"cost_per_call_nanos": -1}, "tool.cost_per_call_nanos"),
        ({"cost_per_call_nanos": 10**15 + 1}, "tool.cost_per_call_nanos"),
        ({"labels": {"k": "x" * 64}}, "tool.labels['k']"),
    ],
)
async def test_a_field_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.register(**fields)
    assert [found.partition(".title")[0] for found in refusal.violations] == [field]


async def test_a_schema_that_is_none_is_refused_and_told_where(tenant: Caller) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "strin"}, "b": {"minimum": "x"}}}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID") as refusal:
        await tenant.register(input_schema=struct(schema))
    assert set(refusal.violations) == {
        "tool.input_schema.properties.a.type",
        "tool.input_schema.properties.b.minimum",
    }
    assert not (await tenant.tools.ListTools(pb.ListToolsRequest())).tools


async def test_tools_of_nobody_and_of_others_are_not_found(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.register()
    for caller, tool_id in ((tenant, str(uuid7())), (stranger, made.tool_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND") as refusal:
            await caller.tools.GetTool(pb.GetToolRequest(tool_id=tool_id))
        assert refusal.metadata == {"tool_id": tool_id}
    async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND"):
        await stranger.tools.GetTool(pb.GetToolRequest(name=made.name))


@pytest.mark.parametrize("fields", [{}, {"tool_id": "018f0000-0000-7000-8000-000000000000", "name": "now"}])
async def test_a_tool_is_named_in_exactly_one_way(tenant: Caller, fields: dict[str, str]) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.GetTool(pb.GetToolRequest(**fields))
    assert set(refusal.violations) == {"tool_id", "name"}


async def test_tools_are_listed_by_name_page_by_page(tenant: Caller, stranger: Caller) -> None:
    await stranger.register()
    names = ["b", "a", "d", "c", "e"]
    for name in names:
        await tenant.register(name=name)
    for transport in (tool_pb2.TOOL_TRANSPORT_UNSPECIFIED, tool_pb2.TOOL_TRANSPORT_BUILTIN):
        found: list[str] = []
        token = ""
        while True:
            page = await tenant.tools.ListTools(pb.ListToolsRequest(transport=transport, page_size=2, page_token=token))
            found.extend(tool.name for tool in page.tools)
            token = page.next_page_token
            if not token:
                break
        assert found == sorted(names)


async def test_a_page_of_tools_fits_into_a_message(tenant: Caller) -> None:
    large = struct({"type": "object", "title": "x" * 65_000})
    for name in "abcdefghijklmn":
        await tenant.register(name=name, input_schema=large)
    request = pb.ListToolsRequest()
    found, pages = "", 0
    while not pages or request.page_token:
        page = await tenant.tools.ListTools(request)
        assert page.ByteSize() < 3 * 1024 * 1024
        found += "".join(tool.name for tool in page.tools)
        request.page_token = page.next_page_token
        pages += 1
    assert found == "abcdefghijklmn"
    assert pages > 1


async def test_a_token_of_another_list_is_refused(tenant: Caller) -> None:
    for _ in range(2):
        await tenant.register()
    token = (await tenant.tools.ListTools(pb.ListToolsRequest(page_size=1))).next_page_token
    other = pb.ListToolsRequest(transport=tool_pb2.TOOL_TRANSPORT_BUILTIN, page_token=token)
    for request in (other, pb.ListToolsRequest(page_token="x"), pb.ListToolsRequest(page_token=token[:-3])):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
            await tenant.tools.ListTools(request)


async def test_a_negative_page_and_an_unknown_transport_are_refused(tenant: Caller) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.ListTools(pb.ListToolsRequest(page_size=-1, transport=77))  # type: ignore[arg-type]
    assert set(refusal.violations) == {"page_size", "transport"}


async def test_a_schema_full_of_faults_holds_nobody_up(tenant: Caller) -> None:
    faulty = struct({"type": "object", "properties": {f"p{number}": {"type": number} for number in range(3_000)}})

    async def register() -> None:
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID"):
            await tenant.register(input_schema=faulty)

    assert await longest_stall(register) < 0.4
