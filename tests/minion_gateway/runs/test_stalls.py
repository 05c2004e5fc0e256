"""What sessions and runs hold is converted off the event loop where it is large: leases are renewed meanwhile."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from minion.gateway.v1 import run_service_pb2
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2
from minion_gateway.inference.domain import Completion, CompletionRequest, FinishReason, ToolCall, Usage
from minion_gateway.runs.asking import Asking
from minion_gateway.runs.domain import (
    History,
    Run,
    RunPage,
    RunState,
    Step,
    StepKind,
    StepState,
    TokenUsage,
    ToolIntent,
    ToolResult,
)
from minion_gateway.runs.events import RunLog
from minion_gateway.runs.feeds import Feed
from minion_gateway.runs.peer import SessionPeer
from minion_gateway.runs.servicer import RunServicer
from minion_gateway.runs.transcript import ToolSaid, appends_of, measured, tokens_of
from minion_gateway.runs.turn import Turn
from minion_gateway.summaries.peer import SummaryPeer
from minion_grpc.wire import to_value
from minion_testing.stalls import share_off_loop

from tests.minion_gateway.runs.dead import ASK, BEGIN, agent, leased

# 240 KB on the wire, of which each value is four bytes: nothing costs more to read.
DENSE = to_value([[] for _ in range(60_000)])
WHO = agent()
RUN = leased(WHO.agent_id)


def results(count: int) -> list[message_pb2.Message]:
    """Makes messages with large results."""
    return [
        message_pb2.Message(
            role=message_pb2.MESSAGE_ROLE_TOOL,
            sequence=place + 1,
            parts=[message_pb2.Part(tool_result=message_pb2.ToolResult(tool_call_id=f"c{place}", output=DENSE))],
        )
        for place in range(count)
    ]


SAID = [ToolSaid(f"c{place}", "clock", [[] for _ in range(8_000)], is_error=False) for place in range(9)]
BEGUN = session_service_pb2.BeginTurnResponse(
    session=session_pb2.Session(agent_id=str(WHO.agent_id), user_id="ann"), context=results(4)
)
PAGE = session_service_pb2.ListMessagesResponse(messages=results(4))
WORKSPACE = session_service_pb2.GetWorkspaceResponse(
    entries=[session_pb2.WorkspaceEntry(key=str(place), value=DENSE) for place in range(4)]
)


LISTED = Run(
    run_id=RUN.run_id,
    session_id=RUN.session_id,
    agent_id=RUN.agent_id,
    agent_revision=1,
    user_id="ann",
    state=RunState.COMPLETED,
    answer="hi",
    error=None,
    usage=TokenUsage(),
    cost_nanos=0,
    step_count=3,
    recovery_count=0,
    last_event_sequence=4,
    trace_id="",
    # 16 KiB, as much as a caller may keep with a run.
    metadata={"k": [1] * 8_000},
    create_time=RUN.create_time,
    end_time=RUN.create_time,
)


class Listing:
    """Runs, as many as one page holds."""

    async def list(self, *_: Any) -> RunPage:
        return RunPage((LISTED,) * 32, "")


class Stub:
    """A session service whose answers are large and there at once."""

    async def BeginTurn(self, *_: Any, **__: Any) -> session_service_pb2.BeginTurnResponse:
        return BEGUN

    async def ListMessages(self, *_: Any, **__: Any) -> session_service_pb2.ListMessagesResponse:
        return PAGE

    async def GetWorkspace(self, *_: Any, **__: Any) -> session_service_pb2.GetWorkspaceResponse:
        return WORKSPACE

    async def AppendMessages(self, *_: Any, **__: Any) -> session_service_pb2.AppendMessagesResponse:
        return session_service_pb2.AppendMessagesResponse()


@pytest_asyncio.fixture(loop_scope="session")
async def peers(monkeypatch: pytest.MonkeyPatch) -> tuple[SessionPeer, SummaryPeer]:
    """The session service as turns and as summaries call it."""
    async with grpc.aio.insecure_channel("localhost:1") as nobody:
        session, summary = SessionPeer(nobody), SummaryPeer(nobody)
    for peer in (session, summary):
        monkeypatch.setattr(peer, "_stub", Stub())
    return session, summary


@pytest.mark.parametrize(
    "call",
    [
        lambda session, _: session.begin(RUN, WHO, step=1, hold_seconds=60),
        lambda session, _: session.append(RUN, "agent", SAID, step=3, release=True),
        lambda session, _: session.workspace(RUN.session_id, []),
        lambda _, summary: summary.messages(RUN.session_id, 0),
    ],
    ids=["context", "append", "workspace", "messages"],
)
async def test_what_is_large_is_converted_off_the_loop(
    peers: tuple[SessionPeer, SummaryPeer], call: Callable[[SessionPeer, SummaryPeer], Awaitable[Any]]
) -> None:
    # Next to nothing where it is converted on the loop.
    assert await share_off_loop(lambda: call(*peers), enough=0.5) > 0.5


async def test_a_page_of_runs_with_much_metadata_is_converted_off_the_loop() -> None:
    runs: Any = Listing()
    request, context = run_service_pb2.ListRunsRequest(), cast("Any", None)
    assert await share_off_loop(lambda: RunServicer(runs).ListRuns(request, context), enough=0.5) > 0.5


@pytest.mark.parametrize("measure", [appends_of, tokens_of])
async def test_what_a_turn_said_is_measured_off_the_loop(measure: Callable[[Sequence[Step]], Any]) -> None:
    # As large as results of one round may be.
    large = ToolResult([[] for _ in range(8_000)], is_error=False, nanoseconds=1)
    steps = [
        Step(place, StepKind.TOOL, StepState.DONE, intent=ToolIntent(f"c{place}", "clock", {}), result=large)
        for place in range(1, 33)
    ]
    assert await share_off_loop(lambda: measured(measure, steps), enough=0.5) > 0.5


class Model:
    """A model that wants as much as it may: 32 calls with arguments of 15 KB, each of their parts a list."""

    async def complete(self, _: CompletionRequest) -> Completion:
        arguments = f'{{"a": [{", ".join(["[]"] * 5_000)}]}}'
        calls = tuple(ToolCall(f"c{place}", "clock", arguments) for place in range(32))
        return Completion("", calls, FinishReason.TOOL_CALLS, Usage(), "m", "m", cost_nanos=0)


async def test_what_a_model_asks_for_is_read_off_the_loop() -> None:
    model: Any = Model()
    log = RunLog(RUN, Feed(1), cast("Any", None), lambda: None)
    turn = Turn(replace(RUN, streamed=False), WHO, (BEGIN, ASK), History(), log, deadline=0, fresh_until=0)
    turn.show((), None, tokens=0, is_all=True)
    assert await share_off_loop(lambda: Asking(model).ask(turn, ASK), enough=0.5) > 0.5
