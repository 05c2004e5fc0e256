"""What is large holds nobody else up."""

from typing import Any

from minion.session.v1 import session_service_pb2 as pb
from minion_testing.stalls import longest_stall, share_off_loop

from tests.minion_session.made import append, call, open_session, result
from tests.minion_session.stage import Stub

# 240 KB on the wire, of which each value is four bytes: nothing costs more to convert.
_DENSE: list[Any] = [[] for _ in range(60_000)]


async def test_large_messages_are_converted_off_the_loop(session: Stub) -> None:
    session_id = await open_session(session)
    batch = append(session_id, *[result("c1", _DENSE)] * 4)
    assert await longest_stall(lambda: session.AppendMessages(batch)) < 0.4
    assert await longest_stall(lambda: session.ListMessages(pb.ListMessagesRequest(session_id=session_id))) < 0.4


async def test_a_large_workspace_is_converted_off_the_loop(session: Stub) -> None:
    session_id = await open_session(session)
    changes = pb.SetWorkspaceEntriesRequest(session_id=session_id)
    for key in range(7):
        change = changes.changes.add(key=str(key))
        for _ in range(20_000):
            change.value.list_value.values.add().list_value.SetInParent()
    # 0.01 where they are converted on the loop, 0.4 and more off it; gRPC writes and reads its bytes there in any case.
    assert await share_off_loop(lambda: session.SetWorkspaceEntries(changes)) > 0.2
    get = pb.GetWorkspaceRequest(session_id=session_id)
    assert await share_off_loop(lambda: session.GetWorkspace(get)) > 0.2


async def test_a_large_context_is_built_off_the_loop(session: Stub) -> None:
    session_id = await open_session(session)
    for number in range(2):
        exchange = [call(f"c{number}{place}") for place in range(4)]
        answers = [result(f"c{number}{place}", _DENSE) for place in range(4)]
        batch = [one for both in zip(exchange, answers, strict=True) for one in both]
        await session.AppendMessages(append(session_id, "Look.", *batch))
    await session.AppendMessages(append(session_id, "Well?"))
    whole = pb.GetContextRequest(session_id=session_id, token_budget=1_000_000)
    assert len((await session.GetContext(whole)).messages) == 19
    assert await longest_stall(lambda: session.GetContext(whole)) < 0.4
