"""Schemas of tools: what is none, or hostile, is refused for each of the three; examples and settings keep to them."""

import time
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_grpc import wire
from minion_testing.errors import refused

from tests.minion_registry.stage import Caller, struct

FIELDS = ("input_schema", "output_schema", "configuration_schema")
OBJECT: dict[str, Any] = {"type": "object"}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({**OBJECT, "properties": {"a": {"type": "strin"}}}, ".properties.a.type"),
        ({**OBJECT, "required": "a"}, ".required"),
        ({**OBJECT, "$schema": "http://json-schema.org/draft-07/schema#"}, ".$schema"),
        ({**OBJECT, "$ref": "https://example.com/schema"}, ""),
        ({**OBJECT, "$ref": "file:///etc/passwd"}, ""),
        ({**OBJECT, "properties": {"a": {"$dynamicRef": "http://127.0.0.1:1/x#a"}}}, ""),
        ({**OBJECT, "$ref": "#/$defs/nowhere"}, ""),
        ({**OBJECT, "allOf": [{"$ref": "#"}]}, ""),
        (
            {**OBJECT, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            "",
        ),
        ({**OBJECT, "properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, ""),
        ({**OBJECT, "properties": {"a": {"allOf": [{"$ref": "#"}], "$ref": "#"}}}, ""),
        (
            {
                **OBJECT,
                "additionalProperties": {"oneOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
                "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
            },
            "",
        ),
        ({**OBJECT, "properties": {"a": {"pattern": "(?=a)b"}}}, ".properties.a.pattern"),
        ({**OBJECT, "properties": {"a": {"pattern": "(a)\\1"}}}, ".properties.a.pattern"),
        ({**OBJECT, "properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}}, ".properties.a.pattern"),
        ({**OBJECT, "patternProperties": {"(": {}}}, ".patternProperties.("),
        ({**OBJECT, "properties": {str(index): {"pattern": f"a{index}"} for index in range(51)}}, ""),
        ({**OBJECT, "$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}, ""),
    ],
)
async def test_what_is_no_bounded_schema_is_refused_and_told_where(
    tenant: Caller, field: str, schema: dict[str, Any], path: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID") as refusal:
        await tenant.register(**{field: struct(schema)})
    assert set(refusal.violations) == {f"tool.{field}{path}"}
    made = await tenant.register()
    request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=made.tool_id, **{field: struct(schema)}))  # type: ignore[arg-type]
    request.update_mask.paths.append(field)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID"):
        await tenant.tools.UpdateTool(request)
    assert list((await tenant.tools.ListTools(pb.ListToolsRequest())).tools) == [made]


@pytest.mark.parametrize("field", FIELDS)
async def test_a_schema_that_is_too_large_or_too_deep_is_refused(tenant: Caller, field: str) -> None:
    for schema in ({**OBJECT, "title": "x" * 70_000}, deep(16)):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await tenant.register(**{field: struct(schema)})
        assert {found.partition(".properties")[0] for found in refusal.violations} == {f"tool.{field}"}


async def test_what_tools_give_may_be_of_any_type_and_settings_are_objects(tenant: Caller) -> None:
    await tenant.register(output_schema=struct({"type": "string"}))
    await tenant.register(output_schema=struct({}))
    for field in ("input_schema", "configuration_schema"):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID") as refusal:
            await tenant.register(**{field: struct({"type": "string"})})
        assert set(refusal.violations) == {f"tool.{field}.type"}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_recursive_schema_is_fine_where_it_goes_into_the_value(tenant: Caller, field: str) -> None:
    tree = {
        **OBJECT,
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "all": {"items": {"$ref": "#"}}},
        "unevaluatedProperties": False,
    }
    assert await tenant.register(**{field: struct(tree)})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)*$", "(.*a){30}", "([a-z]+)*[0-9]", "(x+x+)+y"])
async def test_a_pattern_that_others_choke_on_is_matched_soon(tenant: Caller, pattern: str) -> None:
    made = await tenant.register(input_schema=struct({**OBJECT, "properties": {"a": {"pattern": pattern}}}))
    for text in ("a" * 10_000 + "!", "ax" * 10_000):
        began = time.process_time()
        request = pb.ValidateToolArgumentsRequest(tool_id=made.tool_id, arguments=struct({"a": text}))
        try:
            await tenant.tools.ValidateToolArguments(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017 - one of the two
        assert time.process_time() - began < 2


async def test_examples_keep_to_both_schemas(tenant: Caller) -> None:
    schemas = {
        "input_schema": struct({**OBJECT, "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
        "output_schema": struct({"type": "array", "items": {"type": "string"}}),
    }
    good = tool_pb2.ToolExample(arguments=struct({"n": 1}), output=wire.to_value(["a"]))
    await tenant.register(examples=[good], **schemas)
    bad = [
        good,
        tool_pb2.ToolExample(arguments=struct({"n": "secret"})),
        tool_pb2.ToolExample(arguments=struct({}), output=wire.to_value(["a", 3])),
        tool_pb2.ToolExample(arguments=struct({"n": 2}), output=Value(number_value=3)),
    ]
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_EXAMPLE_INVALID") as refusal:
        await tenant.register(examples=bad, **schemas)
    assert set(refusal.violations) == {
        "tool.examples[1].arguments.n",
        "tool.examples[2].arguments",
        "tool.examples[2].output[1]",
        "tool.examples[3].output",
    }
    assert "secret" not in str(refusal.violations) + refusal.message


async def test_a_changed_schema_is_held_against_the_examples_that_stay(tenant: Caller) -> None:
    made = await tenant.register(examples=[tool_pb2.ToolExample(arguments=struct({"n": 1}))])
    schema = struct({**OBJECT, "properties": {"n": {"type": "string"}}})
    request = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=made.tool_id, input_schema=schema))
    request.update_mask.paths.append("input_schema")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_EXAMPLE_INVALID") as refusal:
        await tenant.tools.UpdateTool(request)
    assert set(refusal.violations) == {"tool.examples[0].arguments.n"}


async def test_default_settings_keep_to_their_schema_and_may_leave_some_to_bindings(tenant: Caller) -> None:
    schema = struct(
        {**OBJECT, "properties": {"zone": {"type": "string"}}, "required": ["zone", "region"], "minProperties": 2}
    )
    await tenant.register(configuration_schema=schema)
    await tenant.register(configuration_schema=schema, default_configuration=struct({"zone": "UTC"}))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_EXAMPLE_INVALID") as refusal:
        await tenant.register(configuration_schema=schema, default_configuration=struct({"zone": 3}))
    assert set(refusal.violations) == {"tool.default_configuration.zone"}
