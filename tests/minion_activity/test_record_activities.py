"""RecordActivities and GetActivity: what is stored, once, and how it reads."""

import asyncio
from datetime import timedelta
from uuid import UUID

import grpc
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.serving import Served

from tests.minion_activity.stage import (
    NOON,
    RUN,
    Stub,
    activity,
    batch,
    calling,
    fetched,
    full,
    id_at,
    listed,
    new_id,
    recorded,
    struct,
    timestamp,
    value,
)


async def test_a_recorded_activity_reads_as_it_was_given(activities: Stub) -> None:
    given = full()
    assert await recorded(activities, given) == (1, 0)
    found = await fetched(activities, given.activity_id)
    assert found.principal == "key:test"
    assert found.HasField("record_time")
    found.ClearField("principal")
    found.ClearField("record_time")
    assert found == given
