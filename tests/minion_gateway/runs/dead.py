"""A replica that dies: what it had written stands, its lease runs out, and nobody speaks for it any more."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from minion_gateway.agents.domain import AgentSnapshot, BoundTool, ResolvedAgent, ToolEffect
from minion_gateway.runs.changes import AttemptBegin, Change, Fence, StepEnd, Totals
from minion_gateway.runs.domain import (
    BeginResult,
    LeasedRun,
    LlmResult,
    NewRun,
    RequestedCall,
    SessionFacts,
    Step,
    StepKind,
    StepState,
    TokenUsage,
    ToolIntent,
)
from minion_gateway.runs.happenings import Numbered, Payload
from minion_gateway.runs.store import Acceptance, Batch, RunStore, Submission
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid4, uuid7

BEGIN, ASK = Step(1, StepKind.BEGIN), Step(2, StepKind.LLM)


def agent(*tools: BoundTool, agent_id: UUID | None = None, **values: Any) -> ResolvedAgent:
    """An agent that asks the fake provider."""
    defaults: dict[str, Any] = {
        "agent_id": agent_id or UUID(int=uuid4().int),
        "name": "agent",
        "revision": 1,
        "behavior_type": "tool_use",
        "instructions": "Be brief.",
        "model": "openai/gpt-4o-mini",
        "temperature": None,
        "max_output_tokens": 200,
        "max_steps": 10,
        "max_seconds": 300.0,
        "recalls": False,
        "max_memories": 5,
        "min_score": 0.25,
        "token_budget": 8_000,
        "max_messages": 50,
        "tools": tools,
    }
    return ResolvedAgent(**{**defaults, **values})


def leased(agent_id: UUID, **values: Any) -> LeasedRun:
    """A run of an agent as it is leased for the first time."""
    defaults: dict[str, Any] = {
        "tenant_id": UUID(int=1),
        "run_id": UUID(int=2),
        "session_id": UUID(int=3),
        "user_id": "ann",
        "principal": "key:ann",
        "text": "hello",
        "metadata": {},
        "streamed": True,
        "trace_id": "",
        "span_id": "",
        "epoch": 1,
        "create_time": datetime.now(UTC),
    }
    return LeasedRun(agent_id=agent_id, **{**defaults, **values})


def tool(name: str, effect: ToolEffect, **values: Any) -> BoundTool:
    """A bound builtin under its own name."""
    defaults: dict[str, Any] = {
        "name": name,
        "description": f"The {name}.",
        "input_schema": {"type": "object"},
        "builtin": name,
        "effect": effect,
        "time_limit_seconds": 5.0,
        "cost_per_call_nanos": 0,
        "configuration": {},
        "digest": "d",
    }
    return BoundTool(**{**defaults, **values})


def asks_for(*calls: tuple[str, dict[str, Any]], text: str = "") -> LlmResult:
    """A model's answer that wants tools."""
    return LlmResult(
        text=text,
        calls=tuple(RequestedCall(f"call_{place}", name, arguments) for place, (name, arguments) in enumerate(calls)),
        finish_reason="tool_calls",
        model="openai/gpt-4o-mini",
        usage=TokenUsage(10, 5),
        cost_nanos=100,
    )


@dataclass(slots=True)
class DeadRun:
    """A run that a dead replica has left behind, and the way it got there."""

    store: RunStore
    tenant_id: UUID
    run_id: UUID
    epoch: int = 1
    version: int = 0
    last_event: int = 1
    totals: Totals = field(default_factory=lambda: Totals(2, TokenUsage(), 0, 0))

    def fence(self, events: int = 0, **moved: Any) -> Fence:
        """The fence of the next write."""
        fence = Fence(self.tenant_id, self.run_id, self.epoch, self.version, self.last_event + events)
        return replace(fence, **moved)

    def numbered(self, *payloads: Payload) -> list[Numbered]:
        """The next events."""
        return [Numbered(self.last_event + place, payload) for place, payload in enumerate(payloads, start=1)]

    async def advance(
        self,
        *payloads: Payload,
        ended: Sequence[StepEnd] = (),
        begun: Sequence[Step] = (),
        attempts: Sequence[AttemptBegin] = (),
    ) -> bool:
        """Writes one change; False when it was a ghost's."""
        events = self.numbered(*payloads)
        self.totals = replace(self.totals, steps=self.totals.steps + len(begun))
        change = Change(self.totals, "key:dead", ended=ended, begun=begun, attempts_begun=attempts, events=events)
        written = await self.store.advance(self.fence(len(events)), change)
        if written is None:
            return False
        self.version += 1
        self.last_event += len(events)
        return True

    async def show(self, *payloads: Payload) -> bool:
        """Writes events alone, as the batched writer does."""
        events = self.numbered(*payloads)
        written = await self.store.append_events([Batch(self.fence(len(events)), events)])
        if self.run_id in written:
            self.last_event += len(events)
        return self.run_id in written

    async def call_tools(self, *calls: tuple[str, dict[str, Any]]) -> bool:
        """Writes the model's wish for tools, and the intents to call them."""
        wish = asks_for(*calls)
        return await self.advance(
            ended=(
                StepEnd(1, StepState.DONE, BeginResult(message_sequence=1)),
                StepEnd(2, StepState.DONE, wish),
            ),
            begun=tuple(
                Step(3 + place, StepKind.TOOL, intent=ToolIntent(call.call_id, call.name, call.arguments))
                for place, call in enumerate(wish.calls)
            ),
        )


def submission(
    tenant_id: UUID,
    session_id: str,
    who: ResolvedAgent,
    *,
    text: str = "hello",
    queued: bool = False,
    request_id: UUID | None = None,
    digest: bytes = b"same",
    streamed: bool = True,
) -> Submission:
    """What is written down when a run is accepted."""
    return Submission(
        tenant_id=tenant_id,
        run_id=UUID(int=uuid7().int),
        principal="key:dead",
        new=NewRun(UUID(session_id), text, queued, {"from": "a test"}, request_id, digest),
        session=SessionFacts(UUID(session_id), who.agent_id, "ann"),
        agent=AgentSnapshot.of(who),
        streamed=streamed,
        trace_id="",
        span_id="",
        steps=(BEGIN, ASK),
        attempts=(AttemptBegin(2, 1, who.model, 1_000_000, 100, 200),),
    )


@asynccontextmanager
async def dying(database: ClonedDatabase, *, lease_seconds: float | None = None) -> AsyncIterator[RunStore]:
    """A replica that dies at the end of the block, when its leases run out; with `lease_seconds` it only goes away."""
    replica = UUID(int=uuid4().int)
    async with await database.connect("gateway") as pool:
        yield RunStore(pool, replica=replica, lease=timedelta(seconds=lease_seconds or 600))
    if lease_seconds is None:
        await died(database, replica)


async def died(database: ClonedDatabase, one: UUID) -> None:
    """Ends the leases of a replica, or that of a run, as time does: while the replica writes, it must not."""
    async with await database.connect("gateway", "owner") as owner:
        await owner.execute(
            "UPDATE gateway.runs SET lease_until = now() - interval '1 ms' WHERE $1 IN (owner, run_id)", one
        )


async def accepted(store: RunStore, wanted: Submission) -> tuple[Acceptance, DeadRun]:
    """Accepts a run on a replica that is about to die."""
    acceptance = await store.accept(wanted)
    return acceptance, DeadRun(store, wanted.tenant_id, wanted.run_id)
