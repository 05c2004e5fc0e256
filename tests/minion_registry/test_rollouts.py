"""RolloutService by hand: what callers may do with rollouts, and when they are refused."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from minion.registry.v1 import agent_pb2, agent_service_pb2, rollout_pb2, rollout_service_pb2
from minion_grpc import wire
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from uuid_utils.compat import uuid7

from tests.minion_registry.rollouts_stage import (
    ABORTED,
    NO_EVIDENCE,
    PROMOTED,
    RUNNING,
    abort,
    advance,
    get,
    promote,
    resolved,
    revised,
    rollout,
    start,
    started,
    told,
)
from tests.minion_registry.stage import Caller

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

Move = Callable[..., Awaitable[rollout_pb2.Rollout]]
# What ends a rollout or takes it on, as callers do it.
MOVES: tuple[Move, ...] = (advance, promote, abort)


def span(seconds: float) -> Any:
    return wire.to_duration(timedelta(seconds=seconds))


async def test_a_rollout_starts_with_its_first_step(tenant: Caller) -> None:
    agent = await revised(tenant)
    steps = [
        rollout_pb2.RolloutStep(basis_points=100, duration=span(3_600)),
        rollout_pb2.RolloutStep(basis_points=10_000),
    ]
    guardrails = rollout_pb2.RolloutGuardrails(
        min_runs=7, max_error_rate=0.0, max_p95_duration=span(0.001), max_mean_cost_nanos=0
    )
    made = await start(tenant, agent.agent_id, steps=steps, guardrails=guardrails)
    assert made == rollout_pb2.Rollout(
        rollout_id=made.rollout_id,
        agent_id=agent.agent_id,
        candidate_revision=1,
        baseline_revision=2,
        steps=steps,
        step_index=0,
        basis_points=100,
        guardrails=guardrails,
        evidence=rollout_pb2.ROLLOUT_EVIDENCE_EVALUATION,
        status=RUNNING,
        principal=made.principal,
        etag="1",
        create_time=made.create_time,
        update_time=made.create_time,
        step_start_time=made.create_time,
    )
    assert UUID(made.rollout_id).version == 7
    assert made.principal.startswith("key:")
    found = await get(tenant, made.rollout_id)
    found.ClearField("last_check")
    assert found == made
    # A rollout is a change of its agent, whose revision stays.
    after = await tenant.get(agent.agent_id)
    assert (after.revision, after.etag != agent.etag) == (2, True)


async def test_twenty_runs_are_asked_for_unless_said_otherwise(tenant: Caller) -> None:
    guardrails = rollout_pb2.RolloutGuardrails(max_error_rate=1)
    assert (await started(tenant, guardrails=guardrails)).guardrails.min_runs == 20


async def test_a_proposed_id_is_taken_once(tenant: Caller) -> None:
    rollout_id = str(uuid7())
    assert (await started(tenant, rollout_id=rollout_id)).rollout_id == rollout_id
    agent = await revised(tenant)
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "ROLLOUT_ID_TAKEN") as refusal:
        await start(tenant, agent.agent_id, rollout_id=rollout_id)
    assert refusal.metadata == {"rollout_id": rollout_id}


async def test_a_replayed_start_starts_nothing(tenant: Caller) -> None:
    agent, request_id = await revised(tenant), str(uuid7())
    first = await start(tenant, agent.agent_id, request_id=request_id)
    await abort(tenant, first.rollout_id)
    assert await start(tenant, agent.agent_id, request_id=request_id) == first
    listed = await tenant.rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(agent_id=agent.agent_id))
    assert [found.rollout_id for found in listed.rollouts] == [first.rollout_id]
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await start(tenant, agent.agent_id, 77, request_id=request_id)


async def test_only_an_active_agent_is_rolled_out(tenant: Caller) -> None:
    agent = await revised(tenant, active=False)
    async with refused(PRECONDITION, "AGENT_STATUS_UNSUITABLE") as refusal:
        await start(tenant, agent.agent_id)
    assert refusal.metadata["status"] == "DRAFT"


async def test_an_agent_has_one_rollout_at_a_time(tenant: Caller) -> None:
    first = await started(tenant)
    async with refused(PRECONDITION, "ROLLOUT_RUNNING") as refusal:
        await start(tenant, first.agent_id)
    assert refusal.metadata == {"agent_id": first.agent_id, "rollout_id": first.rollout_id}
    await abort(tenant, first.rollout_id)
    assert (await start(tenant, first.agent_id)).status == RUNNING


async def test_of_many_starts_at_once_one_wins(tenant: Caller) -> None:
    agent = await revised(tenant)
    starts = await asyncio.gather(*[start(tenant, agent.agent_id) for _ in range(8)], return_exceptions=True)
    assert [type(made) for made in starts].count(rollout_pb2.Rollout) == 1
    assert all(isinstance(made, rollout_pb2.Rollout | grpc.aio.AioRpcError) for made in starts)


async def test_the_live_revision_is_no_candidate(tenant: Caller) -> None:
    agent = await revised(tenant)
    async with refused(PRECONDITION, "ROLLOUT_CANDIDATE_LIVE"):
        await start(tenant, agent.agent_id, candidate_revision=2)


async def test_what_isnt_there_is_not_rolled_out(tenant: Caller, stranger: Caller) -> None:
    agent = await revised(tenant)
    async with refused(NOT_FOUND, "AGENT_NOT_FOUND"):
        await start(tenant, agent.agent_id, candidate_revision=3)
    messages = []
    for caller, agent_id in ((tenant, str(uuid7())), (stranger, agent.agent_id)):
        async with refused(NOT_FOUND, "AGENT_NOT_FOUND") as refusal:
            await start(caller, agent_id)
        messages.append(refusal.message)
    assert messages[0] == messages[1]


async def test_feedback_is_not_kept_yet(tenant: Caller) -> None:
    agent = await revised(tenant)
    guardrails = rollout_pb2.RolloutGuardrails(max_error_rate=0.1, max_negative_feedback_rate=0.1)
    async with refused(PRECONDITION, "ROLLOUT_GUARDRAIL_UNAVAILABLE") as refusal:
        await start(tenant, agent.agent_id, guardrails=guardrails)
    assert refusal.metadata == {"guardrail": "FEEDBACK"}


def steps(*shares: int) -> list[rollout_pb2.RolloutStep]:
    return [rollout_pb2.RolloutStep(basis_points=share) for share in shares]


def guarded(**fields: Any) -> dict[str, Any]:
    return {"guardrails": rollout_pb2.RolloutGuardrails(**{"max_error_rate": 0.5, **fields})}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"rollout_id": "x"}, "rollout.rollout_id"),
        ({"agent_id": ""}, "rollout.agent_id"),
        ({"candidate_revision": 0}, "rollout.candidate_revision"),
        ({"steps": []}, "rollout.steps"),
        ({"steps": steps(*range(1, 22))}, "rollout.steps"),
        ({"steps": steps(0)}, "rollout.steps[0].basis_points"),
        ({"steps": steps(10_001)}, "rollout.steps[0].basis_points"),
        ({"steps": steps(5, 5)}, "rollout.steps[1].basis_points"),
        ({"steps": [rollout_pb2.RolloutStep(basis_points=1, duration=span(0.9))]}, "rollout.steps[0].duration"),
        ({"steps": [rollout_pb2.RolloutStep(basis_points=1, duration=span(2_592_001))]}, "rollout.steps[0].duration"),
        ({"guardrails": rollout_pb2.RolloutGuardrails(min_runs=5)}, "rollout.guardrails"),
        (guarded(min_runs=-1), "rollout.guardrails.min_runs"),
        (guarded(min_runs=100_001), "rollout.guardrails.min_runs"),
        (guarded(max_error_rate=1.1), "rollout.guardrails.max_error_rate"),
        (guarded(max_error_rate=float("nan")), "rollout.guardrails.max_error_rate"),
        (guarded(max_p95_duration=span(0.0001)), "rollout.guardrails.max_p95_duration"),
        (guarded(max_p95_duration=span(3_601)), "rollout.guardrails.max_p95_duration"),
        (guarded(max_mean_cost_nanos=-1), "rollout.guardrails.max_mean_cost_nanos"),
        (guarded(max_mean_cost_nanos=10**15 + 1), "rollout.guardrails.max_mean_cost_nanos"),
        (guarded(max_negative_feedback_rate=-0.1), "rollout.guardrails.max_negative_feedback_rate"),
        ({"evidence": 9}, "rollout.evidence"),
    ],
)
async def test_a_malformed_rollout_is_refused(tenant: Caller, fields: dict[str, Any], fault: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await tenant.rollouts.StartRollout(
            rollout_service_pb2.StartRolloutRequest(rollout=rollout(str(uuid7()), **fields))
        )
    assert list(refusal.violations) == [fault]


async def test_a_rollout_goes_to_later_steps(tenant: Caller) -> None:
    made = await started(tenant, 100, 1_000, 5_000, 10_000)
    moved = await advance(tenant, made.rollout_id)
    assert (moved.step_index, moved.basis_points, moved.status, moved.etag) == (1, 1_000, RUNNING, "2")
    assert moved.step_start_time.ToMicroseconds() > made.step_start_time.ToMicroseconds()
    assert moved.update_time.ToMicroseconds() > made.update_time.ToMicroseconds()
    moved = await advance(tenant, made.rollout_id, step_index=3)
    assert (moved.step_index, moved.basis_points) == (3, 10_000)
    assert (await resolved(tenant, made.agent_id)).rollout.basis_points == 10_000


@pytest.mark.parametrize("step_index", [None, -1, 0, 1, 2])
async def test_there_is_no_step_to_go_to(tenant: Caller, step_index: int | None) -> None:
    made = await started(tenant, 100, 1_000)
    await advance(tenant, made.rollout_id)
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await advance(tenant, made.rollout_id, step_index=step_index)
    assert list(refusal.violations) == ["step_index"]


async def test_an_aborted_rollout_gives_the_sessions_back(tenant: Caller) -> None:
    made = await started(tenant)
    assert (await resolved(tenant, made.agent_id)).HasField("rollout")
    ended = await abort(tenant, made.rollout_id, "Too rude.")
    assert (ended.status, ended.basis_points, ended.abort_reason) == (ABORTED, 0, "Too rude.")
    assert ended.breached_guardrail == rollout_pb2.ROLLOUT_GUARDRAIL_UNSPECIFIED
    assert ended.end_time == ended.update_time
    after = await resolved(tenant, made.agent_id)
    assert not after.HasField("rollout")
    assert after.agent.revision == 2


@pytest.mark.parametrize("reason", ["", "x" * 501])
async def test_an_abort_says_why(tenant: Caller, reason: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await abort(tenant, str(uuid7()), reason)
    assert list(refusal.violations) == ["reason"]


async def test_a_promoted_candidate_is_live(tenant: Caller) -> None:
    made = await started(tenant, evidence=NO_EVIDENCE)
    ended = await promote(tenant, made.rollout_id)
    assert (ended.status, ended.basis_points, ended.abort_reason) == (PROMOTED, 10_000, "")
    after = await resolved(tenant, made.agent_id)
    assert not after.HasField("rollout")
    assert (after.agent.revision, after.agent.instructions, dict(after.agent.labels)) == (1, "first", {"k": "1"})
    assert list(after.agent.capabilities) == ["one"]
    # The lists follow.
    for filters, found in (({"capability": "one"}, 1), ({"capability": "two"}, 0), ({"labels": {"k": "1"}}, 1)):
        listed = await tenant.agents.ListAgents(agent_service_pb2.ListAgentsRequest(**filters))
        assert len(listed.agents) == found


@pytest.mark.parametrize("move", MOVES)
async def test_a_replayed_move_moves_nothing(tenant: Caller, move: Move) -> None:
    made = await started(tenant, 1, 2, 3, evidence=NO_EVIDENCE)
    request_id = str(uuid7())
    first = await move(tenant, made.rollout_id, request_id=request_id)
    assert await move(tenant, made.rollout_id, request_id=request_id) == first
    assert (await get(tenant, made.rollout_id)).etag == first.etag == "2"


@pytest.mark.parametrize("move", MOVES)
async def test_one_of_two_movers_wins(tenant: Caller, move: Move) -> None:
    made = await started(tenant, 1, 2, 3, evidence=NO_EVIDENCE)
    await advance(tenant, made.rollout_id, etag=made.etag)
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH") as refusal:
        await move(tenant, made.rollout_id, etag=made.etag)
    assert refusal.metadata == {"rollout_id": made.rollout_id, "etag": "2"}
    assert (await move(tenant, made.rollout_id, etag="2")).etag == "3"


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("end", [promote, abort])
async def test_what_has_ended_stays_as_it_is(tenant: Caller, move: Move, end: Move) -> None:
    made = await started(tenant, 1, 2, evidence=NO_EVIDENCE)
    ended = await end(tenant, made.rollout_id)
    async with refused(PRECONDITION, "ROLLOUT_ENDED") as refusal:
        await move(tenant, made.rollout_id)
    assert refusal.metadata["status"] == rollout_pb2.RolloutStatus.Name(ended.status).removeprefix("ROLLOUT_STATUS_")
    assert await get(tenant, made.rollout_id) == ended


@pytest.mark.parametrize("move", [get, *MOVES])
async def test_a_foreign_rollout_reads_as_an_absent_one(tenant: Caller, stranger: Caller, move: Move) -> None:
    made = await started(tenant, 1, 2, evidence=NO_EVIDENCE)
    messages = []
    for caller, rollout_id in ((tenant, str(uuid7())), (stranger, made.rollout_id)):
        async with refused(NOT_FOUND, "ROLLOUT_NOT_FOUND") as refusal:
            await move(caller, rollout_id)
        messages.append(refusal.message)
    assert messages[0] == messages[1]
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await move(tenant, "x")
    assert list(refusal.violations) == ["rollout_id"]


async def test_rollouts_are_listed_newest_first(tenant: Caller, stranger: Caller) -> None:
    agent = await revised(tenant)
    ended = []
    for _ in range(3):
        made = await start(tenant, agent.agent_id)
        ended.append((await abort(tenant, made.rollout_id)).rollout_id)
    running = (await started(tenant)).rollout_id

    async def listed(caller: Caller = tenant, **filters: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = rollout_service_pb2.ListRolloutsRequest(page_size=2, page_token=token, **filters)
            page = await caller.rollouts.ListRollouts(request)
            assert len(page.rollouts) <= 2
            found.extend(one.rollout_id for one in page.rollouts)
            token = page.next_page_token
            if not token:
                return found

    assert await listed() == [running, *ended[::-1]]
    assert await listed(agent_id=agent.agent_id) == ended[::-1]
    assert await listed(status=RUNNING) == [running]
    assert await listed(status=ABORTED) == ended[::-1]
    assert await listed(agent_id=agent.agent_id, status=ABORTED) == ended[::-1]
    assert await listed(agent_id=agent.agent_id, status=RUNNING) == []
    assert await listed(stranger) == await listed(stranger, agent_id=agent.agent_id) == []


async def test_a_page_token_belongs_to_its_list(tenant: Caller) -> None:
    for _ in range(2):
        await started(tenant)
    first = await tenant.rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(page_size=1))
    for fields in (
        {"page_token": first.next_page_token, "status": RUNNING},
        {"page_token": first.next_page_token, "agent_id": str(uuid7())},
        {"page_token": "x"},
    ):
        async with refused(INVALID, "PAGE_TOKEN_INVALID"):
            await tenant.rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(**fields))


@pytest.mark.parametrize(
    ("fields", "fault"), [({"agent_id": "x"}, "agent_id"), ({"status": 9}, "status"), ({"page_size": -1}, "page_size")]
)
async def test_a_malformed_filter_is_refused(tenant: Caller, fields: dict[str, Any], fault: str) -> None:
    async with refused(INVALID, "INVALID_FIELDS") as refusal:
        await tenant.rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(**fields))
    assert list(refusal.violations) == [fault]


async def test_the_gateway_is_told_who_gets_which_revision(tenant: Caller) -> None:
    tool = await tenant.register()
    made = await started(tenant, 2_500)
    await tenant.bind(made.agent_id, tool.tool_id)
    found = await resolved(tenant, made.agent_id)
    assert (found.agent.revision, found.agent.instructions) == (2, "second")
    assignment = found.rollout
    assert (assignment.rollout_id, assignment.basis_points) == (made.rollout_id, 2_500)
    assert assignment.salt == made.rollout_id
    before = await tenant.get(made.agent_id, 1)
    before.etag = assignment.candidate.etag
    assert assignment.candidate == before
    assert [bound.tool.name for bound in found.tools] == [tool.name]


async def test_the_feed_tells_of_each_move(tenant: Caller) -> None:
    watch = tenant.agents.WatchAgents(agent_service_pb2.WatchAgentsRequest())
    try:
        async with asyncio.timeout(60):
            first: Any = await watch.read()
            assert first.kind == agent_pb2.AGENT_CHANGE_KIND_SYNCED
            made = await started(tenant, 1, 2)
            await advance(tenant, made.rollout_id)
            await abort(tenant, made.rollout_id)
            kinds: list[int] = []
            while len(kinds) < 6:
                change: Any = await watch.read()
                if change.kind != agent_pb2.AGENT_CHANGE_KIND_SYNCED:
                    assert change.agent_id == made.agent_id
                    kinds.append(change.kind)
    finally:
        watch.cancel()
    assert kinds[3:] == [agent_pb2.AGENT_CHANGE_KIND_ROLLOUT_CHANGED] * 3


async def test_the_audit_tells_who_moved_it_and_by_what(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await started(tenant, 1, 2, evidence=NO_EVIDENCE)
    await advance(tenant, made.rollout_id)
    await promote(tenant, made.rollout_id)
    entries = await told(postgres, made.rollout_id)
    assert [entry.name for entry in entries] == ["rollout.start", "rollout.advance", "rollout.promote"]
    assert {entry.principal for entry in entries} == {made.principal}
    assert {entry.details["by"] for entry in entries} == {"CALLER"}
    assert [entry.details["basis_points"] for entry in entries] == [1, 2, 10_000]
    # That nothing was asked for stands there from the beginning.
    assert entries[0].details["asked_for"] == entries[2].details["asked_for"] == "nothing"
    assert {entry.details["evidence"] for entry in entries} == {"NONE"}
    aborted = await started(tenant)
    await abort(tenant, aborted.rollout_id)
    entries = await told(postgres, aborted.rollout_id)
    assert [entry.name for entry in entries] == ["rollout.start", "rollout.abort"]
    assert entries[0].details["asked_for"] == "a passing evaluation of the candidate"


async def test_a_refused_move_is_not_told(tenant: Caller, postgres: ClonedDatabase) -> None:
    made = await started(tenant)
    async with refused(INVALID, "INVALID_FIELDS"):
        await advance(tenant, made.rollout_id)
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await abort(tenant, made.rollout_id, etag="9")
    assert [entry.name for entry in await told(postgres, made.rollout_id)] == ["rollout.start"]


async def test_rollouts_go_with_their_agent(tenant: Caller) -> None:
    made = await started(tenant)
    await abort(tenant, made.rollout_id)
    await tenant.deactivate(made.agent_id)
    await tenant.archive(made.agent_id)
    await tenant.agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(agent_id=made.agent_id))
    async with refused(NOT_FOUND, "ROLLOUT_NOT_FOUND"):
        await get(tenant, made.rollout_id)
