"""`kill -9` of the gateway in the middle of a turn: restarted, it finishes the turn, once."""

import pytest
from minion_gateway.runs.points import POINTS
from minion_postgres import Database
from uuid_utils.compat import uuid4

from tests.faults.stage import Battlefield, GatewayProcess, Seen
from tests.faults.verdict import judge, question, script

# What only some turns pass; all others pass the rest.
_SHAPES = {"tools": ("tool",), "blob": ("large",), "summary": ("summary",)}
# Nobody was told of a run that was not accepted yet: its client asks again.
UNACKNOWLEDGED = frozenset({"accept.before", "accept.after"})
# What happens after the client has its answer.
AFTERWARDS = frozenset(point for point in POINTS if point.startswith(("outbox.", "summary."))) | {"complete.after"}
CASES = [(point, shape) for point in POINTS for shape in _SHAPES.get(point.partition(".")[0], ("plain", "tool"))]


async def survive(
    field: Battlefield, gateway: GatewayProcess, owner: Database, point: str, shape: str, *, passes: int = 1
) -> Seen:
    """Kills the gateway at a point of a turn, starts it again, and judges; returns what was seen before."""
    for _ in range(8):
        session_id = await field.session(shape)
        text = question(shape)
        script(field, shape, text)
        request_id = str(uuid4())
        gateway.order(point, "SIGKILL", passes=passes)
        before = await field.stream(gateway, session_id, text, request_id)
        if not (before.whole and point.startswith("events.")):
            break
        # Words that come while a busy machine passes the gateway over share a commit: it passed the point less often.
        gateway.forget()
    await gateway.died()
    assert gateway.carried_out
    await gateway.start()
    # The same request: it joins the run that was acknowledged, or makes the one that wasn't.
    after = await field.stream(gateway, session_id, text, request_id)
    run = await judge(field, owner, session_id, shape, before, after)
    if point in UNACKNOWLEDGED:
        assert before.raw == []
    elif point not in AFTERWARDS:
        assert not before.whole
        assert run.recovery_count >= 1
    return before


@pytest.mark.slow
async def test_a_kill_during_the_providers_answer(field: Battlefield, gateway: GatewayProcess, owner: Database) -> None:
    # Past the first commit of words, so that some of the answer has been shown.
    before = await survive(field, gateway, owner, "events.committed", "plain", passes=2)
    assert any(event.HasField("text_delta") for event in before.events)


@pytest.mark.slow
async def test_a_kill_between_answer_and_commit(field: Battlefield, gateway: GatewayProcess, owner: Database) -> None:
    assert (await survive(field, gateway, owner, "llm.answered", "plain")).raw


@pytest.mark.slow
async def test_a_kill_between_commit_and_append(field: Battlefield, gateway: GatewayProcess, owner: Database) -> None:
    assert (await survive(field, gateway, owner, "append.before", "tool")).raw


@pytest.mark.slow
@pytest.mark.parametrize("point", ["summary.answered", "summary.committed", "summary.saved"])
async def test_a_kill_while_a_summary_is_made(
    field: Battlefield, gateway: GatewayProcess, owner: Database, point: str
) -> None:
    assert (await survive(field, gateway, owner, point, "summary")).whole


@pytest.mark.slow
async def test_a_kill_between_a_stored_blob_and_its_result(
    field: Battlefield, gateway: GatewayProcess, owner: Database
) -> None:
    assert (await survive(field, gateway, owner, "blob.stored", "large")).raw


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_a_kill_at_every_point(field: Battlefield, gateway: GatewayProcess, owner: Database) -> None:
    acknowledged = 0
    for point, shape in CASES:
        try:
            before = await survive(field, gateway, owner, point, shape)
        except BaseException as failure:
            failure.add_note(f"killed at {point} of a {shape} turn; the gateway's log is {gateway.log}")
            raise
        acknowledged += bool(before.raw)
    # An empty pass proves nothing: most turns must have been acknowledged before their gateway died.
    assert acknowledged >= len(CASES) * 0.8
