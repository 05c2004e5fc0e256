"""The begin step, where the session service is away for a moment."""

import asyncio
from array import array
from typing import Any, cast

import pytest
from minion_errors import Unavailable
from minion_gateway.inference.domain import Embeddings, Usage
from minion_gateway.inference.service import Inference
from minion_gateway.runs.beginning import Beginning
from minion_gateway.runs.changes import Charge
from minion_gateway.runs.domain import History, TokenUsage
from minion_gateway.runs.events import EventWriter, RunLog
from minion_gateway.runs.feeds import Feeds
from minion_gateway.runs.peer import MemoryPeer, OpenedTurn, SessionPeer
from minion_gateway.runs.store import RunStore
from minion_gateway.runs.turn import Turn

from tests.minion_gateway.runs.dead import ASK, BEGIN, agent, leased

WHO = agent(recalls=True)


class Peers:
    """A model that embeds, a memory with nothing in it, and a session that is away the first time."""

    def __init__(self) -> None:
        self.embedded = asyncio.Event()
        self.begun = 0

    async def embed(self, texts: list[str]) -> Embeddings:
        self.embedded.set()
        return Embeddings((array("f", [1.0]),) * len(texts), "openai/small", 1, Usage(7), cost_nanos=140)

    async def search(self, *_: Any, **__: Any) -> tuple[()]:
        return ()

    async def begin(self, *_: Any, **__: Any) -> OpenedTurn:
        self.begun += 1
        if self.begun == 1:
            await self.embedded.wait()
            raise Unavailable("The session service is away.", reason="PEER_UNAVAILABLE")
        return OpenedTurn((), 1, None, 10, is_all=True)


def begun() -> Turn:
    """A run that was just accepted."""
    run = leased(WHO.agent_id)
    log = RunLog(run, Feeds().open(run.run_id, 1), EventWriter(cast("RunStore", None)), lambda: None)
    return Turn(run, WHO, (BEGIN, ASK), History(), log, deadline=1e9, fresh_until=1e9)


async def test_a_message_that_was_embedded_is_paid_for_though_the_turn_is_begun_again() -> None:
    peers, turn = Peers(), begun()
    beginning = Beginning(cast("SessionPeer", peers), cast("MemoryPeer", peers), cast("Inference", peers))
    with pytest.raises(Unavailable):
        await beginning.open(turn, cast("RunStore", None))
    await beginning.open(turn, cast("RunStore", None))
    assert turn.change([])[1].charges == (Charge(1, "embedding", "openai/small", TokenUsage(7), 140),)
