"""`remember` (IDEMPOTENT: once for its step) and `recall` (READ_ONLY): what the agent keeps of its user."""

from typing import Any

from minion_gateway.inference.service import Inference
from minion_gateway.runs.peer import MemoryPeer, NewMemory
from minion_gateway.tools.domain import Invocation, ToolFailedError

_KINDS = ("FACT", "PREFERENCE", "CONTEXT", "SKILL")
_MAXIMUM_CONTENT = 4_000
_MAXIMUM_KEY = 200
_MAXIMUM_QUOTE = 2_000
_DEFAULT_LIMIT = 5
_MAXIMUM_LIMIT = 20
_MINIMUM_SCORE = 0.1


class Remember:
    """Stores `content`, under `key` where one is given; `type` is fact (the default), preference, context or skill.

    Trust: words that stand in the user's own message are the user's (USER). All else was put so by the model, which
    may have been told by a tool or a recalled text, and is TOOL; it never rises by itself. A `quote` from the user's
    message is kept as the source, and vouches for nothing.
    """

    def __init__(self, memories: MemoryPeer, inference: Inference) -> None:
        self._memories = memories
        self._inference = inference

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns `outcome`: created, updated or unchanged."""
        content = _text(invocation, "content", "text", limit=_MAXIMUM_CONTENT)
        key = invocation.arguments.get("key") or ""
        if not isinstance(key, str) or len(key) > _MAXIMUM_KEY:
            raise ToolFailedError(f"The `key` must be a text of at most {_MAXIMUM_KEY} characters.")
        kind = str(invocation.arguments.get("type") or "fact").upper()
        if kind not in _KINDS:
            raise ToolFailedError("The `type` must be fact, preference, context or skill.")
        quote = invocation.arguments.get("quote") or ""
        said = isinstance(quote, str) and len(quote) <= _MAXIMUM_QUOTE and _stands_in(quote, invocation.user_text)
        vectors = await self._inference.embed([content])
        outcome = await self._memories.store(
            NewMemory(
                agent_id=invocation.agent_id,
                user_id=invocation.user_id,
                session_id=invocation.session_id,
                key=key,
                kind=kind,
                content=content,
                quote=quote if said else "",
                said_by_user=_stands_in(content, invocation.user_text),
                message_sequence=invocation.message_sequence,
                model=vectors.model,
                vector=vectors.vectors[0],
            ),
            invocation.key,
        )
        return {"outcome": outcome.lower()}


class Recall:
    """Finds memories by `query`; at most `limit` of them."""

    def __init__(self, memories: MemoryPeer, inference: Inference) -> None:
        self._memories = memories
        self._inference = inference

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns `memories`, best first, each with its content and score."""
        query = _text(invocation, "query", "text", limit=_MAXIMUM_CONTENT)
        limit = invocation.arguments.get("limit") or _DEFAULT_LIMIT
        if not isinstance(limit, int) or not 1 <= limit <= _MAXIMUM_LIMIT:
            raise ToolFailedError(f"The `limit` must be 1 to {_MAXIMUM_LIMIT}.")
        vectors = await self._inference.embed([query])
        found = await self._memories.search(
            invocation.agent_id,
            invocation.user_id,
            query=query,
            model=vectors.model,
            vector=vectors.vectors[0],
            limit=limit,
            min_score=_MINIMUM_SCORE,
        )
        return {"memories": [{"content": memory.content, "score": round(memory.score, 3)} for memory in found]}


def _text(invocation: Invocation, name: str, other: str, *, limit: int) -> str:
    value = invocation.arguments.get(name, invocation.arguments.get(other))
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise ToolFailedError(f"Give `{name}`: a text of 1 to {limit} characters.")
    return value.strip()


def _stands_in(words: str, message: str) -> bool:
    """Whether words stand in a message as they are, but for case and white space."""
    folded = " ".join(words.casefold().split())
    return bool(folded) and folded in " ".join(message.casefold().split())
