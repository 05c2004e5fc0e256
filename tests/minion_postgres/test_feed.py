"""The change feed: nothing is lost, whoever commits late."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from minion_errors import Aborted, InvalidArgument, Unavailable
from minion_postgres import Change, ChangeFeed, Database, Synced, Transaction
from minion_testing.postgres import ClonedDatabase

NOTE = "INSERT INTO session.changes (tenant_id, resource_id, kind) VALUES ($1, $2, $3) RETURNING id"
AGE = "UPDATE session.changes SET create_time = now() - $2::interval WHERE tenant_id = $1"


@pytest.fixture
def feed(session_app: Database) -> ChangeFeed:
    """The feed of schema session."""
    return ChangeFeed(session_app, schema="session", interval=0.01)


async def note(transaction: Transaction, kind: str) -> int:
    return int(await transaction.fetch_value(NOTE, transaction.tenant_id, uuid4(), kind))


async def write(database: Database, tenant_id: UUID, *kinds: str) -> None:
    async with database.transaction(tenant_id) as transaction:
        for kind in kinds:
            await note(transaction, kind)


async def take(feed: ChangeFeed, tenant_id: UUID, cursor: str, count: int) -> list[Change]:
    taken: list[Change] = []
    async with asyncio.timeout(60), aclosing(feed.follow(tenant_id, cursor)) as changes:
        async for change in changes:
            assert isinstance(change, Change)
            taken.append(change)
            if len(taken) == count:
                break
    return taken


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


async def test_changes_come_in_order_and_from_a_cursor_on(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id = uuid4()
    await write(session_app, tenant_id, "one", "two")
    await write(session_app, tenant_id, "three")
    changes = await take(feed, tenant_id, "", 3)
    assert kinds(changes) == ["one", "two", "three"]
    assert kinds(await take(feed, tenant_id, changes[0].cursor, 2)) == ["two", "three"]
    assert not await feed.read(tenant_id, changes[2].cursor)


async def test_a_late_committer_is_not_passed_over(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id = uuid4()
    async with session_app.transaction(tenant_id) as early:
        early_id = await note(early, "early")
        async with session_app.transaction(tenant_id) as late:
            late_id = await note(late, "late")
        assert late_id > early_id
        # "late" is committed and "early" is not: a reader by number would now go past "early" for ever.
        seen = list(await feed.read(tenant_id, ""))
        cursor = seen[-1].cursor if seen else ""
    seen += await take(feed, tenant_id, cursor, 2 - len(seen))
    assert kinds(seen) == ["early", "late"]


async def test_a_transaction_that_wrote_elsewhere_first_is_not_passed_over(
    session_app: Database, feed: ChangeFeed
) -> None:
    tenant_id = uuid4()
    async with session_app.transaction(tenant_id) as slow:
        await slow.execute(
            "INSERT INTO session.notes (tenant_id, note_id, body) VALUES ($1, $2, '1')", tenant_id, uuid4()
        )
        await write(session_app, tenant_id, "quick")
        seen = list(await feed.read(tenant_id, ""))
        cursor = seen[-1].cursor if seen else ""
        await note(slow, "slow")
    seen += await take(feed, tenant_id, cursor, 2 - len(seen))
    assert sorted(kinds(seen)) == ["quick", "slow"]


async def test_writers_at_once_lose_nothing(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id, total = uuid4(), 60

    async def writer(number: int) -> None:
        async with session_app.transaction(tenant_id) as transaction:
            await note(transaction, f"{number}a")
            await transaction.fetch("SELECT pg_sleep($1)", (number % 7) / 200)
            await note(transaction, f"{number}b")

    reading = asyncio.create_task(take(feed, tenant_id, "", total * 2))
    for start in range(0, total, 6):
        await asyncio.gather(*(writer(number) for number in range(start, start + 6)))
    changes = await reading
    assert sorted(kinds(changes)) == sorted(f"{number}{half}" for number in range(total) for half in "ab")


async def test_a_tenant_sees_its_own_changes_alone(session_app: Database, feed: ChangeFeed) -> None:
    mine, other = uuid4(), uuid4()
    await write(session_app, other, "theirs")
    await write(session_app, mine, "mine")
    assert kinds(await take(feed, mine, "", 1)) == ["mine"]


async def test_head_is_now(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id = uuid4()
    await write(session_app, tenant_id, "before")
    head = await feed.head(tenant_id)
    await write(session_app, tenant_id, "after")
    assert kinds(await take(feed, tenant_id, head, 1)) == ["after"]


async def test_many_changes_are_read_in_pages(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id = uuid4()
    async with session_app.transaction(tenant_id) as transaction:
        await transaction.execute(
            "INSERT INTO session.changes (tenant_id, resource_id, kind)"
            " SELECT $1, gen_random_uuid(), n::text FROM generate_series(1, 1203) n",
            tenant_id,
        )
    assert kinds(await take(feed, tenant_id, "", 1203)) == [str(n) for n in range(1, 1204)]


async def test_a_foreign_or_malformed_cursor_is_refused(session_app: Database, feed: ChangeFeed) -> None:
    mine, other = uuid4(), uuid4()
    await write(session_app, other, "theirs")
    foreign = (await take(feed, other, "", 1))[0].cursor
    for cursor in (foreign, "x", foreign[:-3]):
        with pytest.raises(InvalidArgument) as caught:
            await feed.read(mine, cursor)
        assert caught.value.reason == "INVALID_FIELDS"


async def test_a_watch_ends_with_a_typed_error_when_the_database_goes(
    notes: ClonedDatabase,
) -> None:
    database = await notes.connect("session")
    feed = ChangeFeed(database, schema="session", interval=0.01)
    watching = asyncio.create_task(take(feed, uuid4(), "", 1))
    await database.close()
    with pytest.raises(Unavailable):
        await watching


async def test_the_feeds_index_is_used_under_row_level_security(session_app: Database) -> None:
    async with session_app.transaction(uuid4()) as transaction:
        await transaction.execute("SET LOCAL enable_seqscan = off")
        rows = await transaction.fetch(
            "EXPLAIN SELECT * FROM session.changes WHERE tenant_id = $1 AND (xid, id) > ('5'::xid8, 7)"
            " AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT 10",
            transaction.tenant_id,
        )
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using changes_pkey" in plan
    assert "ROW(xid, id) > " in plan.partition("Index Cond")[2].partition("Filter")[0]
    assert "Sort" not in plan


async def test_services_follow_all_tenants_without_seeing_their_rows(session_app: Database, feed: ChangeFeed) -> None:
    head = await feed.head(None)
    tenants = [uuid4(), uuid4()]
    for tenant_id in tenants:
        await write(session_app, tenant_id, "any")
    seen: list[UUID] = []
    async with asyncio.timeout(60), aclosing(feed.follow(None, head)) as changes:
        async for change in changes:
            assert isinstance(change, Change)
            seen.append(change.tenant_id)
            if len(seen) == 2:
                break
    assert seen == tenants


async def test_silence_is_broken_by_a_cursor_to_go_on_from(session_app: Database, feed: ChangeFeed) -> None:
    tenant_id = uuid4()
    await write(session_app, tenant_id, "one")
    async with asyncio.timeout(60), aclosing(feed.follow(tenant_id, "", silence=0.02)) as changes:
        assert isinstance(await anext(changes), Change)
        synced = await anext(changes)
    assert isinstance(synced, Synced)
    await write(session_app, tenant_id, "two")
    assert kinds(await take(feed, tenant_id, synced.cursor, 1)) == ["two"]


async def test_old_changes_are_purged_and_a_cursor_before_them_is_refused(
    session_app: Database, session_owner: Database
) -> None:
    feed = ChangeFeed(session_app, schema="session", interval=0.01, kept=timedelta(days=1))
    tenant_id = uuid4()
    await write(session_app, tenant_id, "old", "older")
    await session_owner.execute(
        "UPDATE session.changes SET create_time = now() - interval '24 hours 30 minutes' WHERE tenant_id = $1",
        tenant_id,
    )
    # Too old for a cursor, not yet purged: whoever began at the beginning still gets them all.
    changes = await take(feed, tenant_id, "", 2)
    with pytest.raises(Aborted) as caught:
        await feed.read(tenant_id, changes[0].cursor)
    assert caught.value.reason == "CURSOR_EXPIRED"
    assert await feed.purge() == 0
    await session_owner.execute(
        "UPDATE session.changes SET create_time = now() - interval '25 hours 30 minutes' WHERE tenant_id = $1",
        tenant_id,
    )
    await write(session_app, tenant_id, "young")
    assert await feed.purge() == 2
    assert kinds(await take(feed, tenant_id, "", 1)) == ["young"]
    for age in (timedelta(0), timedelta(days=-1)):
        assert await session_app.fetch_value("SELECT session.purge_changes($1, 100)", age) == 0
