"""PromoteRollout with evidence. CheckGate is a later release's: what serves it here stands for that."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from minion.activity.v1 import evaluation_service_pb2
from minion.registry.v1 import agent_service_pb2
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Served, serve
from uuid_utils.compat import uuid7

from tests.minion_registry.rollouts_stage import (
    NO_EVIDENCE,
    PROMOTED,
    RUNNING,
    LaterActivity,
    abort,
    advance,
    get,
    later_activity,
    promote,
    resolved,
    started,
    told,
)
from tests.minion_registry.stage import Caller

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def later() -> AsyncIterator[LaterActivity]:
    """The stand-in of the module."""
    async with later_activity() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(postgres: ClonedDatabase, later: LaterActivity) -> AsyncIterator[Served]:
    """The running registry of the module, whose activity service is a later release's."""
    async with serve("registry", postgres, activity_address=later.address) as served:
        yield served


@pytest.fixture
def gate(later: LaterActivity) -> LaterActivity:
    """The stand-in, asked nothing yet, by which everything passes."""
    later.asked.clear()
    later.answer = later.passed
    return later


async def test_a_candidate_that_passed_is_promoted(tenant: Caller, gate: LaterActivity) -> None:
    made = await started(tenant)
    ended = await promote(tenant, made.rollout_id, etag=made.etag)
    assert ended.status == PROMOTED
    # Of that very revision.
    assert [(asked.agent_id, asked.agent_revision) for asked in gate.asked] == [(made.agent_id, 1)]
    assert (await resolved(tenant, made.agent_id)).agent.revision == 1


async def test_the_audit_names_the_evaluation(tenant: Caller, gate: LaterActivity, postgres: ClonedDatabase) -> None:
    del gate
    made = await started(tenant)
    await promote(tenant, made.rollout_id)
    entry = (await told(postgres, made.rollout_id))[-1]
    assert entry.name == "rollout.promote"
    assert entry.details["evaluation_id"] == "evaluation-7"
    assert entry.details["asked_for"] == "a passing evaluation of the candidate"


async def failed(context: Any) -> evaluation_service_pb2.CheckGateResponse:
    del context
    return evaluation_service_pb2.CheckGateResponse(passed=False, reasons=["safety 0.7 < 0.9", "too slow"])


async def missing(context: Any) -> evaluation_service_pb2.CheckGateResponse:
    await context.abort(grpc.StatusCode.NOT_FOUND, "never evaluated")
    raise AssertionError


async def down(context: Any) -> evaluation_service_pb2.CheckGateResponse:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
    raise AssertionError


async def broken(context: Any) -> evaluation_service_pb2.CheckGateResponse:
    await context.abort(grpc.StatusCode.INTERNAL, "a fault")
    raise AssertionError


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(failed, "FAILED"), (missing, "MISSING"), (down, "UNREACHABLE"), (broken, "UNREACHABLE")],
)
async def test_anything_but_a_pass_is_refused(tenant: Caller, gate: LaterActivity, answer: Any, cause: str) -> None:
    gate.answer = answer
    made = await started(tenant)
    async with refused(PRECONDITION, "ROLLOUT_EVIDENCE_MISSING") as refusal:
        await promote(tenant, made.rollout_id)
    assert refusal.metadata["cause"] == cause
    assert (refusal.metadata.get("reasons") == "safety 0.7 < 0.9; too slow") == (answer is failed)
    assert (await get(tenant, made.rollout_id)).status == RUNNING
    assert (await resolved(tenant, made.agent_id)).agent.revision == 2


async def test_no_evidence_is_asked_for_where_none_is_wanted(tenant: Caller, gate: LaterActivity) -> None:
    gate.answer = failed
    made = await started(tenant, evidence=NO_EVIDENCE)
    assert (await promote(tenant, made.rollout_id)).status == PROMOTED
    assert gate.asked == []


async def test_a_replay_asks_for_no_evidence_again(tenant: Caller, gate: LaterActivity) -> None:
    made, request_id = await started(tenant), str(uuid7())
    first = await promote(tenant, made.rollout_id, request_id=request_id)
    gate.answer = failed
    assert await promote(tenant, made.rollout_id, request_id=request_id) == first
    assert len(gate.asked) == 1


async def test_a_replay_after_the_agent_went_gets_the_first_answer(tenant: Caller, gate: LaterActivity) -> None:
    made, request_id = await started(tenant), str(uuid7())
    first = await promote(tenant, made.rollout_id, request_id=request_id)
    await tenant.deactivate(made.agent_id)
    await tenant.archive(made.agent_id)
    await tenant.agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(agent_id=made.agent_id))
    assert await promote(tenant, made.rollout_id, request_id=request_id) == first
    async with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await promote(tenant, made.rollout_id, request_id=request_id, etag="7")
    async with refused(grpc.StatusCode.NOT_FOUND, "ROLLOUT_NOT_FOUND"):
        await promote(tenant, made.rollout_id)
    assert len(gate.asked) == 1


async def test_a_refused_promotion_may_be_tried_again(tenant: Caller, gate: LaterActivity) -> None:
    made, request_id = await started(tenant), str(uuid7())
    gate.answer = failed
    async with refused(PRECONDITION, "ROLLOUT_EVIDENCE_MISSING"):
        await promote(tenant, made.rollout_id, request_id=request_id)
    gate.answer = gate.passed
    assert (await promote(tenant, made.rollout_id, request_id=request_id)).status == PROMOTED


async def test_whoever_read_another_version_asks_for_nothing(tenant: Caller, gate: LaterActivity) -> None:
    made = await started(tenant, 1, 2)
    await advance(tenant, made.rollout_id)
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await promote(tenant, made.rollout_id, etag=made.etag)
    assert gate.asked == []


async def test_a_rollout_that_ends_while_evidence_is_asked_for_is_not_promoted(
    tenant: Caller, gate: LaterActivity
) -> None:
    made = await started(tenant)

    async def meanwhile(context: Any) -> evaluation_service_pb2.CheckGateResponse:
        await abort(tenant, made.rollout_id)
        return await gate.passed(context)

    gate.answer = meanwhile
    async with refused(PRECONDITION, "ROLLOUT_ENDED"):
        await promote(tenant, made.rollout_id)
    assert (await resolved(tenant, made.agent_id)).agent.revision == 2


async def test_a_rollout_that_moves_while_evidence_is_asked_for_is_another(tenant: Caller, gate: LaterActivity) -> None:
    made = await started(tenant, 1, 2)

    async def meanwhile(context: Any) -> evaluation_service_pb2.CheckGateResponse:
        await advance(tenant, made.rollout_id)
        return await gate.passed(context)

    gate.answer = meanwhile
    async with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await promote(tenant, made.rollout_id, etag=made.etag)
