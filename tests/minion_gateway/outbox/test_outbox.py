"""The audit: every run, model call and tool call, once, whatever fails on the way."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
from minion.activity.v1 import activity_pb2, activity_service_pb2
from minion.activity.v1.activity_service_pb2_grpc import ActivityServiceStub
from minion.gateway.v1 import inference_pb2, inference_service_pb2
from minion.gateway.v1.inference_service_pb2_grpc import InferenceServiceStub
from minion_audit import Activity, ActivityKind, ActivityStatus, OutboxStore, clipped
from minion_gateway.outbox.store import InferenceOutboxStore
from minion_postgres import Database
from minion_testing.errors import refused
from minion_testing.fake_provider import FakeProvider
from minion_testing.provider_script import Fault, FaultKind, Reply
from pydantic import TypeAdapter
from uuid_utils.compat import uuid4, uuid7

from tests.minion_gateway.runs.stage import NOBODY, Client, Stage, rows, until

KIND = activity_pb2.ActivityKind
STATUS = activity_pb2.ActivityStatus


async def test_a_turn_is_audited_whole(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation(tools=("calculator",))
    provider.push(
        Reply(tool_calls=(("calculator", '{"expression": "6*7"}'),), input_tokens=10, output_tokens=5),
        Reply("42", input_tokens=20, output_tokens=1),
    )
    run = await client.create(session_id, "6*7?")

    found = {(each.kind, each.step_sequence): each for each in await client.audit(run.run_id, 4)}

    whole = found[(KIND.ACTIVITY_KIND_RUN, 0)]
    assert (whole.status, whole.user_id, whole.session_id) == (STATUS.ACTIVITY_STATUS_SUCCEEDED, "ann", session_id)
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.cost_nanos) == (30, 6, run.cost_nanos)
    assert list(whole.tools_used) == ["calculator"]
    assert whole.output.struct_value["text"] == "42"
    assert whole.principal == f"key:{client.tenant.api_key_id}"
    assert whole.trace_id == run.trace_id
    tool = found[(KIND.ACTIVITY_KIND_TOOL_CALL, 3)]
    assert (tool.name, tool.input.struct_value["expression"]) == ("calculator", "6*7")
    model = found[(KIND.ACTIVITY_KIND_LLM_CALL, 2)]
    assert (model.name, model.usage.input_tokens) == ("openai/gpt-4o-mini", 10)
    assert (KIND.ACTIVITY_KIND_LLM_CALL, 4) in found


async def test_a_failure_is_audited_with_its_reason(client: Client, provider: FakeProvider) -> None:
    session_id = await client.conversation()
    provider.push(Fault(FaultKind.KEY_REFUSED))
    run = await client.create(session_id)
    found = await client.audit(run.run_id, 2)
    assert {each.status for each in found} == {STATUS.ACTIVITY_STATUS_FAILED}
    assert {each.error.reason for each in found} == {"PROVIDER_CREDENTIAL_REFUSED"}


async def test_rows_wait_until_they_can_be_sent(stage: Stage, provider: FakeProvider) -> None:
    del provider
    # This replica can't send; it puts off what it claims, and the other one finds it.
    async with stage.second_gateway(activity_address=NOBODY) as lonely, Client(stage, lonely) as client:
        for _ in range(5):
            run = await client.create(await client.conversation())
            assert len(await client.audit(run.run_id, 2)) == 2


async def test_acknowledged_rows_leave_the_outbox(client: Client, owner: Database) -> None:
    run = await client.create(await client.conversation())
    await client.audit(run.run_id, 2)

    async def empty() -> bool:
        return not await rows(owner, "SELECT 1 FROM gateway.outbox WHERE tenant_id = $1", client.tenant_id)

    assert await until(empty)


async def test_a_row_sent_twice_is_stored_once(client: Client, stage: Stage) -> None:
    activity = row(UUID(int=uuid7().int))
    async with await stage.database.connect("gateway") as database:
        store = OutboxStore(database, schema="gateway")
        for _ in range(2):
            await InferenceOutboxStore(database).record(client.tenant_id, "key:x", activity)

            async def sent() -> bool:
                return await store.read(client.tenant_id, [activity.activity_id]) == ([], [])

            await until(sent)
    stub: Any = ActivityServiceStub(client.channel("activity"))
    found = await stub.GetActivity(activity_service_pb2.GetActivityRequest(activity_id=str(activity.activity_id)))
    assert found.activity.principal == "key:x"


async def test_a_row_that_is_refused_holds_nobody_up(client: Client, stage: Stage, owner: Database) -> None:
    async with await stage.database.connect("gateway") as database:
        store = OutboxStore(database, schema="gateway")
        bad, good = row(UUID(int=uuid7().int), nanoseconds=-1), row(UUID(int=uuid7().int))
        await asyncio.gather(
            *(InferenceOutboxStore(database).record(client.tenant_id, "key:x", each) for each in (bad, good))
        )

        async def parted() -> bool:
            left, _ = await store.read(client.tenant_id, [bad.activity_id, good.activity_id])
            return [each.activity.activity_id for each in left] == [bad.activity_id]

        assert await until(parted)

        async def put_off() -> bool:
            found = await rows(owner, "SELECT refusals FROM gateway.outbox WHERE activity_id = $1", bad.activity_id)
            return bool(found[0]["refusals"] == 1)

        assert await until(put_off)


async def test_rows_too_large_together_are_sent_apart(client: Client, stage: Stage, owner: Database) -> None:
    # Small numbers take five times as many bytes on the wire as in the outbox: together these pass every limit.
    large = [row(UUID(int=uuid7().int), output=[1] * 16_000) for _ in range(60)]
    async with await stage.database.connect("gateway") as database:
        store = OutboxStore(database, schema="gateway")
        # One transaction, so that all become due at once.
        async with owner.transaction(None) as held:
            for each in large:
                await held.execute(
                    "INSERT INTO gateway.outbox (tenant_id, activity_id, principal, payload) "
                    "VALUES ($1, $2, 'key:x', $3)",
                    client.tenant_id,
                    each.activity_id,
                    TypeAdapter(Activity).dump_python(each, mode="json"),
                )

        async def sent() -> bool:
            return await store.read(client.tenant_id, [each.activity_id for each in large]) == ([], [])

        assert await until(sent, seconds=120)


async def test_calls_of_models_outside_runs_are_audited(client: Client, provider: FakeProvider) -> None:
    provider.push(Reply("Good day.", input_tokens=7, output_tokens=3), Fault(FaultKind.KEY_REFUSED))
    stub: Any = InferenceServiceStub(client.channel("gateway"))
    request = inference_service_pb2.CompleteRequest(
        model="openai/gpt-4o-mini", messages=[inference_pb2.ChatMessage(role=inference_pb2.CHAT_ROLE_USER, text="Hi")]
    )
    await stub.Complete(request)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_CREDENTIAL_REFUSED"):
        await stub.Complete(request)
    audits: Any = ActivityServiceStub(client.channel("activity"))

    async def arrived() -> list[activity_pb2.Activity] | None:
        wanted = activity_service_pb2.ListActivitiesRequest(kind=KIND.ACTIVITY_KIND_INFERENCE)
        found = list((await audits.ListActivities(wanted)).activities)
        return found if len(found) == 2 else None

    failed, done = await until(arrived)
    assert (done.status, done.usage.input_tokens, done.cost_nanos > 0) == (STATUS.ACTIVITY_STATUS_SUCCEEDED, 7, True)
    assert (failed.status, failed.error.reason) == (STATUS.ACTIVITY_STATUS_FAILED, "PROVIDER_CREDENTIAL_REFUSED")


async def test_a_replica_keeps_others_off_what_it_claims(client: Client, stage: Stage) -> None:
    async with await stage.database.connect("gateway") as database:
        store = OutboxStore(database, schema="gateway")
        claimed = [await store.claim(100, timedelta(seconds=30)) for _ in range(2)]
    first, second = ({each for ids in one.values() for each in ids} for one in claimed)
    assert not first & second


def test_content_that_is_too_large_is_cut_and_says_so() -> None:
    assert clipped({"text": "short"}) == {"text": "short"}
    cut = clipped({"text": "x" * 100_000, "list": ["y" * 50_000]})
    assert cut["text"].endswith("… (100000 characters)")
    assert cut["list"][0].endswith("… (50000 characters)")
    assert clipped([["z"] * 9_000] * 9) == "… (too large for the audit)"


def test_of_megabytes_of_small_parts_no_more_is_looked_at_than_tells_that_they_are_too_many() -> None:
    looked_at: list[int] = []

    class Items(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            looked_at.append(len(self))
            return super().__iter__()

    assert clipped({"tool_results": [Items([0] * 8_000) for _ in range(32)]}) == "… (too large for the audit)"
    assert sum(looked_at) <= 32 * 1024
    # Where there is nothing to cut, nothing is cut.
    looked_at.clear()
    assert clipped(Items([1.2345678901234567e-300] * 4_000)) == "… (too large for the audit)"
    assert sum(looked_at) == 4_000
    # What has as many parts as there is room for is shown.
    most = [0] * (16 * 1024 - 1)
    assert clipped(most) == most
    assert clipped(["x" * 20_000, *most[:8_000], "y" * 20_000])[1:-1] == most[:8_000]


def row(activity_id: UUID, *, nanoseconds: int = 1, output: object = None) -> Activity:
    return Activity(
        activity_id=activity_id,
        kind=ActivityKind.RUN,
        status=ActivityStatus.SUCCEEDED,
        name="test",
        start_time=datetime.now(UTC),
        nanoseconds=nanoseconds,
        output=output,
        run_id=UUID(int=uuid4().int),
    )
