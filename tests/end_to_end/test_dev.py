"""`minion dev` as its users meet it."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from minion.gateway.v1 import run_pb2
from minion_cli.development.directory import Directory
from minion_testing.postgres import cluster

from tests.end_to_end.stacks import STOP_SECONDS, RunningStack, dev, minion, start_dev, until
from tests.end_to_end.turns import new_agent, new_session, take_turn, texts

_SERVICES = {
    "registry": {"AgentService", "ToolService", "TenantService", "ApiKeyService"},
    "session": {"SessionService"},
    "memory": {"MemoryService"},
    "activity": {"ActivityService"},
    "gateway": {"RunService", "InferenceService"},
}


async def test_the_ready_line_names_every_address(stack: RunningStack) -> None:
    assert set(stack.addresses) == set(stack.operations) == set(_SERVICES)
    assert "\n" not in stack.ready_line


@pytest.mark.parametrize("service", sorted(_SERVICES))
async def test_each_service_is_healthy_and_lists_itself(stack: RunningStack, service: str) -> None:
    async with stack.channel(service) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", *(f"minion.{service}.v1.{each}" for each in _SERVICES[service])):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in reflection.ServerReflectionInfo(iter([asked]))]
    listed = {each.name for each in answers[0].list_services_response.service}
    assert {f"minion.{service}.v1.{each}" for each in _SERVICES[service]} <= listed


async def test_an_agent_is_made_and_takes_a_turn(stack: RunningStack) -> None:
    agent = await new_agent(stack, "calculator")
    session_id = await new_session(stack, agent.agent_id)
    turn = await take_turn(stack, session_id, "What is 17 * 23?")
    assert turn.run.state == run_pb2.RUN_STATE_COMPLETED
    assert "391" in turn.run.answer
    assert turn.text.endswith(turn.run.answer)
    assert [event.sequence for event in turn.events] == list(range(1, len(turn.events) + 1))
    assert turn.run.answer in await texts(stack, session_id)


async def test_without_a_credential_nothing_is_served(stack: RunningStack) -> None:
    async with stack.channel("session") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/minion.session.v1.SessionService/GetSession"
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("variable", "owner"), [("MINION_MEMORY_PORT", "memory"), ("MINION_MEMORY_OPERATIONS_PORT", "memory's operations")]
)
async def test_a_port_in_use_is_named_at_once(
    stack: RunningStack, place: Path, plain_environ: dict[str, str], variable: str, owner: str
) -> None:
    taken = stack.addresses if variable == "MINION_MEMORY_PORT" else stack.operations
    port = taken["memory"].rpartition(":")[2]
    done = await minion("dev", "--directory", str(place / ".minion"), cwd=place, env={**plain_environ, variable: port})
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: PORT_UNAVAILABLE: ")
    assert f"{port} ({owner})" in done.err
    assert len(done.err.splitlines()) == 1
    assert "postgres" not in os.listdir(place / ".minion")


async def test_a_second_stack_in_the_same_directory_is_refused(
    stack: RunningStack, plain_environ: dict[str, str], place: Path
) -> None:
    done = await minion("dev", "--free-ports", "--directory", str(stack.directory), cwd=place, env=plain_environ)
    assert done.code == 1
    assert done.err.startswith("error: STACK_RUNNING: ")
    assert "Traceback" not in done.err


async def test_a_database_that_is_down_is_told_in_one_line(place: Path, plain_environ: dict[str, str]) -> None:
    done = await minion(
        "dev",
        "--free-ports",
        cwd=place,
        env={**plain_environ, "MINION_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/minion"},
    )
    assert done.code == 1
    assert done.err.startswith("error: DATABASE_UNAVAILABLE: ")
    assert "127.0.0.1:1" in done.err
    assert len(done.err.splitlines()) == 1


async def test_a_database_of_ones_own(place: Path, plain_environ: dict[str, str]) -> None:
    """The keys that the directory holds are of another database: the stack finds out and makes new ones."""
    directory = Directory(place / ".minion")
    directory.prepare()
    directory.save(replace(directory.credentials(), tenant_id="gone", api_key="mnk_" + "x" * 43))
    async with cluster() as running:
        env = {**plain_environ, "MINION_DATABASE_URL": running.postgres.admin_dsn()}
        async with dev(directory.path, env=env) as stack:
            agent = await new_agent(stack, "clock")
            turn = await take_turn(stack, await new_session(stack, agent.agent_id), "What time is it?")
            assert turn.run.state == run_pb2.RUN_STATE_COMPLETED
            assert await stack.stop(signal.SIGTERM) == 0
    assert "postgres" not in os.listdir(directory.path)


async def test_what_was_said_outlives_kills_restarts_and_modes(place: Path, plain_environ: dict[str, str]) -> None:
    """Three starts in one directory: as processes, killed; as processes, one of them killed; in one, interrupted."""
    directory = place / ".minion"
    first = await start_dev(directory, "--processes", env=plain_environ)
    children = psutil.Process(first.process.pid).children(recursive=True)
    try:
        commands = [_command(child)[1:] for child in children]
        assert all(["-m", f"minion_{service}"] in commands for service in _SERVICES)
        agent = await new_agent(first)
        session_id = await new_session(first, agent.agent_id)
        assert (await take_turn(first, session_id, "Good morning")).run.state == run_pb2.RUN_STATE_COMPLETED
        said, credentials = await texts(first, session_id), first.credentials
    finally:
        first.process.kill()
        await first.process.wait()
    await until(lambda: _none_runs(children), seconds=60)

    async with dev(directory, "--processes", env=plain_environ) as second:
        children = psutil.Process(second.process.pid).children(recursive=True)
        next(child for child in children if _command(child)[-1:] == ["minion_session"]).kill()
        assert await asyncio.wait_for(second.process.wait(), STOP_SECONDS) == 1
    last_line = second.log.read_text().splitlines()[-1]
    assert last_line.startswith("error: SERVICE_FAILED: The service session has ended; see ")
    await until(lambda: _none_runs(children), seconds=60)

    async with dev(directory, env=plain_environ) as third:
        assert third.credentials == credentials
        assert await texts(third, session_id) == said
        begun = asyncio.Event()
        watching = asyncio.create_task(_watch(third, begun))
        async with asyncio.timeout(60):
            await begun.wait()
        assert await third.stop(signal.SIGINT) == 0
        # A watch never ends by itself: the drain sends it elsewhere, with a reason.
        assert (await watching).code() is grpc.StatusCode.UNAVAILABLE
        assert not (directory / "stack.json").exists()
    assert "Traceback" not in third.log.read_text()


def _command(process: psutil.Process) -> list[str]:
    """A process's command; the server's own processes come and go, and one that has gone has none."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


async def _none_runs(processes: list[psutil.Process]) -> bool:
    return not any(_runs(process) for process in processes)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _watch(stack: RunningStack, begun: asyncio.Event) -> grpc.aio.AioRpcError:
    async with stack.channel("registry") as channel:
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/minion.registry.v1.AgentService/WatchAgents"
        )
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await _follow(watch(b"", metadata=stack.metadata), begun)
    return ended.value


async def _follow(call: "grpc.aio.UnaryStreamCall[bytes, bytes]", begun: asyncio.Event) -> None:
    # The first thing that is told is that all was told: from then on there is a watch to be drained.
    async for _ in call:
        begun.set()


def test_the_secrets_are_nobody_elses(stack: RunningStack) -> None:
    for name in ("credentials.json", "stack.json"):
        assert (stack.directory / name).stat().st_mode & 0o077 == 0
