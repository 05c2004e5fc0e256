"""What the tests of summaries say often: a policy, long words, what was summarized."""

from typing import Any

from minion.registry.v1 import agent_pb2
from minion.session.v1 import message_pb2, session_pb2, session_service_pb2
from minion_postgres import Database

from tests.minion_gateway.runs.stage import Client, rows, until

# About 300 tokens in the session's count.
LONG = "It was a long and rainy day in the town. " * 29
# A question for a summary, as the provider sees it.
QUESTION = "<transcript>"


def policy(context: agent_pb2.ContextPolicy | None = None, **fields: Any) -> agent_pb2.BehaviorSettings:
    """Settings of an agent whose sessions are summarized early."""
    wanted = {"enabled": True, "trigger_tokens": 256, "target_tokens": 64, "keep_messages": 2, **fields}
    return agent_pb2.BehaviorSettings(summary=agent_pb2.SummaryPolicy(**wanted), context=context)


async def settled(owner: Database, session_id: str) -> None:
    """Waits until no summary of a session is under way."""

    async def done() -> bool:
        return not await rows(owner, "SELECT 1 FROM gateway.summary_jobs WHERE session_id = $1", session_id)

    await until(done, seconds=60)


async def summaries(client: Client, session_id: str) -> list[session_pb2.Summary]:
    """Reads a session's summaries, newest first."""
    answer = await client.sessions.ListSummaries(session_service_pb2.ListSummariesRequest(session_id=session_id))
    return list(answer.summaries)


async def steps(owner: Database, run_id: str) -> list[tuple[int, str, str]]:
    """Reads the steps of a run."""
    found = await rows(
        owner, "SELECT sequence, kind, state FROM gateway.run_steps WHERE run_id = $1 ORDER BY sequence", run_id
    )
    return [(row["sequence"], row["kind"], row["state"]) for row in found]


async def say(client: Client, session_id: str, *texts: str) -> None:
    """Appends messages as a client does: the user's and the assistant's in turn."""
    roles = (message_pb2.MESSAGE_ROLE_USER, message_pb2.MESSAGE_ROLE_ASSISTANT)
    await client.sessions.AppendMessages(
        session_service_pb2.AppendMessagesRequest(
            session_id=session_id,
            messages=[
                message_pb2.Message(role=roles[place % 2], parts=[message_pb2.Part(text=text)])
                for place, text in enumerate(texts)
            ],
        )
    )
