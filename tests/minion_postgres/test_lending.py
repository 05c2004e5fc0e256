"""Connections lent from hand to hand: nobody waits for one that is kept, and the pool has each back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from minion_errors import Unavailable
from minion_postgres.driver import Pool
from minion_postgres.lending import Lender, is_closed
from minion_postgres.metrics import PoolMetrics
from minion_testing.postgres import ClonedDatabase

BACKEND = "SELECT pg_backend_pid()"


@pytest_asyncio.fixture(loop_scope="session")
async def pool(notes: ClonedDatabase) -> AsyncIterator[Pool]:
    """A pool of one connection."""
    opened = await asyncpg.create_pool(notes.dsn("session"), min_size=1, max_size=1)
    yield opened
    # Most tests end with the connection lent, for which closing would wait.
    opened.terminate()


async def until(come: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not come():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def test_a_connection_goes_from_hand_to_hand(pool: Pool) -> None:
    lender = Lender(pool, acquire_seconds=60)
    first = await lender.lend()
    await lender.take_back(first)
    assert pool.get_idle_size() == 0
    assert await lender.lend() is first


async def test_whoever_waits_at_the_pool_is_served_first(pool: Pool) -> None:
    lender = Lender(pool, acquire_seconds=60)
    first = await lender.lend()
    waiting = asyncio.create_task(lender.lend())
    await asyncio.sleep(0)
    await lender.take_back(first)
    assert await (await waiting).fetchval("SELECT 1") == 1


async def test_what_is_measured_decides_nothing(pool: Pool) -> None:
    metrics = PoolMetrics(1)
    lender = Lender(pool, acquire_seconds=60, metrics=metrics)
    first = await lender.lend()
    metrics.pending += 1
    await lender.take_back(first)
    assert pool.get_idle_size() == 0
    assert await lender.lend() is first


async def test_the_pool_has_back_what_nobody_asks_for(pool: Pool) -> None:
    lender = Lender(pool, acquire_seconds=60)
    await lender.take_back(await lender.lend())
    await until(lambda: pool.get_idle_size() == 1)
    assert await (await lender.lend()).fetchval("SELECT 1") == 1


async def test_a_connection_lost_while_kept_is_not_lent(pool: Pool, notes: ClonedDatabase) -> None:
    lender = Lender(pool, acquire_seconds=60)
    kept = await lender.lend()
    lost = await kept.fetchval(BACKEND)
    await lender.take_back(kept)
    administrator = await asyncpg.connect(notes.admin_dsn)
    await administrator.execute("SELECT pg_terminate_backend($1, 5000)", lost)
    await administrator.close()
    await until(lambda: is_closed(kept))
    assert await (await lender.lend()).fetchval(BACKEND) != lost


async def test_one_whose_driver_is_lost_is_given_back_all_the_same(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    lender = Lender(pool, acquire_seconds=60)
    first = await lender.lend()
    lost = await first.fetchval(BACKEND)

    async def fail(_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "_reset", fail)
        await lender.give_back(first)
    assert await (await lender.lend()).fetchval(BACKEND) != lost


async def test_an_open_transaction_is_not_lent(pool: Pool) -> None:
    lender = Lender(pool, acquire_seconds=60)
    first = await lender.lend()
    await first.execute("BEGIN")
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, found: complaints.append(found["message"]))
    try:
        await lender.take_back(first)
    finally:
        loop.set_exception_handler(None)
    # The loop is that of all tests: whatever another one left behind may complain too.
    assert [complaint for complaint in complaints if "active transaction" in complaint]
    assert not (await lender.lend()).is_in_transaction()


async def test_a_closed_lender_keeps_nothing(pool: Pool) -> None:
    lender = Lender(pool, acquire_seconds=60)
    kept, late = await lender.lend(), None
    await lender.take_back(kept)
    late = await lender.lend()
    await lender.close()
    await lender.take_back(late)
    assert pool.get_idle_size() == 1


async def test_statements_and_transactions_share_what_is_kept(
    notes: ClonedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever had to wait for a kept connection's return to the pool would wait in vain.
    monkeypatch.setattr("minion_postgres.lending._KEPT_SECONDS", 3_600.0)
    async with await notes.connect("session", pool_max_size=1, pool_acquire_seconds=20) as database:
        alone = await database.fetch_value(BACKEND)
        async with database.transaction(uuid4()) as transaction:
            assert await transaction.fetch_value(BACKEND) == alone
        assert await asyncio.gather(*(database.fetch_value(BACKEND) for _ in range(20))) == [alone] * 20


async def test_a_transaction_that_is_over_runs_nothing(notes: ClonedDatabase) -> None:
    async with await notes.connect("session", pool_max_size=1) as database:
        async with database.transaction(uuid4()) as transaction:
            pass
        async with database.transaction(uuid4()):
            with pytest.raises(Unavailable, match="released back to the pool"):
                await transaction.fetch_value("SELECT 1")


async def test_what_was_lent_before_all_expired_is_not_kept(notes: ClonedDatabase) -> None:
    pool = await asyncpg.create_pool(notes.dsn("session"), min_size=2, max_size=2)
    try:
        lender = Lender(pool, acquire_seconds=60)
        used, kept = await lender.lend(), await lender.lend()
        await lender.take_back(kept)
        # As after a failover: the pool's connections lead to the wrong place, those in use too.
        await pool.expire_connections()
        lender.expire()
        await lender.take_back(used)
        await until(lambda: pool.get_idle_size() == 0 and pool.get_size() == 0)
        fresh = await lender.lend()
        assert await fresh.fetchval("SELECT 1") == 1
        await lender.take_back(fresh)
        assert await lender.lend() is fresh
    finally:
        pool.terminate()
