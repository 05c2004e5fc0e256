"""Many writers on several replicas: nothing lost, nothing twice, no gap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_grpc import wire
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


async def test_concurrent_appends_with_retries_are_gapless_and_stored_once(stubs: list[Stub]) -> None:
    session_id = await open_session(stubs[0])

    async def writer(number: int) -> None:
        for index in range(APPENDS):
            batch = [f"{number}.{index}.{place}" for place in range(1 + (number * 7 + index) % 3)]
            # Half are keyed by a request_id, half by a run's step.
            keyed = {"request_id": new_id()} if index % 2 else {"source": source(str(UUID(int=number + 1)), index + 1)}
            request = append(session_id, *batch, **keyed)
            # Three tries on both replicas, two of them at once: as a client retries that heard nothing.
            first, second = await asyncio.gather(*[stub.AppendMessages(request) for stub in stubs])
            third = await stubs[(number + index) % 2].AppendMessages(request)
            assert first == second == third
            assert third.last_sequence - third.first_sequence == len(batch) - 1

    await asyncio.gather(*[writer(number) for number in range(WRITERS)])
    stored = await everything(stubs[1], session_id)
    assert [message.sequence for message in stored] == list(range(1, len(stored) + 1))
    texts = [message.parts[0].text for message in stored]
    assert len(set(texts)) == len(texts)
    assert {text.rpartition(".")[0] for text in texts} == {
        f"{number}.{index}" for number in range(WRITERS) for index in range(APPENDS)
    }
    times = [message.create_time.ToNanoseconds() for message in stored]
    assert times == sorted(times)


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
    session_id = await open_session(stubs[0])

    async def put(key: int, number: int) -> None:
        change = pb.WorkspaceChange(key=f"key {key}", value=wire.to_value(number), expected_version=number)
        request = pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change], request_id=new_id())
        await stubs[key % 2].SetWorkspaceEntries(request)

    for number in range(3):
        await asyncio.gather(*[put(key, number) for key in range(32)])
    entries = (await stubs[0].GetWorkspace(pb.GetWorkspaceRequest(session_id=session_id))).entries
    assert len(entries) == 32
    assert {entry.version for entry in entries} == {3}


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
