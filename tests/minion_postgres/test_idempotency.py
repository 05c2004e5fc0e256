"""Repeated writes: once, whoever repeats them and whenever."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from minion_errors import Aborted, AlreadyExists
from minion_postgres import Database, Idempotent, Key, Transaction, idempotency


@dataclass(frozen=True, slots=True)
class Added:
    """What adding a note gives."""

    note_id: UUID
    when: datetime
    labels: tuple[str, ...]


ADDED = Idempotent(Added, schema="session")
INSERT = "INSERT INTO session.notes (tenant_id, note_id, body) VALUES ($1, $2, $3)"
ADD_NOTE = "SELECT session.add_note($1, $2, $3, $4, $5)"


async def insert(transaction: Transaction) -> Added:
    note_id = uuid4()
    await transaction.execute(INSERT, transaction.tenant_id, note_id, {})
    return Added(note_id, datetime.now(UTC), ("a", "b"))


async def add(database: Database, tenant_id: UUID, key: Key | None) -> Added:
    async with database.transaction(tenant_id) as transaction:
        return await ADDED.once(transaction, key, lambda: insert(transaction))


async def notes(database: Database, tenant_id: UUID) -> int:
    async with database.transaction(tenant_id) as transaction:
        return int(await transaction.fetch_value("SELECT count(*) FROM session.notes"))


def key(request_id: UUID | None = None, digest: bytes = b"one", method: str = "AddNote") -> Key:
    return Key(method, request_id or uuid4(), digest)


async def test_a_repeat_returns_the_first_result_and_stores_nothing(session_app: Database) -> None:
    tenant_id, once = uuid4(), key()
    first = await add(session_app, tenant_id, once)
    assert await add(session_app, tenant_id, once) == first
    assert await notes(session_app, tenant_id) == 1


async def test_without_a_key_every_call_writes(session_app: Database) -> None:
    tenant_id = uuid4()
    assert await add(session_app, tenant_id, None) != await add(session_app, tenant_id, None)
    assert await notes(session_app, tenant_id) == 2


@pytest.mark.parametrize("other", [{"digest": b"two"}, {"method": "RemoveNote"}])
async def test_another_request_under_the_same_id_is_refused(session_app: Database, other: dict[str, str]) -> None:
    tenant_id, request_id = uuid4(), uuid4()
    await add(session_app, tenant_id, key(request_id))
    with pytest.raises(AlreadyExists) as caught:
        await add(session_app, tenant_id, key(request_id, **other))  # type: ignore[arg-type]
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.metadata == {"request_id": str(request_id)}
    assert await notes(session_app, tenant_id) == 1


async def test_tenants_do_not_meet_in_an_id(session_app: Database) -> None:
    once = key()
    first, second = uuid4(), uuid4()
    assert await add(session_app, first, once) != await add(session_app, second, once)


async def test_a_failed_write_frees_its_id(session_app: Database) -> None:
    tenant_id, once = uuid4(), key()

    async def fail() -> Added:
        raise ZeroDivisionError

    async def attempt() -> None:
        async with session_app.transaction(tenant_id) as transaction:
            await ADDED.once(transaction, once, fail)

    with pytest.raises(ZeroDivisionError):
        await attempt()
    await add(session_app, tenant_id, once)
    assert await notes(session_app, tenant_id) == 1


async def test_repeats_at_once_write_once(session_app: Database) -> None:
    tenant_id, once = uuid4(), key()
    results = await asyncio.gather(*(add(session_app, tenant_id, once) for _ in range(8)))
    assert len(set(results)) == 1
    assert await notes(session_app, tenant_id) == 1


async def test_in_one_sql_function_a_repeat_returns_the_first_result(session_app: Database) -> None:
    tenant_id, note_id, request_id = uuid4(), uuid4(), uuid4()
    first = await session_app.fetch_value(ADD_NOTE, tenant_id, note_id, {}, request_id, b"one")
    again = await session_app.fetch_value(ADD_NOTE, tenant_id, note_id, {}, request_id, b"one")
    assert first == again == {"note_id": str(note_id)}
    with pytest.raises(AlreadyExists):
        await session_app.fetch_value(ADD_NOTE, tenant_id, note_id, {}, request_id, b"two")
    await session_app.fetch_value(ADD_NOTE, tenant_id, uuid4(), {}, None, None)
    assert await notes(session_app, tenant_id) == 2


async def test_in_one_sql_function_repeats_at_once_write_once(session_app: Database) -> None:
    tenant_id, request_id = uuid4(), uuid4()
    results = await asyncio.gather(
        *(session_app.fetch_value(ADD_NOTE, tenant_id, uuid4(), {}, request_id, b"one") for _ in range(8)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(error, Aborted) and error.reason == "REQUEST_IN_PROGRESS" for error in refused)
    assert len({str(result) for result in results if not isinstance(result, Exception)}) == 1
    assert await notes(session_app, tenant_id) == 1


async def test_old_keys_of_all_tenants_are_purged_and_young_ones_stay(session_app: Database) -> None:
    tenant_id, old, young = uuid4(), key(), key()
    first = await add(session_app, tenant_id, old)
    await add(session_app, tenant_id, young)
    async with session_app.transaction(tenant_id) as transaction:
        await transaction.execute(
            "UPDATE session.idempotency_keys SET create_time = now() - interval '25 hours' WHERE request_id = $1",
            old.request_id,
        )
    assert await idempotency.purge(session_app, "session") == 1
    assert await idempotency.purge(session_app, "session") == 0
    assert await add(session_app, tenant_id, old) != first


async def test_young_keys_stay_whatever_age_is_asked_for(session_app: Database) -> None:
    tenant_id, hours = uuid4(), {minutes: key() for minutes in (0, 59, 61)}
    async with session_app.transaction(tenant_id) as transaction:
        for minutes, made in hours.items():
            await transaction.execute(
                "INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, create_time)"
                " VALUES ($1, $2, 'Add', '', now() - $3::interval)",
                tenant_id,
                made.request_id,
                timedelta(minutes=minutes),
            )
    for age in (timedelta(0), timedelta(days=-1)):
        await idempotency.purge(session_app, "session", age=age)
    async with session_app.transaction(tenant_id) as transaction:
        left = await transaction.fetch("SELECT request_id FROM session.idempotency_keys")
    assert {row["request_id"] for row in left} == {hours[0].request_id, hours[59].request_id}


async def test_keys_are_bound_to_their_tenant(session_app: Database) -> None:
    await add(session_app, uuid4(), key())
    assert await session_app.fetch_value("SELECT count(*) FROM session.idempotency_keys") == 0
