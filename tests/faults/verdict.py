"""What must hold of a turn, wherever its gateway was killed or paused: everything once."""

from typing import Any

from minion.activity.v1 import activity_pb2
from minion.gateway.v1 import run_pb2
from minion_postgres import Database
from minion_testing.provider_script import Reply, Script
from uuid_utils.compat import uuid4

from tests.faults.large import large
from tests.faults.stage import Battlefield, Seen, until

ANSWER = "This is the whole answer of the turn."
# Chunks that come apart, so that a gateway dies with some of the answer shown.
_SPOKEN = Reply(ANSWER, chunk_seconds=0.03)
_WISH = Reply(tool_calls=(("workspace", '{"operation": "set", "key": "city", "value": "Paris"}'),), chunk_seconds=0.01)
_LARGE_WISH = Reply(tool_calls=(("calculator", "{}"),), chunk_seconds=0.01)
_WISHES = {"tool": _WISH, "large": _LARGE_WISH}
# So long that a session with it is to be summarized.
LONG = "It was a long day. " * 100


def script(field: Battlefield, shape: str, session_text: str) -> None:
    """Tells the provider what to answer in a turn of this shape, however often it is asked."""
    field.provider.reset()
    if shape in _WISHES:
        field.provider.push(Script(_WISHES[shape], match=session_text, times=None, after_tools=False))
    field.provider.push(Script(_SPOKEN, match=session_text, times=None))


def question(shape: str) -> str:
    """A user's message of a turn of this shape, unlike any other."""
    return f"turn {uuid4()}" + (f" {LONG}" if shape == "summary" else "")


async def summarized(owner: Database, session_id: str) -> None:
    """Waits until nothing is left to summarize."""

    async def done() -> bool:
        count = "SELECT count(*) FROM gateway.summary_jobs WHERE session_id = $1"
        return bool(await owner.fetch_value(count, session_id) == 0)

    await until(done, seconds=60)


async def judge(
    field: Battlefield, owner: Database, session_id: str, shape: str, before: Seen, after: Seen
) -> run_pb2.Run:
    """Asserts all promises of a turn that was acknowledged, and returns its run."""
    assert after.whole
    run = after.events[-1].run_finished.run
    assert (run.state, run.answer) == (run_pb2.RUN_STATE_COMPLETED, ANSWER)
    # Gapless, and what was shown before the fault is what is shown after it, byte for byte.
    assert [event.sequence for event in after.events] == list(range(1, len(after.events) + 1))
    assert after.raw[: len(before.raw)] == before.raw

    await summarized(owner, session_id)
    said = [
        (message.role, part.WhichOneof("content"))
        for message in await field.messages(session_id)
        for part in message.parts
    ]
    assert [kind for _, kind in said] == {
        "plain": ["text", "text"],
        "tool": ["text", "tool_call", "tool_result", "text"],
        "large": ["text", "tool_call", "tool_result", "text"],
        "summary": ["text", "text"],
    }[shape]

    steps = await _rows(owner, "SELECT kind, state FROM gateway.run_steps WHERE run_id = $1 ORDER BY sequence", run)
    assert {step["state"] for step in steps} == {"DONE"}
    models = sum(1 for step in steps if step["kind"] == "llm")
    tools = sum(1 for step in steps if step["kind"] == "tool")
    summaries = sum(1 for step in steps if step["kind"] == "summary")
    expected = {"plain": (1, 0, 0), "tool": (2, 1, 0), "large": (2, 1, 0), "summary": (1, 0, 1)}
    assert (models, tools, summaries) == expected[shape]
    if shape == "tool":
        assert await field.versions(session_id) == {"city": 1}
    if shape == "large":
        result = (await field.messages(session_id))[2].parts[0].tool_result
        assert await field.blob(result.blob_id) == large(10_000_000).encode()
        assert result.blob_id in result.output.string_value
    if shape == "summary":
        (summary,) = await field.summaries(session_id)
        assert (summary.text, summary.first_sequence, summary.last_sequence) == (ANSWER, 1, 2)
        assert summary.run_id == run.run_id
        models += summaries

    # One bill a step, one audit row a thing that was done.
    bill = await _rows(owner, "SELECT step_sequence FROM gateway.ledger WHERE run_id = $1", run)
    assert len(bill) == models
    audit = await field.audit(run.run_id, 1 + models + tools)
    kinds = [row.kind for row in audit]
    assert kinds.count(activity_pb2.ACTIVITY_KIND_RUN) == 1
    assert kinds.count(activity_pb2.ACTIVITY_KIND_LLM_CALL) == models
    assert kinds.count(activity_pb2.ACTIVITY_KIND_TOOL_CALL) == tools
    assert len(audit) == 1 + models + tools

    # The provider's ledger knows no attempt that ours doesn't; what was asked and lost stays counted.
    attempts = await _rows(
        owner, "SELECT step_sequence, attempt, state FROM gateway.attempts WHERE run_id = $1 ORDER BY 1, 2", run
    )
    ours = {f"{run.run_id}:{row['step_sequence']}:{row['attempt']}" for row in attempts}
    theirs = [asked.attempt for asked in field.provider.ledger.asked]
    assert set(theirs) <= ours
    done = {f"{run.run_id}:{row['step_sequence']}:{row['attempt']}" for row in attempts if row["state"] == "DONE"}
    assert len(done) == models
    assert done <= {asked.attempt for asked in field.provider.ledger.asked if asked.outcome == "completed"}
    assert {row["state"] for row in attempts} <= {"DONE", "LOST"}
    return run


async def _rows(owner: Database, sql: str, run: run_pb2.Run) -> list[dict[str, Any]]:
    return [dict(row) for row in await owner.fetch(sql, run.run_id)]
