"""Episodes: what was said in a session, message by message, as memories beside the facts drawn from it."""

from collections.abc import Sequence
from uuid import UUID

from uuid_utils.compat import uuid7

from minion_memory.extraction.domain import EPISODE_LABEL, Job, Role, SourceMessage
from minion_memory.memories.domain import MemoryType, NewMemory, Source, Trust

_MOST_CONTENT = 32_768
_CUT = " …"
_TRUSTS = {Role.USER: Trust.USER, Role.ASSISTANT: Trust.TOOL}


def episodes(messages: Sequence[SourceMessage], job: Job) -> list[NewMemory]:
    """Makes a memory of each message that a person or the agent spoke; those of tools and instructions are none."""
    return [_episode(message, job) for message in messages if message.role in _TRUSTS and message.text.strip()]


def episode_key(session_id: UUID, sequence: int) -> str:
    """Names the episode of a message."""
    return f"episode/{session_id}/{sequence}"


def _episode(message: SourceMessage, job: Job) -> NewMemory:
    text = message.text.strip()
    return NewMemory(
        memory_id=uuid7(),
        agent_id=job.agent_id,
        user_id=job.user_id,
        # The same message is the same memory, whoever tries.
        key=episode_key(job.session_id, message.sequence),
        type=MemoryType.CONTEXT,
        content=text if len(text) <= _MOST_CONTENT else text[: _MOST_CONTENT - len(_CUT)] + _CUT,
        speaker=message.speaker[:200],
        importance=0.5,
        confidence=1.0,
        trust=_TRUSTS[message.role],
        labels={EPISODE_LABEL: "message"},
        metadata={},
        source=Source(job.session_id, (message.sequence,), ""),
        valid_from=message.create_time,
        valid_until=None,
        occur_time=message.create_time,
        embedding=None,
    )
