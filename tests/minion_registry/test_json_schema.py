"""Tools' schemas: what is refused, and that nobody can make the check expensive."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from minion_errors import InvalidArgument
from minion_registry import json_schema

_OBJECT: dict[str, Any] = {"type": "object"}


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keeps the collector of garbage away, which may take seconds for what tests of other files have left."""
    gc.disable()
    yield
    gc.enable()


def doubling(depth: int, reference: str = "#/$defs/d{}", **keywords: Any) -> dict[str, Any]:
    """A schema of few bytes in which each definition names the next one twice."""
    definitions: dict[str, Any] = {
        f"d{level}": {"$anchor": f"d{level}", "allOf": [{"$ref": reference.format(level + 1)}] * 2, **keywords}
        for level in range(depth)
    }
    definitions[f"d{depth}"] = {"$anchor": f"d{depth}", "type": "object"}
    return {"type": "object", "$defs": definitions, "$ref": reference.format(0)}


def chain(length: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {f"d{level}": {"$ref": f"#/$defs/d{level + 1}"} for level in range(length)}
    return {"type": "object", "$defs": {**definitions, f"d{length}": {}}, "$ref": "#/$defs/d0"}


def branching(depth: int, width: int) -> dict[str, Any]:
    """A schema of few bytes: which of its parts look at a place depends on each of the last `depth` names before it."""
    definitions: dict[str, Any] = {
        f"d{level}": {
            "additionalProperties": {"$ref": f"#/$defs/d{level + 1}"} if level < depth else {},
            "allOf": [{"maxLength": 1}] * width,
        }
        for level in range(1, depth + 1)
    }
    again = {"$ref": "#/$defs/d0"}
    both = {"allOf": [again, {"$ref": "#/$defs/d1"}]}
    return {
        "type": "object",
        "$defs": {**definitions, "d0": {"properties": {"a": both}, "additionalProperties": again}},
        **again,
    }


@pytest.mark.parametrize(
    "schema",
    [
        _OBJECT,
        {**_OBJECT, "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a"},
        {**_OBJECT, "properties": {"zone": {"type": "string", "pattern": "^[A-Za-z_/]{1,64}$"}}, "required": ["zone"]},
        {**_OBJECT, "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {**_OBJECT, "$defs": {"a b": {"type": "string"}}, "properties": {"p": {"$ref": "#/$defs/a%20b"}}},
        {**_OBJECT, "$defs": {"a": {"$anchor": "here"}}, "properties": {"p": {"$ref": "#here"}}},
        {**_OBJECT, "properties": {"p": {"enum": [{"$ref": "https://example.com/data"}]}}},
        {**_OBJECT, "properties": {"p": True}, "unevaluatedProperties": False},
        doubling(5),
        branching(5, 10),
        # Each place is looked at by all of them, and each name leads on from one alone.
        {**_OBJECT, "anyOf": [{"properties": {str(index): {"type": "string"}}} for index in range(480)]},
    ],
)
def test_what_is_fine_is_taken(schema: dict[str, Any]) -> None:
    json_schema.check(schema, "schema")


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({}, "schema.type"),
        ({"type": "array"}, "schema.type"),
        ({"type": ["object", "null"]}, "schema.type"),
        ({**_OBJECT, "$schema": "http://json-schema.org/draft-07/schema#"}, "schema.$schema"),
        ({**_OBJECT, "required": "zone"}, "schema.required"),
        ({**_OBJECT, "properties": {"a": {"minLength": -1}}}, "schema.properties.a.minLength"),
        ({**_OBJECT, "$ref": "#/$defs/nowhere"}, "schema"),
        ({**_OBJECT, "$ref": "#nowhere"}, "schema"),
        ({**_OBJECT, "properties": {"a": {"pattern": "("}}}, "schema.properties.a.pattern"),
        ({**_OBJECT, "patternProperties": {"(": {}}}, "schema.patternProperties.("),
    ],
)
def test_what_is_no_schema_is_refused_and_told_where(schema: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        json_schema.check(schema, "schema")
    assert raised.value.reason == "TOOL_SCHEMA_INVALID"
    assert [fault.field for fault in raised.value.violations] == [field]


@pytest.mark.parametrize(
    "reference",
    ["https://example.com/x", "file:///etc/hostname", "other", "https://json-schema.org/draft/2020-12/schema"],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize("name", ["zone", "default"])
def test_nothing_outside_is_referred_to(reference: str, keyword: str, name: str) -> None:
    with pytest.raises(InvalidArgument):
        json_schema.check({**_OBJECT, "properties": {name: {keyword: reference}}}, "schema")


def test_the_compiler_would_be_refused_as_well() -> None:
    assert json_schema._compile({**_OBJECT, "$ref": "https://example.com/x"}, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        {**_OBJECT, "properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}},
        {**_OBJECT, "properties": {"a": {"pattern": "(?=a)b"}}},
        {**_OBJECT, "properties": {"a": {"pattern": "(a)\\1"}}},
        {**_OBJECT, "properties": {str(index): {"pattern": f"[a-z]{{{index}}}"} for index in range(1_700)}},
        {**_OBJECT, "patternProperties": {f"[a-z]{{{index}}}": {} for index in range(1_700)}},
        {**_OBJECT, "properties": {str(index): {"pattern": f"(\\w{{5}}){{{index + 450}}}"} for index in range(50)}},
        doubling(25),
        doubling(25, unevaluatedProperties=False),
        doubling(25, "#d{}", unevaluatedProperties=False),
        doubling(25, "#/%24defs/d{}", unevaluatedItems=False),
        {**_OBJECT, "allOf": [{"$id": "https://example.com/b", "$ref": "#"}]},
        chain(2_000),
        # Of each 5 it is said eight times that it is no schema.
        {**_OBJECT, "allOf": [5] * 32_000},
        {**_OBJECT, "x": {"$ref": 3, "$anchor": [], "patternProperties": 4, "pattern": None}, "$ref": "#/x"},
    ],
)
@pytest.mark.usefixtures("uncollected")
def test_a_hostile_schema_is_refused_at_once(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(InvalidArgument):
        json_schema.check(schema, "schema")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "schema",
    [
        branching(11, 10),
        branching(11, 60),
        # Each of its two thousand names leads to a place that has them all again.
        {
            **_OBJECT,
            "$dynamicAnchor": "x",
            "properties": {str(index): {"$dynamicRef": "#x"} for index in range(2_200)},
        },
    ],
    ids=["narrow", "wide", "named"],
)
def test_a_schema_whose_parts_come_together_in_thousands_of_ways_is_refused(schema: dict[str, Any]) -> None:
    # To look at all of them took seconds.
    with pytest.raises(InvalidArgument) as refusal:
        json_schema.check(schema, "schema")
    assert "grows beyond measure" in refusal.value.message


@pytest.mark.usefixtures("uncollected")
def test_a_hostile_value_is_matched_in_linear_time() -> None:
    schema = {**_OBJECT, "properties": {"a": {"pattern": "^(a+)+$"}}}
    json_schema.check(schema, "schema")
    validator = jsonschema_rs.Draft202012Validator(schema, pattern_options=jsonschema_rs.RegexOptions())
    began = time.process_time()
    assert not validator.is_valid({"a": "a" * 50_000 + "b"})
    assert time.process_time() - began < 0.5
