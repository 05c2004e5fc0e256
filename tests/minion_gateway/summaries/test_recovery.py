"""Summaries and replicas that die: what was committed is saved, what was asked is asked again."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest_asyncio
from minion.gateway.v1 import run_pb2
from minion.session.v1 import message_pb2, session_service_pb2
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_gateway.agents.domain import SummaryPolicy
from minion_gateway.runs.changes import AttemptBegin, AttemptEnd, AttemptState, Change, Charge, Ending
from minion_gateway.runs.domain import RunState, Step, StepKind, StepState, TokenUsage
from minion_gateway.runs.happenings import Ended
from minion_gateway.summaries.domain import Job, SummaryResult
from minion_gateway.summaries.store import SummaryChange, SummaryStore
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply, Script

from tests.minion_gateway.runs.dead import accepted, agent, dying, submission
from tests.minion_gateway.runs.stage import Client, Stage, rows, until
from tests.minion_gateway.summaries.told import LONG, QUESTION, policy, say, settled, steps, summaries

RESULT = SummaryResult("Paid for.", 1, 4, False, "stop", "openai/gpt-4o-mini", TokenUsage(100, 5), 700)
ATTEMPT = AttemptBegin(3, 1, "openai/gpt-4o-mini", 9_000, 400, 64)


@pytest_asyncio.fixture(loop_scope="session")
async def session_id(client: Client) -> str:
    """A long session."""
    made = await client.conversation(behavior=policy())
    await say(client, made, LONG, "Indeed.", "Right.", "Yes.")
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def sessions(client: Client, stage: Stage) -> AsyncIterator[Any]:
    """The session service, as a gateway calls it."""
    async with stage.services["session"].acting(client.tenant_id) as channel:
        yield SessionServiceStub(channel)


async def left_behind(
    client: Client, stage: Stage, session_id: str, *changes: SummaryChange, recoveries: int = 0
) -> UUID:
    """A job whose replica came so far, and died; returns its run."""
    replica = UUID(int=client.tenant_id.int)
    async with await stage.database.connect("gateway") as pool, dying(stage.database, lease_seconds=60) as store:
        who = agent(summary=SummaryPolicy(trigger_tokens=256, target_tokens=64, keep_messages=0))
        _, run = await accepted(store, submission(client.tenant_id, session_id, who))
        jobs = SummaryStore(pool, replica=replica, lease=timedelta(minutes=1))
        ended = Change(
            totals=run.totals,
            principal="key:dead",
            begun=(Step(3, StepKind.SUMMARY),),
            events=run.numbered(Ended()),
        )
        async with pool.transaction(client.tenant_id) as transaction:
            # As if it had been leased the moment it was asked for: the gateway of the stage looks all the time.
            await transaction.execute(
                "INSERT INTO gateway.summary_jobs (tenant_id, session_id, run_id, step_sequence, epoch, owner, "
                "lease_until) VALUES ($1, $2, $3, 3, 1, $4, now() + interval '1 min')",
                client.tenant_id,
                UUID(session_id),
                run.run_id,
                replica,
            )
        # The run's end finds the job there already; its step is begun all the same.
        assert await store.end(run.fence(1), ended, Ending(RunState.COMPLETED, "Done."), takes_next=False)
        async with pool.transaction(client.tenant_id) as transaction:
            await transaction.execute(
                "UPDATE gateway.run_steps SET state = 'STARTED', end_time = NULL WHERE run_id = $1 AND sequence = 3",
                run.run_id,
            )
        job = await jobs.load(client.tenant_id, UUID(session_id))
        assert isinstance(job, Job)
        for change in changes:
            assert await jobs.advance(job, change)
        async with pool.transaction(client.tenant_id) as transaction:
            # Its lease is over.
            await transaction.execute(
                "UPDATE gateway.summary_jobs SET lease_until = now(), recovery_count = $1 WHERE run_id = $2",
                recoveries,
                run.run_id,
            )
        return run.run_id


async def test_what_was_asked_by_a_dead_replica_is_asked_again(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database, session_id: str
) -> None:
    provider.push(Script(Reply("Again."), match=QUESTION))
    asked = SummaryChange(StepState.STARTED, attempts_begun=(ATTEMPT,))
    run_id = await left_behind(client, stage, session_id, asked)
    await settled(owner, session_id)
    assert [each.text for each in await summaries(client, session_id)] == ["Again."]
    attempts = await rows(
        owner,
        "SELECT attempt, state FROM gateway.attempts WHERE run_id = $1 AND step_sequence = 3 ORDER BY attempt",
        run_id,
    )
    assert attempts == [{"attempt": 1, "state": "LOST"}, {"attempt": 2, "state": "DONE"}]
    assert provider.ledger.asked[-1].attempt == f"{run_id}:3:2"
    bill = await rows(owner, "SELECT step_sequence FROM gateway.ledger WHERE run_id = $1", run_id)
    assert bill == [{"step_sequence": 3}]


async def test_what_was_answered_is_saved_and_not_asked_again(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database, session_id: str
) -> None:
    answered = SummaryChange(
        StepState.STARTED,
        RESULT,
        attempts_ended=(AttemptEnd(3, 1, AttemptState.DONE, 700),),
        charges=(Charge(3, "llm", "openai/gpt-4o-mini", TokenUsage(100, 5), 700),),
    )
    asked = SummaryChange(StepState.STARTED, attempts_begun=(ATTEMPT,))
    run_id = await left_behind(client, stage, session_id, asked, answered)
    await settled(owner, session_id)
    (summary,) = await summaries(client, session_id)
    assert (summary.text, summary.last_sequence, summary.run_id) == ("Paid for.", 4, str(run_id))
    assert provider.ledger.asked == []
    assert (await steps(owner, str(run_id)))[-1] == (3, "summary", "DONE")
    assert len(await rows(owner, "SELECT 1 FROM gateway.ledger WHERE run_id = $1", run_id)) == 1


async def test_a_job_that_kills_its_replicas_is_given_up(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database, session_id: str
) -> None:
    asked = SummaryChange(StepState.STARTED, attempts_begun=(ATTEMPT,))
    run_id = await left_behind(client, stage, session_id, asked, recoveries=50)
    await settled(owner, session_id)
    assert (await steps(owner, str(run_id)))[-1] == (3, "summary", "FAILED")
    (attempt,) = await rows(
        owner, "SELECT state, reason FROM gateway.attempts WHERE run_id = $1 AND step_sequence = 3", run_id
    )
    assert attempt == {"state": "LOST", "reason": "RECOVERY_LIMIT"}
    assert await summaries(client, session_id) == []
    assert provider.ledger.asked == []


async def test_a_session_that_was_deleted_ends_its_job(
    client: Client, stage: Stage, provider: FakeProvider, owner: Database
) -> None:
    run_id = await left_behind(client, stage, "018f0000-0000-7000-8000-000000000000")
    await settled(owner, "018f0000-0000-7000-8000-000000000000")
    assert (await steps(owner, str(run_id)))[-1] == (3, "summary", "FAILED")
    assert provider.ledger.asked == []


async def test_a_turn_that_is_taken_over_sees_what_it_saw(
    client: Client, stage: Stage, provider: FakeProvider, sessions: Any, session_id: str
) -> None:
    async with dying(stage.database) as store:
        who = agent(agent_id=await client.agent_of(session_id), max_messages=2)
        _, run = await accepted(store, submission(client.tenant_id, session_id, who))
        begun = session_service_pb2.BeginTurnRequest(
            session_id=session_id,
            message=message_pb2.Message(
                role=message_pb2.MESSAGE_ROLE_USER, author="ann", parts=[message_pb2.Part(text="hello")]
            ),
            source=message_pb2.RunSource(run_id=str(run.run_id), step_sequence=1),
            max_messages=2,
        )
        before = await sessions.BeginTurn(begun)
        # A summary that comes between the first driver and the second is for the next turn.
        await client.sessions.SaveSummary(
            session_service_pb2.SaveSummaryRequest(session_id=session_id, last_sequence=4, text="Too late.")
        )
        assert list((await sessions.BeginTurn(begun)).context) == list(before.context)

    async def done() -> bool:
        return (await client.get(str(run.run_id))).state == run_pb2.RUN_STATE_COMPLETED

    await until(done)
    shown = provider.ledger.asked[-1].body["messages"]
    assert "Too late." not in str(shown)
    await client.create(session_id, "and now?")
    assert not any("Too late." in str(each) for each in provider.ledger.asked[-1].body["messages"][1:])
