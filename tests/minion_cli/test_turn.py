import io
from collections.abc import AsyncIterator

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from minion.gateway.v1 import run_pb2
from minion.session.v1 import session_pb2
from minion_cli.turn import TurnView
from minion_errors import Unavailable
from rich.console import Console

_FINISHED = run_pb2.RunEvent(
    run_finished=run_pb2.RunFinished(
        run=run_pb2.Run(run_id="r-1", state=run_pb2.RUN_STATE_COMPLETED, answer="It is 391.", cost_nanos=1_500)
    )
)
_EVENTS = [
    run_pb2.RunEvent(
        memories_recalled=run_pb2.MemoriesRecalled(
            memories=[run_pb2.RecalledMemory(memory_id="m-1", content="likes tea", score=0.71)]
        )
    ),
    run_pb2.RunEvent(
        summary_used=run_pb2.SummaryUsed(summary_id="s-1", first_sequence=1, last_sequence=12, token_count=80)
    ),
    run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="Let me see.")),
    run_pb2.RunEvent(
        tool_call_started=run_pb2.ToolCallStarted(
            tool_call_id="c-1", name="calculator", arguments=ParseDict({"expression": "17 * 23"}, Struct())
        )
    ),
    run_pb2.RunEvent(
        tool_call_finished=run_pb2.ToolCallFinished(
            tool_call_id="c-1", name="calculator", output=Value(number_value=391)
        )
    ),
    run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="It is ")),
    run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="391.")),
    _FINISHED,
]


async def _stream(events: list[run_pb2.RunEvent]) -> AsyncIterator[run_pb2.RunEvent]:
    for event in events:
        yield event


def _console() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False, markup=False)


def _shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_a_turn_is_shown_in_order_and_kept() -> None:
    console = _console()
    view = TurnView(console, speaker="demo")
    turn = await view.follow(_stream(_EVENTS))
    view.close(turn)
    lines = _shown(console).splitlines()
    assert lines[0] == "  recalled  likes tea  (0.71)"
    assert lines[1] == "  summary   messages 1 to 12 stand as 80 tokens"
    assert lines[2] == "demo  Let me see."
    assert lines[3] == '  calls     calculator({"expression": "17 * 23"})'
    assert lines[4].startswith("  returns   calculator: 391")
    assert lines[5] == "demo  It is 391."
    assert "cost $0.000001500" in lines[6]
    assert turn.answer == "It is 391."
    assert [memory.content for memory in turn.recalled] == ["likes tea"]
    assert turn.tool_calls[0].finished is not None


async def test_a_summary_made_between_turns_and_a_blob_are_named() -> None:
    console = _console()
    view = TurnView(console, speaker="demo")
    view.tell_summary(session_pb2.Summary(first_sequence=1, last_sequence=12, token_count=80, model="local/stand-in"))
    finished = run_pb2.ToolCallFinished(name="fetch", output=Value(string_value="(excerpt …)"), blob_id="b-1")
    await view.follow(_stream([run_pb2.RunEvent(tool_call_finished=finished), _FINISHED]))
    lines = _shown(console).splitlines()
    assert lines[0] == "  summary   messages 1 to 12 summarized by local/stand-in, 80 tokens"
    assert "(all of it: blob b-1)" in lines[1]


async def test_superseded_text_is_no_part_of_the_answer() -> None:
    events = [
        run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="It is 3")),
        run_pb2.RunEvent(attempt_superseded=run_pb2.AttemptSuperseded(attempt=2)),
        run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text="It is 391.", attempt=2)),
        _FINISHED,
    ]
    turn = await TurnView(_console(), speaker="demo").follow(_stream(events))
    assert turn.answer == "It is 391."


async def test_quiet_shows_nothing_and_keeps_all() -> None:
    console = _console()
    view = TurnView(console, speaker="demo", quiet=True)
    turn = await view.follow(_stream(_EVENTS))
    view.close(turn)
    assert _shown(console) == ""
    assert turn.run.run_id == "r-1"


async def test_a_failed_run_says_why() -> None:
    console = _console()
    failed = run_pb2.Run(
        run_id="r-1",
        state=run_pb2.RUN_STATE_FAILED,
        error=run_pb2.RunError(reason="STEP_LIMIT", message="It asked too often."),
    )
    view = TurnView(console, speaker="demo")
    view.close(await view.follow(_stream([run_pb2.RunEvent(run_finished=run_pb2.RunFinished(run=failed))])))
    assert "failed: STEP_LIMIT: It asked too often." in _shown(console)


async def test_a_stream_that_ends_early_is_an_error() -> None:
    with pytest.raises(Unavailable) as refused:
        await TurnView(_console(), speaker="demo").follow(_stream(_EVENTS[:-1]))
    assert refused.value.reason == "STREAM_CUT"
