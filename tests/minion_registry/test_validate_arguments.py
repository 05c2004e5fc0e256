"""ValidateToolArguments: every fault with its place, and no schema or value makes the check expensive."""

import random
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import grpc
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minion.registry.v1 import tool_pb2
from minion.registry.v1 import tool_service_pb2 as pb
from minion_errors import InvalidArgument
from minion_registry import json_schema
from minion_registry.json_values import Checker, Checkers
from minion_registry.schema_costs import Automaton
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.stalls import longest_stall

from tests.minion_registry.stage import Caller, struct

NOWHERE = "018f0000-0000-7000-8000-000000000000"
OBJECT: dict[str, Any] = {"type": "object"}
# Twice and more what it takes at its worst on a slow machine that others work on as well.
SOON = 1.0


async def validated(caller: Caller, arguments: dict[str, Any], **named: Any) -> pb.ValidateToolArgumentsResponse:
    return await caller.tools.ValidateToolArguments(
        pb.ValidateToolArgumentsRequest(arguments=struct(arguments), **named)
    )


async def test_every_fault_is_told_with_its_place_the_outermost_first(tenant: Caller) -> None:
    made = await tenant.register(
        input_schema=struct(
            {
                **OBJECT,
                "properties": {
                    "a/b": {"items": {"type": "integer", "maximum": 5}},
                    "deep": {"properties": {"~": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
                },
                "required": ["zone", "unit"],
                "additionalProperties": False,
            }
        )
    )
    arguments = {"a/b": [1, "x", 9], "deep": {"~": 3}, "more": 1}
    for named in ({"tool_id": made.tool_id}, {"name": made.name}, {"name": made.name, "version": 1}):
        answer = await validated(tenant, arguments, **named)
        assert not answer.valid
        found = [(fault.path, fault.schema_path) for fault in answer.violations]
        assert sorted(found) == [
            ("", "/additionalProperties"),
            ("", "/required"),
            ("", "/required"),
            ("/a~1b/1", "/properties/a~1b/items/type"),
            ("/a~1b/2", "/properties/a~1b/items/maximum"),
            ("/deep/~0", "/properties/deep/properties/~0/anyOf"),
        ]
        depths = [fault.path.count("/") for fault in answer.violations]
        assert depths == sorted(depths)
        assert all(fault.description for fault in answer.violations)
    answer = await validated(tenant, {"a/b": [1], "zone": 1, "unit": 2}, tool_id=made.tool_id)
    assert [fault.path for fault in answer.violations] == [""]


async def test_arguments_that_fit_are_valid(tenant: Caller) -> None:
    made = await tenant.register(input_schema=struct({**OBJECT, "properties": {"n": {"type": "integer"}}}))
    assert await validated(tenant, {"n": 3, "more": [None]}, tool_id=made.tool_id) == pb.ValidateToolArgumentsResponse(
        valid=True
    )


async def test_at_most_100_faults_are_told(tenant: Caller) -> None:
    made = await tenant.register(input_schema=struct({**OBJECT, "properties": {"a": {"items": {"type": "string"}}}}))
    answer = await validated(tenant, {"a": list(range(300))}, tool_id=made.tool_id)
    assert len({fault.path for fault in answer.violations}) == 100


async def test_faults_below_long_names_are_told_as_far_as_they_fit_into_a_reply(tenant: Caller) -> None:
    wrong = {"additionalProperties": {"type": "string"}}
    made = await tenant.register(input_schema=struct({**OBJECT, "additionalProperties": wrong}))
    answer = await validated(tenant, {"é" * 100_000: {str(number): number for number in range(100)}}, name=made.name)
    assert not answer.valid
    # 3 MiB of paths of 200 KB.
    assert len(answer.violations) == 15
    assert all(fault.path.startswith("/é") for fault in answer.violations)


async def test_the_version_that_is_named_counts(tenant: Caller) -> None:
    made = await tenant.register(input_schema=struct({**OBJECT, "required": ["a"]}))
    update = pb.UpdateToolRequest(tool=tool_pb2.Tool(tool_id=made.tool_id, input_schema=struct(OBJECT)))
    update.update_mask.paths.append("input_schema")
    await tenant.tools.UpdateTool(update)
    assert (await validated(tenant, {}, tool_id=made.tool_id)).valid
    assert (await validated(tenant, {}, tool_id=made.tool_id, version=2)).valid
    assert not (await validated(tenant, {}, tool_id=made.tool_id, version=1)).valid
    async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND"):
        await validated(tenant, {}, tool_id=made.tool_id, version=3)


async def test_tools_of_nobody_and_of_others_are_not_found(tenant: Caller, stranger: Caller) -> None:
    made = await tenant.register()
    for caller, tool_id in ((tenant, NOWHERE), (stranger, made.tool_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND") as refusal:
            await validated(caller, {}, tool_id=tool_id)
        assert refusal.metadata == {"tool_id": tool_id}


async def test_arguments_that_are_too_large_or_too_deep_are_refused(tenant: Caller) -> None:
    made = await tenant.register()
    deep: Any = 1
    for _ in range(33):
        deep = {"a": deep}
    for arguments in ({"a": "x" * 262_144}, {"a": [1] * 200_000}, deep, {"a": "\0"}):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await validated(tenant, arguments, tool_id=made.tool_id)
        assert all(field.startswith("arguments") for field in refusal.violations)
    request = pb.ValidateToolArgumentsRequest(version=-1)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await tenant.tools.ValidateToolArguments(request)
    assert set(refusal.violations) == {"tool_id", "name", "version"}


async def test_a_large_check_holds_nobody_up(tenant: Caller) -> None:
    made = await tenant.register(input_schema=struct({**OBJECT, "properties": {"a": {"items": {"type": "string"}}}}))
    request = pb.ValidateToolArgumentsRequest(tool_id=made.tool_id, arguments=struct({"a": [1] * 100_000}))

    async def check() -> None:
        assert not (await tenant.tools.ValidateToolArguments(request)).valid

    assert await longest_stall(check) < 0.4


async def test_a_schema_of_an_earlier_release_that_is_not_bounded_is_refused(
    tenant: Caller, postgres: ClonedDatabase
) -> None:
    made = await tenant.register()
    async with await postgres.connect("registry", "owner") as database:
        await database.execute(
            "UPDATE registry.tools SET input_schema = $2 WHERE tool_id = $1::text::uuid",
            made.tool_id,
            {**OBJECT, "properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}},
        )
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TOOL_SCHEMA_INVALID"):
        await validated(tenant, {"a": {"a": {}}}, tool_id=made.tool_id)


def of_a(schema: Any) -> dict[str, Any]:
    return {**OBJECT, "properties": {"a": schema}}


def nested(levels: int, leaf: Any = 1, name: str = "a") -> Any:
    for _ in range(levels):
        leaf = {name: leaf}
    return leaf


def alternatives(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [{"type": "object", "properties": {"a": schema}}] * 2}
    return schema


_AB = "".join(random.Random(1).choice("ab") for _ in range(250_000))  # noqa: S311 - no secret
_HOSTILE: dict[str, tuple[Any, Any]] = {
    "all items of the wrong type": (of_a({"items": {"type": "string"}}), {"a": [1] * 120_000}),
    "all items wrong in many ways": (of_a({"items": {"anyOf": [{"type": "string"}] * 900}}), {"a": [1] * 120_000}),
    "few items wrong in many ways": (of_a({"items": {"anyOf": [{"type": "string"}] * 900}}), {"a": [1] * 3}),
    "much is missing of much": (
        {**OBJECT, "required": [f"k{index}" for index in range(1_000)]},
        {"a": "x" * 250_000},
    ),
    "items told from each other": (of_a({"uniqueItems": True}), {"a": [{"x": n} for n in range(22_000)]}),
    "items compared with structures": (
        of_a({"items": {"enum": [{"v": n} for n in range(5_000)]}}),
        {"a": [{"v": -1}] * 15_000},
    ),
    "an item compared with structures": (of_a({"enum": [{"v": n} for n in range(5_000)]}), {"a": {"v": -1}}),
    "items divided": (of_a({"items": {"multipleOf": 0.0001}}), {"a": [99] * 80_000}),
    "names matched": (
        {**OBJECT, "patternProperties": {f"^k[0-9]{{{n}}}.*z?$": {} for n in range(50)}, "additionalProperties": False},
        {f"k{n}": 1 for n in range(15_000)},
    ),
    "long names": (
        {**OBJECT, "propertyNames": {"pattern": "(?:a|b)*a[ab]{200}[^ab]+[xy]"}},
        {_AB[n : n + 1_000]: 1 for n in range(0, 200_000, 1_000)},
    ),
    "names with the schema of the whole": ({**OBJECT, "propertyNames": {"$ref": "#"}}, {"a": 1}),
    "many names looked up": (
        of_a({"items": of_a({}) | {"properties": {f"p{n}": {} for n in range(2_000)}}}),
        {"a": [{}] * 80_000},
    ),
    "one of many": (of_a({"items": {"oneOf": [{"minimum": n} for n in range(900)]}}), {"a": [0.5] * 60_000}),
    "a tree": (
        {**OBJECT, "required": ["n"], "properties": {"c": {"items": {"$ref": "#"}}}},
        {"c": [{"c": [{}] * 30}] * 900},
    ),
    "a chain of references": (of_a({"anyOf": [{"$ref": "#"}]}), nested(30)),
    "alternatives": (of_a(alternatives(8)), nested(30)),
    "unevaluated": ({**of_a({"$ref": "#"}), "unevaluatedProperties": False}, nested(30)),
}
_PATTERNS = (
    "(?:a|b)*a[ab]{%d}[^ab]+[xy]",
    "([ab]+a){%d}[^ab]\\w",
    "(\\w+a\\w{%d})+[^ab]\\d",
    "([ab]*a[ab]*b){%d}[^ab]\\d",
)
for _pattern in _PATTERNS:
    for _times in (10, 200, 400):
        for _length in (1_000, 10_000, 250_000):
            _HOSTILE[f"{_pattern % _times} on {_length}"] = (
                of_a({"pattern": _pattern % _times}),
                {"a": _AB[:_length]},
            )


@pytest.mark.parametrize("name", _HOSTILE)
def test_no_schema_that_is_taken_makes_a_check_expensive(name: str) -> None:
    schema, value = _HOSTILE[name]
    best = 10.0
    for _ in range(3):
        # A mark of its own makes the schema another, so that nothing is remembered of it.
        fresh = {**schema, "$comment": uuid4().hex}
        began = time.process_time()
        try:
            json_schema.check(fresh, "schema")
            checked = time.process_time()
            checker = Checkers().of(fresh)
            made = time.process_time()
            checker.faults(value, "value")
        except InvalidArgument as refusal:
            if refusal.reason == "TOOL_SCHEMA_INVALID":
                checked = made = time.process_time()
        ended = time.process_time()
        best = min(best, max(checked - began, made - checked, ended - made))
        if best < SOON:
            break
    assert best < SOON


_leaves = st.sampled_from(
    [{"type": "integer"}, {"type": "string", "maxLength": 1}, {"minimum": 0}, {"const": 1}, {"enum": [[], 1]}, {}]
)
_NESTED: tuple[Callable[[Any, Any], dict[str, Any]], ...] = (
    lambda a, b: {"properties": {"a": a, "b": b}},
    lambda a, b: {"anyOf": [a, b]},
    lambda a, b: {"items": a, "not": b},
    lambda a, b: {"prefixItems": [a], "items": b, "maxItems": 2},
    lambda a, b: {"patternProperties": {"^a": a}, "additionalProperties": b, "required": ["b"]},
)


@st.composite
def _schemas(draw: st.DrawFn, levels: int = 3) -> Any:
    if levels == 0 or draw(st.booleans()):
        return draw(_leaves)
    made = draw(st.sampled_from(_NESTED))
    return made(draw(_schemas(levels - 1)), draw(_schemas(levels - 1)))


@st.composite
def _values(draw: st.DrawFn, levels: int = 3) -> Any:
    if levels == 0 or draw(st.booleans()):
        return draw(st.integers(-1, 1) | st.sampled_from(["", "ab", None]))
    inner = _values(levels - 1)
    return draw(st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3))


@settings(deadline=None)
@given(_schemas(), _values())
def test_what_is_told_is_what_the_library_finds_and_never_more_than_counted(schema: Any, value: Any) -> None:
    found = Checker(schema).faults(value, "value")
    expected = [
        (tuple(error.instance_path), tuple(error.schema_path))
        for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(value)
    ]
    assert sorted(map(repr, expected)) == sorted(repr((fault.path, fault.schema_path)) for fault in found)
    _, rules = Automaton(schema).cost(value, 10**12)
    assert len(expected) <= rules
