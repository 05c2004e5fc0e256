"""A turn from the user's message to the agent's answer."""

from minion.gateway.v1 import run_pb2
from minion.session.v1 import message_pb2, session_service_pb2
from minion_postgres import Database
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Reply

from tests.minion_gateway.runs.stage import Client, rows


async def test_a_plain_turn_answers_and_leaves_its_messages(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Reply("Good day.", input_tokens=12, output_tokens=3))

    run = await client.create(session_id, "Hello there")

    assert (run.state, run.answer) == (run_pb2.RUN_STATE_COMPLETED, "Good day.")
    assert (run.usage.input_tokens, run.usage.output_tokens) == (12, 3)
    assert run.cost_nanos > 0
    assert run.user_id == "ann"
    assert [(message.role, message.parts[0].text) for message in await client.messages(session_id)] == [
        (message_pb2.MESSAGE_ROLE_USER, "Hello there"),
        (message_pb2.MESSAGE_ROLE_ASSISTANT, "Good day."),
    ]
    assert run == await client.get(run.run_id)


async def test_a_streamed_turn_tells_its_events_in_order(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Reply("One two three."))

    events = await client.stream(session_id)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].state_changed.state == run_pb2.RUN_STATE_WORKING
    assert "".join(event.text_delta.text for event in events) == "One two three."
    assert events[-1].run_finished.run.answer == "One two three."
    assert events[-1].run_finished.run == await client.get(events[-1].run_id)


async def test_the_model_sees_the_history_of_the_session(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    await client.create(session_id, "first")
    await client.create(session_id, "second")

    shown = [(message["role"], message["content"]) for message in provider.ledger.asked[-1].body["messages"]]
    assert shown == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "echo: first"),
        ("user", "second"),
    ]


async def test_the_model_is_told_of_images_and_files(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    photo = message_pb2.Media(media_type="image/png", name="cat.png", uri="https://example.com/cat.png")
    nameless = message_pb2.Media(media_type="image/png", uri="https://example.com/dog.png")
    batch = session_service_pb2.AppendMessagesRequest(session_id=session_id)
    for parts in (
        [message_pb2.Part(media=photo)],
        [message_pb2.Part(text="And this?"), message_pb2.Part(media=nameless)],
    ):
        batch.messages.add(role=message_pb2.MESSAGE_ROLE_USER, parts=parts)
    await client.sessions.AppendMessages(batch)
    await client.create(session_id, "Well?")
    shown = [message["content"] for message in provider.ledger.asked[-1].body["messages"]]
    assert shown[1:] == [
        "[cat.png, image/png: https://example.com/cat.png]",
        "And this?\n[image/png: https://example.com/dog.png]",
        "Well?",
    ]


async def test_a_plain_turn_takes_three_commits(client: Client, owner: Database) -> None:
    session_id = await client.conversation()
    run = await client.create(session_id)

    steps = await rows(
        owner,
        "SELECT kind, state, start_time, end_time FROM gateway.run_steps WHERE run_id = $1 ORDER BY sequence",
        run.run_id,
    )
    assert [(step["kind"], step["state"]) for step in steps] == [
        ("begin", "DONE"),
        ("llm", "DONE"),
        ("append", "DONE"),
    ]
    # A commit has one time: accepted, answered, ended.
    assert len({step["start_time"] for step in steps} | {step["end_time"] for step in steps}) == 3
