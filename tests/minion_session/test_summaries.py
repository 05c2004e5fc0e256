"""Summaries: kept beside the messages, once for each step that makes them."""

from typing import Any

import grpc
import pytest
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.errors import refused
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, listed, new_id, open_session, source, summary
from tests.minion_session.stage import Stub


async def _session_of(session: Stub, count: int) -> str:
    session_id = await open_session(session)
    await session.AppendMessages(append(session_id, *[str(number) for number in range(count)]))
    return session_id


async def _listed(session: Stub, session_id: str, **fields: Any) -> pb.ListSummariesResponse:
    return await session.ListSummaries(pb.ListSummariesRequest(session_id=session_id, **fields))


async def test_a_summary_is_saved_and_listed(session: Stub) -> None:
    session_id = await _session_of(session, 3)
    saved = (await session.SaveSummary(summary(session_id, 2, "two greetings", model="local/echo"))).summary
    assert (saved.session_id, saved.first_sequence, saved.last_sequence) == (session_id, 1, 2)
    assert (saved.text, saved.model, saved.run_id) == ("two greetings", "local/echo", "")
    # As a message's are estimated: a token for four bytes, and four.
    assert saved.token_count == 4 + 4
    assert saved.create_time.seconds > 0
    second = (await session.SaveSummary(summary(session_id, 3, "more", first_sequence=3, token_count=9))).summary
    assert (second.first_sequence, second.token_count) == (3, 9)
    assert list((await _listed(session, session_id)).summaries) == [second, saved]
    # The messages are as they were.
    assert len(await listed(session, session_id)) == 3


async def test_a_replay_saves_nothing(session: Stub) -> None:
    session_id = await _session_of(session, 1)
    request = summary(session_id, 1, request_id=new_id())
    first = await session.SaveSummary(request)
    assert await session.SaveSummary(request) == first
    request.text = "another"
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await session.SaveSummary(request)
    assert len((await _listed(session, session_id)).summaries) == 1


async def test_a_closed_session_takes_a_summary_and_an_archived_one_none(session: Stub) -> None:
    session_id = await _session_of(session, 2)
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await session.SaveSummary(summary(session_id, 2))
    await session.ArchiveSession(pb.ArchiveSessionRequest(session_id=session_id))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_STATUS_FORBIDS") as refusal:
        await session.SaveSummary(summary(session_id, 2, "another"))
    assert refusal.metadata["status"] == "ARCHIVED"
    assert len((await _listed(session, session_id)).summaries) == 1


async def test_a_step_saves_once_for_ever(session: Stub) -> None:
    session_id, step = await _session_of(session, 2), source()
    first = (await session.SaveSummary(summary(session_id, 1, source=step))).summary
    assert first.run_id == step.run_id
    assert (await session.SaveSummary(summary(session_id, 2, "another", source=step))).summary == first
    other = await _session_of(session, 1)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") as refusal:
        await session.SaveSummary(summary(other, 1, source=step))
    assert refusal.metadata == {"run_id": step.run_id, "step_sequence": "1"}
    # Its messages are another thing.
    await session.AppendMessages(append(session_id, "hello", source=step))


async def test_only_services_save_for_a_step(session: Stub, client: tuple[Stub, grpc.aio.Metadata]) -> None:
    session_id = await _session_of(session, 1)
    stub, metadata = client
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        await stub.SaveSummary(summary(session_id, 1, source=source()), metadata=metadata)
    await stub.SaveSummary(summary(session_id, 1), metadata=metadata)


async def test_a_summary_of_what_was_not_said_is_refused(session: Stub) -> None:
    session_id = await _session_of(session, 3)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "SEQUENCE_OUT_OF_RANGE") as refusal:
        await session.SaveSummary(summary(session_id, 4))
    assert refusal.metadata == {"last_sequence": "3"}
    await session.SaveSummary(summary(session_id, 3))


async def test_a_closed_session_takes_summaries(session: Stub) -> None:
    session_id = await _session_of(session, 1)
    await session.CloseSession(pb.CloseSessionRequest(session_id=session_id))
    await session.SaveSummary(summary(session_id, 1))


async def test_an_absent_session_and_a_foreign_one_have_no_summaries(session: Stub, stranger: Stub) -> None:
    session_id = await _session_of(session, 1)
    for stub, wanted in ((session, new_id()), (stranger, session_id)):
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await stub.SaveSummary(summary(wanted, 1))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await _listed(stub, wanted)


async def test_pages_follow_each_other(session: Stub) -> None:
    session_id = await _session_of(session, 1)
    assert list((await _listed(session, session_id)).summaries) == []
    for number in range(25):
        await session.SaveSummary(summary(session_id, 1, str(number)))
    first = await _listed(session, session_id)
    assert [one.text for one in first.summaries] == [str(number) for number in range(24, 4, -1)]
    second = await _listed(session, session_id, page_token=first.next_page_token)
    assert [one.text for one in second.summaries] == ["4", "3", "2", "1", "0"]
    assert second.next_page_token == ""
    assert len((await _listed(session, session_id, page_size=200)).summaries) == 25
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await _listed(session, await _session_of(session, 1), page_token=first.next_page_token)


async def test_a_page_ends_before_three_mebibytes(session: Stub) -> None:
    session_id = await _session_of(session, 1)
    for _ in range(20):
        await session.SaveSummary(summary(session_id, 1, "ä" * 100_000))
    first = await _listed(session, session_id)
    assert 14 <= len(first.summaries) < 20
    assert first.ByteSize() < 3 * 1024 * 1024
    rest = await _listed(session, session_id, page_token=first.next_page_token)
    assert len(first.summaries) + len(rest.summaries) == 20


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"session_id": "x"}, {"session_id"}),
        ({"last_sequence": 0}, {"last_sequence"}),
        ({"last_sequence": -1}, {"last_sequence"}),
        ({"first_sequence": 3}, {"first_sequence"}),
        ({"first_sequence": -1}, {"first_sequence"}),
        ({"text": ""}, {"text"}),
        ({"text": "x" * 100_001}, {"text"}),
        ({"text": " \n"}, {"text"}),
        ({"token_count": -1}, {"token_count"}),
        ({"token_count": 1_000_001}, {"token_count"}),
        ({"model": "x" * 201}, {"model"}),
        ({"source": source("x", 0)}, {"source.run_id", "source.step_sequence"}),
        ({"request_id": "x"}, {"request_id"}),
    ],
)
async def test_what_breaks_a_limit_is_refused(session: Stub, fields: dict[str, Any], faulty: set[str]) -> None:
    request = {"session_id": str(uuid7()), "last_sequence": 2, "text": "so far", **fields}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.SaveSummary(pb.SaveSummaryRequest(**request))
    assert set(refusal.violations) == faulty


async def test_a_page_size_below_zero_is_refused(session: Stub) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await _listed(session, "x", page_size=-1)
    assert set(refusal.violations) == {"session_id", "page_size"}
