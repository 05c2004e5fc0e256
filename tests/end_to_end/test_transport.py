"""All five services over mutual TLS alone, and `minion` as their client."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from minion.gateway.v1 import run_pb2, run_service_pb2
from minion.gateway.v1.run_service_pb2_grpc import RunServiceStub
from minion.registry.v1 import agent_pb2, agent_service_pb2
from minion.registry.v1.agent_service_pb2_grpc import AgentServiceStub
from minion.session.v1 import session_service_pb2
from minion.session.v1.session_service_pb2_grpc import SessionServiceStub
from minion_grpc import TlsFiles, connect
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import OPERATOR_KEY, SERVICES, Stack, free_ports, serve, serve_all
from minion_testing.tenants import Tenant, new_tenant
from uuid_utils.compat import uuid7

from tests.minion_grpc.authority import Authority, Folder

# Five services at once, and processes of the command line.
pytestmark = pytest.mark.slow


@pytest.fixture
def authority() -> Authority:
    """The deployment's CA."""
    return Authority()


@pytest.fixture
def services(tmp_path: Path, authority: Authority) -> Folder:
    """What each service is given."""
    return Folder(tmp_path / "services", authority.issue(), authority)


@pytest.fixture
def person(tmp_path: Path, authority: Authority) -> Folder:
    """What a person at a terminal is given."""
    return Folder(tmp_path / "person", authority.issue("person", hosts=[]), authority)


@asynccontextmanager
async def serving(database: ClonedDatabase, services: Folder, model_cache: str) -> AsyncIterator[Stack]:
    """Runs the five, which know each other's ports of mutual TLS alone."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    environ = {
        "MINION_PEER_TLS": "mtls",
        "MINION_PEER_CA": str(services.ca),
        "MINION_MODEL_CACHE": model_cache,
        **{f"MINION_{service.upper()}_ADDRESS": f"localhost:{port}" for service, port in ports.items()},
    }
    overrides = {service: {**services.mtls(), "mtls_port": port} for service, port in ports.items()}
    async with serve_all(database, environ=environ, overrides=overrides) as stack:
        yield stack


async def minion(addresses: Mapping[str, str], *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Runs a command line against services at these addresses; gives exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "minion_cli",
        *arguments,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{f"MINION_{service.upper()}_ADDRESS": address for service, address in addresses.items()},
            **environ,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode(), errors.decode()


def reaching(stack: Stack, service: str, files: TlsFiles, tenant: Tenant) -> grpc.aio.Channel:
    """Opens a channel of the tenant to a service's port of mutual TLS."""
    served = stack[service]
    return connect(str(served.server.mtls_address), telemetry=served.telemetry, tls=files, credential=tenant.api_key)


async def active_agent(registry: grpc.aio.Channel, name: str) -> str:
    """Makes an agent that can be run."""
    agents = AgentServiceStub(registry)
    wanted = agent_pb2.Agent(name=name, behavior_type="conversational", instructions="Be brief.")
    made = await agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=wanted, request_id=str(uuid7())))
    agent_id = made.agent.agent_id
    await agents.ActivateAgent(agent_service_pb2.ActivateAgentRequest(agent_id=agent_id, request_id=str(uuid7())))
    return agent_id


async def test_turns_go_through_all_services_while_their_certificates_are_renewed(
    postgres: ClonedDatabase, services: Folder, person: Folder, authority: Authority, model_cache: str
) -> None:
    async with serving(postgres, services, model_cache) as stack:
        tenant = await new_tenant(stack["registry"])
        async with (
            reaching(stack, "registry", person.files, tenant) as registry,
            reaching(stack, "session", person.files, tenant) as session,
            reaching(stack, "gateway", person.files, tenant) as gateway,
        ):
            agent_id = await active_agent(registry, "brief")
            opened = await SessionServiceStub(session).CreateSession(
                session_service_pb2.CreateSessionRequest(agent_id=agent_id, user_id="ada", request_id=str(uuid7()))
            )
            for turn in range(4):
                services.hold(authority.issue(f"renewal {turn}"))
                taken = await RunServiceStub(gateway).CreateRun(
                    run_service_pb2.CreateRunRequest(
                        session_id=opened.session.session_id, text="Hello.", request_id=str(uuid7())
                    ),
                    timeout=60,
                )
                assert taken.run.state == run_pb2.RUN_STATE_COMPLETED
                # Longer than the second between two looks at the files.
                await asyncio.sleep(1.1)


async def test_the_command_line_speaks_mutual_tls(
    postgres: ClonedDatabase, services: Folder, person: Folder, model_cache: str
) -> None:
    ca, cert, key = str(person.ca), str(person.certificate), str(person.key)
    async with serving(postgres, services, model_cache) as stack:
        tenant = await new_tenant(stack["registry"])
        async with reaching(stack, "registry", person.files, tenant) as registry:
            await active_agent(registry, "seen")
        addresses = {name: str(served.server.mtls_address) for name, served in stack.services.items()}
        run = partial(minion, addresses, MINION_API_KEY=tenant.api_key)
        code, output, errors = await run("--ca", ca, "--cert", cert, "--key", key, "agents", "list")
        assert (code, errors) == (0, "")
        assert "seen" in output
        variables = {"MINION_CLIENT_TLS": "true", "MINION_CLIENT_CA": ca}
        shown = {"MINION_CLIENT_CERTIFICATE": cert, "MINION_CLIENT_KEY": key}
        code, output, errors = await run("agents", "list", **variables, **shown)
        assert (code, errors) == (0, "")
        code, output, errors = await run("agents", "list", **variables)
        assert (code, output) == (1, "")
        assert "error: SERVICE_UNREACHABLE: No service answers there; does it want TLS (--tls), or a cert" in errors
        code, output, errors = await run("--cert", cert, "agents", "list")
        assert (code, output) == (2, "")
        assert errors.startswith("error: SETTINGS_INVALID: ")
        assert "MINION_CLIENT_KEY is required beside MINION_CLIENT_CERTIFICATE" in errors


async def test_the_command_line_speaks_tls(postgres: ClonedDatabase, services: Folder, tmp_path: Path) -> None:
    foreign = Authority()
    other = Folder(tmp_path / "other", foreign.issue(), foreign)
    async with serve("registry", postgres, **services.tls()) as registry:
        addresses = {"registry": registry.address}
        run = partial(minion, addresses, MINION_OPERATOR_KEY=OPERATOR_KEY)
        code, _, errors = await run("--ca", str(services.ca), "tenants", "create", "over-tls")
        assert (code, errors) == (0, "")
        for given, hint in (
            ((), "does it want TLS (--tls)"),
            (("--tls",), "with a certificate of the CAs in --ca?"),
            (("--ca", str(other.ca)), "with a certificate of the CAs in --ca?"),
        ):
            code, output, errors = await run(*given, "tenants", "create", "refused")
            assert (code, output) == (1, "")
            assert errors.startswith("error: SERVICE_UNREACHABLE: No service answers there; ")
            assert hint in errors
            assert len(errors.splitlines()) == 1
