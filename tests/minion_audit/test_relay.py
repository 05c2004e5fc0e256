"""The relay. A server stands for an activity service that fails on rows, as ours does only when it has a fault."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest_asyncio
import structlog
from minion.activity.v1 import activity_service_pb2 as pb
from minion_audit import Activity, ActivityKind, ActivityPeer, ActivityStatus, OutboxStore, Relay
from minion_postgres import Database
from minion_telemetry import Telemetry, TelemetrySettings
from minion_testing.postgres import ClonedDatabase
from minion_testing.stalls import longest_stall
from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

ONE, OTHER = UUID(int=1), UUID(int=2)
TEN_MINUTES = timedelta(minutes=10)


class ActivityService:
    """Takes rows, but fails as it is told where one of a name is among them."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.failing: dict[str, grpc.StatusCode] = {}
        self.batches: list[int] = []
        self.calls = 0

    async def record(self, request: pb.RecordActivitiesRequest, context: Any) -> pb.RecordActivitiesResponse:
        """Takes a batch whole or not at all."""
        self.calls += 1
        for row in request.activities:
            if row.name in self.failing:
                await context.abort(self.failing[row.name], "a fault")
        self.batches.append(len(request.activities))
        self.taken += [row.name for row in request.activities]
        return pb.RecordActivitiesResponse(recorded_count=len(request.activities))

    def handler(self) -> grpc.GenericRpcHandler:
        """Serves RecordActivities alone."""
        record: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self.record, pb.RecordActivitiesRequest.FromString, pb.RecordActivitiesResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler("minion.activity.v1.ActivityService", {"RecordActivities": record})


@dataclass(frozen=True, slots=True)
class Stage:
    """An outbox, whom it is sent to, and the relay between them."""

    owner: Database
    activity: ActivityService
    relay: Relay
    ids: dict[str, UUID] = field(default_factory=dict)

    async def write(self, tenant_id: UUID, *names: str, **fields: Any) -> None:
        """Writes rows of these names down."""
        for name in names:
            row = _row(name)
            self.ids[name] = row.activity_id
            await self.owner.execute(
                "INSERT INTO gateway.outbox (tenant_id, activity_id, principal, payload) VALUES ($1, $2, 'key:x', $3)",
                tenant_id,
                self.ids[name],
                {**TypeAdapter(Activity).dump_python(row, mode="json"), **fields},
            )

    async def left(self) -> Mapping[str, tuple[int, timedelta]]:
        """Tells of the rows that wait how often they were refused and how long they are put off, in whole minutes."""
        rows = await self.owner.fetch("SELECT activity_id, refusals, due_time - now() AS pause FROM gateway.outbox")
        names = {activity_id: name for name, activity_id in self.ids.items()}
        minute = timedelta(minutes=1)
        return {
            names[UUID(int=row["activity_id"].int)]: (row["refusals"], max(round(row["pause"] / minute), 0) * minute)
            for row in rows
        }


def _row(name: str, **fields: Any) -> Activity:
    return Activity(
        activity_id=UUID(int=uuid7().int),
        kind=ActivityKind.RUN,
        status=ActivityStatus.SUCCEEDED,
        name=name,
        start_time=datetime.now(UTC),
        nanoseconds=1,
        **fields,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def stage(postgres: ClonedDatabase) -> AsyncIterator[Stage]:
    """An empty outbox, of which this relay alone sends."""
    async with (
        await postgres.connect("gateway", "owner") as owner,
        await postgres.connect("gateway") as app,
        serving() as (activity, channel),
    ):
        await owner.execute("DELETE FROM gateway.outbox")
        telemetry = Telemetry.start("gateway", TelemetrySettings(tracing_enabled=False))
        store = OutboxStore(app, schema="gateway")
        relay = Relay(store, ActivityPeer(channel), telemetry, service="gateway", poll_seconds=1, claim_seconds=30)
        yield Stage(owner, activity, relay)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[ActivityService, grpc.aio.Channel]]:
    server, activity = grpc.aio.server(), ActivityService()
    server.add_generic_rpc_handlers([activity.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield activity, channel
    finally:
        await server.stop(None)


async def test_a_row_that_the_service_fails_on_holds_nobody_up(stage: Stage) -> None:
    await stage.write(ONE, "a", "bad", "b", "c")
    await stage.write(OTHER, "d")
    stage.activity.failing["bad"] = grpc.StatusCode.INTERNAL
    with structlog.testing.capture_logs() as lines:
        assert await stage.relay.send() == (5, True)
    assert sorted(stage.activity.taken) == ["a", "b", "c", "d"]
    assert await stage.left() == {"bad": (1, TEN_MINUTES)}
    told = [line for line in lines if line["log_level"] == "error"]
    assert [line["activity_id"] for line in told] == [str(stage.ids["bad"])]
    # It is not thrown away: it goes when the fault was mended.
    stage.activity.failing.clear()
    await stage.owner.execute("UPDATE gateway.outbox SET due_time = now()")
    assert await stage.relay.send() == (1, True)
    assert await stage.left() == {}


async def test_a_row_that_cannot_be_read_or_written_holds_nobody_up(stage: Stage) -> None:
    await stage.write(ONE, "unreadable", kind="A_KIND_OF_A_LATER_RELEASE", input="My secret.")
    await stage.write(ONE, "a", "b")
    # A number that no field of the message holds.
    await stage.write(OTHER, "unwritable", agent_revision=2**63)
    await stage.write(OTHER, "c")
    with structlog.testing.capture_logs() as lines:
        assert await stage.relay.send() == (5, True)
    assert sorted(stage.activity.taken) == ["a", "b", "c"]
    assert await stage.left() == {"unreadable": (1, TEN_MINUTES), "unwritable": (1, TEN_MINUTES)}
    assert {line["reason"] for line in lines} == {"UNREADABLE", "UNWRITABLE"}
    assert "secret" not in repr(lines)


async def test_what_was_put_off_stays_so_when_the_service_goes_away(stage: Stage) -> None:
    await stage.write(ONE, "bad", "a", "away", "b")
    stage.activity.failing |= {"bad": grpc.StatusCode.INVALID_ARGUMENT, "away": grpc.StatusCode.UNAVAILABLE}
    await stage.write(ONE, "unreadable", status="?")
    assert await stage.relay.send() == (5, False)
    left = await stage.left()
    assert left["unreadable"] == (1, TEN_MINUTES)
    # The others are given back at once, and nobody was asked for more after it had gone.
    assert left["away"] == left["b"] == (0, timedelta())
    stage.activity.failing["away"] = grpc.StatusCode.INVALID_ARGUMENT
    await stage.relay.send()
    assert await stage.left() == dict.fromkeys(("bad", "away", "unreadable"), (1, TEN_MINUTES))


async def test_a_service_that_is_away_is_asked_once_a_look(stage: Stage) -> None:
    for tenant_id in (ONE, OTHER):
        await stage.write(tenant_id, f"{tenant_id} a", f"{tenant_id} b")
    stage.activity.failing |= dict.fromkeys(stage.ids, grpc.StatusCode.UNAVAILABLE)
    assert await stage.relay.send() == (4, False)
    assert stage.activity.calls == 1
    assert set((await stage.left()).values()) == {(0, timedelta())}


async def test_large_rows_are_written_off_the_loop() -> None:
    # 30 KB of JSON in each field are 165 KB on the wire.
    dense = [1] * 15_000
    rows = [_row(f"{number}", input=dense, output=dense) for number in range(12)]
    async with serving() as (activity, channel):

        async def send() -> None:
            # What is measured begins with the loop's next turn.
            await asyncio.sleep(0)
            await ActivityPeer(channel).record(rows)

        assert await longest_stall(send) < 0.4
        assert set(activity.batches) == {12}


async def test_rows_too_large_for_one_message_are_sent_in_parts_that_fit(stage: Stage) -> None:
    large = {"input": [1] * 15_000, "output": [1] * 15_000}
    await stage.write(ONE, *(uuid7().hex for _ in range(18)), **large)
    assert await stage.relay.send() == (18, True)
    # Parts of what was refused as too large would be halves.
    assert sorted(stage.activity.batches) == [2, 8, 8]
    assert await stage.left() == {}
