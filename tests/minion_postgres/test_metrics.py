"""What a pool tells of itself, and that looking at it harms nobody."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio
from minion_errors import Unavailable
from minion_postgres import Database
from minion_telemetry import OperationsServer, Telemetry, TelemetrySettings
from minion_testing.postgres import ClonedDatabase
from minion_testing.scraping import scrape
from prometheus_client import CollectorRegistry, generate_latest


async def until(come: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not come():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


@pytest.fixture
def telemetry() -> Telemetry:
    """Where the pool's numbers stand."""
    return Telemetry.start("session", TelemetrySettings())


@pytest_asyncio.fixture(loop_scope="session")
async def database(notes: ClonedDatabase, telemetry: Telemetry) -> AsyncIterator[Database]:
    """A pool of two connections, one of which is opened at once; whoever waits for one gets it some time."""
    async with await notes.connect(
        "session",
        telemetry=telemetry,
        pool_min_size=1,
        pool_max_size=2,
        pool_acquire_seconds=60,
        statement_seconds=300,
    ) as opened:
        yield opened


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(f"db_client_{name}", labels)
    assert found is not None, name
    return found


@asynccontextmanager
async def busy(database: Database, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Keeps both connections busy; a transaction that only idles is ended by the server."""
    statements = [asyncio.create_task(database.execute("SELECT pg_sleep(280)")) for _ in range(2)]
    await until(lambda: value(registry, "connections", state="used") == 2)
    yield
    for statement in statements:
        statement.cancel()
    await asyncio.gather(*statements, return_exceptions=True)


async def test_connections_are_counted_in_use_idle_and_gone(
    database: Database, telemetry: Telemetry, notes: ClonedDatabase
) -> None:
    registry = telemetry.registry
    assert (value(registry, "connection_max"), value(registry, "connections", state="used")) == (2, 0)
    assert value(registry, "connections", state="idle") == 1
    async with busy(database, registry):
        assert value(registry, "connections", state="used") == 2
        assert value(registry, "connections", state="idle") == 0
    assert value(registry, "connections", state="used") == 0
    backend = await database.fetch_value("SELECT pg_backend_pid()")
    left = value(registry, "connections", state="idle")
    assert left >= 1
    await _cut(notes, backend)
    await until(lambda: value(registry, "connections", state="idle") <= left - 1)


async def test_who_waits_is_counted(database: Database, telemetry: Telemetry) -> None:
    registry = telemetry.registry
    before = value(registry, "connection_wait_seconds_count")
    async with busy(database, registry):
        waiting = asyncio.ensure_future(database.fetch_value("SELECT 2"))
        await until(lambda: value(registry, "connection_pending_requests") == 1)
    assert await waiting == 2
    assert value(registry, "connection_wait_seconds_count") == before + 3
    assert value(registry, "connection_wait_seconds_sum") > 0
    assert (value(registry, "connection_pending_requests"), value(registry, "connection_timeouts_total")) == (0, 0)


@pytest.mark.usefixtures("time_to_connect")
async def test_who_gives_up_is_counted(notes: ClonedDatabase, telemetry: Telemetry) -> None:
    registry = telemetry.registry
    # Both are open before anybody asks: to open one takes longer than this pool lets anybody wait.
    async with (
        await notes.connect(
            "session",
            telemetry=telemetry,
            pool_min_size=2,
            pool_max_size=2,
            pool_acquire_seconds=0.2,
            statement_seconds=300,
        ) as database,
        busy(database, registry),
    ):
        before = value(registry, "connection_wait_seconds_count")
        with pytest.raises(Unavailable):
            await database.fetch_value("SELECT 1")
        assert (value(registry, "connection_pending_requests"), value(registry, "connection_timeouts_total")) == (0, 1)
        assert value(registry, "connection_wait_seconds_count") == before


async def test_a_pool_is_measured_as_long_as_it_is_open_and_no_other_beside_it(
    notes: ClonedDatabase, telemetry: Telemetry
) -> None:
    async with await notes.connect("session", telemetry=telemetry, pool_max_size=3):
        async with await notes.connect("session", "owner", telemetry=telemetry, pool_max_size=1, measured=False):
            assert value(telemetry.registry, "connection_max") == 3
        assert value(telemetry.registry, "connection_max") == 3
    assert b"db_client" not in generate_latest(telemetry.registry)
    async with await notes.connect("session", telemetry=telemetry, pool_max_size=4):
        assert value(telemetry.registry, "connection_max") == 4


async def test_a_pool_is_scraped_while_it_works_and_its_connections_go(
    database: Database, telemetry: Telemetry, notes: ClonedDatabase
) -> None:
    operations = OperationsServer("127.0.0.1", 0, telemetry.registry, lambda: True)
    operations.start()
    over = False

    async def work() -> None:
        while not over:
            try:
                await database.fetch_value("SELECT 1")
            except Unavailable:
                await asyncio.sleep(0)

    working = [asyncio.create_task(work()) for _ in range(4)]
    try:
        for _ in range(20):
            assert "db_client_connections" in await asyncio.to_thread(scrape, f"127.0.0.1:{operations.port}")
            await _cut(notes, None)
    finally:
        over = True
        await asyncio.gather(*working)
        await asyncio.to_thread(operations.stop)
    used = [value(telemetry.registry, "connections", state=state) for state in ("used", "idle")]
    assert used[0] == 0
    assert used[1] <= 2


async def _cut(notes: ClonedDatabase, backend: int | None) -> None:
    """Ends a backend of the service's role, or all of them."""
    connection = await asyncpg.connect(notes.admin_dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND usename = 'minion_session_app' AND ($1::int IS NULL OR pid = $1)",
            backend,
        )
    finally:
        await connection.close()
