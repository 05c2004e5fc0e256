"""The registry as a deployable: settings, start and stop, its workers, and what the other services ask of it."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import orjson
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from minion.registry.v1 import agent_pb2
from minion.registry.v1 import agent_service_pb2 as pb
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion_auth import ServiceTokens, api_keys
from minion_grpc import connect
from minion_grpc.verification import RegistryVerifier
from minion_registry.settings import RegistrySettings
from minion_settings import SettingsError
from minion_testing.errors import refused
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import OPERATOR_KEY, SERVICE_KEY, Served, serve
from minion_testing.tenants import new_tenant
from uuid_utils.compat import uuid7

from tests.minion_registry.stage import Caller, agent

AGED = "UPDATE registry.{} SET create_time = now() - $2::interval WHERE tenant_id = $1"
LEFT = "SELECT count(*) FROM registry.{} WHERE tenant_id = $1"


def test_the_settings_have_the_ports_of_the_house() -> None:
    settings = RegistrySettings.load({"MINION_DATABASE_URL": "postgresql://db/minion", "MINION_AUTH_MODE": "disabled"})
    assert (settings.port, settings.operations_port) == (50051, 9051)
    assert settings.changes_kept == timedelta(days=7)
    assert "minion_registry_app@db" in settings.app_dsn


def test_all_faults_of_the_settings_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        RegistrySettings.load({"MINION_REGISTRY_CHANGES_KEPT_DAYS": "0", "MINION_REGISTRY_PORT": "x"})
    for variable in ("DATABASE_URL", "AUTH_MODE", "CHANGES_KEPT_DAYS", "PORT"):
        assert variable in str(raised.value)


async def test_nobody_gets_in_without_a_credential(registry: Served) -> None:
    async with registry.channel(None) as channel, refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"):
        await AgentServiceStub(channel).ListAgents(pb.ListAgentsRequest())


async def test_with_authentication_off_everybody_is_the_development_tenant(postgres: ClonedDatabase) -> None:
    # Twice: the tenant is there already the second time.
    for _ in range(2):
        async with (
            serve("registry", postgres, auth_mode="disabled") as open_registry,
            open_registry.channel(None) as channel,
        ):
            await AgentServiceStub(channel).CreateAgent(pb.CreateAgentRequest(agent=agent()))


async def test_what_the_other_services_verify_keys_by(registry: Served) -> None:
    tenant = await new_tenant(registry)
    async with connect(registry.address, telemetry=registry.telemetry, tls=None) as channel:
        verifier = RegistryVerifier(channel, ServiceTokens(SERVICE_KEY, "session"))
        verified = await verifier.verify(api_keys.digest(tenant.api_key))
        assert verified is not None
        assert (verified.tenant_id, str(verified.key_id)) == (tenant.tenant_id, tenant.api_key_id)
        assert verified.expire_time is None
        assert await verifier.verify(bytes(32)) is None


async def test_repeats_that_come_at_once_do_the_work_once(tenant: Caller) -> None:
    request = pb.CreateAgentRequest(agent=agent(), request_id=str(uuid7()))
    answers = await asyncio.gather(*(tenant.agents.CreateAgent(request) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert len((await tenant.agents.ListAgents(pb.ListAgentsRequest())).agents) == 1


async def test_a_change_its_revision_and_its_line_in_the_feed_are_one_transaction(
    tenant: Caller, postgres: ClonedDatabase
) -> None:
    created = await tenant.create()
    await tenant.agents.UpdateAgent(
        pb.UpdateAgentRequest(
            agent=agent_pb2.Agent(agent_id=created.agent_id, instructions="new"),
            update_mask=FieldMask(paths=["instructions"]),
        )
    )
    async with await postgres.connect("registry", "owner") as database:
        rows = await database.fetch(
            "SELECT r.revision, c.kind, a.xmin = r.xmin AS latest FROM registry.agents a"
            " JOIN registry.agent_revisions r USING (tenant_id, agent_id)"
            " JOIN registry.changes c ON c.tenant_id = a.tenant_id AND c.resource_id = a.agent_id AND c.xmin = r.xmin"
            " WHERE a.tenant_id = $1 ORDER BY r.revision",
            tenant.tenant_id,
        )
    assert [tuple(row) for row in rows] == [(1, "created", False), (2, "updated", True)]


async def test_old_changes_and_request_ids_go_by_themselves(postgres: ClonedDatabase) -> None:
    async with (
        serve("registry", postgres, purge_seconds=0.05) as registry,
        await postgres.connect("registry", "owner") as database,
    ):
        tenants = [await new_tenant(registry) for _ in range(2)]
        for tenant in tenants:
            async with registry.channel(tenant.api_key) as channel:
                request = pb.CreateAgentRequest(agent=agent(), request_id=str(uuid7()))
                await AgentServiceStub(channel).CreateAgent(request)
        old, young = (tenant.tenant_id for tenant in tenants)
        await database.execute(AGED.format("changes"), old, timedelta(days=8))
        await database.execute(AGED.format("idempotency_keys"), old, timedelta(hours=25))
        for table in ("changes", "idempotency_keys"):
            async with asyncio.timeout(60):
                while await database.fetch_value(LEFT.format(table), old):  # noqa: ASYNC110 - the database tells nobody
                    await asyncio.sleep(0.02)
            assert await database.fetch_value(LEFT.format(table), young) == 1


async def test_it_runs_alone_and_stops_when_told(postgres: ClonedDatabase) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MINION_")},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MINION_DATABASE_URL": postgres.dsn("registry"),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        "MINION_OPERATOR_KEY": OPERATOR_KEY,
        "MINION_REGISTRY_PORT": "0",
        "MINION_REGISTRY_OPERATIONS_PORT": "0",
        "MINION_LOG_FORMAT": "json",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "minion_registry",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        line: dict[str, Any] = {}
        async with asyncio.timeout(120):
            while line.get("event") != "serving":
                said = await process.stdout.readline()
                assert said, "it ended"
                # What gRPC itself says of a slow machine is no line of ours.
                line = orjson.loads(said) if said.startswith(b"{") else {}
        async with (
            grpc.aio.insecure_channel(line["address"]) as channel,
            refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
        ):
            await AgentServiceStub(channel).GetAgent(pb.GetAgentRequest(agent_id=str(uuid4())))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
