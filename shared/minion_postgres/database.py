"""A service's connections: one-round-trip statements, and transactions in a tenant."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import asyncpg
import orjson
from minion_errors import FailedPrecondition, MinionError
from minion_telemetry import Telemetry, attributes
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from prometheus_client import CollectorRegistry

from minion_postgres import dsn as dsns
from minion_postgres import faults
from minion_postgres.driver import Connection, Pool, PooledConnection, Record
from minion_postgres.lending import Lender, is_closed
from minion_postgres.metrics import PoolMetrics
from minion_postgres.migrations import Migrations, applied_query
from minion_postgres.queries import Query
from minion_postgres.settings import DatabaseSettings

_T = TypeVar("_T")
# Seconds by which asyncpg waits longer than the server's own limit: the server's answer is the better one.
_SERVER_FIRST = 1.0
_JSONB_VERSION = b"\x01"


class Transaction:
    """An open transaction in one tenant; made by `Database.transaction`.

    Await nothing else while it is open: the server ends a transaction that idles (`transaction_idle_seconds`).
    """

    __slots__ = ("_connection", "_database", "tenant_id")

    def __init__(self, database: "Database", connection: PooledConnection, tenant_id: UUID | None) -> None:
        self._database = database
        self._connection = connection
        self.tenant_id = tenant_id

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """Runs a query and returns its rows."""
        with self._database.statement(sql, self._connection):
            return await self._connection.fetch(_text(sql), *args)

    async def fetch_one(self, sql: str, *args: object) -> Record | None:
        """Runs a query and returns its first row, if there is one."""
        with self._database.statement(sql, self._connection):
            return await self._connection.fetchrow(_text(sql), *args)

    async def fetch_value(self, sql: str, *args: object) -> Any:
        """Runs a query and returns the first column of its first row; None if there is none."""
        with self._database.statement(sql, self._connection):
            return await self._connection.fetchval(_text(sql), *args)

    async def execute(self, sql: str, *args: object) -> int:
        """Runs a statement and returns how many rows it touched."""
        with self._database.statement(sql, self._connection):
            return _touched(await self._connection.execute(_text(sql), *args))


class Database:
    """A service's pool of connections; one a service and process.

    `fetch`, `fetch_one`, `fetch_value`, `execute` are one round trip each and commit by themselves; they are for SQL
    functions that set the tenant inside. Row-level security shows them nothing otherwise.

    Every method raises Unavailable (DATABASE_UNAVAILABLE) when the database can't be reached or the connection is
    lost, DeadlineExceeded (DATABASE_TIMEOUT) when a statement runs out of time, Aborted (TRANSACTION_CONFLICT) on a
    deadlock, and the domain errors that SQL raises (see `faults`). Constraint violations pass as asyncpg's own.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        schema: str,
        target: dsns.Target,
        acquire_seconds: float,
        tracer: Tracer,
        metrics: PoolMetrics,
    ) -> None:
        self._pool = pool
        self._schema = schema
        self._place = target.place
        self._attributes = {
            attributes.DB_SYSTEM_NAME: "postgresql",
            attributes.DB_NAMESPACE: f"{target.database}|{schema}" if target.database else schema,
        }
        self._metrics = metrics
        self._measured_in: CollectorRegistry | None = None
        self._lender = Lender(pool, acquire_seconds=acquire_seconds, metrics=metrics)
        self._tracer = tracer
        self._is_replica = False

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        schema: str,
        settings: DatabaseSettings,
        telemetry: Telemetry,
        migrations: Migrations | None = None,
        on_connect: Callable[[Connection], Awaitable[None]] | None = None,
        measured: bool = True,
    ) -> Self:
        """Opens the pool and its minimum of connections.

        Args:
            migrations: the schema's, as this release has them. None asks only whether there are any.
            on_connect: prepares each new connection (type codecs).
            measured: whether the pool's metrics are the telemetry's. One pool of a telemetry is: that which calls run
                on, not one opened beside it for maintenance.

        Raises:
            Unavailable: the database is down, refuses the role, or does not exist.
            FailedPrecondition: the schema was never migrated (SCHEMA_NOT_MIGRATED), lacks something of this release
                (SCHEMA_OUTDATED), or was migrated with other texts (SCHEMA_FOREIGN). A later release's schema is taken.

        The message says where, never the password.
        """

        max_size = settings.pool_max_size
        metrics = PoolMetrics(max_size)

        async def prepare(connection: Connection) -> None:
            metrics.opened(connection)
            await _speak_json(connection)
            if on_connect is not None:
                await on_connect(connection)

        target = dsns.parse(dsn)
        pool = asyncpg.create_pool(
            dsn,
            min_size=min(settings.pool_min_size, max_size),
            max_size=max_size,
            max_inactive_connection_lifetime=settings.pool_idle_seconds,
            command_timeout=settings.statement_seconds + _SERVER_FIRST,
            timeout=settings.pool_acquire_seconds,
            init=prepare,
            reset=_keep_as_it_is,
            server_settings={
                "application_name": f"minion-{schema}",
                "statement_timeout": str(math.ceil(settings.statement_seconds * 1000)),
                "idle_in_transaction_session_timeout": str(math.ceil(settings.transaction_idle_seconds * 1000)),
                # Short statements: compiling them costs more than it gives.
                "jit": "off",
                # Times that go through JSON are read again, and years 1 and 9999 end in other zones.
                "timezone": "UTC",
            },
        )
        database = cls(
            pool,
            schema=schema,
            target=target,
            acquire_seconds=settings.pool_acquire_seconds,
            tracer=telemetry.tracer,
            metrics=metrics,
        )
        await database._connecting(pool)
        try:
            await database._check_migrated(migrations)
        except BaseException:
            await database.close()
            raise
        if measured:
            telemetry.registry.register(metrics)
            database._measured_in = telemetry.registry
        return database

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """Runs a query in a round trip of its own and returns its rows."""
        return await self._alone(PooledConnection.fetch, sql, args)

    async def fetch_one(self, sql: str, *args: object) -> Record | None:
        """Runs a query in a round trip of its own and returns its first row, if there is one."""
        return await self._alone(PooledConnection.fetchrow, sql, args)

    async def fetch_value(self, sql: str, *args: object) -> Any:
        """Runs a query in a round trip of its own and returns the first column of its first row."""
        return await self._alone(PooledConnection.fetchval, sql, args)

    async def execute(self, sql: str, *args: object) -> int:
        """Runs a statement in a round trip of its own and returns how many rows it touched."""
        return _touched(await self._alone(PooledConnection.execute, sql, args))

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID | None) -> AsyncIterator[Transaction]:
        """Opens a transaction that sees this tenant's rows; commits at the end, rolls back on an exception.

        None is for the owner's maintenance, which is bound to no tenant; an app role then sees no rows. An Unavailable
        whose metadata says `outcome: unknown` may have committed: read again by key.
        """
        async with self._connection() as connection:
            with self.statement("BEGIN", connection):
                await connection.execute(_begin(tenant_id))
            try:
                yield Transaction(self, connection, tenant_id)
            except BaseException:
                await _roll_back(connection)
                raise
            with self.statement("COMMIT", connection, commits=True):
                ended = await connection.execute("COMMIT")
            if ended != "COMMIT":
                raise RuntimeError("a statement failed, its error was swallowed, and so nothing was committed")

    async def ping(self) -> None:
        """Raises Unavailable unless the database answers; for readiness."""
        await self.fetch_value("SELECT 1")

    async def close(self) -> None:
        """Waits for the connections in use, then closes all; after ten seconds it cuts them."""
        if self._measured_in is not None:
            self._measured_in.unregister(self._metrics)
            self._measured_in = None
        try:
            async with asyncio.timeout(10):
                await self._lender.close()
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _check_migrated(self, migrations: Migrations | None) -> None:
        # Asked at the start: calls would fail one by one as internal errors otherwise.
        where = f"The schema {self._schema} of the database at {self._place}"
        try:
            rows = await self.fetch(applied_query(self._schema))
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as absent:
            raise FailedPrecondition(
                f"{where} was never migrated: run `minion migrate`.",
                reason="SCHEMA_NOT_MIGRATED",
                metadata={"schema": self._schema},
            ) from absent
        if migrations is None:
            return
        state = migrations.compare({row["name"]: row["checksum"] for row in rows})
        if state.foreign:
            raise FailedPrecondition(
                f"{where} is of no release that this one follows ({state}): restore it, or take another database; "
                "`minion migrate` refuses it too.",
                reason="SCHEMA_FOREIGN",
                metadata={"schema": self._schema, "migrations": ",".join(state.foreign)},
            )
        if not state.fits:
            raise FailedPrecondition(
                f"{where} is older than this release ({state}): run `minion migrate`.",
                reason="SCHEMA_OUTDATED",
                metadata={"schema": self._schema, "migrations": ",".join([*state.missing, *state.outdated])},
            )

    @contextmanager
    def statement(self, sql: str, connection: PooledConnection, *, commits: bool = False) -> Iterator[None]:
        """Traces a statement under its query's name and translates what it raises.

        `commits` says that the statement's own success is a commit, which a lost connection leaves unknown.
        """
        span = self._span(sql)
        try:
            yield
        except Exception as error:
            self._translate(error, connection, span, commits=commits)
            raise
        finally:
            if span is not None:
                span.end()

    async def _alone(self, run: Callable[..., Awaitable[_T]], sql: str, args: Sequence[object]) -> _T:
        """Runs one statement that commits by itself, by a method of the connection that it is lent.

        Written out, where transactions have context managers: those take longer than the rest of what is done here.
        """
        connection = await self._connecting(self._lender.lend())
        try:
            span = self._span(sql)
            try:
                found = await run(connection, _text(sql), *args)
            except Exception as error:
                self._translate(error, connection, span, commits=True)
                raise
            finally:
                if span is not None:
                    span.end()
        except BaseException:
            await self._give_back(connection)
            raise
        await self._lender.take_back(connection)
        return found

    def _translate(self, error: Exception, connection: PooledConnection, span: Span | None, *, commits: bool) -> None:
        """Raises what a statement's error is in the domain's words; returns where it stays what it is."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            # A failover made this server a replica: every connection of the pool leads to the wrong place.
            self._is_replica = True
        if isinstance(error, asyncpg.InternalClientError):
            # Nobody may be given a connection whose driver doesn't know where it stands.
            connection.terminate()
        translated = faults.while_running(error, self._place, closed=is_closed(connection), commits=commits)
        if span is not None:
            _mark(span, error, translated)
        if translated is not None:
            raise translated from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PooledConnection]:
        """Lends a connection to a transaction, whose caller may hold on to it: it is of no more use to him then."""
        connection = await self._connecting(self._lender.lend())
        try:
            yield connection
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: PooledConnection) -> None:
        if self._is_replica:
            self._is_replica = False
            await self._pool.expire_connections()
            self._lender.expire()
        await self._lender.give_back(connection)

    async def _connecting(self, connected: Awaitable[_T]) -> _T:
        try:
            return await connected
        except Exception as error:
            translated = faults.while_connecting(error, self._place)
            if translated is None:
                raise
            raise translated from error

    def _span(self, sql: str) -> Span | None:
        # Only inside a trace that somebody records: workers that poll would fill the collector with nothing.
        if not get_current_span().is_recording():
            return None
        name = f"{self._schema}.{sql.name if isinstance(sql, Query) else sql.split(None, 1)[0].upper()}"
        return self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes={**self._attributes, attributes.DB_QUERY_SUMMARY: name}
        )


def _mark(span: Span, error: Exception, translated: MinionError | None) -> None:
    # The text of a database error can hold values; its type and state can't.
    span.set_status(StatusCode.ERROR)
    state = getattr(error, "sqlstate", None)
    span.set_attribute(attributes.ERROR_TYPE, translated.reason if translated else state or type(error).__name__)
    if state is not None:
        span.set_attribute(attributes.DB_RESPONSE_STATUS_CODE, state)


def _text(sql: str) -> str:
    return sql.text if isinstance(sql, Query) else sql


def _begin(tenant_id: UUID | None) -> str:
    if tenant_id is None:
        return "BEGIN"
    # Two statements in one round trip take no parameters; a UUID's text is hexadecimal, whatever it was made of.
    return f"BEGIN; SELECT set_config('minion.tenant', '{UUID(int=tenant_id.int)}', true)"


async def _roll_back(connection: PooledConnection) -> None:
    try:
        if not is_closed(connection):
            await connection.execute("ROLLBACK", timeout=_SERVER_FIRST)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        # The pool must not hand out a connection in an unknown state; the server rolls back what it loses.
        if not is_closed(connection):
            connection.terminate()


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: _JSONB_VERSION + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=orjson.dumps, decoder=orjson.loads
    )


async def _keep_as_it_is(connection: Connection) -> None:
    """Resets nothing: all state of ours is local to its transaction, and asyncpg rolls an open one back by itself."""
    del connection


def _touched(tag: str) -> int:
    """Reads the count out of a command tag such as `UPDATE 3`; 0 for commands that count nothing."""
    count = tag.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0
