"""What is large holds nobody else up, and fits the replies that it is to fit."""

from typing import Any

import grpc
from google.protobuf.struct_pb2 import Value
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from minion_testing.errors import refused
from minion_testing.stalls import longest_stall, share_off_loop

from tests.minion_session.made import append, call, open_session, result
from tests.minion_session.stage import Stub

# 240 KB on the wire, of which each value is four bytes: nothing costs more to convert.
_DENSE: list[Any] = [[] for _ in range(60_000)]
_LARGEST_REPLY = 4 * 1024 * 1024


def _nothings(count: int) -> Value:
    """Makes a list of values that were left unset, two bytes each; they are written back as null, which takes four."""
    made = Value()
    for _ in range(count):
        made.list_value.values.add()
    return made


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


async def test_values_left_unset_fit_a_page_and_a_context(session: Stub) -> None:
    session_id = await open_session(session)
    for number in range(13):
        answer = message_pb2.ToolResult(tool_call_id=f"c{number}", name="clock", output=_nothings(120_000))
        told = message_pb2.Message(role=message_pb2.MESSAGE_ROLE_TOOL, parts=[message_pb2.Part(tool_result=answer)])
        await session.AppendMessages(append(session_id, "Look.", call(f"c{number}"), told))
    found, token = 0, ""
    for _ in range(13):
        page = await session.ListMessages(pb.ListMessagesRequest(session_id=session_id, page_token=token))
        assert page.ByteSize() < _LARGEST_REPLY
        found += len(page.messages)
        token = page.next_page_token
        if not token:
            break
    assert found == 39
    context = await session.GetContext(pb.GetContextRequest(session_id=session_id, token_budget=1_000_000))
    assert context.ByteSize() < _LARGEST_REPLY


async def test_a_workspace_of_values_left_unset_fits_a_reply(session: Stub) -> None:
    session_id = await open_session(session)
    async with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKSPACE_FULL"):
        for key in range(1_000):
            change = pb.WorkspaceChange(key=str(key), value=_nothings(13_000))
            await session.SetWorkspaceEntries(pb.SetWorkspaceEntriesRequest(session_id=session_id, changes=[change]))
    workspace = await session.GetWorkspace(pb.GetWorkspaceRequest(session_id=session_id))
    # 2 MiB on the wire, and the versions and times that come with the entries.
    assert workspace.ByteSize() < 2.1 * 1024 * 1024
