"""A database whose line is cut while it commits: what stands is read by key, and nothing is written twice."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import grpc
import pytest
from asyncpg import DataError
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion_errors import Unavailable
from minion_gateway.agents.domain import ToolEffect
from minion_gateway.runs.changes import Change, Ending, Fence
from minion_gateway.runs.domain import Run, ToolResult
from minion_gateway.runs.events import RunLog
from minion_gateway.runs.happenings import Numbered
from minion_gateway.runs.store import Acceptance, Batch, RunStore, Submission
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.fault_proxy import FaultProxy
from minion_testing.provider_script import Fault, FaultKind, Reply, Script
from uuid_utils.compat import uuid4

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission, tool
from tests.minion_gateway.runs.stage import Client, Stage, rows, until


async def test_a_turn_over_a_line_that_is_cut_again_and_again_ends_once(
    stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    place = urlsplit(stage.database.dsn("gateway"))
    (port,) = parse_qs(place.query)["port"]
    async with FaultProxy("127.0.0.1", int(port)) as proxy:
        through = f"postgresql://{place.netloc}{proxy.address}{place.path}"
        async with (
            # The relay's own line is cut too: rows that it claimed and never heard of come back after their claim.
            stage.second_gateway(database_url=through, lease_seconds=5, outbox_claim_seconds=1) as unlucky,
            Client(stage, unlucky) as client,
        ):
            session_id = await client.conversation(tools=("calculator",))
            asking = Reply("Let me see. ", tool_calls=(("calculator", '{"expression": "6*7"}'),), chunk_seconds=0.02)
            answer = Reply("It is forty two, no more and no less.", chunk_seconds=0.02)
            # By what is asked, not by how often: an answer that was lost with the line is asked for again.
            provider.push(Script(asking, times=None, after_tools=False), Script(answer, times=None, after_tools=True))
            stop = asyncio.Event()

            async def cutting() -> int:
                cuts = 0
                await provider.ledger.until(1)
                while not stop.is_set():
                    proxy.cut()
                    cuts += 1
                    await asyncio.sleep(0.007 * (1 + cuts % 3))
                    if cuts == 25:
                        break
                return cuts

            knife = asyncio.create_task(cutting())
            request_id = str(uuid4())
            # The call may end with the line; the run does not, and its line is cut on.
            with suppress(grpc.aio.AioRpcError):
                await client.stream(session_id, "6*7?", request_id=request_id)
                stop.set()
            assert await knife > 3
            run = (await client.stream(session_id, "6*7?", request_id=request_id))[-1].run_finished.run
            raw = await client.watch(run.run_id)
            said = [part.WhichOneof("content") for each in await client.messages(session_id) for part in each.parts]
            audit = await client.audit(run.run_id, 4)
    assert (run.state, run.answer) == (run_pb2.RUN_STATE_COMPLETED, "It is forty two, no more and no less.")
    assert len(raw) == run.last_event_sequence
    assert said == ["text", "text", "tool_call", "tool_result", "text"]
    bill = await rows(owner, "SELECT step_sequence FROM gateway.ledger WHERE run_id = $1 ORDER BY 1", run.run_id)
    assert [row["step_sequence"] for row in bill] == [2, 4]
    assert len(audit) == 4
    attempts = await rows(owner, "SELECT state FROM gateway.attempts WHERE run_id = $1", run.run_id)
    assert len(provider.ledger.asked) == len(attempts) >= 2


async def test_a_queued_run_that_another_replica_began_meanwhile_is_driven_there_alone(
    stage: Stage, client: Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.STALL), Fault(FaultKind.STALL))
    first = asyncio.create_task(client.create(session_id, "first"))
    await provider.ledger.until(1)
    accept = RunStore.accept

    async def unheard(store: RunStore, submission: Submission) -> Acceptance:
        await accept(store, submission)
        # Accepted behind the first; before its replica can look, that one ends elsewhere and hands the session on.
        provider.release()
        await provider.ledger.until(2)
        raise Unavailable("The line was cut.", reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(RunStore, "accept", unheard)
    request = run_service_pb2.StreamRunRequest(
        session_id=session_id, text="second", busy_policy=run_pb2.BUSY_POLICY_ENQUEUE
    )
    async with stage.second_gateway() as unlucky, unlucky.channel(client.tenant.api_key) as channel:
        stub: Any = RunServiceStub(channel)
        call = stub.StreamRun(request, timeout=120)
        told = [(await call.read()).event]
        provider.release()
        told += [answer.event async for answer in call]
    await first
    states = [event.state_changed.state for event in told if event.HasField("state_changed")]
    assert states == [run_pb2.RUN_STATE_SUBMITTED, run_pb2.RUN_STATE_WORKING]
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert told[-1].run_finished.run.answer == "echo: second"
    assert len(provider.ledger.asked) == 2


async def test_a_change_that_was_still_on_its_way_when_it_was_looked_for_is_found_when_it_is_written_again(
    client: Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.conversation()
    advance, end = RunStore.advance, RunStore.end
    late: set[str] = set()

    async def slow_advance(store: RunStore, fence: Fence, change: Change) -> datetime | None:
        if "advance" in late:
            monkeypatch.setattr(RunStore, "advance", advance)
            # What the server was about to do when the line was cut.
            assert await advance(store, fence, change) is not None
            return await advance(store, fence, change)
        late.add("advance")
        raise Unavailable("The line was cut.", reason="DATABASE_UNAVAILABLE")

    async def slow_end(store: RunStore, fence: Fence, change: Change, ending: Ending, **options: bool) -> Any:
        if "end" in late:
            monkeypatch.setattr(RunStore, "end", end)
            assert await end(store, fence, change, ending, takes_next=False) is not None
            return await end(store, fence, change, ending, **options)
        late.add("end")
        raise Unavailable("The line was cut.", reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(RunStore, "advance", slow_advance)
    monkeypatch.setattr(RunStore, "end", slow_end)
    told = await client.stream(session_id)
    assert late == {"advance", "end"}
    run = told[-1].run_finished.run
    assert (run.state, run.recovery_count) == (run_pb2.RUN_STATE_COMPLETED, 0)
    assert len(provider.ledger.asked) == 1


async def test_events_that_were_still_on_their_way_when_they_were_looked_for_are_found_when_they_are_written_again(
    client: Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.conversation()
    append = RunStore.append_events
    tries = 0

    async def slow(store: RunStore, batches: Sequence[Batch]) -> dict[UUID, datetime]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("The line was cut.", reason="DATABASE_UNAVAILABLE")
        if tries == 2:
            assert await append(store, batches)
        return await append(store, batches)

    monkeypatch.setattr(RunStore, "append_events", slow)
    provider.push(Reply("one two three four", chunk_seconds=0.2))
    told = await client.stream(session_id)
    assert tries > 1
    run = told[-1].run_finished.run
    assert (run.state, run.recovery_count) == (run_pb2.RUN_STATE_COMPLETED, 0)
    assert len(provider.ledger.asked) == 1
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    raw = [run_service_pb2.WatchRunResponse.FromString(each).event for each in await client.watch(run.run_id)]
    assert told == raw


async def test_a_pause_that_was_not_acknowledged_is_told_with_the_time_that_is_read_later(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, deliver = RunStore.end, RunLog.deliver
    told: dict[tuple[UUID, int], datetime] = {}

    async def unheard(store: RunStore, fence: Fence, change: Change, ending: Ending, **options: bool) -> Any:
        monkeypatch.setattr(RunStore, "end", end)
        await end(store, fence, change, ending, **options)
        raise Unavailable("The line was cut.", reason="DATABASE_UNAVAILABLE")

    def delivered(log: RunLog, events: Sequence[Numbered], time: datetime, ended: Run | None = None) -> None:
        told.update({(log.run.run_id, event.sequence): time for event in events})
        deliver(log, events, time, ended)

    monkeypatch.setattr(RunLog, "deliver", delivered)
    async with dying(stage.database) as store:
        session_id = await client.session(await client.agent())
        who = agent(tool("clock", ToolEffect.SIDE_EFFECT), agent_id=await client.agent_of(session_id))
        _, run = await accepted(store, submission(client.tenant_id, session_id, who))
        await run.call_tools(("clock", {}))
        monkeypatch.setattr(RunStore, "end", unheard)

    async def paused() -> bool:
        state = (await client.get(str(run.run_id))).state
        return bool(state == run_pb2.RUN_STATE_INPUT_REQUIRED and any(key[0] == run.run_id for key in told))

    await until(paused)
    stored = await rows(owner, "SELECT sequence, create_time FROM gateway.run_events WHERE run_id = $1", run.run_id)
    last = max(stored, key=lambda row: row["sequence"])
    assert told[run.run_id, last["sequence"]] == last["create_time"]


async def test_a_change_that_the_database_refuses_ends_its_run_at_once(
    client: Client, provider: FakeProvider, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.conversation(tools=("clock",))
    advance = RunStore.advance

    async def refused(store: RunStore, fence: Fence, change: Change) -> datetime | None:
        if any(isinstance(end.result, ToolResult) for end in change.ended):
            # As of a sum that no bigint holds.
            raise DataError("value out of int64 range")
        return await advance(store, fence, change)

    monkeypatch.setattr(RunStore, "advance", refused)
    provider.push(Reply("Let me see.", tool_calls=(("clock", "{}"),)))
    told = await client.stream(session_id)
    run = told[-1].run_finished.run
    assert (run.state, run.error.reason, run.recovery_count) == (run_pb2.RUN_STATE_FAILED, "INTERNAL", 0)
    assert len(provider.ledger.asked) == 1
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    steps = await rows(
        owner, "SELECT kind, state FROM gateway.run_steps WHERE run_id = $1 ORDER BY sequence", run.run_id
    )
    assert [(step["kind"], step["state"]) for step in steps] == [("begin", "DONE"), ("llm", "DONE"), ("tool", "FAILED")]
    assert run.step_count == 3


async def test_a_model_that_answered_what_cannot_be_kept_counts_at_its_worst(
    client: Client, provider: FakeProvider, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.conversation()

    async def refused(store: RunStore, fence: Fence, change: Change) -> datetime | None:
        raise DataError("value out of int64 range")

    monkeypatch.setattr(RunStore, "advance", refused)
    run = await client.create(session_id)
    assert (run.state, run.error.reason) == (run_pb2.RUN_STATE_FAILED, "INTERNAL")
    assert len(provider.ledger.asked) == 1
    attempts = await rows(owner, "SELECT state, cost_nanos FROM gateway.attempts WHERE run_id = $1", run.run_id)
    # What it cost isn't known: the worst case counts.
    assert attempts == [{"state": "FAILED", "cost_nanos": None}]
