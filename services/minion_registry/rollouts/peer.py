"""The activity service, as rollouts ask it: figures for guardrails, and evidence for promotions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import grpc
from minion.activity.v1 import (
    activity_pb2,
    activity_service_pb2,
    activity_service_pb2_grpc,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
)
from minion_errors import MinionError, NotFound, Unimplemented
from minion_grpc import peer_call
from minion_grpc.wire import to_timestamp

from minion_registry.rollouts.domain import EvidenceCause, Gate, RevisionFigures

_CALL_SECONDS = 10.0
RETRYABLE = (
    "/minion.activity.v1.ActivityService/GetAgentStats",
    "/minion.activity.v1.EvaluationService/CheckGate",
)


class ActivityPeer:
    """Asks for the caller in hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._activities: activity_service_pb2_grpc.ActivityServiceAsyncStub = (
            activity_service_pb2_grpc.ActivityServiceStub(channel)
        )
        self._evaluations: evaluation_service_pb2_grpc.EvaluationServiceAsyncStub = (
            evaluation_service_pb2_grpc.EvaluationServiceStub(channel)
        )

    async def figures(self, agent_id: UUID, since: datetime, revisions: Sequence[int]) -> list[RevisionFigures]:
        """Returns what each of some revisions did since a moment, in their order. Raises as any call."""
        request = activity_service_pb2.GetAgentStatsRequest(
            agent_id=str(agent_id), start_time=to_timestamp(since), agent_revisions=revisions, leave_out_calls=True
        )
        with peer_call("activity"):
            answer = await self._activities.GetAgentStats(request, timeout=_CALL_SECONDS)
        found = {stats.agent_revision: _figures(stats) for stats in answer.revisions}
        return [found.get(revision, RevisionFigures()) for revision in revisions]

    async def check_gate(self, agent_id: UUID, revision: int) -> Gate:
        """Returns what an evaluation says of a revision; that nothing could be learnt is an answer too."""
        request = evaluation_service_pb2.CheckGateRequest(agent_id=str(agent_id), agent_revision=revision)
        try:
            with peer_call("activity"):
                answer = await self._evaluations.CheckGate(request, timeout=_CALL_SECONDS)
        except Unimplemented:
            return Gate(EvidenceCause.UNSUPPORTED)
        except NotFound:
            return Gate(EvidenceCause.MISSING)
        except MinionError:
            return Gate(EvidenceCause.UNREACHABLE)
        cause = None if answer.passed else EvidenceCause.FAILED
        return Gate(cause, tuple(answer.reasons), answer.evaluation_id)


def _figures(stats: activity_pb2.AgentStats) -> RevisionFigures:
    slowest = stats.p95_duration
    return RevisionFigures(
        run_count=stats.run_count,
        failed_count=stats.failed_count,
        error_rate=stats.error_rate,
        p95_duration=timedelta(seconds=slowest.seconds, microseconds=slowest.nanos // 1_000)
        if stats.HasField("p95_duration")
        else None,
        mean_cost_nanos=stats.mean_cost_nanos,
    )
