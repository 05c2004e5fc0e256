"""The service as a whole: who gets in, what it shows of itself, how its schema comes and goes, how it starts."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minion.session.v1 import session_service_pb2 as pb
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_errors import FailedPrecondition
from minion_postgres import Database, Migrations
from minion_session.sessions.worker import purge_requests
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import SERVICE_KEY, ActingTokens, Served
from uuid_utils.compat import uuid7

from tests.minion_session.made import append, new_id, open_session, seconds, source
from tests.minion_session.stage import Stub, eventually, gateway, serving

MakeDatabase = Callable[..., Awaitable[ClonedDatabase]]
MIGRATIONS = resources.files("minion_session") / "migrations"


async def test_nobody_gets_in_without_a_credential(replica: Served, tenant_id: UUID) -> None:
    request = pb.GetSessionRequest(session_id=new_id())
    async with (
        grpc.aio.insecure_channel(replica.address) as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
    ):
        await SessionServiceStub(channel).GetSession(request)
    async with (
        replica.channel("not a credential") as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"),
    ):
        await SessionServiceStub(channel).GetSession(request)
    async with replica.operator() as channel:
        stub = SessionServiceStub(channel)
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
            await stub.GetSession(request)
        named = grpc.aio.Metadata(("minion-tenant", str(tenant_id)))
        async with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
            await stub.GetSession(request, metadata=named)


async def test_without_authentication_everybody_may_do_everything(postgres: ClonedDatabase) -> None:
    async with (
        serving(postgres, auth_mode="disabled", service_key=None, operator_key=None) as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        stub: Stub = SessionServiceStub(channel)
        session_id = await open_session(stub)
        assert (await stub.AppendMessages(append(session_id, "hello", source=source()))).last_sequence == 1


async def test_the_service_is_healthy(replica: Served) -> None:
    async with grpc.aio.insecure_channel(replica.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="minion.session.v1.SessionService")
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING


def _gauge(replica: Served) -> float | None:
    return replica.metric("active_sessions")


async def test_active_sessions_are_counted_over_all_tenants(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with (
        serving(database) as replica,
        gateway(replica, uuid7()) as one,
        gateway(replica, uuid7()) as other,
        await database.connect("session", "owner") as owner,
    ):
        await eventually(lambda: _gauge(replica) == 0)
        first = await open_session(one)
        await open_session(other, ttl=seconds(60))
        await eventually(lambda: _gauge(replica) == 2)
        await one.CloseSession(pb.CloseSessionRequest(session_id=first))
        await eventually(lambda: _gauge(replica) == 1)
        await owner.execute("UPDATE session.sessions SET expire_time = now() - interval '1 second'")
        await eventually(lambda: _gauge(replica) == 0)


async def test_the_count_of_active_sessions_becomes_an_estimate(owner: Database, session: Stub) -> None:
    for _ in range(3):
        await open_session(session)
    exact = await owner.fetch_value("SELECT session.count_active_sessions(1000000)")
    assert exact >= 3
    await owner.execute("ANALYZE session.sessions")
    assert await owner.fetch_value("SELECT session.count_active_sessions(2)") == exact


async def test_old_request_ids_are_forgotten(
    replica: Served, session: Stub, owner: Database, postgres: ClonedDatabase
) -> None:
    session_id = await open_session(session)
    old, recent = append(session_id, "old", request_id=new_id()), append(session_id, "recent", request_id=new_id())
    for request in (old, recent):
        await session.AppendMessages(request)
    await owner.execute(
        "UPDATE session.idempotency_keys SET create_time = now() - interval '25 hours' WHERE request_id = $1",
        UUID(old.request_id),
    )
    count = "SELECT count(*) FROM session.idempotency_keys WHERE request_id = $1"

    async def gone() -> bool:
        return int(await owner.fetch_value(count, UUID(old.request_id))) == 0

    async with await postgres.connect("session") as app:
        worker = asyncio.create_task(purge_requests(app))
        try:
            await eventually(gone)
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
    assert await owner.fetch_value(count, UUID(recent.request_id)) == 1


async def test_the_schema_goes_down_and_up_again(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    migrations = Migrations("session", MIGRATIONS)
    dsn = database.dsn("session", "owner")
    steps = [step.name for step in migrations.steps]
    assert await migrations.down(dsn, steps=len(steps)) == steps[::-1]
    async with await database.connect("session", "owner") as owner:
        left = await owner.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'session'::regnamespace AND relkind IN ('r', 'S', 'v')"
        )
        assert [row["relname"] for row in left] == ["schema_migrations"]
        assert await owner.fetch("SELECT FROM pg_proc WHERE pronamespace = 'session'::regnamespace") == []
    applied = await migrations.up(dsn)
    assert applied[: len(steps)] == steps
    assert all(name.startswith("functions") for name in applied[len(steps) :])
    async with serving(database) as replica, gateway(replica, uuid7()) as stub:
        await open_session(stub)


async def test_a_schema_that_was_never_migrated_is_told_at_the_start(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    admin = await asyncpg.connect(database.admin_dsn)
    try:
        for statement in ("DROP TABLE session.schema_migrations", "DROP SCHEMA session CASCADE"):
            await admin.execute(statement)
            with pytest.raises(FailedPrecondition, match="never migrated: run `minion migrate`") as caught:
                await database.connect("session")
            assert caught.value.reason == "SCHEMA_NOT_MIGRATED"
    finally:
        await admin.close()


async def test_a_database_that_is_gone_is_told_and_come_back_to(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    async with serving(database) as replica, gateway(replica, uuid7()) as stub:
        session_id = await open_session(stub)
        async with await database.connect("session", "owner") as owner:
            name = await owner.fetch_value("SELECT current_database()")
        admin = await asyncpg.connect(database.postgres.admin_dsn("postgres"))
        try:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            async with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE") as refusal:
                await stub.AppendMessages(append(session_id, "lost", request_id=new_id()))
            assert refusal.retry_after_seconds is not None
            # Where the database is, and what it said, is for the log.
            assert refusal.message == "The database is not available."
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        finally:
            await admin.close()
        request = append(session_id, "kept", request_id=new_id())

        async def kept() -> bool:
            # Each connection of the pool that was cut while it was idle is found out by the first who uses it.
            try:
                return (await stub.AppendMessages(request)).last_sequence == 1
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - it may be told again
                return False

        await eventually(kept)


def _environment(**variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MINION_")}
    root = Path(__file__).parents[2]
    return ours | {"PYTHONPATH": f"{root / 'services'}:{root / 'shared'}"} | variables


async def test_the_service_runs_by_itself_until_it_is_told_to_stop(postgres: ClonedDatabase) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minion_session"),
        env=_environment(
            MINION_DATABASE_URL=postgres.dsn("session"),
            MINION_AUTH_MODE="required",
            MINION_SERVICE_KEY=SERVICE_KEY,
            MINION_SESSION_PORT="0",
            MINION_SESSION_OPERATIONS_PORT="0",
            # What gRPC's own code may say on a machine in distress is no line of ours.
            GRPC_VERBOSITY="NONE",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            async for line in process.stdout:
                logged = orjson.loads(line)
                if logged.get("event") == "serving":
                    break
        async with grpc.aio.insecure_channel(logged["address"]) as channel:
            stub: Stub = SessionServiceStub(channel)
            token = ("authorization", f"Bearer {ActingTokens('gateway', uuid7(), None).mint()}")
            response = await stub.CreateSession(
                pb.CreateSessionRequest(agent_id=new_id(), user_id="ada"), metadata=grpc.aio.Metadata(token)
            )
            assert response.session.user_id == "ada"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            await process.stdout.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_all_wrong_settings_are_told_at_once() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minion_session"),
        env=_environment(MINION_SESSION_PORT="99999", MINION_SESSION_ACTIVE_COUNT_SECONDS="often"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    for variable in ("MINION_SESSION_PORT", "MINION_SESSION_ACTIVE_COUNT_SECONDS", "DATABASE_URL", "AUTH_MODE"):
        assert variable in told.decode()


@pytest.mark.parametrize("call", ["GetSession", "CreateSession"])
async def test_calls_are_measured(replica: Served, session: Stub, call: str) -> None:
    await session.GetSession(pb.GetSessionRequest(session_id=await open_session(session)))
    labels = {
        "grpc_type": "unary",
        "grpc_service": "minion.session.v1.SessionService",
        "grpc_method": call,
        "grpc_code": "OK",
    }
    assert (replica.metric("grpc_server_handled_total", **labels) or 0) >= 1


async def test_the_last_migration_goes_down_and_up_again_with_what_is_there(database_factory: MakeDatabase) -> None:
    database = await database_factory()
    migrations = Migrations("session", MIGRATIONS)
    dsn = database.dsn("session", "owner")
    tenant_id = uuid7()
    async with serving(database) as replica, gateway(replica, tenant_id) as stub:
        session_id = await open_session(stub)
        await stub.AppendMessages(append(session_id, "hello"))
    assert await migrations.down(dsn, steps=len(migrations.steps) - 1)
    assert await migrations.up(dsn)
    async with serving(database) as replica, gateway(replica, tenant_id) as stub:
        assert (await stub.AppendMessages(append(session_id, "again"))).last_sequence == 2
