"""Rules of agents and tools that need nothing running."""

import json
from datetime import UTC, datetime
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
from minion_registry.bindings.domain import MAXIMUM_TOOL_BYTES, MAXIMUM_TOOLS, check_room
from minion_registry.paging import MAXIMUM_BYTES, fitting
from minion_registry.tools.domain import digest

DRAFT, ACTIVE, INACTIVE, ARCHIVED = AgentStatus
MOVES = {(DRAFT, ACTIVE), (DRAFT, ARCHIVED), (ACTIVE, INACTIVE), (INACTIVE, ACTIVE), (INACTIVE, ARCHIVED)}

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
    assert digest("a", "b", schema) == digest("a", "b", {key: schema[key] for key in keys})


@pytest.mark.parametrize("other", [("x", "b", {}), ("a", "x", {}), ("a", "b", {"type": "object"})])
def test_the_digest_covers_name_description_and_schema(other: tuple[str, str, dict[str, object]]) -> None:
    assert digest("a", "b", {}) != digest(*other)
    assert len(digest("a", "b", {})) == 64
