"""Many writers on several replicas: nothing lost, nothing twice, no gap."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served

from tests.minion_session.made import append, new_id, open_session, source, text, turn
from tests.minion_session.stage import Stub, gateway, serving

WRITERS = 16
APPENDS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(postgres: ClonedDatabase) -> AsyncIterator[list[Served]]:
    """Two replicas on one database."""
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(serving(postgres)) for _ in range(2)]


@pytest_asyncio.fixture(loop_scope="session")
async def stubs(replicas: list[Served], tenant_id: UUID) -> AsyncIterator[list[Stub]]:
    """A channel to each replica, for the test's tenant."""
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(gateway(one, tenant_id)) for one in replicas]


@pytest.fixture
def session(stubs: list[Stub]) -> Stub:
    """One of the replicas."""
    return stubs[0]


async def everything(session: Stub, session_id: str) -> list[messages.Message]:
    found: list[messages.Message] = []
    token = ""
    while True:
        page = await session.ListMessages(pb.ListMessagesRequest(session_id=session_id, page_token=token))
        found += page.messages
        token = page.next_page_token
        if not token:
            return found


async def hammer(stubs: list[Stub], *, writers: int, appends: int, batch: int = 1) -> None:
    """Lets many writers append to one session, each append tried several times, and looks at what came of it.

    The first try is cut off by its caller at some point, as a client's is whose connection breaks; then it is tried
    twice at once on two replicas, and once more on a third.
    """
    session_id = await open_session(stubs[0])
    chance = random.Random(20_260_101)  # noqa: S311 - repeatable, not secret

    async def writer(number: int) -> None:
        for index in range(appends):
            texts = [f"{number}.{index}.{place}" for place in range(1 + (number * 7 + index) % batch)]
            # Half are keyed by a request_id, half by a run's step.
            keyed = {"request_id": new_id()} if index % 2 else {"source": source(str(UUID(int=number + 1)), index + 1)}
            request = append(session_id, *texts, **keyed)
            some = [stubs[(number + index + place) % len(stubs)] for place in range(4)]
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0, 0.02)):
                    await some[0].AppendMessages(request)
            first, second = await asyncio.gather(*[stub.AppendMessages(request) for stub in some[1:3]])
            third = await some[3].AppendMessages(request)
            assert first == second == third
            assert third.last_sequence - third.first_sequence == len(texts) - 1

    await asyncio.gather(*[writer(number) for number in range(writers)])
    stored = await everything(stubs[1], session_id)
    assert [message.sequence for message in stored] == list(range(1, len(stored) + 1))
    texts = [message.parts[0].text for message in stored]
    assert len(set(texts)) == len(texts)
    assert {text.rpartition(".")[0] for text in texts} == {
        f"{number}.{index}" for number in range(writers) for index in range(appends)
    }
    if batch == 1:
        assert len(stored) == writers * appends
    times = [message.create_time.ToNanoseconds() for message in stored]
    assert times == sorted(times)


async def set_at_once(stubs: list[Stub], *, keys: int, rounds: int) -> None:
    """Lets many callers set a key each at once, several times, expecting each its own version."""
    session_id = await open_session(stubs[0])

    async def put(key: int, number: int) -> None:
        change = pb.WorkspaceChange(key=f"key {key}", value=wire.to_value(number), expected_version=number)
        request = pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change], request_id=new_id())
        await stubs[key % len(stubs)].SetWorkspaceEntries(request)

    for number in range(rounds):
        await asyncio.gather(*[put(key, number) for key in range(keys)])
    entries = (await stubs[0].GetWorkspace(pb.GetWorkspaceRequest(session_id=session_id))).entries
    assert len(entries) == keys
    assert {entry.version for entry in entries} == {rounds}


async def test_concurrent_appends_with_retries_are_gapless_and_stored_once(stubs: list[Stub]) -> None:
    await hammer(stubs, writers=WRITERS, appends=APPENDS, batch=3)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_64_writers_on_three_replicas_lose_and_double_nothing(postgres: ClonedDatabase, tenant_id: UUID) -> None:
    async with AsyncExitStack() as running:
        replicas = [await running.enter_async_context(serving(postgres)) for _ in range(3)]
        stubs = [await running.enter_async_context(gateway(one, tenant_id)) for one in replicas]
        await hammer(stubs, writers=64, appends=100)
        await set_at_once(stubs, keys=64, rounds=10)


async def test_two_tries_of_a_step_that_wait_for_the_session_store_one_message(
    stubs: list[Stub], owner: Database
) -> None:
    # Both have looked for the step when the first gets the session's row.
    session_id = await open_session(stubs[0])
    request = append(session_id, "hello", source=source(new_id(), 1))
    async with owner.transaction(None) as transaction:
        await transaction.fetch("SELECT FROM session.sessions WHERE session_id = $1 FOR UPDATE", UUID(session_id))
        tries = asyncio.gather(*[stub.AppendMessages(request) for stub in stubs])
        waiting = 0
        while waiting < len(stubs):
            waiting = await transaction.fetch_value("SELECT count(*) FROM pg_locks, pg_sleep(0.01) WHERE NOT granted")
    first, second = await tries
    assert first == second
    assert [message.sequence for message in await everything(stubs[0], session_id)] == [1]


async def test_of_appends_that_expect_the_same_sequence_one_succeeds(stubs: list[Stub]) -> None:
    session_id = await open_session(stubs[0])

    async def attempt(number: int) -> bool:
        try:
            await stubs[number % 2].AppendMessages(append(session_id, str(number), expected_sequence=0))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.ABORTED  # noqa: PT017 - a loser's answer, not an expected raise
            return False
        return True

    assert sum(await asyncio.gather(*[attempt(number) for number in range(12)])) == 1
    assert len(await everything(stubs[0], session_id)) == 1


async def test_one_of_many_runs_gets_the_session(stubs: list[Stub]) -> None:
    session_id = await open_session(stubs[0])

    async def attempt(number: int) -> bool:
        try:
            await stubs[number % 2].BeginTurn(turn(session_id, str(number)))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017 - as above
            return False
        return True

    assert sum(await asyncio.gather(*[attempt(number) for number in range(12)])) == 1
    assert len(await everything(stubs[0], session_id)) == 1


async def test_a_turn_begun_twice_at_once_stores_one_message(stubs: list[Stub]) -> None:
    request = turn(await open_session(stubs[0]))
    answers = await asyncio.gather(*[stubs[number % 2].BeginTurn(request) for number in range(8)])
    assert {answer.message.sequence for answer in answers} == {1}
    assert all(answer.context == answers[0].context for answer in answers)


async def test_one_step_on_two_sessions_at_once_appends_to_one(stubs: list[Stub]) -> None:
    step = source()
    sessions = [await open_session(stubs[0]) for _ in range(8)]

    async def attempt(number: int) -> bool:
        try:
            await stubs[number % 2].AppendMessages(append(sessions[number], "hello", source=step))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS  # noqa: PT017 - as above
            return False
        return True

    assert sum(await asyncio.gather(*[attempt(number) for number in range(8)])) == 1


async def test_independent_workspace_keys_never_conflict(stubs: list[Stub]) -> None:
    await set_at_once(stubs, keys=64, rounds=2)


async def test_of_setters_that_expect_the_same_version_one_succeeds(stubs: list[Stub]) -> None:
    session_id = await open_session(stubs[0])

    async def attempt(number: int) -> bool:
        change = pb.WorkspaceChange(key="shared", value=wire.to_value(number), expected_version=0)
        try:
            await stubs[number % 2].SetWorkspaceEntries(
                pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change])
            )
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.ABORTED  # noqa: PT017 - as above
            return False
        return True

    assert sum(await asyncio.gather(*[attempt(number) for number in range(12)])) == 1


# What a writer does next: append so many messages; by a new key or the last one again; expecting the right last
# sequence, a wrong one, or none.
_MOVES = st.lists(
    st.tuples(
        st.integers(1, 4), st.sampled_from(["new", "replay", "step", "step again"]), st.sampled_from([None, 0, 1])
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(moves=_MOVES)
async def test_a_session_keeps_to_its_model(stubs: list[Stub], moves: list[tuple[int, str, int | None]]) -> None:
    session_id = await open_session(stubs[0])
    run_id = new_id()
    model: list[str] = []
    done: dict[str, tuple[pb.AppendMessagesRequest, pb.AppendMessagesResponse]] = {}
    for index, (count, how, off) in enumerate(moves):
        session = stubs[index % 2]
        kind = how.removesuffix(" again").replace("replay", "new")
        if how in ("replay", "step again") and kind in done:
            request, answer = done[kind]
            assert await session.AppendMessages(request) == answer
            continue
        batch = [f"{index}.{place}" for place in range(count)]
        keyed = {"source": source(run_id, index + 1)} if kind == "step" else {"request_id": new_id()}
        expected = {} if off is None else {"expected_sequence": len(model) + off}
        request = append(session_id, *[text(one) for one in batch], **keyed, **expected)
        if off:
            async with refused(grpc.StatusCode.ABORTED, "SEQUENCE_MOVED"):
                await session.AppendMessages(request)
            continue
        answer = await session.AppendMessages(request)
        assert (answer.first_sequence, answer.last_sequence) == (len(model) + 1, len(model) + count)
        model += batch
        done[kind] = (request, answer)
    stored = await everything(stubs[0], session_id)
    assert [(message.sequence, message.parts[0].text) for message in stored] == list(enumerate(model, start=1))
