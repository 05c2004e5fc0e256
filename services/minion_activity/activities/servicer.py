"""The RPCs of the activity service."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
from minion.activity.v1 import activity_service_pb2 as pb
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceServicer
from minion_grpc import wire

from minion_activity.activities import convert
from minion_activity.activities.service import Activities

Context = grpc.aio.ServicerContext[Any, Any]


class ActivityServicer(ActivityServiceServicer):
    """Serves minion.activity.v1.ActivityService."""

    def __init__(self, activities: Activities) -> None:
        self._activities = activities

    async def RecordActivities(
        self, request: pb.RecordActivitiesRequest, context: Context
    ) -> pb.RecordActivitiesResponse:
        """Records activities, all or none."""
        read = partial(convert.record_from_proto, now=datetime.now(UTC))
        activities = await wire.off_loop(read, request, convert.request_bytes(request))
        recorded = await self._activities.record(activities)
        return convert.recorded_to_proto(recorded)

    async def GetActivity(self, request: pb.GetActivityRequest, context: Context) -> pb.GetActivityResponse:
        """Returns an activity."""
        activity_id = convert.get_from_proto(request)
        recorded = await self._activities.get(activity_id)
        activity = await wire.off_loop(convert.to_proto, recorded, convert.page_bytes([recorded]))
        return pb.GetActivityResponse(activity=activity)

    async def ListActivities(self, request: pb.ListActivitiesRequest, context: Context) -> pb.ListActivitiesResponse:
        """Lists activities, newest first."""
        wanted = convert.list_from_proto(request)
        page = await self._activities.list(wanted.wanted, page_size=wanted.page_size, page_token=wanted.page_token)
        return await wire.off_loop(convert.page_to_proto, page, convert.page_bytes(page.activities))

    async def GetAgentStats(self, request: pb.GetAgentStatsRequest, context: Context) -> pb.GetAgentStatsResponse:
        """Sums up what an agent did."""
        query = convert.stats_from_proto(request)
        found = await self._activities.agent_stats(query)
        return convert.stats_to_proto(found)
