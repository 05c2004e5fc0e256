"""SIGSTOP of a gateway in the middle of a turn: another replica takes over, and who wakes up later writes nothing."""

import asyncio

import pytest
from minion.gateway.v1 import run_pb2
from minion_gateway.runs.points import POINTS
from minion_postgres import Database
from uuid_utils.compat import uuid4

from tests.faults.stage import Battlefield, GatewayProcess
from tests.faults.test_kills import AFTERWARDS, CASES, UNACKNOWLEDGED
from tests.faults.verdict import judge, question, script, summarized


async def outlive(
    field: Battlefield, gateway: GatewayProcess, survivor: GatewayProcess, owner: Database, point: str, shape: str
) -> bool:
    """Pauses a gateway at a point of a turn until another one has finished it; says whether that one took it over.

    The other replica may be quicker (it sends the audit of both, and leases are short): then it is tried again.
    """
    for _ in range(8):
        run = await _try(field, gateway, survivor, owner, point, shape)
        if run is not None:
            return run.recovery_count > 0
    raise AssertionError("the gateway never came to the point")


async def _try(
    field: Battlefield, gateway: GatewayProcess, survivor: GatewayProcess, owner: Database, point: str, shape: str
) -> run_pb2.Run | None:
    session_id = await field.session(shape)
    text = question(shape)
    script(field, shape, text)
    request_id = str(uuid4())
    gateway.order(point, "SIGSTOP")
    asked = asyncio.create_task(field.stream(gateway, session_id, text, request_id))
    try:
        if not await gateway.paused(asked):
            gateway.forget()
            return None
        after = await field.stream(survivor, session_id, text, request_id)
        assert after.whole
        # The other replica makes the summary too, while this one is paused.
        await summarized(owner, session_id)
    finally:
        gateway.resume()
    # It finds out by itself that the run is another's; its own client is told the same to the end.
    before = await asked
    assert before.whole
    run = await judge(field, owner, session_id, shape, before, after)
    assert before.raw == after.raw
    return run


@pytest.mark.slow
async def test_a_pause_between_answer_and_commit(
    field: Battlefield, gateway: GatewayProcess, survivor: GatewayProcess, owner: Database
) -> None:
    assert await outlive(field, gateway, survivor, owner, "llm.answered", "plain")


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_a_pause_at_every_point(
    field: Battlefield, gateway: GatewayProcess, survivor: GatewayProcess, owner: Database
) -> None:
    assert set(POINTS) == {point for point, _ in CASES}
    midway = [case for case in CASES if case[0] not in UNACKNOWLEDGED | AFTERWARDS]
    taken_over = 0
    for point, shape in CASES:
        try:
            taken = await outlive(field, gateway, survivor, owner, point, shape)
            taken_over += taken and (point, shape) in midway
        except BaseException as failure:
            failure.add_note(f"paused at {point} of a {shape} turn; the logs are {gateway.log}, {survivor.log}")
            raise
    # An empty pass proves nothing: most turns must have changed hands.
    assert taken_over >= len(midway) * 0.8
