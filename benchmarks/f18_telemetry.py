"""F18: all telemetry on against all off: on a GetSession, and on a turn; and with a collector that is down.

On: every trace recorded and exported by OTLP, metrics counted and scraped every few seconds, a log line an RPC. Off: no
traces, no metrics, errors alone in the log. Both run at once on databases of one cluster and are called in turn by one
client that sends no trace of its own, so that each call begins one.

The collector is a process of its own that acknowledges what it gets and reads none of it: what a real one does with a
span is a matter of its own machine. Its CPU is not counted; that of the exporting side is, all of it, for each slice is
followed by a pause in which its spans leave. The rate is that of the slice alone. `python -m benchmarks.f18_telemetry`
is the collector; it prints its port.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import grpc
import uvloop
from minion.session.v1 import session_service_pb2 as pb
from minion_auth import ServiceTokens
from minion_testing.postgres import ClonedDatabase, cluster
from minion_testing.serving import OPERATOR_KEY, SERVICE_KEY, SERVICES, free_ports
from uuid_utils.compat import uuid7

from benchmarks.f01_turn import providing, turning
from benchmarks.figure import Comparison, Figure, Operation, Options, Slice, cpu_seconds, run_slice
from benchmarks.serving import Process, serving
from benchmarks.session_stage import SERVICE, open_session

ID = "F18"
LOOP_FACTORY = uvloop.new_event_loop

_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"
_YARDSTICK = "the same with all telemetry off"
_OFF = {"MINION_TRACING_ENABLED": "false", "MINION_METRICS_ENABLED": "false", "MINION_LOG_LEVEL": "error"}
_POOL = {"MINION_POOL_MIN_SIZE": "16", "MINION_POOL_MAX_SIZE": "16"}
_SCRAPE_SECONDS = 3.0
# What is left of a slice's spans has been sent by then: batches wait for a second at most.
_PAUSE_SECONDS = 1.5


async def measure(options: Options) -> list[Figure]:
    """Measures the rate and the CPU that telemetry takes from a GetSession at 16 callers, and from a turn at 8."""
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(cluster(durable=True))
        endpoint = await running.enter_async_context(_collecting())
        read = await _get_session(options, await served.clone(), await served.clone(), endpoint)
        down = await _outage(options, await served.clone(), await served.clone(), endpoint)
        turn = await _turn(options, await served.clone(), await served.clone(), endpoint)
    return [
        *_figures("GetSession, 16 callers", "req/s", read, loss=0.25),
        _figure_of_outage(down),
        *_figures("whole turn, 8 callers", "turns/s", turn, loss=0.10),
    ]


def _figures(name: str, unit: str, compared: Comparison, *, loss: float) -> list[Figure]:
    value, yardstick, ratio = compared.value(lambda part: part.rate)
    cpu, bare, costs = compared.value(lambda part: part.cpu_per_operation * 1e6)
    runs = len(compared.ours)
    return [
        Figure(
            id=ID,
            name=f"{name}: rate with all telemetry",
            value=value,
            unit=unit,
            yardstick=_YARDSTICK,
            yardstick_value=yardstick,
            ratio=ratio,
            goal=f"ratio >= {1 - loss:g}",
            ok=ratio >= 1 - loss,
            cpu_us_per_op=cpu,
            runs=runs,
        ),
        Figure(
            id=ID,
            name=f"{name}: CPU of our processes with all telemetry",
            value=cpu,
            unit="µs",
            yardstick=_YARDSTICK,
            yardstick_value=bare,
            ratio=costs,
            goal="",
            ok=None,
            cpu_us_per_op=cpu,
            runs=runs,
        ),
    ]


def _figure_of_outage(compared: Comparison) -> Figure:
    cpu, taken, ratio = compared.value(lambda part: part.cpu_per_operation * 1e6)
    return Figure(
        id=ID,
        name="GetSession, 16 callers: CPU with a collector that is down",
        value=cpu,
        unit="µs",
        yardstick="the same with one that takes spans",
        yardstick_value=taken,
        ratio=ratio,
        goal="ratio <= 1.05",
        ok=ratio <= 1.05,
        cpu_us_per_op=cpu,
        runs=len(compared.ours),
    )


async def _outage(options: Options, away: ClonedDatabase, there: ClonedDatabase, endpoint: str) -> Comparison:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with AsyncExitStack() as running:
        stacks = [
            await running.enter_async_context(serving(database, "session", variables={**_POOL, **_exporting(target)}))
            for database, target in ((away, nobody), (there, endpoint))
        ]
        operations = [await running.enter_async_context(_reading(each["session"].address)) for each in stacks]
        return await _interleave(
            operations, [_pids(each) for each in stacks], rounds=options.rounds, seconds=2.0, concurrency=16
        )


async def _get_session(options: Options, on: ClonedDatabase, off: ClonedDatabase, endpoint: str) -> Comparison:
    async with AsyncExitStack() as running:
        loud = await running.enter_async_context(serving(on, "session", variables={**_POOL, **_exporting(endpoint)}))
        mute = await running.enter_async_context(serving(off, "session", variables={**_POOL, **_OFF}))
        await running.enter_async_context(_scraping(loud))
        operations = [await running.enter_async_context(_reading(each["session"].address)) for each in (loud, mute)]
        compared = await _interleave(
            operations, [_pids(loud), _pids(mute)], rounds=options.rounds, seconds=2.0, concurrency=16
        )
        await _exported(loud)
        return compared


async def _turn(options: Options, on: ClonedDatabase, off: ClonedDatabase, endpoint: str) -> Comparison:
    async with AsyncExitStack() as running:
        _, base_url = await running.enter_async_context(providing())
        variables = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-bench", "MINION_OPERATOR_KEY": OPERATOR_KEY}
        loud = await running.enter_async_context(
            serving(on, *SERVICES, variables={**variables, **_exporting(endpoint)})
        )
        mute = await running.enter_async_context(serving(off, *SERVICES, variables={**variables, **_OFF}))
        await running.enter_async_context(_scraping(loud))
        turns = [
            await running.enter_async_context(turning({name: each.address for name, each in stack.items()}))
            for stack in (loud, mute)
        ]
        compared = await _interleave(
            [each.stream for each in turns],
            [_pids(loud), _pids(mute)],
            rounds=options.rounds,
            seconds=3.0,
            concurrency=8,
        )
        await _exported(loud)
        return compared


async def _interleave(
    operations: list[Operation], pids: list[list[int]], *, rounds: int, seconds: float, concurrency: int
) -> Comparison:
    """Measures both in turn, after a round that warms up; who begins a round changes, since the pauses aren't empty."""
    measured: list[tuple[Slice, Slice]] = []
    for number in range(rounds + 1):
        slices: dict[int, Slice] = {}
        for which in (0, 1) if number % 2 else (1, 0):
            before = cpu_seconds(pids[which])
            part = await run_slice(operations[which], seconds=seconds, concurrency=concurrency, pids=())
            await asyncio.sleep(_PAUSE_SECONDS)
            slices[which] = replace(part, cpu_seconds=cpu_seconds(pids[which]) - before)
        measured.append((slices[0], slices[1]))
    kept = measured[1:]
    return Comparison(tuple(own for own, _ in kept), tuple(bare for _, bare in kept))


def _exporting(endpoint: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}


def _pids(processes: Mapping[str, Process]) -> list[int]:
    return [process.pid for process in processes.values()]


@asynccontextmanager
async def _reading(address: str) -> AsyncIterator[Operation]:
    """Opens a session and gives the call that reads it: bytes in, bytes out, so that the client costs little."""
    tenant_id, credential = uuid7(), ServiceTokens(SERVICE_KEY, "gateway")
    session_id = await open_session(address, credential.mint(tenant_id))
    request = pb.GetSessionRequest(session_id=str(session_id)).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/GetSession")

        async def operation() -> object:
            return await call(request, metadata=(("authorization", f"Bearer {credential.mint(tenant_id)}"),))

        yield operation


@asynccontextmanager
async def _scraping(processes: Mapping[str, Process]) -> AsyncIterator[None]:
    """Reads the metrics of all processes every few seconds, as Prometheus does."""

    async def scrape() -> None:
        while True:
            for process in processes.values():
                await _metrics(process)
            await asyncio.sleep(_SCRAPE_SECONDS)

    task = asyncio.create_task(scrape())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _metrics(process: Process) -> str:
    host, _, port = process.operations.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()


async def _exported(processes: Mapping[str, Process]) -> None:
    """Raises where spans were lost: nothing is as cheap as telemetry that isn't there."""
    for name, process in processes.items():
        counted = dict(_spans((await _metrics(process)).splitlines()))
        if not counted.get("exported") or counted.get("failed") or counted.get("dropped"):
            raise RuntimeError(f"the {name} service did not export all its spans: {counted}")


def _spans(lines: Iterable[str]) -> Iterable[tuple[str, float]]:
    for line in lines:
        if line.startswith("trace_spans_total{"):
            yield line.partition('outcome="')[2].partition('"')[0], float(line.rpartition(" ")[2])


@asynccontextmanager
async def _collecting() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.f18_telemetry", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()


async def _collect() -> None:
    async def export(request: bytes, context: object) -> bytes:
        return b""

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_EXPORT, {"Export": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_collect())
