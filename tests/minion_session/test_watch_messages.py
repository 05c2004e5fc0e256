"""WatchMessages: pages, then what comes, on whichever replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import grpc
from minion.session.v1 import message_pb2 as messages
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase

from tests.minion_session.made import append, listed, new_id, open_session
from tests.minion_session.stage import Stub, gateway, serving


class Watch:
    """One open watch."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[pb.WatchMessagesRequest, pb.WatchMessagesResponse]") -> None:
        self._call = call

    async def next(self) -> pb.WatchMessagesResponse:
        """Waits for what is sent next."""
        async with asyncio.timeout(60):
            sent = await self._call.read()
        assert isinstance(sent, pb.WatchMessagesResponse)
        return sent

    async def message(self) -> messages.Message:
        """Waits for the next message."""
        while not (sent := await self.next()).HasField("message"):
            pass
        return sent.message

    async def synced(self) -> int:
        """Waits for the next word that all was sent, which must come before any message."""
        sent = await self.next()
        assert sent.WhichOneof("event") == "synced_sequence"
        return sent.synced_sequence


@asynccontextmanager
async def watching(session: Stub, session_id: str, after: int = 0) -> AsyncIterator[Watch]:
    """Watches for a block."""
    call = session.WatchMessages(pb.WatchMessagesRequest(session_id=session_id, after_sequence=after))
    try:
        yield Watch(call)
    finally:
        call.cancel()


async def test_what_is_there_comes_first_then_what_is_appended(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "one", "two"))
    async with watching(session, session_id) as watch:
        there = [await watch.next() for _ in range(2)]
        assert [sent.message for sent in there] == list(await listed(session, session_id))
        assert await watch.synced() == 2
        await session.AppendMessages(append(session_id, "three"))
        came = await watch.message()
        assert (came.sequence, came.parts[0].text) == (3, "three")
        assert await watch.synced() == 3


async def test_an_empty_session_is_synced_at_once_and_silence_is_told(session: Stub) -> None:
    async with watching(session, await open_session(session)) as watch:
        assert [await watch.synced() for _ in range(3)] == [0, 0, 0]


async def test_more_than_a_page_is_sent_before_it_is_synced(session: Stub) -> None:
    session_id = await open_session(session)
    for start in range(0, 1_200, 100):
        await session.AppendMessages(append(session_id, *[str(start + place) for place in range(100)]))
    async with watching(session, session_id, 10) as watch:
        sent = [await watch.next() for _ in range(1_190)]
        assert [one.message.sequence for one in sent] == list(range(11, 1_201))
        assert await watch.synced() == 1_200


async def test_a_watch_resumes_after_its_last_message_on_another_replica(
    session: Stub, tenant_id: UUID, postgres: ClonedDatabase
) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "one", "two"))
    async with watching(session, session_id) as watch:
        last = (await watch.message()).sequence
    async with serving(postgres) as other, gateway(other, tenant_id) as stub, watching(stub, session_id, last) as watch:
        assert (await watch.message()).sequence == 2
        await session.AppendMessages(append(session_id, "three"))
        assert (await watch.message()).sequence == 3


async def test_writers_on_two_replicas_are_sent_gapless(
    session: Stub, tenant_id: UUID, postgres: ClonedDatabase
) -> None:
    session_id = await open_session(session)
    async with serving(postgres) as other, gateway(other, tenant_id) as stub, watching(stub, session_id) as watch:

        async def writer(writing: Stub, number: int) -> None:
            for index in range(20):
                await writing.AppendMessages(append(session_id, f"{number}.{index}"))

        writers = asyncio.gather(*[writer([session, stub][number % 2], number) for number in range(8)])
        sent = [await watch.message() for _ in range(160)]
        await writers
    assert [message.sequence for message in sent] == list(range(1, 161))


async def test_a_sequence_that_is_not_there_yet_is_waited_for(session: Stub) -> None:
    session_id = await open_session(session)
    async with watching(session, session_id, 2) as watch:
        assert await watch.synced() == 2
        await session.AppendMessages(append(session_id, "one", "two", "three"))
        assert (await watch.message()).sequence == 3


async def test_a_watch_ends_when_its_session_is_deleted(session: Stub) -> None:
    session_id = await open_session(session)
    async with watching(session, session_id) as watch:
        await watch.synced()
        await session.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            while True:
                await watch.next()


async def test_a_closed_session_may_be_watched(session: Stub) -> None:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, "one"))
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    async with watching(session, session_id) as watch:
        assert (await watch.message()).sequence == 1


async def test_an_absent_session_and_a_foreign_one_read_the_same(session: Stub, stranger: Stub) -> None:
    session_id = await open_session(session)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND") as refusal, watching(stub, wanted) as watch:
            await watch.next()
        assert refusal.metadata == {"session_id": wanted}


async def test_watch_refuses_what_breaks_a_limit(session: Stub) -> None:
    async with (
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal,
        watching(session, "1", -1) as watch,
    ):
        await watch.next()
    assert set(refusal.violations) == {"session_id", "after_sequence"}
