"""F16: what a message takes in the database beside what was said: table, indexes, and the bytes kept out of line.

The texts don't compress, so that nothing is gained by chance.
"""

import base64
import random

import asyncpg
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from uuid_utils.compat import uuid7

from benchmarks.figure import Figure, Options
from benchmarks.session_stage import SessionStage, session_stage

ID = "F16"

_SMALL, _LARGE = (100, 1_000, 3_000), (4_096, 16_384, 131_072)
_MOST_BESIDE, _MOST_RATIO = 700.0, 1.2
_BATCH_BYTES = 500_000
_SIZE = "SELECT pg_total_relation_size('session.messages')"


async def measure(options: Options) -> list[Figure]:
    """Appends messages of each size and looks at how the table has grown."""
    total = (1 if options.short else 8) * 1024 * 1024
    async with session_stage() as stage:
        connection = await asyncpg.connect(stage.database.dsn("session", "owner"))
        try:
            figures = []
            for size in (*_SMALL, *_LARGE):
                count = min(max(total // size, 50), 20_000)
                before = await connection.fetchval(_SIZE)
                await _fill(stage, size, count)
                await connection.execute("VACUUM session.messages")
                figures.append(_figure(size, (await connection.fetchval(_SIZE) - before) / count, count))
            return figures
        finally:
            await connection.close()


async def _fill(stage: SessionStage, size: int, count: int) -> None:
    """Appends messages as a run does, in batches."""
    call, chance = stage.call("AppendMessages"), random.Random(size)
    session_id, run_id, step = str(await stage.open_session()), str(uuid7()), 0
    while count:
        step += 1
        batch = min(count, 100, max(_BATCH_BYTES // size, 1))
        count -= batch
        texts = [base64.b64encode(chance.randbytes(size))[:size].decode() for _ in range(batch)]
        request = pb.AppendMessagesRequest(
            session_id=session_id,
            messages=[
                message_pb2.Message(role=message_pb2.MESSAGE_ROLE_ASSISTANT, parts=[message_pb2.Part(text=text)])
                for text in texts
            ],
            source=message_pb2.RunSource(run_id=run_id, step_sequence=step),
        )
        await call(request.SerializeToString())


def _figure(size: int, stored: float, count: int) -> Figure:
    if size in _LARGE:
        value, unit, goal, ok = stored, "B", f"ratio <= {_MOST_RATIO}", stored / size <= _MOST_RATIO
    else:
        value, unit, goal, ok = stored - size, "B", f"value <= {_MOST_BESIDE:g} B", stored - size <= _MOST_BESIDE
    return Figure(
        id=ID,
        name=f"stored bytes of a message of {size:,} B" + ("" if size in _LARGE else ", beside them"),
        value=value,
        unit=unit,
        yardstick="what was said",
        yardstick_value=float(size),
        ratio=stored / size,
        goal=goal,
        ok=ok,
        cpu_us_per_op=None,
        runs=count,
    )
