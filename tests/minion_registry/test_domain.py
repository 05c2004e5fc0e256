"""Rules of agents and tools that need nothing running."""

import json
from copy import deepcopy
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_errors import Aborted, FailedPrecondition, ResourceExhausted
from minion_grpc import wire
from minion_registry.agents.domain import (
    Agent,
    AgentContents,
    AgentStatus,
    BehaviorSettings,
    BehaviorType,
    LlmConfig,
)
from minion_registry.bindings.domain import MAXIMUM_TOOL_BYTES, MAXIMUM_TOOLS, check_room, merged
from minion_registry.paging import MAXIMUM_BYTES, fitting
from minion_registry.tools.domain import (
    CredentialReference,
    GrpcTarget,
    HttpMethod,
    HttpTarget,
    McpTarget,
    ToolApproval,
    ToolContents,
    ToolEffect,
    ToolExample,
    ToolStatus,
    ToolTransport,
)

DRAFT, ACTIVE, INACTIVE, ARCHIVED = AgentStatus
MOVES = {(DRAFT, ACTIVE), (DRAFT, ARCHIVED), (ACTIVE, INACTIVE), (INACTIVE, ACTIVE), (INACTIVE, ARCHIVED)}

CLOCK = ToolContents(
    name="clock",
    description="Tells the time.",
    input_schema={"type": "object"},
    transport=ToolTransport.BUILTIN,
    builtin="clock",
    effect=ToolEffect.READ_ONLY,
    time_limit=None,
    cost_per_call_nanos=0,
    labels={},
)

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def agent(status: AgentStatus, version: int = 3) -> Agent:
    contents = AgentContents("support", "", "", BehaviorType.TOOL_USE, "", LlmConfig(), (), BehaviorSettings(), {}, {})
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Agent(UUID(int=1), contents, status, 2, version, moment, moment)


@pytest.mark.parametrize("to", AgentStatus)
@pytest.mark.parametrize("status", AgentStatus)
def test_an_agent_moves_along_its_life_alone(status: AgentStatus, to: AgentStatus) -> None:
    assert status.may_become(to) == ((status, to) in MOVES)


@pytest.mark.parametrize("status", AgentStatus)
def test_an_illegal_move_names_both_states(status: AgentStatus) -> None:
    with pytest.raises(FailedPrecondition) as raised:
        agent(status).check_move(status)
    assert raised.value.reason == "AGENT_TRANSITION_ILLEGAL"
    assert (raised.value.metadata["from"], raised.value.metadata["to"]) == (status.name, status.name)


def test_only_the_etag_of_this_version_matches() -> None:
    now = agent(DRAFT)
    now.check_etag("")
    now.check_etag(now.etag)
    with pytest.raises(Aborted) as raised:
        now.check_etag(agent(DRAFT, version=2).etag)
    assert raised.value.reason == "ETAG_MISMATCH"


@pytest.mark.parametrize("status", AgentStatus)
def test_what_takes_no_changes_and_what_can_go(status: AgentStatus) -> None:
    for check, allowed in ((Agent.check_open, {DRAFT, ACTIVE, INACTIVE}), (Agent.check_deletable, {DRAFT, ARCHIVED})):
        if status in allowed:
            check(agent(status))
        else:
            with pytest.raises(FailedPrecondition) as raised:
                check(agent(status))
            assert raised.value.metadata["status"] == status.name


def test_an_agent_has_room_for_so_many_tools() -> None:
    check_room(MAXIMUM_TOOLS, MAXIMUM_TOOL_BYTES)
    for tools, size, metadata in (
        (MAXIMUM_TOOLS + 1, 1, {"limit": "128"}),
        (1, MAXIMUM_TOOL_BYTES + 1, {"limit_bytes": "3145728"}),
    ):
        with pytest.raises(ResourceExhausted) as raised:
            check_room(tools, size)
        assert (raised.value.reason, raised.value.metadata) == ("TOO_MANY_TOOLS", metadata)


def test_a_page_ends_before_its_bytes_or_its_count_do() -> None:
    assert fitting([], 5) == 0
    assert fitting([1, 1, 1], 2) == 2
    assert fitting([1, 1], 5) == 2
    assert fitting([MAXIMUM_BYTES, 1], 5) == 1
    assert fitting([MAXIMUM_BYTES - 1, 1, 1], 5) == 2
    assert fitting([MAXIMUM_BYTES + 1, 1], 5) == 1


@given(st.dictionaries(st.text(), _json, max_size=4))
def test_what_the_database_reckons_is_no_less_than_what_is_sent(values: dict[str, object]) -> None:
    # `wire_bytes` counts four bytes for each of the JSON text, as Postgres writes it.
    written = len(json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert wire.to_struct(values).ByteSize() <= 4 * written


@given(st.dictionaries(st.text(), _json, max_size=4), st.randoms())
def test_the_digest_does_not_hang_on_the_order_of_keys(schema: dict[str, object], shuffled: Random) -> None:
    keys = list(schema)
    shuffled.shuffle(keys)
    one, other = (replace(CLOCK, output_schema=made) for made in (schema, {key: schema[key] for key in keys}))
    assert one.digest() == other.digest()


_PINNED: dict[str, object] = {
    "name": "other",
    "description": "other",
    "input_schema": {"type": "object", "title": "other"},
    "output_schema": {"type": "string"},
    "configuration_schema": {"type": "object"},
    "transport": ToolTransport.CLIENT,
    "builtin": "recall",
    "grpc": GrpcTarget("host:1", tls=True, tool_name=""),
    "http": HttpTarget("https://host", HttpMethod.POST),
    "mcp": McpTarget("https://host", ""),
    "target_agent_id": UUID(int=1),
    "effect": ToolEffect.SIDE_EFFECT,
    "approval": ToolApproval.ALWAYS,
    "credentials": (CredentialReference("token", "env:TOKEN"),),
    "default_configuration": {"a": 1},
}
_FREE: dict[str, object] = {
    "time_limit": timedelta(seconds=1),
    "cost_per_call_nanos": 1,
    "labels": {"a": "b"},
    "examples": (ToolExample("", {}),),
    "documentation": "other",
}


def test_the_digest_covers_what_a_binding_is_given_for_and_nothing_else() -> None:
    assert {field.name for field in fields(ToolContents)} == set(_PINNED) | set(_FREE)
    assert len(CLOCK.digest()) == 64
    for name, value in _PINNED.items():
        changed = replace(CLOCK, **{name: value})  # type: ignore[arg-type]
        assert changed.digest() != CLOCK.digest(), name
        assert not changed.pins_the_same_as(CLOCK), name
    for name, value in _FREE.items():
        changed = replace(CLOCK, **{name: value})  # type: ignore[arg-type]
        assert changed.digest() == CLOCK.digest(), name
        assert changed.pins_the_same_as(CLOCK), name


@pytest.mark.parametrize("to", ToolStatus)
@pytest.mark.parametrize("status", ToolStatus)
def test_a_tool_moves_along_its_life_alone(status: ToolStatus, to: ToolStatus) -> None:
    is_allowed = (status, to) in {
        (ToolStatus.ACTIVE, ToolStatus.DEPRECATED),
        (ToolStatus.ACTIVE, ToolStatus.RETIRED),
        (ToolStatus.DEPRECATED, ToolStatus.RETIRED),
    }
    assert status.may_become(to) == is_allowed


# The examples of RFC 7396, appendix A, that lay an object over an object.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
    ],
)
def test_settings_are_laid_over_others(
    target: dict[str, object], patch: dict[str, object], result: dict[str, object]
) -> None:
    before = deepcopy((target, patch))
    assert merged(target, patch) == result
    assert (target, patch) == before
