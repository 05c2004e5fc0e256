"""F5: ListMessages of 1,000 messages, against the bare SELECT of the same rows; and in a long session.

Both sides end with what a caller can use: the yardstick with asyncpg's records, their JSON decoded, ours with the
decoded response.
"""

import os
from uuid import UUID

import asyncpg
import orjson
import uvloop
from minion.session.v1 import session_service_pb2 as pb

from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.session_stage import SessionStage, session_stage

ID = "F5"
# The client is what the gateway is: a service's loop.
LOOP_FACTORY = uvloop.new_event_loop

_PAGE = 1_000
_LONG = 100_000
_SELECT = """
SELECT sequence, role, author, parts, token_count, run_id, metadata, create_time
  FROM session.messages WHERE tenant_id = $1 AND session_id = $2 AND sequence > $3 ORDER BY sequence LIMIT 1000
"""


async def measure(options: Options) -> list[Figure]:
    """Measures a page against the bare SELECT, and the newest page of a long session against a short one's."""
    long = 5_000 if options.short else _LONG
    async with session_stage() as stage:
        short_id, long_id = await stage.filled_session(_PAGE), await stage.filled_session(long)
        await stage.settle()
        connection = await asyncpg.connect(stage.database.dsn("session", "owner"))
        try:
            await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads)

            async def bare() -> object:
                rows = await connection.fetch(_SELECT, stage.tenant_id, short_id, 0)
                assert len(rows) == _PAGE
                return rows

            page = _lists(stage, short_id)
            pages = await interleave(
                page, bare, rounds=options.rounds, pids=[stage.service.pid], yardstick_pids=[os.getpid()]
            )
            lengths = await interleave(
                _lists(stage, long_id, after=long - _PAGE),
                page,
                rounds=options.rounds,
                pids=[stage.service.pid],
                yardstick_pids=[stage.service.pid],
            )
        finally:
            await connection.close()
    return [
        _figure(pages, f"ListMessages of {_PAGE:,}, p50", "the bare SELECT by asyncpg, JSON decoded", 3.0),
        _figure(lengths, f"ListMessages of the last {_PAGE:,} of {long:,}, p50", "the same of a short session", 1.2),
    ]


def _lists(stage: SessionStage, session_id: UUID, after: int = 0) -> Operation:
    """Lists a whole page and decodes it."""
    call = stage.call("ListMessages")
    request = pb.ListMessagesRequest(session_id=str(session_id), page_size=_PAGE, after_sequence=after)
    content = request.SerializeToString()

    async def listing() -> object:
        response = pb.ListMessagesResponse.FromString(await call(content))
        assert len(response.messages) == _PAGE
        return response

    return listing


def _figure(compared: Comparison, name: str, yardstick: str, goal: float) -> Figure:
    value, bare, ratio = compared.value(lambda part: part.p50 * 1e3)
    cpu, _, _ = compared.value(lambda part: part.cpu_per_operation)
    return Figure(
        id=ID,
        name=name,
        value=value,
        unit="ms",
        yardstick=yardstick,
        yardstick_value=bare,
        ratio=ratio,
        goal=f"ratio <= {goal:g}",
        ok=ratio <= goal,
        cpu_us_per_op=cpu * 1e6,
        runs=len(compared.ours),
    )
