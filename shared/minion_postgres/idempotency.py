"""Writes that may be repeated: the first result is kept beside the write, in its own transaction.

A cold path, in Python:

```python
_CREATED = Idempotent(Session, schema="session")

async def create(self, session: NewSession, key: Key | None) -> Session:
    async with self._database.transaction(tenant()) as transaction:
        return await _CREATED.once(transaction, key, lambda: self._store.insert(transaction, session))
```

A hot path, in one SQL function and one round trip (`request` is NULL when the caller gave no request_id):

```sql
PERFORM set_config('minion.tenant', tenant::text, true);
SELECT last_sequence INTO last FROM session.sessions WHERE … FOR UPDATE;        -- 1. what serialises the writers
IF request IS NOT NULL THEN                                                     -- 2. have we been here?
    known := session.recall_request(tenant, request, 'AppendMessages', digest);
    IF known IS NOT NULL THEN RETURN known; END IF;
END IF;
…                                                                               -- 3. the work; result := …
IF request IS NOT NULL THEN                                                     -- 4. one insert, with the result
    INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, result)
         VALUES (tenant, request, 'AppendMessages', digest, result);
END IF;
```

Where step 1 locks no row that two repeats share, use `claim_request` first and `record_result` last: a repeat then
waits for the first. Two repeats that meet in step 4 nevertheless end with one stored and one Aborted
(REQUEST_IN_PROGRESS).

Same id with another body or method: AlreadyExists (REQUEST_ID_REUSED). Keys are kept for 24 h: a worker calls `purge`.
Secrets never enter a result. The table and functions are in `sql/idempotency.sql`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import TypeAdapter

from minion_postgres.database import Database, Transaction
from minion_postgres.parts import part
from minion_postgres.queries import Query

Result = TypeVar("Result")

KEPT: Final = timedelta(hours=24)
_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a write repeatable."""

    method: str  # the RPC's name
    request_id: UUID
    digest: bytes  # of the request without its request_id
    subject: str | None = None  # whose content the result holds, for erasure


class Idempotent(Generic[Result]):
    """Runs writes of one result type at most once for each key."""

    def __init__(self, result: type[Result], *, schema: str) -> None:
        self._adapter: TypeAdapter[Result] = TypeAdapter(result)
        self._claim = Query(
            f"SELECT claimed, first_result FROM {schema}.claim_request($1, $2, $3, $4, $5)",  # noqa: S608 - our schema
            name="claim_request",
            description="Claims a request, or finds its first result.",
        )
        self._recall = Query(
            f"SELECT {schema}.recall_request($1, $2, $3, $4)",
            name="recall_request",
            description="Finds the first result of a request.",
        )
        self._record = Query(
            f"SELECT {schema}.record_result($1, $2, $3)",
            name="record_result",
            description="Keeps the result of a claimed request.",
        )

    async def recall(self, transaction: Transaction, key: Key | None) -> Result | None:
        """Returns the result of the first time; None where there was none.

        For what is done outside of the write's transaction, such as asking another service: a repeat needs none of it.
        Raises AlreadyExists (REQUEST_ID_REUSED) when the key came before with another digest or method.
        """
        if key is None:
            return None
        first = await transaction.fetch_value(
            self._recall, transaction.tenant_id, key.request_id, key.method, key.digest
        )
        return None if first is None else self.from_json(first)

    async def once(self, transaction: Transaction, key: Key | None, write: Callable[[], Awaitable[Result]]) -> Result:
        """Writes, or returns the result of the first time. With no key the write is simply not idempotent.

        A repeat waits while the first is running. Raises AlreadyExists (REQUEST_ID_REUSED) when the key came before
        with another digest or method.
        """
        if key is None:
            return await write()
        claim = await transaction.fetch_one(
            self._claim, transaction.tenant_id, key.request_id, key.method, key.digest, key.subject
        )
        assert claim is not None
        if not claim["claimed"]:
            return self.from_json(claim["first_result"])
        result = await write()
        await transaction.execute(self._record, transaction.tenant_id, key.request_id, self.to_json(result))
        return result

    def to_json(self, result: Result) -> Any:
        """Turns a result into what a jsonb parameter takes; for SQL functions that store it themselves."""
        return self._adapter.dump_python(result, mode="json")

    def from_json(self, stored: Any) -> Result:
        """Turns a stored result back; fails loudly when it does not parse."""
        return self._adapter.validate_python(stored)


async def purge(database: Database, schema: str, *, age: timedelta = KEPT) -> int:
    """Deletes the keys of all tenants that are older than `age`, in batches; returns how many went."""
    purge_requests = Query(
        f"SELECT {schema}.purge_requests($1, $2)", name="purge_requests", description="Deletes old keys."
    )
    total = 0
    while True:
        gone = int(await database.fetch_value(purge_requests, age, _BATCH))
        total += gone
        if gone < _BATCH:
            return total


def table_sql(schema: str) -> str:
    """The table, for the schema's first migration."""
    return part("idempotency.sql", "table", schema=schema)


def functions_sql(schema: str) -> str:
    """The functions, for the schema's functions.sql."""
    return part("idempotency.sql", "functions", schema=schema)
