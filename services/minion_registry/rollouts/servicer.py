"""Serves minion.registry.v1.RolloutService."""

from typing import Any

import grpc
from minion.registry.v1 import rollout_service_pb2 as pb
from minion.registry.v1.rollout_service_pb2_grpc import RolloutServiceServicer

from minion_registry.rollouts import convert
from minion_registry.rollouts.service import Rollouts

Context = grpc.aio.ServicerContext[Any, Any]


class RolloutServicer(RolloutServiceServicer):
    """Serves minion.registry.v1.RolloutService."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def StartRollout(self, request: pb.StartRolloutRequest, context: Context) -> pb.StartRolloutResponse:
        new, key = convert.start_from_proto(request)
        rollout = await self._rollouts.start(new, key)
        return pb.StartRolloutResponse(rollout=convert.rollout_to_proto(rollout))

    async def GetRollout(self, request: pb.GetRolloutRequest, context: Context) -> pb.GetRolloutResponse:
        rollout = await self._rollouts.get(convert.get_from_proto(request))
        return pb.GetRolloutResponse(rollout=convert.rollout_to_proto(rollout))

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: Context) -> pb.ListRolloutsResponse:
        selected, size, token = convert.list_from_proto(request)
        rollouts, more = await self._rollouts.page(selected, size, token)
        return pb.ListRolloutsResponse(
            rollouts=[convert.rollout_to_proto(rollout) for rollout in rollouts], next_page_token=more
        )

    async def AdvanceRollout(self, request: pb.AdvanceRolloutRequest, context: Context) -> pb.AdvanceRolloutResponse:
        rollout_id, step_index, etag, key = convert.advance_from_proto(request)
        rollout = await self._rollouts.advance(rollout_id, step_index, etag, key)
        return pb.AdvanceRolloutResponse(rollout=convert.rollout_to_proto(rollout))

    async def PromoteRollout(self, request: pb.PromoteRolloutRequest, context: Context) -> pb.PromoteRolloutResponse:
        rollout_id, etag, key = convert.promote_from_proto(request)
        rollout = await self._rollouts.promote(rollout_id, etag, key)
        return pb.PromoteRolloutResponse(rollout=convert.rollout_to_proto(rollout))

    async def AbortRollout(self, request: pb.AbortRolloutRequest, context: Context) -> pb.AbortRolloutResponse:
        rollout_id, reason, etag, key = convert.abort_from_proto(request)
        rollout = await self._rollouts.abort(rollout_id, reason, etag, key)
        return pb.AbortRolloutResponse(rollout=convert.rollout_to_proto(rollout))
