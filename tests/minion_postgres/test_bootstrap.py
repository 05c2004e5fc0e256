"""What the administrator does once: fit servers, roles, privileges, again and again."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from minion_errors import Unavailable
from minion_postgres import SCHEMAS, BootstrapError, EmbeddedPostgres, ServiceAccess, bootstrap, roles
from minion_postgres.bootstrap import check_vector, scram_verifier


def access(postgres: EmbeddedPostgres, password: str, database: str = "minion") -> list[ServiceAccess]:
    return [
        ServiceAccess(
            service,
            postgres.dsn(roles(service).owner, password, database),
            postgres.dsn(roles(service).app, password, database),
        )
        for service in SCHEMAS
    ]


@pytest.fixture(scope="module")
async def fresh() -> AsyncIterator[EmbeddedPostgres]:
    """A server that nobody has prepared: roles belong to the whole server."""
    with tempfile.TemporaryDirectory(prefix="minion-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - the server's user passes through
        postgres = EmbeddedPostgres(Path(folder) / "pg", settings={"fsync": "off", "shared_buffers": "16MB"})
        await asyncio.to_thread(postgres.start, timeout=240)
        yield postgres
        await asyncio.to_thread(postgres.stop)


async def can_log_in(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn)
    except asyncpg.InvalidPasswordError:
        return False
    await connection.close()
    return True


async def test_it_may_be_repeated_and_then_sets_new_passwords(fresh: EmbeddedPostgres) -> None:
    first, second = access(fresh, "first: pass/word@%"), access(fresh, "second")
    await bootstrap(fresh.admin_dsn(), first)
    assert all([await can_log_in(dsn) for one in first for dsn in (one.owner_dsn, one.app_dsn)])
    await bootstrap(fresh.admin_dsn(), first)
    assert await can_log_in(first[0].app_dsn)
    await bootstrap(fresh.admin_dsn(), second)
    assert await can_log_in(second[0].app_dsn)
    assert not await can_log_in(first[0].app_dsn)


async def test_the_services_roles_are_no_administrators(fresh: EmbeddedPostgres) -> None:
    services = access(fresh, "word")
    await bootstrap(fresh.admin_dsn(), services)
    with pytest.raises(BootstrapError, match=r"minion_registry_owner .* is no administrator"):
        await bootstrap(services[0].owner_dsn, services)


async def test_an_administrator_need_not_be_superuser(fresh: EmbeddedPostgres) -> None:
    admin = await asyncpg.connect(fresh.admin_dsn())
    await admin.execute("CREATE ROLE deputy LOGIN CREATEROLE PASSWORD 'deputy'")
    await admin.execute("CREATE DATABASE managed OWNER deputy")
    for service in SCHEMAS:  # roles made by the superuser are not the deputy's to change
        for role in (roles(service).owner, roles(service).app):
            if await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await admin.execute(f"DROP OWNED BY {role}")
                await admin.execute(f"DROP ROLE {role}")
    await admin.close()
    inside = await asyncpg.connect(fresh.admin_dsn("managed"))
    await inside.execute("CREATE EXTENSION vector SCHEMA public")
    await inside.close()
    services = access(fresh, "word", "managed")
    for _ in range(2):
        await bootstrap(fresh.dsn("deputy", "deputy", "managed"), services)
    admin = await asyncpg.connect(fresh.admin_dsn())
    await admin.execute("ALTER ROLE minion_memory_app BYPASSRLS")
    await admin.close()
    with pytest.raises(BootstrapError, match="minion_memory_app has rights beyond its own tables"):
        await bootstrap(fresh.dsn("deputy", "deputy", "managed"), services)
    await bootstrap(fresh.admin_dsn("managed"), services)  # a superuser takes them
    await bootstrap(fresh.dsn("deputy", "deputy", "managed"), services)
    owner = await asyncpg.connect(services[0].owner_dsn)
    await owner.execute("CREATE TABLE registry.made ()")
    await owner.close()


async def test_a_dsn_that_names_another_role_is_refused(fresh: EmbeddedPostgres) -> None:
    wrong = ServiceAccess("session", fresh.dsn("somebody", "x"), fresh.dsn("minion_session_app", "x"))
    with pytest.raises(BootstrapError, match="session logs in as somebody"):
        await bootstrap(fresh.admin_dsn(), [wrong])


async def test_a_server_that_is_away_is_unavailable(fresh: EmbeddedPostgres) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/minion"):
        await bootstrap("postgresql://postgres:hunter2@127.0.0.1:1/minion", access(fresh, "x"))


async def test_what_everybody_has_is_taken(fresh: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(fresh.admin_dsn("postgres"))
    await connection.execute("CREATE DATABASE untouched")
    await connection.close()
    await bootstrap(fresh.admin_dsn("untouched"), access(fresh, "word", "untouched"))
    connection = await asyncpg.connect(fresh.admin_dsn("untouched"))
    try:
        for schema in SCHEMAS:
            assert not await connection.fetchval("SELECT has_schema_privilege('public', $1, 'USAGE')", schema)
            owner = await connection.fetchval(
                "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = $1", schema
            )
            assert owner == roles(schema).owner
        assert not await connection.fetchval("SELECT has_schema_privilege('public', 'public', 'CREATE')")
        assert not await connection.fetchval("SELECT has_database_privilege('public', current_database(), 'TEMP')")
        limits = await connection.fetchval("SELECT useconfig FROM pg_user WHERE usename = 'minion_session_app'")
        assert "idle_in_transaction_session_timeout=1s" in limits
    finally:
        await connection.close()


async def test_a_monitor_reads_statistics_and_no_rows(fresh: EmbeddedPostgres) -> None:
    services = access(fresh, "word")
    await bootstrap(fresh.admin_dsn(), services)
    assert not await can_log_in(fresh.dsn("minion_monitor", "watch"))
    for _ in range(2):
        await bootstrap(fresh.admin_dsn(), services, monitor_password="watch")
    owner = await asyncpg.connect(services[0].owner_dsn)
    await owner.execute("CREATE TABLE IF NOT EXISTS registry.held ()")
    watched = await owner.fetchval("SELECT pg_backend_pid()")
    monitor = await asyncpg.connect(fresh.dsn("minion_monitor", "watch"))
    try:
        seen = await monitor.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", watched)
        assert seen == "SELECT pg_backend_pid()"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await monitor.fetch("SELECT * FROM registry.held")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await monitor.execute("SET ROLE minion_registry_owner")
        memberships = "SELECT rolname FROM pg_roles WHERE rolname <> current_user AND pg_has_role(oid, 'MEMBER')"
        assert [row[0] for row in await monitor.fetch(memberships)] == ["pg_read_all_stats"]
    finally:
        await monitor.close()
        await owner.close()
    # With no password it stays as it is.
    await bootstrap(fresh.admin_dsn(), services)
    assert await can_log_in(fresh.dsn("minion_monitor", "watch"))


def test_pgvector_must_be_there_and_recent() -> None:
    with pytest.raises(BootstrapError, match="lacks pgvector"):
        check_vector(None)
    with pytest.raises(BootstrapError, match=r"pgvector 0\.8\.1 is too old"):
        check_vector("0.8.1")
    for version in ("0.8.2", "0.8.10", "0.10.0", "1.0"):
        check_vector(version)


def test_the_verifier_is_that_of_the_standard() -> None:
    # The example of RFC 7677.
    import base64

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert scram_verifier("pencil", salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    with pytest.raises(BootstrapError, match="printable ASCII"):
        scram_verifier("pässword")
