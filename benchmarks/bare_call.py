"""The yardstick of figures whose statement is too small to carry a call: a gRPC call that runs it and nothing else.

The server has no interceptor, no caller to check and no row-level security, and reads no more of a request than its
statement needs. It is a process of its own, as the service beside it is: `python -m benchmarks.f13_get_session bare`,
say, on a database given by the environment.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
import grpc
import orjson
from minion_postgres.driver import Pool

from benchmarks.figure import Operation
from benchmarks.session_stage import POOL, SERVICE


def bare_pool(dsn: str) -> AbstractAsyncContextManager[Pool]:
    """Gives as many connections as the service has."""
    return asyncpg.create_pool(dsn, min_size=POOL["pool_min_size"], max_size=POOL["pool_max_size"])


async def serve_bare(method: str, statement: Operation) -> None:
    """Answers a method of the session service with its request, once `statement` has run."""

    async def run(request: bytes) -> None:
        await statement()

    await serve_asked(SERVICE, method, run)


async def serve_asked(service: str, method: str, statement: Callable[[bytes], Awaitable[object]]) -> None:
    """Answers a method with its request, once `statement` has run on it."""

    async def echo(request: bytes, context: object) -> bytes:
        await statement(request)
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    await announce(server)


async def announce(server: grpc.aio.Server) -> None:
    """Serves on a port of this machine, and prints it as a service does, until the process ends."""
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(orjson.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}).decode(), flush=True)
    await server.wait_for_termination()
