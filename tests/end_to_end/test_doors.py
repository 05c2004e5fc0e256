"""Every RPC of every service, at its door: without a credential, with a bad one, with another tenant's ids."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from minion.registry.v1 import api_key_service_pb2
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion_auth import RULES, CallerKind, api_keys
from minion_grpc import peer_errors
from minion_postgres import Database, Query
from minion_testing.postgres import ClonedDatabase
from minion_testing.serving import Stack, serve_all
from minion_testing.tenants import new_tenant

from tests.architecture.contract import methods

_UNAUTHENTICATED, _DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
_SERVED = [method for method in methods() if method.full_name != "minion.activity.v1.EvaluationService.CheckGate"]
_IDS: Callable[[MethodDescriptor], str] = lambda method: method.full_name  # noqa: E731 - pytest wants a callable


@dataclass(frozen=True, slots=True)
class Doors:
    """The running services, and credentials for them that are good and no more."""

    stack: Stack
    good: str
    revoked: str
    expired: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def doors(postgres: ClonedDatabase) -> AsyncIterator[Doors]:
    """All five services; keys are asked for anew with each call."""
    async with serve_all(postgres, environ={"MINION_CREDENTIAL_CACHE_SECONDS": "0"}) as stack:
        tenant = await new_tenant(stack["registry"])
        async with stack["registry"].channel(tenant.api_key) as channel:
            keys: Any = ApiKeyServiceStub(channel)
            made = [await keys.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest()) for _ in range(2)]
            await keys.RevokeApiKey(api_key_service_pb2.RevokeApiKeyRequest(api_key_id=made[0].api_key.api_key_id))
        async with await postgres.connect("registry", "owner") as owner:
            await _expire(owner, made[1].api_key.api_key_id)
        yield Doors(stack, tenant.api_key, made[0].secret, made[1].secret)


async def _expire(owner: Database, api_key_id: str) -> None:
    statement = "UPDATE registry.api_keys SET expire_time = now() - interval '1 second' WHERE api_key_id = $1"
    await owner.execute(Query(statement, name="expire", description="Ends a key."), UUID(api_key_id))


@pytest.mark.parametrize("method", _SERVED, ids=_IDS)
async def test_a_credential_that_is_none_opens_nothing(doors: Doors, method: MethodDescriptor) -> None:
    bad = {
        "none": None,
        "empty": "",
        "no scheme": doors.good,
        "another scheme": f"Basic {doors.good}",
        "malformed": "Bearer mnk_ü?",
        "unknown": f"Bearer {api_keys.generate().secret}",
        "cut": f"Bearer {doors.good[:-1]}",
        "longer": f"Bearer {doors.good}x",
        "revoked": f"Bearer {doors.revoked}",
        "expired": f"Bearer {doors.expired}",
        "a token of nobody": "Bearer eyJhbGciOiJub25lIn0.e30.",
        "huge": "Bearer " + "x" * 8_000,
    }
    async with grpc.aio.insecure_channel(doors.stack[_service(method)].address) as channel:
        for name, value in bad.items():
            metadata = [] if value is None else [("authorization", value.encode("ascii", "replace").decode())]
            code, reason, _ = await _call(channel, method, b"", metadata)
            expected = "CREDENTIAL_MISSING" if value is None else "CREDENTIAL_INVALID"
            assert (code, reason) == (_UNAUTHENTICATED, expected), name
        # Two credentials: whichever were taken, somebody before us may have looked at the other.
        twice = [("authorization", f"Bearer {doors.good}")] * 2
        assert (await _call(channel, method, b"", twice))[:2] == (_UNAUTHENTICATED, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("method", _SERVED, ids=_IDS)
async def test_a_tenant_comes_as_far_as_its_kind_may_and_names_no_other(doors: Doors, method: MethodDescriptor) -> None:
    credential = ("authorization", f"Bearer {doors.good}")
    async with grpc.aio.insecure_channel(doors.stack[_service(method)].address) as channel:
        if CallerKind.TENANT not in RULES[f"/{method.containing_service.full_name}/{method.name}"].callers:
            assert (await _call(channel, method, b"", [credential]))[:2] == (_DENIED, "PERMISSION_MISSING")
        named = [credential, ("minion-tenant", str(uuid4()))]
        assert (await _call(channel, method, b"", named))[:2] == (_DENIED, "PERMISSION_MISSING")
        # More than gRPC takes in a call's head: it answers by itself, before anything of ours runs.
        code, _, _ = await _call(channel, method, b"", [("authorization", "Bearer " + "x" * 40_000)])
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


def _service(method: MethodDescriptor) -> str:
    return method.full_name.split(".")[1]


async def _call(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes, metadata: list[tuple[str, str]]
) -> tuple[grpc.StatusCode, str | None, bytes | str]:
    """Calls with bytes; returns the status, its reason, and the answer or the error's text."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    made: Any = channel
    streams_in, streams_out = method.client_streaming, method.server_streaming
    try:
        async with asyncio.timeout(10):
            if streams_out:
                call = made.unary_stream(path)(request, metadata=metadata)
                try:
                    return grpc.StatusCode.OK, None, await call.read() or b""
                finally:
                    call.cancel()
            if streams_in:
                return grpc.StatusCode.OK, None, await made.stream_unary(path)(iter([request]), metadata=metadata)
            return grpc.StatusCode.OK, None, await made.unary_unary(path)(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code(), peer_errors.reason_of(error), error.details() or ""
