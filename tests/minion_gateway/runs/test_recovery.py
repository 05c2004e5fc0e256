"""Runs whose replica died: what each kind of open step becomes, and that nothing is done or billed twice."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest_asyncio
from minion.activity.v1 import activity_pb2
from minion.gateway.v1 import run_pb2
from minion.session.v1 import message_pb2, session_service_pb2
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_gateway.agents.domain import ToolEffect
from minion_gateway.runs.changes import AttemptBegin, StepEnd
from minion_gateway.runs.domain import BeginResult, LlmResult, Recalled, Step, StepKind, StepState, TokenUsage
from minion_gateway.runs.happenings import MemoriesRecalled, TextAdded
from minion_gateway.runs.store import RunStore
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply

from tests.minion_gateway.runs.dead import DeadRun, accepted, agent, dying, submission, tool
from tests.minion_gateway.runs.stage import Client, Stage, rows, until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
ANSWER = LlmResult("Paid for.", (), "stop", "openai/gpt-4o-mini", TokenUsage(10, 5), 100)


Sessions = Any


@pytest_asyncio.fixture(loop_scope="session")
async def sessions(client: Client, stage: Stage) -> AsyncIterator[Sessions]:
    """The session service, as a gateway calls it."""
    async with stage.services["session"].acting(client.tenant_id) as channel:
        yield SessionServiceStub(channel)


async def begin(sessions: Sessions, session_id: str, run: DeadRun) -> None:
    """Puts the user's message into the session, as the dead replica did."""
    await sessions.BeginTurn(
        session_service_pb2.BeginTurnRequest(
            session_id=session_id,
            message=message_pb2.Message(
                role=message_pb2.MESSAGE_ROLE_USER, author="ann", parts=[message_pb2.Part(text="hello")]
            ),
            source=message_pb2.RunSource(run_id=str(run.run_id), step_sequence=1),
        )
    )


async def append(sessions: Sessions, session_id: str, run: DeadRun, text: str) -> None:
    """Appends the answer, as the dead replica did."""
    await sessions.AppendMessages(
        session_service_pb2.AppendMessagesRequest(
            session_id=session_id,
            messages=[
                message_pb2.Message(
                    role=message_pb2.MESSAGE_ROLE_ASSISTANT, author="agent", parts=[message_pb2.Part(text=text)]
                )
            ],
            source=message_pb2.RunSource(run_id=str(run.run_id), step_sequence=3),
            release_hold=True,
        )
    )


async def left_behind(client: Client, store: RunStore, *tools: Any, **values: Any) -> tuple[str, DeadRun]:
    """A run that a replica accepts, and dies."""
    session_id = await client.session(await client.agent())
    text = values.pop("text", "hello")
    who = agent(*tools, agent_id=await client.agent_of(session_id), **values)
    _, run = await accepted(store, submission(client.tenant_id, session_id, who, text=text))
    return session_id, run


async def ended(client: Client, run_id: UUID, state: int = run_pb2.RUN_STATE_COMPLETED) -> run_pb2.Run:
    """Waits until a run has come to a state."""

    async def arrived() -> run_pb2.Run | None:
        run = await client.get(str(run_id))
        return run if run.state not in {run_pb2.RUN_STATE_WORKING, run_pb2.RUN_STATE_SUBMITTED} else None

    run: run_pb2.Run = await until(arrived)
    assert run.state == state, run
    return run


async def said(client: Client, session_id: str) -> list[str]:
    return [message.parts[0].text for message in await client.messages(session_id)]


async def test_a_run_that_was_only_accepted_is_answered(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store)
    done = await ended(client, run.run_id)

    assert (done.answer, done.recovery_count) == ("echo: hello", 1)
    assert await said(client, session_id) == ["hello", "echo: hello"]
    assert provider.ledger.attempts == [f"{run.run_id}:2:2"]
    attempts = await rows(
        owner, "SELECT attempt, state FROM gateway.attempts WHERE run_id = $1 ORDER BY attempt", run.run_id
    )
    assert attempts == [{"attempt": 1, "state": "LOST"}, {"attempt": 2, "state": "DONE"}]
    bill = await rows(owner, "SELECT kind, step_sequence FROM gateway.ledger WHERE run_id = $1", run.run_id)
    assert bill == [{"kind": "llm", "step_sequence": 2}]


async def test_text_that_was_shown_is_superseded(client: Client, stage: Stage, provider: FakeProvider) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store)
        memory = Recalled("m", "likes tea", 0.5, "FACT", "USER")
        await run.show(MemoriesRecalled((memory,)), TextAdded(2, 1, "Let me "), TextAdded(2, 1, "see"))
    await ended(client, run.run_id)

    raw = await client.watch(str(run.run_id))
    told = [run_pb2.RunEvent.FromString(each[each.index(b"\n$") :]) for each in raw]
    kinds = [event.WhichOneof("event") for event in told]
    assert kinds == [
        "state_changed",
        "memories_recalled",
        "text_delta",
        "text_delta",
        "attempt_superseded",
        "text_delta",
        "run_finished",
    ]
    assert told[4].attempt_superseded == run_pb2.AttemptSuperseded(step_sequence=2, attempt=2, void_from_sequence=3)
    # What was told of once is what the model is shown, whoever asks it.
    assert "likes tea" in provider.ledger.asked[0].body["messages"][0]["content"]
    assert await said(client, session_id) == ["hello", "echo: hello"]


async def test_an_answer_that_was_paid_for_is_not_asked_for_again(
    client: Client, stage: Stage, sessions: Sessions, provider: FakeProvider, owner: Database
) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store)
        await begin(sessions, session_id, run)
        await run.advance(
            ended=(StepEnd(1, StepState.DONE, BeginResult()), StepEnd(2, StepState.DONE, ANSWER)),
            begun=(Step(3, StepKind.APPEND),),
        )
    done = await ended(client, run.run_id)

    assert provider.ledger.asked == []
    assert done.answer == "Paid for."
    assert await said(client, session_id) == ["hello", "Paid for."]
    assert len(await client.audit(str(run.run_id), 1)) == 1


async def test_an_answer_that_was_appended_is_not_appended_again(
    client: Client, stage: Stage, sessions: Sessions, provider: FakeProvider
) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store)
        await begin(sessions, session_id, run)
        await run.advance(
            ended=(StepEnd(1, StepState.DONE, BeginResult()), StepEnd(2, StepState.DONE, ANSWER)),
            begun=(Step(3, StepKind.APPEND),),
        )
        await append(sessions, session_id, run, "Paid for.")
    await ended(client, run.run_id)
    assert await said(client, session_id) == ["hello", "Paid for."]


async def test_a_keyed_tool_takes_effect_once(
    client: Client, stage: Stage, sessions: Sessions, provider: FakeProvider
) -> None:
    provider.push(Reply("Noted."))
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store, tool("workspace", ToolEffect.IDEMPOTENT))
        await begin(sessions, session_id, run)
        arguments = {"operation": "set", "key": "city", "value": "Paris"}
        await run.call_tools(("workspace", arguments))
        # The dead replica had called the tool, and died before it could write that down.
        key = str(Step(3, StepKind.TOOL).key(run.run_id))
        change = session_service_pb2.WorkspaceChange(key="city")
        change.value.string_value = "Paris"
        await client.sessions.SetWorkspaceEntries(
            session_service_pb2.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change], request_id=key)
        )
    await ended(client, run.run_id)

    found = await client.sessions.GetWorkspace(session_service_pb2.GetWorkspaceRequest(session_id=session_id))
    assert [(entry.key, entry.value.string_value, entry.version) for entry in found.entries] == [("city", "Paris", 1)]


async def test_a_tool_that_only_reads_is_called_again(
    client: Client, stage: Stage, sessions: Sessions, provider: FakeProvider
) -> None:
    provider.push(Reply("It is four."))
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store, tool("calculator", ToolEffect.READ_ONLY))
        await begin(sessions, session_id, run)
        await run.call_tools(("calculator", {"expression": "2+2"}))
    done = await ended(client, run.run_id)
    assert done.answer == "It is four."
    assert provider.ledger.asked[0].body["messages"][-1]["content"] == '{"result":4}'


async def test_an_effect_that_may_have_happened_is_left_to_a_person(
    client: Client, stage: Stage, sessions: Sessions, provider: FakeProvider, owner: Database
) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store, tool("clock", ToolEffect.SIDE_EFFECT))
        await begin(sessions, session_id, run)
        await run.call_tools(("clock", {}))
    waiting = await ended(client, run.run_id, run_pb2.RUN_STATE_INPUT_REQUIRED)

    assert waiting.error.reason == "EFFECT_UNKNOWN"
    assert provider.ledger.asked == []
    steps = await rows(owner, "SELECT state FROM gateway.run_steps WHERE run_id = $1 AND kind = 'tool'", run.run_id)
    assert steps == [{"state": "UNKNOWN"}]
    (audit,) = await client.audit(str(run.run_id), 1)
    assert (audit.kind, audit.status) == (
        activity_pb2.ACTIVITY_KIND_TOOL_CALL,
        activity_pb2.ACTIVITY_STATUS_UNKNOWN,
    )
    assert await said(client, session_id) == ["hello"]


async def test_an_effect_in_sound_hands_is_had(client: Client, stage: Stage, provider: FakeProvider) -> None:
    provider.push(Reply(tool_calls=(("clock", "{}"), ("calculator", '{"expression": "1+1"}'))), Reply("Done."))
    async with dying(stage.database) as store:
        tools = (tool("clock", ToolEffect.SIDE_EFFECT), tool("calculator", ToolEffect.READ_ONLY))
        _, run = await left_behind(client, store, *tools)
    assert (await ended(client, run.run_id)).answer == "Done."


async def test_a_run_that_kills_whoever_drives_it_is_given_up(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    async with dying(stage.database) as store:
        session_id, run = await left_behind(client, store)
        await owner.execute("UPDATE gateway.runs SET recovery_count = 5 WHERE run_id = $1", run.run_id)
    failed = await ended(client, run.run_id, run_pb2.RUN_STATE_FAILED)
    assert (failed.error.reason, failed.recovery_count) == ("RECOVERY_LIMIT", 6)
    assert provider.ledger.asked == []
    assert (await client.create(session_id)).state == run_pb2.RUN_STATE_COMPLETED


async def test_a_recovered_run_goes_on_with_the_agent_it_began_with(
    client: Client, stage: Stage, provider: FakeProvider
) -> None:
    async with dying(stage.database) as store:
        _, run = await left_behind(client, store, instructions="As it was then.")
    await ended(client, run.run_id)
    assert provider.ledger.asked[0].body["messages"][0]["content"] == "As it was then."


async def test_a_hold_that_a_dead_run_left_holds_nobody_up(
    client: Client, stage: Stage, sessions: Sessions, owner: Database
) -> None:
    async with dying(stage.database, lease_seconds=60) as store:
        session_id, run = await left_behind(client, store)
        await begin(sessions, session_id, run)
        await owner.execute("UPDATE gateway.runs SET state = 'FAILED' WHERE run_id = $1", run.run_id)
    done = await client.create(session_id, "next")
    assert done.state == run_pb2.RUN_STATE_COMPLETED


async def test_a_recovered_run_is_linked_to_its_first_trace(client: Client, stage: Stage) -> None:
    async with dying(stage.database) as store:
        session_id = await client.session(await client.agent())
        who = agent(agent_id=await client.agent_of(session_id), name="linked")
        wanted = submission(client.tenant_id, session_id, who)
        await accepted(store, replace(wanted, trace_id=TRACE_ID, span_id="b7ad6b7169203331"))
    done = await ended(client, wanted.run_id)
    assert done.trace_id == TRACE_ID

    async def linked() -> list[Any]:
        spans = [span for span in stage.gateway.spans() if span.name == "invoke_agent linked"]
        return [f"{link.context.trace_id:032x}" for span in spans for link in span.links]

    assert await until(linked) == [TRACE_ID]


async def test_an_attempt_that_was_begun_stays_counted_at_its_worst(
    client: Client, stage: Stage, owner: Database
) -> None:
    async with dying(stage.database) as store:
        _, run = await left_behind(client, store)
        await run.advance(attempts=(AttemptBegin(2, 1, "openai/gpt-4o-mini", 5_000, 10, 20),))
    await ended(client, run.run_id)
    (lost,) = await rows(
        owner,
        "SELECT worst_case_nanos, cost_nanos, reason FROM gateway.attempts WHERE run_id = $1 AND attempt = 1",
        run.run_id,
    )
    assert lost == {"worst_case_nanos": 5_000, "cost_nanos": None, "reason": "REPLICA_LOST"}
