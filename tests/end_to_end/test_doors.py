"""Every RPC of every service, at its door: who comes with a good credential comes no further than it goes."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from minion_auth import RULES, CallerKind
from minion_grpc import peer_errors
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Stack, serve_all
from minion_testing.tenants import new_tenant

from tests.architecture.contract import methods

_UNAUTHENTICATED, _DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
_SERVED = [method for method in methods() if method.full_name != "minion.activity.v1.EvaluationService.CheckGate"]
_IDS: Callable[[MethodDescriptor], str] = lambda method: method.full_name  # noqa: E731 - pytest wants a callable


@dataclass(frozen=True, slots=True)
class Doors:
    """The running services, and a tenant's key."""

    stack: Stack
    key: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def doors(postgres: ClonedDatabase) -> AsyncIterator[Doors]:
    """All five services, and a tenant."""
    async with serve_all(postgres) as stack:
        yield Doors(stack, (await new_tenant(stack["registry"])).api_key)


@pytest.mark.parametrize("method", _SERVED, ids=_IDS)
async def test_a_tenant_comes_as_far_as_its_kind_may_and_names_no_other(doors: Doors, method: MethodDescriptor) -> None:
    credential = ("authorization", f"Bearer {doors.key}")
    async with grpc.aio.insecure_channel(doors.stack[_service(method)].address) as channel:
        if CallerKind.TENANT not in RULES[f"/{method.containing_service.full_name}/{method.name}"].callers:
            assert (await _call(channel, method, b"", [credential])) == (_DENIED, "PERMISSION_MISSING")
        named = [credential, ("minion-tenant", str(uuid4()))]
        assert (await _call(channel, method, b"", named)) == (_DENIED, "PERMISSION_MISSING")
        # Two credentials: whichever were taken, somebody before us may have looked at the other.
        assert (await _call(channel, method, b"", [credential] * 2)) == (_UNAUTHENTICATED, "CREDENTIAL_INVALID")
        # More than gRPC takes in a call's head: it answers by itself, before anything of ours runs.
        code, _ = await _call(channel, method, b"", [("authorization", "Bearer " + "x" * 40_000)])
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


def _service(method: MethodDescriptor) -> str:
    return method.full_name.split(".")[1]


async def _call(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes, metadata: list[tuple[str, str]]
) -> tuple[grpc.StatusCode, str | None]:
    """Calls with bytes; returns the status and its reason."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    # Whatever the method's own style, on the wire it is a stream of messages both ways.
    made: Any = channel.stream_stream(path)
    call = made(iter([request]), metadata=metadata, timeout=60)
    try:
        async for _ in call:
            break
    except grpc.aio.AioRpcError as error:
        return error.code(), peer_errors.reason_of(error)
    finally:
        call.cancel()
    return grpc.StatusCode.OK, None
