"""What is large holds nobody else up."""

from minion.activity.v1 import activity_service_pb2 as pb
from minion_testing.stalls import longest_stall

from tests.minion_activity.stage import Stub, activity, batch, full, struct, value

# 64 KiB as JSON and eleven bytes a number on the wire: nothing within the limits costs more to convert.
_DENSE = value([1] * 32_000)


async def test_numbers_are_converted_off_the_loop(activities: Stub) -> None:
    dense = batch(*[activity(input=_DENSE, output=_DENSE, metadata=struct(n=[1] * 8_000)) for _ in range(4)])
    assert await longest_stall(lambda: activities.RecordActivities(dense)) < 0.4
    assert await longest_stall(lambda: activities.ListActivities(pb.ListActivitiesRequest())) < 0.4


async def test_many_rows_are_converted_off_the_loop(activities: Stub) -> None:
    rows = batch(*[full() for _ in range(500)])
    assert await longest_stall(lambda: activities.RecordActivities(rows)) < 0.4
    assert await longest_stall(lambda: activities.ListActivities(pb.ListActivitiesRequest(page_size=500))) < 0.4
