"""Sessions that are followed: what is drawn by itself, when, and by which policy."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest_asyncio
import structlog
from minion.memory.v1 import extraction_pb2, memory_pb2
from minion.memory.v1 import memory_service_pb2 as pb
from minion.session.v1 import session_service_pb2
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import serve

from tests.minion_memory.conftest import NOBODY
from tests.minion_memory.extraction_stage import DONE, House, Tenant, assistant, house, until

ENDED = extraction_pb2.EXTRACTION_TRIGGER_ENDED
IDLE = extraction_pb2.EXTRACTION_TRIGGER_IDLE
MESSAGES = extraction_pb2.EXTRACTION_TRIGGER_MESSAGES
# So long that no session is idle because the machine was.
_IDLE = timedelta(hours=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: ClonedDatabase, model_cache: Path) -> AsyncIterator[House]:
    async with house(postgres, model_cache, idle_seconds=_IDLE.total_seconds()) as running:
        await until(lambda: _following(running))
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def ours(stage: House) -> AsyncIterator[Tenant]:
    async with stage.tenant() as tenant:
        yield tenant


async def _following(stage: House) -> bool:
    async with await stage.database.connect("memory", "owner") as owner:
        return bool(await owner.fetch_value("SELECT cursor <> '' FROM memory.session_feed"))


async def pass_idle(stage: House, session_id: str) -> None:
    """Lets the time pass after which a session is idle, once it was looked at and waits for that."""
    admin = await asyncpg.connect(stage.database.admin_dsn)
    try:

        async def waits() -> bool:
            # A look that is under way keeps others off for half a minute.
            waiting = "SELECT due_time > now() + $2::interval / 2 FROM memory.watched_sessions WHERE session_id = $1"
            return bool(await admin.fetchval(waiting, UUID(session_id), _IDLE))

        await until(waits)
        async with admin.transaction():
            await admin.execute("SET LOCAL session_replication_role = replica")
            for shift in (
                "UPDATE session.sessions SET updated_at = updated_at - $2::interval WHERE session_id = $1",
                "UPDATE memory.watched_sessions SET due_time = due_time - $2::interval WHERE session_id = $1",
            ):
                await admin.execute(shift, UUID(session_id), _IDLE)
    finally:
        await admin.close()


async def test_a_closed_session_is_drawn_from(ours: Tenant) -> None:
    agent_id = await ours.agent(extract=True)
    session_id = await ours.session("My name is Ada.", assistant("Hello."), agent_id=agent_id)
    await ours.close(session_id)
    [job] = await ours.done(session_id)
    assert (job.trigger, job.extractor, job.first_sequence, job.last_sequence) == (ENDED, "facts-1", 1, 2)
    assert [memory.content for memory in await ours.kept()] == ["The user's name is Ada."]


async def test_an_idle_session_is_drawn_from_what_is_left(stage: House, ours: Tenant) -> None:
    agent_id = await ours.agent(extract=True, extract_after_messages=4)
    session_id = await ours.session("My name is Ada.", "I live in Rome.", "So.", "Well.", agent_id=agent_id)
    [by_count] = await ours.done(session_id)
    assert (by_count.trigger, by_count.last_sequence) == (MESSAGES, 4)
    await ours.say(session_id, "I like tea.")
    await pass_idle(stage, session_id)
    _, by_idleness = await ours.done(session_id, 2)
    assert (by_idleness.trigger, by_idleness.first_sequence, by_idleness.last_sequence) == (IDLE, 5, 5)
    assert len(await ours.kept()) == 3


async def test_episodes_are_kept_beside_facts_and_at_once(ours: Tenant) -> None:
    agent_id = await ours.agent(episodes=True, extract=True)
    session_id = await ours.session("My name is Ada.", assistant("Hello."), agent_id=agent_id)
    [job] = await ours.done(session_id)
    assert (job.extractor, job.created_count) == ("episodes-1", 2)
    await ours.close(session_id)
    await ours.done(session_id, 2)
    kinds = {memory.key.split("/")[0]: memory.type for memory in await ours.kept()}
    assert kinds == {"episode": memory_pb2.MEMORY_TYPE_CONTEXT, "user": memory_pb2.MEMORY_TYPE_FACT}


async def test_what_was_said_before_an_erasure_is_not_drawn_again(ours: Tenant) -> None:
    agent_id = await ours.agent(episodes=True, extract=True)
    session_id = await ours.session("My name is Ada.", agent_id=agent_id)
    await ours.done(session_id)
    await ours.memories.EraseSubject(pb.EraseSubjectRequest(user_id="ann"))
    assert await ours.kept() == []
    # The session service keeps the session, and it goes on.
    await ours.say(session_id, "I live in Rome.")
    await ours.close(session_id)

    async def drawn_to_the_end() -> bool:
        # What was said before may be told once more, and be a job that draws nothing.
        ended = [job for job in await ours.jobs(session_id) if job.state == DONE and job.last_sequence == 2]
        return {job.extractor for job in ended} == {"episodes-1", "facts-1"}

    await until(drawn_to_the_end)
    await ours.extract(session_id, first_sequence=1)
    said = sorted(memory.content for memory in await ours.kept())
    assert said == ["I live in Rome.", "The user lives in Rome."]


async def test_an_agent_that_wants_nothing_remembered_gets_nothing(stage: House, ours: Tenant) -> None:
    quiet, gone = await ours.agent(), str(uuid4())
    sessions = [await ours.session("My name is Ada.", agent_id=agent_id) for agent_id in (quiet, gone)]
    for session_id in sessions:
        await ours.close(session_id)
    wanted = await ours.session("My name is Eve.", agent_id=await ours.agent(extract=True), user_id="eve")
    await ours.close(wanted)
    await ours.done(wanted)

    async def all_looked_at() -> bool:
        async with await stage.database.connect("memory", "owner") as owner:
            waiting = "SELECT count(*) FROM memory.watched_sessions WHERE tenant_id = $1 AND due_time IS NOT NULL"
            return bool(await owner.fetch_value(waiting, ours.tenant_id) == 0)

    await until(all_looked_at)
    assert [await ours.jobs(session_id) for session_id in sessions] == [[], []]
    assert await ours.kept() == []


async def test_a_deleted_session_is_forgotten(stage: House, ours: Tenant) -> None:
    agent_id = await ours.agent(extract=True)
    session_id = await ours.session("My name is Ada.", agent_id=agent_id)
    await ours.close(session_id)
    await ours.done(session_id)
    await ours.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))

    async def forgotten() -> bool:
        async with await stage.database.connect("memory", "owner") as owner:
            known = "SELECT count(*) FROM memory.watched_sessions WHERE session_id = $1"
            return bool(await owner.fetch_value(known, UUID(session_id)) == 0)

    await until(forgotten)
    # What was drawn from it stays.
    assert len(await ours.kept()) == 1


async def test_the_cursor_survives_and_one_replica_reads(stage: House, ours: Tenant) -> None:
    agent_id = await ours.agent(extract=True)
    async with serve(
        "memory",
        stage.database,
        gateway_address=stage.memory.settings.gateway_address,  # type: ignore[attr-defined]
        session_address=stage.session.address,
        registry_address=stage.registry.address,
    ) as second:
        sessions = [await ours.session(f"My name is Ada{n}.", agent_id=agent_id, user_id=f"u{n}") for n in range(6)]
        for session_id in sessions:
            await ours.close(session_id)
        for session_id in sessions:
            [job] = await ours.done(session_id)
            assert job.attempt_count == 1

        async def one_reads() -> bool:
            reading = [replica.metric("extraction_following") for replica in (stage.memory, second)]
            return sorted(reading, key=float) == [0, 1]  # type: ignore[arg-type]

        # A feed that has just broken is taken up again in a moment.
        await until(one_reads)
    for number in range(6):
        assert len(await ours.kept(user_id=f"u{number}")) == 1


async def test_a_feed_that_is_down_is_told_and_one_that_is_not_followed_is_not(
    database_factory: Callable[..., Awaitable[ClonedDatabase]],
) -> None:
    database = await database_factory()
    addresses: dict[str, Any] = dict.fromkeys(("gateway_address", "session_address", "registry_address"), NOBODY)
    with structlog.testing.capture_logs() as lines:
        async with serve("memory", database, **addresses) as lonely:

            async def told() -> bool:
                return any(line["event"].startswith("the session feed is down") for line in lines)

            await until(told)
            assert lonely.metric("extraction_following") == 0
    [line] = [line for line in lines if line["event"].startswith("the session feed is down")]
    assert line["log_level"] == "warning"
    async with serve("memory", database, follow_sessions=False, **addresses) as content:
        assert content.metric("extraction_following") is None
        assert content.metric("extraction_jobs_waiting") is not None


async def test_a_place_that_is_no_longer_kept_is_listed_anew(
    database_factory: Callable[..., Awaitable[ClonedDatabase]], model_cache: Path
) -> None:
    database = await database_factory()
    async with house(database, model_cache, idle_seconds=5.0) as running, running.tenant() as ours:
        agent_id = await ours.agent(extract=True)
        session_id = await ours.session("My name is Ada.", agent_id=agent_id)
        await ours.close(session_id)
        await ours.done(session_id)
        missed_from = running.memory
        await missed_from.server.drain_and_stop()
        missed = await ours.session("I live in Rome.", agent_id=agent_id)
        await ours.close(missed)
        async with await database.connect("session", "owner") as owner:
            # As if the changes had been purged long since.
            await owner.execute("UPDATE session.changes SET create_time = create_time - interval '300 days'")
        async with await database.connect("memory", "owner") as owner:
            await owner.execute("UPDATE memory.session_feed SET cursor = 'stale', owner = NULL")
        again = serve(
            "memory",
            database,
            gateway_address=missed_from.settings.gateway_address,  # type: ignore[attr-defined]
            session_address=running.session.address,
            registry_address=running.registry.address,
        )
        async with again as replica, replace(running, memory=replica).tenant(ours.tenant_id) as same:
            await same.done(missed)
            later = await same.session("I like tea.", agent_id=agent_id)
            await same.close(later)
            await same.done(later)
            assert len(await same.kept()) == 3
