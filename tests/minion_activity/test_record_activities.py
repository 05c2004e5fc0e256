"""RecordActivities and GetActivity: what is stored, once, and how it reads."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
from minion.activity.v1 import activity_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_activity.stage import (
    NOON,
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
    seconds,
    struct,
    timestamp,
    value,
)


def _as_given(found: activity_pb2.Activity) -> activity_pb2.Activity:
    found.ClearField("principal")
    found.ClearField("record_time")
    return found


async def test_a_recorded_activity_reads_as_it_was_given(activities: Stub) -> None:
    given = full()
    assert await recorded(activities, given) == (1, 0)
    assert _as_given(await fetched(activities, given.activity_id)) == given


async def test_what_was_not_given_is_not_there(activities: Stub) -> None:
    given = activity()
    await recorded(activities, given)
    assert _as_given(await fetched(activities, given.activity_id)) == given


async def test_every_kind_of_json_reads_as_it_was_given(activities: Stub) -> None:
    contents = [0, "", False, [], {}, -1.5, 2**53, 1e300, "\x01\u2028😀", {"": {"a b": [None, True]}}, [[[]]]]
    made = [activity(input=value(content), output=value([content])) for content in contents]
    assert await recorded(activities, *made) == (len(made), 0)
    for given in made:
        assert _as_given(await fetched(activities, given.activity_id)) == given


async def test_times_at_the_ends_of_the_calendar_are_kept(activities: Stub) -> None:
    first = activity(start_time=timestamp(datetime(1, 1, 1, tzinfo=UTC)), duration=seconds(366 * 86_400))
    last = activity(start_time=timestamp(datetime.max.replace(tzinfo=UTC)), duration=seconds(0))
    await recorded(activities, first, last)
    assert _as_given(await fetched(activities, first.activity_id)) == first
    assert _as_given(await fetched(activities, last.activity_id)) == last
    assert await listed(activities) == [last.activity_id, first.activity_id]


async def test_a_cost_without_a_currency_is_in_dollars(activities: Stub) -> None:
    free = activity(cost_nanos=0)
    unpriced = activity(currency="EUR")
    await recorded(activities, free, unpriced)
    found = await fetched(activities, free.activity_id)
    assert (found.HasField("cost_nanos"), found.cost_nanos, found.currency) == (True, 0, "USD")
    found = await fetched(activities, unpriced.activity_id)
    assert (found.HasField("cost_nanos"), found.currency) == (False, "")


async def test_the_service_says_who_recorded_it_and_when(service: Served, activities: Stub) -> None:
    given = activity(principal="key:somebody else", record_time=timestamp(NOON))
    before = datetime.now(UTC)
    await recorded(activities, given)
    found = await fetched(activities, given.activity_id)
    assert found.principal == "key:test"
    assert before - timedelta(seconds=5) < found.record_time.ToDatetime(UTC) < before + timedelta(seconds=60)


async def test_a_service_for_nobody_and_an_operator_answer_for_themselves(service: Served) -> None:
    tenant_id = uuid7()
    async with service.acting(tenant_id, principal=None) as channel:
        stub: Stub = ActivityServiceStub(channel)
        given = activity()
        await recorded(stub, given)
        assert (await fetched(stub, given.activity_id)).principal == "service:gateway"
    async with service.operator() as channel:
        stub = ActivityServiceStub(channel)
        given, named = activity(), (("minion-tenant", str(tenant_id)),)
        await stub.RecordActivities(batch(given), metadata=named)
    async with calling(service, tenant_id) as stub:
        assert (await fetched(stub, given.activity_id)).principal == "operator"


async def test_an_operator_that_names_no_tenant_is_refused(service: Served) -> None:
    async with service.operator() as channel:
        stub: Stub = ActivityServiceStub(channel)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
            await recorded(stub, activity())


async def test_a_replay_stores_nothing_and_changes_nothing(activities: Stub) -> None:
    first, second = full(), activity()
    assert await recorded(activities, first) == (1, 0)
    stored = await fetched(activities, first.activity_id)
    again = full(activity_id=first.activity_id, name="another", metadata=struct(other=1))
    assert await recorded(activities, again, second) == (1, 1)
    assert await recorded(activities, again, second) == (0, 2)
    assert await fetched(activities, first.activity_id) == stored
    assert len(await listed(activities)) == 2


async def test_batches_with_the_same_rows_at_once_store_each_once(service: Served, activities: Stub) -> None:
    made = [activity() for _ in range(200)]
    # In opposite orders: each would hold what the other waits for.
    results = await asyncio.gather(
        *(recorded(activities, *(made if number % 2 else reversed(made))) for number in range(6))
    )
    assert sum(new for new, _ in results) == 200
    assert sum(old for _, old in results) == 5 * 200
    assert len(await listed(activities, page_size=500)) == 200


async def test_tenants_may_have_the_same_ids(activities: Stub, strangers: Stub) -> None:
    given = activity(name="ours")
    assert await recorded(activities, given) == (1, 0)
    assert await recorded(strangers, activity(activity_id=given.activity_id, name="theirs")) == (1, 0)
    assert (await fetched(activities, given.activity_id)).name == "ours"
    assert (await fetched(strangers, given.activity_id)).name == "theirs"


async def test_one_bad_row_leaves_all_out(activities: Stub) -> None:
    good = activity()
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"):
        await recorded(activities, good, activity(name="x" * 201))
    assert await listed(activities) == []


async def test_five_hundred_rows_of_many_months_are_one_batch(activities: Stub) -> None:
    made = [activity(activity_id=id_at(NOON - timedelta(days=number), number)) for number in range(500)]
    assert await recorded(activities, *made) == (500, 0)
    assert await recorded(activities, *made) == (0, 500)


async def test_personal_data_is_masked_before_it_is_stored(activities: Stub) -> None:
    long = "x" * 40_000
    given = activity(
        input=value({"to": ["ann@example.com"], "deep": [[{"card": "4111 1111 1111 1111"}]], "password": "hunter2"}),
        output=value(f"{long} call +49 30 1234567, key mnk_abcdefghijklmnop"),
        error=activity_pb2.ActivityError(reason="TOOL_FAILED", message="no mailbox bob@example.com"),
        user_id="ann@example.com",
        metadata=struct(contact="eve@example.com"),
    )
    await recorded(activities, given)
    found = await fetched(activities, given.activity_id)
    assert found.input == value({"to": ["[EMAIL]"], "deep": [[{"card": "[CARD]"}]], "password": "[SECRET]"})
    # Nothing is cut off, however long.
    assert found.output == value(f"{long} call [PHONE], key [API_KEY]")
    assert found.error.message == "no mailbox [EMAIL]"
    # The caller's own: how rows are found again.
    assert found.user_id == "ann@example.com"
    assert found.metadata == struct(contact="eve@example.com")


async def test_an_unknown_activity_is_not_found(activities: Stub) -> None:
    missing = new_id()
    async with refused(grpc.StatusCode.NOT_FOUND, "ACTIVITY_NOT_FOUND") as refusal:
        await fetched(activities, missing)
    assert refusal.metadata == {"activity_id": missing}
    assert refusal.domain == "minion.activity"


async def test_a_foreign_activity_is_not_found(activities: Stub, strangers: Stub) -> None:
    given = activity()
    await recorded(activities, given)
    async with refused(grpc.StatusCode.NOT_FOUND, "ACTIVITY_NOT_FOUND"):
        await fetched(strangers, given.activity_id)


async def test_an_id_of_another_version_is_not_found_and_no_id_at_all_is_refused(activities: Stub) -> None:
    async with refused(grpc.StatusCode.NOT_FOUND, "ACTIVITY_NOT_FOUND"):
        await fetched(activities, "6a2f41a3-c54c-4ce8-82d2-5e1e7e3b1b57")
    for given in ("", "x", "ann's"):
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS") as refusal:
            await fetched(activities, given)
        assert list(refusal.violations) == ["activity_id"]


async def test_a_batch_is_one_statement(service: Served, activities: Stub) -> None:
    await recorded(activities, *[activity() for _ in range(500)])
    method = "minion.activity.v1.ActivityService/RecordActivities"
    call = [span for span in service.spans() if span.name.endswith(method) and span.parent is not None][-1]
    assert call.context is not None
    inside = [
        span.name
        for span in service.spans()
        if span.context is not None
        and span.context.trace_id == call.context.trace_id
        and span.name.startswith("activity.")
    ]
    assert inside == ["activity.record_activities"]


async def test_the_registry_alone_tells_of_administration(service: Served, activities: Stub, tenant_id: UUID) -> None:
    told = activity(kind=activity_pb2.ACTIVITY_KIND_ADMINISTRATION, name="binding.block")
    beside = activity()
    async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
        await recorded(activities, beside, told)
    assert refusal.metadata["permission"] == "activities.write_administration"
    async with service.operator() as channel, refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
        named = grpc.aio.Metadata(("minion-tenant", str(tenant_id)))
        await ActivityServiceStub(channel).RecordActivities(batch(told), metadata=named)
    # Nothing of a refused batch is there.
    assert await listed(activities) == []
    async with service.acting(tenant_id, service="registry", principal="operator") as channel:
        assert await recorded(ActivityServiceStub(channel), told) == (1, 0)
    assert (await fetched(activities, told.activity_id)).principal == "operator"


async def test_without_authentication_a_registry_with_no_key_tells_of_administration(
    postgres: ClonedDatabase,
) -> None:
    async with (
        serve("activity", postgres, auth_mode="disabled", service_key=None, operator_key=None) as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        told = activity(kind=activity_pb2.ACTIVITY_KIND_ADMINISTRATION)
        assert await recorded(ActivityServiceStub(channel), told) == (1, 0)
