"""F16: what a message takes in the database beside what was said: table, indexes, and the bytes kept out of line.

The texts are prose as to what it compresses to: words of a vocabulary, the frequent ones more often. Beside them stand
large ones that don't compress at all, such as images in base64. (Of that kind, what has 2.5 to 8 KiB takes up to 1.4
times its size: Postgres keeps it in pieces of 2,000 B, of which often three and not four fit into a page.)
"""

import base64
import functools
import itertools
import random
from collections.abc import Callable

import asyncpg
from minion.session.v1 import message_pb2
from minion.session.v1 import session_service_pb2 as pb
from uuid_utils.compat import uuid7

from benchmarks.figure import Figure, Options
from benchmarks.session_stage import SessionStage, session_stage

ID = "F16"

_SMALL, _LARGE = (100, 1_000, 3_000), (4_096, 16_384, 131_072)
_INCOMPRESSIBLE = (4_096, 16_384, 131_072)
_WORDS, _SYLLABLES = (
    5_000,
    ("an", "be", "co", "der", "el", "fi", "go", "he", "in", "lo", "ma", "ne", "or", "st", "ti", "ur"),
)
# Below it, what doesn't compress falls into pieces that fill their pages badly: shown, and no goal.
_BEYOND_PIECES = 8_192
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
            kinds = [(size, True) for size in (*_SMALL, *_LARGE)] + [(size, False) for size in _INCOMPRESSIBLE]
            for size, is_prose in kinds:
                count = min(max(total // size, 50), 20_000)
                before = await connection.fetchval(_SIZE)
                await _fill(stage, size, count, _prose if is_prose else _noise)
                await connection.execute("VACUUM session.messages")
                stored = (await connection.fetchval(_SIZE) - before) / count
                figures.append(_figure(size, stored, count, "" if is_prose else " that doesn't compress"))
            return figures
        finally:
            await connection.close()


def _prose(chance: random.Random, size: int) -> str:
    """Makes a text of words, the first of the vocabulary far more often than the last."""
    words, weights = _vocabulary()
    return " ".join(chance.choices(words, cum_weights=weights, k=size // 2))[:size]


@functools.cache
def _vocabulary() -> tuple[list[str], list[float]]:
    chance = random.Random(1)
    words = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(_WORDS)]
    return words, list(itertools.accumulate(1 / place for place in range(1, _WORDS + 1)))


def _noise(chance: random.Random, size: int) -> str:
    """Makes a text that has nothing to compress but its alphabet."""
    return base64.b64encode(chance.randbytes(size))[:size].decode()


async def _fill(stage: SessionStage, size: int, count: int, text: Callable[[random.Random, int], str]) -> None:
    """Appends messages as a run does, in batches."""
    call, chance = stage.call("AppendMessages"), random.Random(size)
    session_id, run_id, step = str(await stage.open_session()), str(uuid7()), 0
    while count:
        step += 1
        batch = min(count, 100, max(_BATCH_BYTES // size, 1))
        count -= batch
        texts = [text(chance, size) for _ in range(batch)]
        request = pb.AppendMessagesRequest(
            session_id=session_id,
            messages=[
                message_pb2.Message(role=message_pb2.MESSAGE_ROLE_ASSISTANT, parts=[message_pb2.Part(text=words)])
                for words in texts
            ],
            source=message_pb2.RunSource(run_id=run_id, step_sequence=step),
        )
        await call(request.SerializeToString())


def _figure(size: int, stored: float, count: int, kind: str) -> Figure:
    ok: bool | None
    if size in _LARGE:
        value, unit, goal, ok = stored, "B", f"ratio <= {_MOST_RATIO}", stored / size <= _MOST_RATIO
    else:
        value, unit, goal, ok = stored - size, "B", f"value <= {_MOST_BESIDE:g} B", stored - size <= _MOST_BESIDE
    if kind and size < _BEYOND_PIECES:
        goal, ok = "", None
    return Figure(
        id=ID,
        name=f"stored bytes of a message of {size:,} B{kind}" + ("" if size in _LARGE else ", beside them"),
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
