"""Pure rules: states, keys, prompts, transcripts, what is kept of what models write."""

import itertools
from uuid import UUID, uuid5

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_gateway.agents.domain import AgentSnapshot, ToolEffect, from_stored
from minion_gateway.inference.domain import ToolCall
from minion_gateway.inference.estimator import bound_request
from minion_gateway.runs import happenings
from minion_gateway.runs.behaviours import Answer, AskModel, CallTools, behaviour_of
from minion_gateway.runs.cleaning import clean, clean_json, requested, weight
from minion_gateway.runs.domain import (
    LlmResult,
    RequestedCall,
    RunState,
    Step,
    StepKind,
    StepState,
    TokenUsage,
    ToolIntent,
    ToolResult,
)
from minion_gateway.runs.happenings import Numbered, TextAdded, ToolFinished, ToolStarted, joined
from minion_gateway.runs.prompt import policy_bound, request_of
from minion_gateway.runs.transcript import AssistantSaid, appends_of
from minion_grpc.wire import to_value

from tests.minion_gateway.runs.dead import agent, asks_for, tool

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_states_end_where_they_are_said_to_end() -> None:
    assert {state for state in RunState if state.is_terminal} == {RunState.COMPLETED, RunState.FAILED}
    for before, after in itertools.product(RunState, RunState):
        if before.is_terminal:
            assert not before.may_become(after)
    assert not RunState.SUBMITTED.may_become(RunState.COMPLETED)


def test_a_steps_key_is_the_same_wherever_it_is_made() -> None:
    run_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    assert Step(3, StepKind.TOOL).key(run_id) == uuid5(run_id, "3")
    assert Step(3, StepKind.TOOL).key(run_id) != Step(4, StepKind.TOOL).key(run_id)


def done(sequence: int, result: LlmResult | ToolResult, intent: ToolIntent | None = None) -> Step:
    kind = StepKind.LLM if isinstance(result, LlmResult) else StepKind.TOOL
    return Step(sequence, kind, StepState.DONE, intent=intent, result=result)


ANSWER = LlmResult("Done.", (), "stop", "m", TokenUsage(), 0)
WISH = asks_for(("clock", {}))
TOLD = ToolResult({"utc": "now"}, is_error=False, nanoseconds=1)
BEGUN = Step(1, StepKind.BEGIN, StepState.DONE)


def test_tool_use_goes_round_until_nothing_is_wanted() -> None:
    behaviour = behaviour_of("tool_use")
    steps = [BEGUN]
    assert behaviour.next(steps) == AskModel()
    steps.append(done(2, WISH))
    assert behaviour.next(steps) == CallTools(WISH.calls)
    steps.append(done(3, TOLD, ToolIntent("call_0", "clock", {})))
    assert behaviour.next(steps) == AskModel()
    steps.append(done(4, ANSWER))
    assert behaviour.next(steps) == Answer("Done.")


def test_conversational_asks_once() -> None:
    behaviour = behaviour_of("conversational")
    assert behaviour.next([BEGUN]) == AskModel()
    assert behaviour.next([BEGUN, done(2, asks_for(("clock", {}), text="Hm."))]) == Answer("Hm.")
    assert behaviour.tools(agent(tool("clock", ToolEffect.READ_ONLY))) == ()


@given(json_values)
def test_payloads_read_back_as_they_were(value: object) -> None:
    for payload in (
        ToolFinished(3, "c", "t", value, is_error=False, nanoseconds=5),
        ToolStarted(3, "c", "t", {"v": value}),
    ):
        cleaned = type(payload)(
            **{
                name: clean_json(getattr(payload, name)) if name in {"output", "arguments"} else getattr(payload, name)
                for name in payload.__dataclass_fields__
            }
        )
        row = orjson.loads(orjson.dumps(Numbered(1, cleaned).row()))
        assert happenings.from_stored(row["kind"], row["payload"]) == cleaned


@given(json_values)
def test_weight_is_never_passed(value: object) -> None:
    cleaned = clean_json(value)
    assert weight(cleaned) >= to_value(cleaned).ByteSize()


@given(st.text())
def test_clean_text_can_be_kept(text: str) -> None:
    kept = clean(text)
    assert "\x00" not in kept
    kept.encode()


@pytest.mark.parametrize("arguments", ["[1]", "nope", '{"a": NaN', '"x"', "[" * 9_000, '{"a":' * 30 + "1" + "}" * 30])
def test_arguments_that_are_no_object_are_none(arguments: str) -> None:
    (call,) = requested(2, (ToolCall("c", "t", arguments),))
    assert call.arguments is None


def test_calls_get_ids_and_names_of_their_own() -> None:
    calls = requested(2, (ToolCall("", "t", "{}"), ToolCall("c", "t", "{}"), ToolCall("c", "", "{}")))
    assert [call.call_id for call in calls] == ["call_2_0", "c", "call_2_2"]
    assert calls[2].name == "unnamed"
    assert len(requested(2, tuple(ToolCall(str(n), "t", "{}") for n in range(99)))) == 32


def test_text_of_one_attempt_is_joined_and_of_another_is_not() -> None:
    added = [TextAdded(2, 1, "a"), TextAdded(2, 1, "b"), TextAdded(2, 2, "c"), TextAdded(3, 1, "d")]
    assert joined(added) == [TextAdded(2, 1, "ab"), TextAdded(2, 2, "c"), TextAdded(3, 1, "d")]


def test_a_long_turn_is_appended_in_parts() -> None:
    steps = [BEGUN]
    for round_ in range(60):
        steps.append(done(2 * round_ + 2, WISH))
        steps.append(done(2 * round_ + 3, TOLD, ToolIntent("call_0", "clock", {})))
    steps.append(done(200, ANSWER))
    assert [len(part) for part in appends_of(steps)] == [100, 21]


def test_large_results_are_appended_in_parts() -> None:
    large = ToolResult("x" * 90_000, is_error=False, nanoseconds=1)
    steps = [done(n, large, ToolIntent(f"c{n}", "t", {})) for n in range(2, 32)]
    parts = appends_of(steps)
    assert sum(len(part) for part in parts) == 30
    assert all(len(orjson.dumps(part)) < 1024 * 1024 for part in parts)
    assert len(parts) == 3


def test_calls_that_no_message_holds_together_are_parted() -> None:
    wish = asks_for(*[("clock", {"zone": "x" * 60_000})] * 6, text="é" * 100_000)
    (append,) = appends_of([BEGUN, done(2, wish)])
    said = [message for message in append if isinstance(message, AssistantSaid)]
    assert tuple(call for message in said for call in message.calls) == wish.calls
    assert [bool(message.text) for message in said] == [True, False, False]
    assert all(len(orjson.dumps(message)) < 256 * 1024 for message in said)
    # One that fits is told of as its provider counted it; of parts nobody has counted any.
    assert [message.tokens for message in said] == [0, 0, 0]
    ((whole,),) = appends_of([BEGUN, done(2, WISH)])
    assert isinstance(whole, AssistantSaid)
    assert whole.tokens == 5


def test_an_answer_of_no_words_leaves_one_empty_append() -> None:
    assert appends_of([BEGUN, done(2, LlmResult("", (), "stop", "m", TokenUsage(), 0))]) == [[]]


def test_a_snapshot_reads_back_as_it_was_and_is_filed_by_its_contents() -> None:
    who = agent(tool("clock", ToolEffect.READ_ONLY), temperature=0.5)
    snapshot = AgentSnapshot.of(who)
    assert from_stored(orjson.loads(snapshot.stored)) == who
    assert AgentSnapshot.of(from_stored(orjson.loads(snapshot.stored))).digest == snapshot.digest
    assert AgentSnapshot.of(agent(instructions="else")).digest != snapshot.digest


def test_a_snapshot_of_an_earlier_release_asks_for_text() -> None:
    stored = orjson.loads(AgentSnapshot.of(agent(response_schema={"type": "object"})).stored)
    asking = from_stored(stored)
    assert asking.response_schema == {"type": "object"}
    assert request_of(asking, (), memories=(), context=(), steps=(), attempt="").response_schema == {"type": "object"}
    del stored["response_schema"]
    assert from_stored(stored).response_schema is None


def test_what_policies_bound_is_above_a_first_prompt() -> None:
    schema = {"type": "object", "description": "ü" * 5_000}
    who = agent(tool("clock", ToolEffect.READ_ONLY), instructions="ü" * 1_000, token_budget=256, response_schema=schema)
    request = request_of(who, who.tools, memories=(), context=(), steps=(), attempt="")
    assert bound_request(request) <= policy_bound(who)


def test_what_the_model_wanted_stands_before_what_it_got() -> None:
    steps = [BEGUN, done(2, WISH), done(3, TOLD, ToolIntent("call_0", "clock", {}))]
    request = request_of(agent(), (), memories=(), context=(), steps=steps, attempt="")
    assert [message.role.value for message in request.messages] == ["system", "assistant", "tool"]
    assert request.messages[1].tool_calls[0].id == request.messages[2].tool_call_id
    assert RequestedCall("call_0", "clock", {}) in WISH.calls
