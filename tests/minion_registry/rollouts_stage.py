"""What the tests of rollouts say often: agents with revisions, rollouts, and runs that were made."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
from minion.activity.v1 import activity_pb2, activity_service_pb2, evaluation_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.activity.v1.evaluation_service_pb2_grpc import (
    EvaluationServiceServicer,
    add_EvaluationServiceServicer_to_server,
)
from minion.registry.v1 import agent_pb2, agent_service_pb2, rollout_pb2, rollout_service_pb2
from minion_grpc import wire
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller

RUNNING = rollout_pb2.ROLLOUT_STATUS_RUNNING
PROMOTED = rollout_pb2.ROLLOUT_STATUS_PROMOTED
ABORTED = rollout_pb2.ROLLOUT_STATUS_ABORTED
NO_EVIDENCE = rollout_pb2.ROLLOUT_EVIDENCE_NONE


async def revised(caller: Caller, *, active: bool = True) -> agent_pb2.Agent:
    """Makes an agent whose revision 2 is live: 1 is what it was before, and may be a candidate."""
    made = await caller.create(instructions="first", labels={"k": "1"}, capabilities=["one"])
    changed = agent_pb2.Agent(agent_id=made.agent_id, instructions="second", labels={"k": "2"}, capabilities=["two"])
    request = agent_service_pb2.UpdateAgentRequest(agent=changed)
    request.update_mask.paths.extend(["instructions", "labels", "capabilities"])
    updated = (await caller.agents.UpdateAgent(request)).agent
    return await caller.activate(made.agent_id) if active else updated


def rollout(agent_id: str, /, *shares: int, **fields: Any) -> rollout_pb2.Rollout:
    """A rollout of revision 1 to start, with steps that wait to be advanced, unless the fields say otherwise."""
    defaults = {
        "agent_id": agent_id,
        "candidate_revision": 1,
        "steps": [rollout_pb2.RolloutStep(basis_points=share) for share in shares or (1_000,)],
        "guardrails": rollout_pb2.RolloutGuardrails(min_runs=5, max_error_rate=0.5),
    }
    return rollout_pb2.Rollout(**{**defaults, **fields})


async def start(
    caller: Caller, agent_id: str, *shares: int, request_id: str = "", **fields: Any
) -> rollout_pb2.Rollout:
    """Starts a rollout."""
    request = rollout_service_pb2.StartRolloutRequest(
        rollout=rollout(agent_id, *shares, **fields), request_id=request_id
    )
    return (await caller.rollouts.StartRollout(request)).rollout


async def started(caller: Caller, *shares: int, **fields: Any) -> rollout_pb2.Rollout:
    """Starts a rollout of a new agent."""
    return await start(caller, (await revised(caller)).agent_id, *shares, **fields)


async def get(caller: Caller, rollout_id: str) -> rollout_pb2.Rollout:
    """Reads a rollout."""
    request = rollout_service_pb2.GetRolloutRequest(rollout_id=rollout_id)
    return (await caller.rollouts.GetRollout(request)).rollout


async def advance(caller: Caller, rollout_id: str, **fields: Any) -> rollout_pb2.Rollout:
    """Moves a rollout on."""
    request = rollout_service_pb2.AdvanceRolloutRequest(rollout_id=rollout_id, **fields)
    return (await caller.rollouts.AdvanceRollout(request)).rollout


async def promote(caller: Caller, rollout_id: str, **fields: Any) -> rollout_pb2.Rollout:
    """Ends a rollout well."""
    request = rollout_service_pb2.PromoteRolloutRequest(rollout_id=rollout_id, **fields)
    return (await caller.rollouts.PromoteRollout(request)).rollout


async def abort(caller: Caller, rollout_id: str, reason: str = "a mistake", **fields: Any) -> rollout_pb2.Rollout:
    """Ends a rollout badly."""
    request = rollout_service_pb2.AbortRolloutRequest(rollout_id=rollout_id, reason=reason, **fields)
    return (await caller.rollouts.AbortRollout(request)).rollout


async def resolved(caller: Caller, agent_id: str) -> agent_pb2.ResolvedAgent:
    """Reads an agent as the gateway does."""
    request = agent_service_pb2.ResolveAgentRequest(agent_id=agent_id)
    return (await caller.agents.ResolveAgent(request)).resolved_agent


async def ran(
    activity: Served,
    caller: Caller,
    rollout: rollout_pb2.Rollout,
    *,
    succeeded: int = 0,
    failed: int = 0,
    seconds: float = 0.1,
    cost_nanos: int = 1,
    revision: int = 1,
) -> None:
    """Records runs of a revision of the rollout's agent, as the gateway does."""
    statuses = [activity_pb2.ACTIVITY_STATUS_SUCCEEDED] * succeeded + [activity_pb2.ACTIVITY_STATUS_FAILED] * failed
    runs = [
        activity_pb2.Activity(
            activity_id=str(uuid7()),
            kind=activity_pb2.ACTIVITY_KIND_RUN,
            status=status,
            agent_id=rollout.agent_id,
            agent_revision=revision,
            start_time=wire.to_timestamp(datetime.now(UTC)),
            duration=wire.to_duration(timedelta(seconds=seconds)),
            cost_nanos=cost_nanos,
        )
        for status in statuses
    ]
    async with activity.acting(caller.tenant_id) as channel:
        request = activity_service_pb2.RecordActivitiesRequest(activities=runs)
        await ActivityServiceStub(channel).RecordActivities(request)


async def until(
    caller: Caller, rollout_id: str, holds: Callable[[rollout_pb2.Rollout], bool], *, seconds: float = 60
) -> rollout_pb2.Rollout:
    """Reads a rollout again and again until something holds of it."""
    async with asyncio.timeout(seconds):
        while not holds(found := await get(caller, rollout_id)):  # noqa: ASYNC110 - the service tells nobody
            await asyncio.sleep(0.02)
        return found


@dataclass(frozen=True, slots=True)
class Told:
    """What the audit says of one move."""

    name: str
    principal: str
    details: dict[str, Any]


async def told(postgres: ClonedDatabase, rollout_id: str) -> list[Told]:
    """What the audit says of a rollout, in order: what waits to be sent, then what has arrived."""
    found: dict[UUID, Told] = {}
    async with await postgres.connect("registry", "owner") as registry:
        waiting = await registry.fetch("SELECT activity_id, principal, payload FROM registry.outbox")
    for row in waiting:
        payload = row["payload"]
        if (payload["input"] or {}).get("rollout_id") == rollout_id:
            found[row["activity_id"]] = Told(payload["name"], row["principal"], payload["input"])
    async with await postgres.connect("activity", "owner") as activity:
        arrived = await activity.fetch(
            "SELECT activity_id, name, principal, input FROM activity.activities WHERE input ->> 'rollout_id' = $1",
            rollout_id,
        )
    found |= {row["activity_id"]: Told(row["name"], row["principal"], row["input"]) for row in arrived}
    return [found[activity_id] for activity_id in sorted(found)]


class LaterActivity(EvaluationServiceServicer):
    """Stands for the activity service of a later release: it serves CheckGate, and nothing else.

    `answer` makes what it says of a revision; `asked` is what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[evaluation_service_pb2.CheckGateRequest] = []
        self.answer: Callable[[Any], Awaitable[evaluation_service_pb2.CheckGateResponse]] = self.passed
        self.address = ""

    async def CheckGate(
        self, request: evaluation_service_pb2.CheckGateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> evaluation_service_pb2.CheckGateResponse:
        """Says what it was told to say."""
        self.asked.append(request)
        return await self.answer(context)

    async def passed(self, context: Any) -> evaluation_service_pb2.CheckGateResponse:
        """Says that every revision passed."""
        del context
        return evaluation_service_pb2.CheckGateResponse(passed=True, evaluation_id="evaluation-7")


@asynccontextmanager
async def later_activity() -> AsyncIterator[LaterActivity]:
    """Runs the stand-in for a block."""
    server, servicer = grpc.aio.server(), LaterActivity()
    add_EvaluationServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(None)
