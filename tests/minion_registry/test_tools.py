"""RegisterTool, GetTool, ListTools."""

import hashlib
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE, Value
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.stalls import longest_stall
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, struct, tool

TARGETS: dict[Any, dict[str, Any]] = {
    tool_pb2.TOOL_TRANSPORT_GRPC: {"grpc": tool_pb2.GrpcTarget(address="[::1]:50051", tls=True, tool_name="Now")},
    tool_pb2.TOOL_TRANSPORT_HTTP: {"http": tool_pb2.HttpTarget(url="http://host/", method=tool_pb2.HTTP_METHOD_DELETE)},
    tool_pb2.TOOL_TRANSPORT_MCP: {"mcp": tool_pb2.McpTarget(url="https://host/mcp", tool_name="now")},
    tool_pb2.TOOL_TRANSPORT_AGENT: {"target_agent_id": "018f0000-0000-7000-8000-000000000000"},
    tool_pb2.TOOL_TRANSPORT_CLIENT: {},
    tool_pb2.TOOL_TRANSPORT_BUILTIN: {"builtin": "clock"},
}
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
        transport=tool_pb2.TOOL_TRANSPORT_HTTP,
        http=tool_pb2.HttpTarget(url="https://time.example:8443/now?a=1", method=tool_pb2.HTTP_METHOD_GET),
        effect=tool_pb2.TOOL_EFFECT_READ_ONLY,
        time_limit=Duration(seconds=2, nanos=500_000_000),
        cost_per_call_nanos=10**15,
        labels={"kind": "time"},
        output_schema=struct({"type": ["string", "null"]}),
        examples=[
            tool_pb2.ToolExample(
                description="In Berlin.",
                arguments=struct({"zone": "Europe/Berlin"}),
                output=Value(string_value="12:00"),
            ),
            tool_pb2.ToolExample(arguments=struct({"zone": "UTC"}), output=Value(null_value=NULL_VALUE)),
            tool_pb2.ToolExample(arguments=struct({"zone": "UTC"})),
        ],
        documentation="# Now\n\nIt tells the time.",
        approval=tool_pb2.TOOL_APPROVAL_ALWAYS,
        configuration_schema=struct({"type": "object", "required": ["region"]}),
        default_configuration=struct({"style": {"seconds": True}}),
        credentials=[
            tool_pb2.CredentialReference(name="token", secret="env:TIME_TOKEN"),
            tool_pb2.CredentialReference(name="cert", secret="file:time.pem"),
        ],
    )
    made = (await tenant.tools.RegisterTool(pb.RegisterToolRequest(tool=wanted))).tool
    assert made.version == 1
    assert made.status == tool_pb2.TOOL_STATUS_ACTIVE
    assert made.create_time == made.update_time
    given = tool_pb2.Tool()
    given.CopyFrom(made)
    for field in ("version", "digest", "create_time", "update_time", "status", "etag"):
        given.ClearField(field)
    assert given == wanted
    assert (await tenant.tools.GetTool(pb.GetToolRequest(tool_id=made.tool_id))).tool == made
    assert (await tenant.tools.GetTool(pb.GetToolRequest(name="now"))).tool == made
    assert (await tenant.tools.GetTool(pb.GetToolRequest(name="now", version=1))).tool == made


@pytest.mark.parametrize("transport", TARGETS)
async def test_every_transport_has_its_own_target(tenant: Caller, transport: Any) -> None:
    made = await tenant.register(transport=transport, **{"builtin": "", **TARGETS[transport]})
    assert made.transport == transport
    for field, value in TARGETS[transport].items():
        assert getattr(made, field) == value
    listed = await tenant.tools.ListTools(pb.ListToolsRequest(transport=transport))
    assert list(listed.tools) == [made]


@pytest.mark.parametrize("transport", TARGETS)
async def test_the_target_is_that_of_the_transport_and_no_other(tenant: Caller, transport: Any) -> None:
    everything = {field: value for target in TARGETS.values() for field, value in target.items()}
    own = set(TARGETS[transport])
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.register(transport=transport, **everything)
    assert set(refusal.violations) == {f"tool.{field}" for field in set(everything) - own}
    if own:
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await tenant.register(transport=transport, builtin="")
        assert set(refusal.violations) == {f"tool.{field}" for field in own}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "time.example/now",
        "ftp://time.example/",
        "file:///etc/passwd",
        "https://",
        "https:///now",
        "https://ann@time.example/",
        "https://ann:secret@time.example/",
        "https://time.example/#now",
        "https://time.example:0/",
        "https://time.example:/",
        "https://time.example:99999/",
        "https://time.example:x/",
        "https://[::1/",
        "https://[::1%25eth0]/",
        "https://[time.example]/",
        "https://time example/",
        "https://time.example/\n",
        "https://time.example/\x00",
        "https://time.example\\@other.example/",
        "https://time..example/",
        "https://-time.example/",
        "https://tïme.example/",
        # Letters whose other case is one of a to z.
        "https://\N{KELVIN SIGN}ime.example/",
        "https://time.example/\N{LATIN SMALL LETTER LONG S}",
        "https://time.example/" + "x" * 2_000,
    ],
)
async def test_a_url_that_is_none_is_refused(tenant: Caller, url: str) -> None:
    for fields in (
        {"transport": tool_pb2.TOOL_TRANSPORT_HTTP, "http": tool_pb2.HttpTarget(url=url)},
        {"transport": tool_pb2.TOOL_TRANSPORT_MCP, "mcp": tool_pb2.McpTarget(url=url)},
    ):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await tenant.register(builtin="", **fields)
        assert set(refusal.violations) < {"tool.http.url", "tool.mcp.url"}


@pytest.mark.parametrize(
    "url", ["http://a", "HTTPS://[2001:db8::1]:443/a%20b?c=d&e=f", "https://10.0.0.1:1/a", "https://a.b-c.example./~x"]
)
async def test_a_url_is_kept_as_it_is(tenant: Caller, url: str) -> None:
    made = await tenant.register(builtin="", transport=tool_pb2.TOOL_TRANSPORT_HTTP, http=tool_pb2.HttpTarget(url=url))
    assert made.http == tool_pb2.HttpTarget(url=url, method=tool_pb2.HTTP_METHOD_POST)


@pytest.mark.parametrize(
    "address",
    [
        *("", "host", "host:", ":1", "host:0", "host:65536", "host:1x", "a b:1", "\N{KELVIN SIGN}:1"),
        *("https://host:1", "[::x]:1", "::1:1", "h/a:1", "x" * 299 + ":1"),
    ],
)
async def test_an_address_that_is_none_is_refused(tenant: Caller, address: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        target = tool_pb2.GrpcTarget(address=address, tool_name="x" * 201)
        await tenant.register(builtin="", transport=tool_pb2.TOOL_TRANSPORT_GRPC, grpc=target)
    assert set(refusal.violations) == {"tool.grpc.address", "tool.grpc.tool_name"}


SECRETS = ["", "hunter2", "sk-live-51H", "env:lower", "env:", "file:../x", "file:.x", "file:a/b", "vault:X", "env:A B"]


@pytest.mark.parametrize("secret", SECRETS)
async def test_a_secret_is_referred_to_and_never_said(tenant: Caller, secret: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.register(credentials=[tool_pb2.CredentialReference(name="token", secret=secret)])
    assert set(refusal.violations) == {"tool.credentials[0].secret"}
    if secret and ":" not in secret:
        assert secret not in refusal.message + str(refusal.violations)


async def test_the_digest_is_over_canonical_json_of_what_is_pinned(tenant: Caller) -> None:
    made = await tenant.register(
        name="now",
        description="Zeit für 🙂",
        input_schema=struct({"type": "object", "maxProperties": 3, "$comment": "b"}),
        credentials=[tool_pb2.CredentialReference(name="token", secret="env:TOKEN")],
    )
    canonical = (
        '{"approval":"never","builtin":"clock","configuration_schema":null,"credentials":{"token":"env:TOKEN"},'
        '"default_configuration":{},"description":"Zeit für 🙂","effect":"read_only","grpc":null,"http":null,'
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
        ({"labels": {f"k{index}": "" for index in range(33)}}, "tool.labels"),
        ({"output_schema": struct({"title": "x" * 65_536})}, "tool.output_schema"),
        ({"configuration_schema": struct({"type": "object", "title": "x" * 65_536})}, "tool.configuration_schema"),
        ({"default_configuration": struct({"a": "x" * 16_384})}, "tool.default_configuration"),
        ({"documentation": "x" * 20_001}, "tool.documentation"),
        ({"approval": 9}, "tool.approval"),
        ({"examples": [tool_pb2.ToolExample()] * 21}, "tool.examples"),
        ({"examples": [tool_pb2.ToolExample(description="x" * 501)]}, "tool.examples[0].description"),
        ({"examples": [tool_pb2.ToolExample(arguments=struct({"a": "x" * 30_000}))] * 3}, "tool.examples"),
        ({"credentials": [tool_pb2.CredentialReference(name="A", secret="env:A")]}, "tool.credentials[0].name"),
        ({"credentials": [tool_pb2.CredentialReference(name="a", secret="env:A")] * 2}, "tool.credentials[1].name"),
        ({"credentials": [tool_pb2.CredentialReference(name="a", secret="env:A")] * 9}, "tool.credentials"),
    ],
)
async def test_a_field_beyond_its_limit_is_named(tenant: Caller, fields: dict[str, object], field: str) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.register(**fields)
    assert [found.partition(".title")[0] for found in refusal.violations] == [field]


async def test_tools_of_nobody_and_of_others_are_not_found(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.register()
    for caller, tool_id in ((tenant, str(uuid7())), (stranger, made.tool_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND") as refusal:
            await caller.tools.GetTool(pb.GetToolRequest(tool_id=tool_id))
        assert refusal.metadata == {"tool_id": tool_id}
    async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND"):
        await stranger.tools.GetTool(pb.GetToolRequest(name=made.name))


@pytest.mark.parametrize("fields", [{}, {"tool_id": "018f0000-0000-7000-8000-000000000000", "name": "now"}])
async def test_a_tool_is_named_in_exactly_one_way(tenant: Caller, fields: dict[str, Any]) -> None:
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


async def test_tools_are_listed_by_status_and_labels(tenant: Caller, stranger: Caller) -> None:
    await stranger.register(labels={"team": "core"})
    made = {
        name: await tenant.register(name=name, labels=labels)
        for name, labels in (
            ("a", {"team": "core", "tier": "gold"}),
            ("b", {"team": "core"}),
            ("c", {"team": "web", "tier": "gold"}),
            ("d", {}),
        )
    }
    for name, retire in (("b", False), ("c", True)):
        if retire:
            await tenant.tools.RetireTool(pb.RetireToolRequest(tool_id=made[name].tool_id))
        else:
            await tenant.tools.DeprecateTool(pb.DeprecateToolRequest(tool_id=made[name].tool_id))
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"status": tool_pb2.TOOL_STATUS_ACTIVE}, "ad"),
        ({"status": tool_pb2.TOOL_STATUS_DEPRECATED}, "b"),
        ({"status": tool_pb2.TOOL_STATUS_RETIRED}, "c"),
        ({"labels": {"team": "core"}}, "ab"),
        ({"labels": {"team": "core", "tier": "gold"}}, "a"),
        ({"labels": {"team": "core"}, "status": tool_pb2.TOOL_STATUS_DEPRECATED}, "b"),
        ({"labels": {"team": "core"}, "transport": tool_pb2.TOOL_TRANSPORT_CLIENT}, ""),
        ({"status": tool_pb2.TOOL_STATUS_ACTIVE, "transport": tool_pb2.TOOL_TRANSPORT_BUILTIN}, "ad"),
        ({"status": tool_pb2.TOOL_STATUS_ACTIVE, "transport": tool_pb2.TOOL_TRANSPORT_CLIENT}, ""),
        ({"labels": {"team": "none"}}, ""),
    )
    for fields, names in cases:
        found, token = "", ""
        while True:
            request = pb.ListToolsRequest(page_size=1, page_token=token, **fields)
            page = await tenant.tools.ListTools(request)
            found += "".join(tool.name for tool in page.tools)
            token = page.next_page_token
            if not token:
                break
        assert found == names, fields


async def test_malformed_filters_are_told(tenant: Caller) -> None:
    request: Any = pb.ListToolsRequest(status=9, labels={f"k{index}": "" for index in range(9)})  # type: ignore[arg-type]
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.ListTools(request)
    assert set(refusal.violations) == {"status", "labels"}


async def test_a_schema_full_of_faults_holds_nobody_up(tenant: Caller) -> None:
    faulty = struct({"type": "object", "properties": {f"p{number}": {"type": number} for number in range(3_000)}})

    async def register() -> None:
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID"):
            await tenant.register(input_schema=faulty)

    assert await longest_stall(register) < 0.4
