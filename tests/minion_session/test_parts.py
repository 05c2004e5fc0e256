"""Parts of messages: media, thinking, results that live in blobs; which belong in a message of which role."""

import grpc
import pytest
from minion.session.v1 import message_pb2 as messages
from minion_testing.errors import refused

from tests.minion_session.made import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
    append,
    call,
    context_of,
    listed,
    new_id,
    open_session,
    put,
    result,
    text,
    turn,
)
from tests.minion_session.stage import Blobs, Stub

URI = "https://pictures.example/1.png"


def media(**fields: str) -> messages.Part:
    return messages.Part(media=messages.Media(**{"media_type": "image/png", **fields}))


def thinking(words: str = "hm", signature: str = "signed") -> messages.Part:
    return messages.Part(thinking=messages.Thinking(text=words, signature=signature))


def message(role: messages.MessageRole.ValueType, *parts: messages.Part) -> messages.Message:
    return messages.Message(role=role, parts=parts)


async def test_parts_read_as_they_were_appended(session: Stub, blobs: Blobs) -> None:
    session_id = await open_session(session)
    blob = await put(blobs, session_id)
    answer = result("c1", "an excerpt")
    answer.parts[0].tool_result.blob_id = blob.blob_id
    said = [
        message(USER, media(uri=URI, name="a picture"), media(blob_id=blob.blob_id), messages.Part(text="Look.")),
        message(ASSISTANT, thinking(), media(uri=URI), *call("c1").parts),
        answer,
    ]
    await session.AppendMessages(append(session_id, *said))
    stored = await listed(session, session_id)
    assert [list(one.parts) for one in stored] == [list(one.parts) for one in said]
    # Thinking takes nothing of a context, which doesn't show it.
    before = stored[1].token_count
    await session.AppendMessages(append(session_id, message(ASSISTANT, *said[1].parts[1:])))
    assert (await listed(session, session_id))[3].token_count == before
    shown = (await context_of(session, session_id)).messages
    assert list(shown[0].parts) == list(said[0].parts)
    assert [part.WhichOneof("content") for part in shown[1].parts] == ["text", "tool_call"]
    assert shown[1].parts[0].text == f"[image/png: {URI}]"
    assert shown[2].parts[0].tool_result.output.string_value.startswith("an excerpt\n")
    assert blob.blob_id in shown[2].parts[0].tool_result.output.string_value


_PARTS = {
    "text": messages.Part(text="words"),
    "media": media(uri=URI),
    "thinking": thinking(),
    "tool_call": call("c1").parts[0],
    "tool_result": result("c1").parts[0],
}
_SPOKEN_BY = {
    USER: {"text", "media"},
    SYSTEM: {"text"},
    ASSISTANT: {"text", "media", "thinking", "tool_call"},
    TOOL: {"tool_result"},
}


@pytest.mark.parametrize("role", list(_SPOKEN_BY))
async def test_each_role_has_its_parts(session: Stub, role: messages.MessageRole.ValueType) -> None:
    session_id = await open_session(session)
    for kind, part in _PARTS.items():
        request = append(session_id, message(role, part))
        if kind in _SPOKEN_BY[role]:
            await session.AppendMessages(request)
            continue
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await session.AppendMessages(request)
        assert set(refusal.violations) == {f"messages[0].parts[0].{kind}"}


@pytest.mark.parametrize(
    ("role", "part", "faulty"),
    [
        (USER, media(uri=URI, media_type=""), "media.media_type"),
        (USER, media(uri=URI, media_type="x" * 128), "media.media_type"),
        (USER, media(uri=URI, name="x" * 201), "media.name"),
        (USER, media(), "media"),
        (USER, media(blob_id="x"), "media.blob_id"),
        (USER, media(blob_id=""), "media.blob_id"),
        (USER, media(uri="http://pictures.example/1.png"), "media.uri"),
        (USER, media(uri="https://" + "x" * 1_993), "media.uri"),
        (ASSISTANT, thinking(""), "thinking.text"),
        (ASSISTANT, thinking("hm", "x" * (16 * 1024 + 1)), "thinking.signature"),
        (
            TOOL,
            messages.Part(tool_result=messages.ToolResult(tool_call_id="a", name="b", blob_id="x")),
            "tool_result.blob_id",
        ),
    ],
)
async def test_what_breaks_a_limit_is_refused(
    session: Stub, role: messages.MessageRole.ValueType, part: messages.Part, faulty: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
        await session.AppendMessages(append(new_id(), message(role, part)))
    assert set(refusal.violations) == {f"messages[0].parts[0].{faulty}"}


async def test_what_meets_each_limit_is_taken(session: Stub) -> None:
    session_id = await open_session(session)
    largest = media(media_type="x" * 127, name="x" * 200, uri="https://" + "x" * 1_992)
    await session.AppendMessages(
        append(session_id, message(USER, largest), message(ASSISTANT, thinking("hm", "x" * 16 * 1024)))
    )


async def test_a_blob_that_the_session_has_not_is_refused(session: Stub, blobs: Blobs) -> None:
    session_id, other = await open_session(session), await open_session(session)
    foreign, own = await put(blobs, other), await put(blobs, session_id)
    answer = result("c1")
    answer.parts[0].tool_result.blob_id = foreign.blob_id
    for said in (
        message(USER, media(blob_id=own.blob_id), media(blob_id=foreign.blob_id)),
        answer,
    ):
        async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND") as refusal:
            await session.AppendMessages(append(session_id, said))
        assert refusal.metadata == {"session_id": session_id, "blob_id": foreign.blob_id}
    async with refused(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND"):
        await session.BeginTurn(turn(session_id, message=message(USER, media(blob_id=new_id()))))
    assert await listed(session, session_id) == []
    # A session that isn't there is told so.
    async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        await session.AppendMessages(append(new_id(), message(USER, media(blob_id=own.blob_id))))
    begun = await session.BeginTurn(
        turn(session_id, message=message(USER, media(blob_id=own.blob_id), *text("?").parts))
    )
    assert begun.context[0].parts[0].media.blob_id == own.blob_id
