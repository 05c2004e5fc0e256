"""Rollouts that move by themselves: judged by what a real activity service says of real rows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest_asyncio
import structlog
from minion.registry.v1 import rollout_pb2
from minion_grpc import wire
from minion_postgres import Database
from minion_registry.agents.store import AgentStore
from minion_registry.rollouts.store import RolloutStore
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve

from tests.minion_registry.rollouts_stage import (
    ABORTED,
    RUNNING,
    abort,
    get,
    promote,
    ran,
    resolved,
    start,
    started,
    told,
    until,
)
from tests.minion_registry.stage import Caller, calling

CHECK_SECONDS = 0.1


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def activity(postgres: ClonedDatabase) -> AsyncIterator[Served]:
    """The running activity service of the module."""
    async with serve("activity", postgres) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(postgres: ClonedDatabase, activity: Served) -> AsyncIterator[Served]:
    """The running registry of the module, which looks at its rollouts often."""
    async with serve(
        "registry",
        postgres,
        activity_address=activity.address,
        rollout_check_seconds=CHECK_SECONDS,
        watch_sync_seconds=0.1,
        feed_poll_seconds=0.02,
    ) as served:
        yield served


def limits(**fields: Any) -> dict[str, Any]:
    return {"guardrails": rollout_pb2.RolloutGuardrails(**{"min_runs": 5, **fields})}


def failures(registry: Served) -> float:
    """How many looks failed so far."""
    return registry.metric("rollout_checks_total", outcome="failed") or 0.0


async def failed_look(registry: Served, owner: Database, rollout_id: str, change: str = "") -> None:
    """Has a rollout looked at now, however long that was put off, and waits until a look has failed."""
    count = failures(registry)
    await owner.execute(
        f"UPDATE registry.rollouts SET check_due_time = now(){change}"  # noqa: S608 - texts of ours
        " WHERE rollout_id = $1::text::uuid AND status = 'running'",
        rollout_id,
    )
    async with asyncio.timeout(60):
        while failures(registry) == count:  # noqa: ASYNC110 - a metric tells nobody
            await asyncio.sleep(0.02)


def checked(runs: int) -> Any:
    """Holds once the rollout was judged by so many runs of its candidate."""
    return lambda found: found.last_check.candidate.run_count >= runs


async def test_a_failing_candidate_is_aborted(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, 1_000, **limits(max_error_rate=0.4))
    await ran(activity, tenant, made, succeeded=2, failed=3)
    await ran(activity, tenant, made, succeeded=40, failed=1, revision=2, cost_nanos=7)
    ended = await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)
    assert ended.breached_guardrail == rollout_pb2.ROLLOUT_GUARDRAIL_ERROR_RATE
    assert ended.abort_reason == "3 of 5 runs of revision 1 failed: 60.00%, the limit is 40.00%."
    assert (ended.last_check.candidate.run_count, ended.last_check.candidate.error_rate) == (5, 0.6)
    assert ended.last_check.fault_reason == ""
    assert not (await resolved(tenant, made.agent_id)).HasField("rollout")


async def test_a_slow_candidate_is_aborted(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, **limits(max_p95_duration=wire.to_duration(timedelta(seconds=2))))
    await ran(activity, tenant, made, succeeded=5, seconds=2.5)
    ended = await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)
    assert ended.breached_guardrail == rollout_pb2.ROLLOUT_GUARDRAIL_LATENCY
    assert "2.500 s" in ended.abort_reason


async def test_a_dear_candidate_is_aborted(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, **limits(max_mean_cost_nanos=10))
    await ran(activity, tenant, made, succeeded=5, cost_nanos=11)
    ended = await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)
    assert ended.breached_guardrail == rollout_pb2.ROLLOUT_GUARDRAIL_COST


async def test_few_runs_say_nothing(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, made, failed=4)
    assert (await until(tenant, made.rollout_id, checked(4))).status == RUNNING
    await ran(activity, tenant, made, failed=1)
    await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)


async def test_runs_of_before_and_of_others_are_not_counted(activity: Served, tenant: Caller) -> None:
    first = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, first, failed=9)
    await until(tenant, first.rollout_id, lambda found: found.status == ABORTED)
    # The same candidate again: what failed before this rollout is not held against it.
    again = await start(tenant, first.agent_id, **limits(max_error_rate=0))
    await ran(activity, tenant, again, failed=9, revision=2)
    await ran(activity, tenant, again, succeeded=5)
    found = await until(tenant, again.rollout_id, checked(5))
    assert (found.status, found.last_check.candidate.error_rate) == (RUNNING, 0)
    assert (found.last_check.baseline.run_count, found.last_check.baseline.error_rate) == (9, 1)


async def test_a_check_is_no_change(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, made, succeeded=3)
    found = await until(tenant, made.rollout_id, checked(3))
    assert (found.etag, found.update_time) == (made.etag, made.update_time)


async def test_steps_begin_by_themselves(activity: Served, tenant: Caller, postgres: ClonedDatabase) -> None:
    second = wire.to_duration(timedelta(seconds=1))
    steps = [
        rollout_pb2.RolloutStep(basis_points=100, duration=second),
        rollout_pb2.RolloutStep(basis_points=1_000, duration=second),
        rollout_pb2.RolloutStep(basis_points=10_000, duration=second),
    ]
    made = await started(tenant, steps=steps, **limits(max_error_rate=0.5))
    await ran(activity, tenant, made, succeeded=4)

    def overdue(found: rollout_pb2.Rollout) -> bool:
        return bool(found.last_check.check_time.ToMicroseconds() > found.step_start_time.ToMicroseconds() + 1_300_000)

    # Its time is over, but nobody can say yet whether it is any good.
    assert (await until(tenant, made.rollout_id, overdue)).step_index == 0
    await ran(activity, tenant, made, succeeded=1)
    # Whoever looks late finds the step after the next: that none was left out is what the audit says.
    moved = await until(tenant, made.rollout_id, lambda found: found.step_index == 2)
    assert (moved.status, moved.basis_points) == (RUNNING, 10_000)
    # The last step waits for whoever promotes.
    assert (await until(tenant, made.rollout_id, overdue)).status == RUNNING
    entries = await told(postgres, made.rollout_id)
    assert {(entry.name, entry.details["by"], entry.principal) for entry in entries[1:]} == {
        ("rollout.advance", "SCHEDULE", "service:registry")
    }
    assert [entry.details["basis_points"] for entry in entries] == [100, 1_000, 10_000]


async def test_the_audit_tells_of_the_guardrail_and_its_figures(
    activity: Served, tenant: Caller, postgres: ClonedDatabase
) -> None:
    made = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, made, succeeded=4, failed=1)
    ended = await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)
    entry = (await told(postgres, made.rollout_id))[-1]
    assert (entry.name, entry.details["by"], entry.principal) == ("rollout.abort", "GUARDRAIL", "service:registry")
    assert (entry.details["guardrail"], entry.details["reason"]) == ("ERROR_RATE", ended.abort_reason)
    figures = entry.details["figures"]["candidate"]
    assert (figures["failed_count"], figures["run_count"]) == (1, 5)


async def test_a_rollout_that_a_person_ended_is_left_alone(activity: Served, tenant: Caller) -> None:
    made = await started(tenant, **limits(max_error_rate=0))
    ended = await abort(tenant, made.rollout_id)
    await ran(activity, tenant, made, failed=9)
    other = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, other, failed=9)
    await until(tenant, other.rollout_id, lambda found: found.status == ABORTED)
    assert await get(tenant, made.rollout_id) == ended


async def test_an_activity_service_without_evaluations_is_no_evidence(tenant: Caller) -> None:
    made = await started(tenant)
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "ROLLOUT_EVIDENCE_MISSING") as refusal:
        await promote(tenant, made.rollout_id)
    assert refusal.metadata["cause"] == "UNSUPPORTED"
    assert (await get(tenant, made.rollout_id)).status == RUNNING


async def test_without_figures_nothing_moves(postgres: ClonedDatabase, database_factory: Any) -> None:
    del postgres
    database = await database_factory()
    step = rollout_pb2.RolloutStep(basis_points=1, duration=wire.to_duration(timedelta(seconds=1)))
    last = rollout_pb2.RolloutStep(basis_points=2)
    # Nobody answers there; the registry starts and serves all the same.
    async with (
        serve("registry", database, activity_address="127.0.0.1:1", rollout_check_seconds=CHECK_SECONDS) as registry,
        calling(registry) as caller,
        await database.connect("registry", "owner") as owner,
    ):
        with structlog.testing.capture_logs() as lines:
            made = await started(caller, steps=[step, last], **limits(max_error_rate=0, min_runs=1))
            await until(caller, made.rollout_id, lambda found: bool(found.last_check.fault_reason))
            for _ in range(3):
                await failed_look(registry, owner, made.rollout_id)
        # Each look counts, one is logged.
        assert [line["reason"] for line in lines if line.get("rollout_id") == made.rollout_id] == ["PEER_UNAVAILABLE"]
        assert not registry.metric("rollout_checks_total", outcome="kept")

        def overdue(found: rollout_pb2.Rollout) -> bool:
            return bool(found.last_check.check_time.ToMicroseconds() > made.create_time.ToMicroseconds() + 1_000_000)

        async with asyncio.timeout(60):
            while not overdue(found := await get(caller, made.rollout_id)):
                await failed_look(registry, owner, made.rollout_id)
        assert (found.step_index, found.status) == (0, RUNNING)
        assert found.last_check.fault_reason == "PEER_UNAVAILABLE"
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "ROLLOUT_EVIDENCE_MISSING") as refusal:
            await promote(caller, made.rollout_id)
        assert refusal.metadata["cause"] == "UNREACHABLE"

        # As if that went on. Said again until it is heard: a look that began before it writes over it.
        blind_since = ", last_check = jsonb_set(last_check, '{blind_since}', to_jsonb(now() - interval '10 minutes'))"
        async with asyncio.timeout(60):
            while (ended := await get(caller, made.rollout_id)).status == RUNNING:
                await failed_look(registry, owner, made.rollout_id, blind_since)
        assert ended.status == ABORTED
        assert ended.abort_reason == "There were no figures for 10 minutes to judge it by: PEER_UNAVAILABLE."
        assert not ended.breached_guardrail
        assert not (await resolved(caller, made.agent_id)).HasField("rollout")
        entry = (await told(database, made.rollout_id))[-1]
        assert (entry.name, entry.details["by"], entry.principal) == ("rollout.abort", "BLIND", "service:registry")
        assert registry.metric("rollout_checks_total", outcome="blind") == 1


async def test_one_that_cannot_be_checked_keeps_no_other_waiting(
    activity: Served, registry: Served, tenant: Caller, postgres: ClonedDatabase
) -> None:
    broken = await started(tenant, **limits(max_error_rate=0))
    await until(tenant, broken.rollout_id, lambda found: found.HasField("last_check"))
    before = failures(registry)
    async with await postgres.connect("registry", "owner") as owner, asyncio.timeout(60):
        while failures(registry) == before:
            # Nothing that this release writes: to read it is a fault of ours, not an error that is told to callers.
            # Again and again, because a look that had begun writes over it.
            await owner.execute(
                "UPDATE registry.rollouts SET last_check = '{}', check_due_time = now()"
                " WHERE rollout_id = $1::text::uuid",
                broken.rollout_id,
            )
            await asyncio.sleep(0.02)
    made = await started(tenant, **limits(max_error_rate=0))
    await ran(activity, tenant, made, failed=5)
    await until(tenant, made.rollout_id, lambda found: found.status == ABORTED)


async def test_no_more_is_claimed_than_is_being_checked(database_factory: Any) -> None:
    database = await database_factory()
    async with serve("registry", database, rollout_check_seconds=30) as registry, calling(registry) as caller:
        for _ in range(10):
            await started(caller)

    async def silent(request: Any, context: Any) -> None:
        del request, context
        await asyncio.Event().wait()

    # It takes calls and never answers, for as long as they wait.
    stuck = grpc.aio.server()
    handlers: dict[str, Any] = {"GetAgentStats": grpc.unary_unary_rpc_method_handler(silent)}
    stuck.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("minion.activity.v1.ActivityService", handlers)]
    )
    address = f"127.0.0.1:{stuck.add_insecure_port('127.0.0.1:0')}"
    await stuck.start()
    try:
        async with await database.connect("registry", "owner") as owner:
            await owner.execute("UPDATE registry.rollouts SET check_due_time = now()")
            async with serve("registry", database, activity_address=address, rollout_check_seconds=0.1):
                held = "SELECT count(*) FROM registry.rollouts WHERE check_due_time > now()"
                async with asyncio.timeout(60):
                    while (count := await owner.fetch_value(held)) < 4:  # noqa: ASYNC110 - the database tells nobody
                        await asyncio.sleep(0.01)
                # The others are left to replicas that have hands free.
                assert count == 4
    finally:
        await stuck.stop(None)


async def test_replicas_take_different_rollouts(database_factory: Any) -> None:
    database = await database_factory()
    async with serve("registry", database, rollout_check_seconds=30) as registry, calling(registry) as caller:
        made = {(await started(caller)).rollout_id for _ in range(12)}
    # With that one stopped, nobody takes them but these.
    async with await database.connect("registry", "owner") as owner:
        await owner.execute("UPDATE registry.rollouts SET check_due_time = now()")
    async with await database.connect("registry") as app:
        store = RolloutStore(app, AgentStore())
        taken = await asyncio.gather(*[store.claim(3, timedelta(seconds=60)) for _ in range(6)])
        ids = [str(rollout_id) for part in taken for _, rollout_id in part]
        assert len(ids) == len(set(ids))
        assert set(ids) <= made
        assert {tenant_id for part in taken for tenant_id, _ in part} == {caller.tenant_id}
        # What one holds, nobody else gets until the hold is over.
        rest = await store.claim(100, timedelta(seconds=60))
        assert {str(rollout_id) for _, rollout_id in rest} == made - set(ids)
        assert await store.claim(100, timedelta(seconds=60)) == []
