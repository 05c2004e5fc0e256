"""The begin step: the user's message into the session, the context out of it, and what the agent remembers."""

import asyncio
from collections import OrderedDict
from uuid import UUID

import structlog
from minion_errors import FailedPrecondition, MinionError

from minion_gateway.inference.domain import Embeddings
from minion_gateway.inference.service import Inference
from minion_gateway.runs.asking import tokens
from minion_gateway.runs.changes import Charge
from minion_gateway.runs.domain import BeginResult, Recalled, StepKind, StepState
from minion_gateway.runs.happenings import MemoriesRecalled, SummaryUsed
from minion_gateway.runs.peer import MemoryPeer, OpenedTurn, SessionPeer
from minion_gateway.runs.points import point
from minion_gateway.runs.store import RunStore
from minion_gateway.runs.timing import Part
from minion_gateway.runs.turn import Turn

BEGIN_STEP = 1
# A run may be taken over, and its answer appended, somewhat after its own time is over.
_HOLD_MARGIN = 120.0
_EMBEDDED_CHARACTERS = 8_192
# "Yes", "go on", "thanks": what users say recurs. A vector takes a few kilobytes.
_REMEMBERED_TEXTS = 512
_log = structlog.get_logger()


class Beginning:
    """Opens turns. BeginTurn and the search for memories run side by side."""

    def __init__(self, sessions: SessionPeer, memories: MemoryPeer, inference: Inference) -> None:
        self._sessions = sessions
        self._memories = memories
        self._inference = inference
        self._embedded: OrderedDict[str, Embeddings] = OrderedDict()

    async def open(self, turn: Turn, store: RunStore) -> None:
        """Fills the turn's context and memories; stages the step's end where it is still open.

        Safe to repeat: the message is appended once, and the context is that of then. Memory or embeddings that are
        down don't stop a turn: it goes on without memories, and its begin step, its audit row and the log say so.
        """
        recalling = asyncio.create_task(self._recall(turn)) if self._wants_memories(turn) else None
        try:
            point("begin.before")
            opened = await self._enter(turn, store)
            point("begin.appended")
            found, degraded = await recalling if recalling else (turn.history.memories or (), "")
        finally:
            if recalling is not None:
                recalling.cancel()
        turn.show(opened.context, opened.summary, tokens=opened.tokens, is_all=opened.is_all)
        if turn.begun is not None:
            return
        summary = opened.summary
        turn.begun = BeginResult(found, degraded, opened.message_sequence, summary.last_sequence if summary else 0)
        if found and turn.history.memories is None:
            turn.tell(MemoriesRecalled(found))
        if summary is not None and not turn.history.told_summary:
            turn.tell(
                SummaryUsed(
                    summary.summary_id, summary.first_sequence, summary.last_sequence, summary.tokens, summary.model
                )
            )
        if turn.embedding is not None:
            turn.charge(turn.embedding)
        for step in turn.open(StepKind.BEGIN):
            turn.end(step, StepState.DONE, turn.begun)

    def _wants_memories(self, turn: Turn) -> bool:
        # What was told of once is what the model is shown, whoever drives.
        return turn.agent.recalls and turn.begun is None and turn.history.memories is None

    async def _enter(self, turn: Turn, store: RunStore) -> OpenedTurn:
        run = turn.run
        hold = turn.agent.max_seconds + _HOLD_MARGIN
        try:
            return await self._sessions.begin(run, turn.agent, step=BEGIN_STEP, hold_seconds=hold)
        except FailedPrecondition as fault:
            # A run that ended without letting go (its replica died in between) holds nobody up.
            if fault.reason != "SESSION_HELD":
                raise
            holder = await store.get(run.tenant_id, UUID(fault.metadata["run_id"]))
            if holder is None or not holder.state.is_terminal:
                raise
            await self._sessions.release(run.session_id, holder.run_id)
            return await self._sessions.begin(run, turn.agent, step=BEGIN_STEP, hold_seconds=hold)

    async def _recall(self, turn: Turn) -> tuple[tuple[Recalled, ...], str]:
        agent, run = turn.agent, turn.run
        try:
            query = run.text[:_EMBEDDED_CHARACTERS]
            embedded = await self._embed(turn, query)
            found = await self._memories.search(
                run.agent_id,
                run.user_id,
                query=query,
                model=embedded.model,
                vector=embedded.vectors[0],
                limit=agent.max_memories,
                min_score=agent.min_score,
            )
        except MinionError as fault:
            _log.warning("nothing was recalled", reason=fault.reason, error=fault.message)
            return (), fault.reason
        return found, ""

    async def _embed(self, turn: Turn, text: str) -> Embeddings:
        """Embeds a text; one that was said a short while ago has its vector still, and costs nothing."""
        known = self._embedded.get(text)
        if known is not None:
            self._embedded.move_to_end(text)
            return known
        with turn.time.waiting_for(Part.PROVIDER):
            embedded = await self._inference.embed([text])
        self._embedded[text] = embedded
        if len(self._embedded) > _REMEMBERED_TEXTS:
            self._embedded.popitem(last=False)
        usage = tokens(embedded.usage)
        turn.embedding = Charge(BEGIN_STEP, "embedding", embedded.model, usage, embedded.cost_nanos)
        return embedded
