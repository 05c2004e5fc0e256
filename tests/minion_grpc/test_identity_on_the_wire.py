"""Who gets in, and what the others are told."""

from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from minion_auth import CallerKind, Identity, acting_as, caller, tenant
from minion_grpc import connect
from minion_testing.errors import refused

from tests.minion_grpc.echo import SERVICE, EchoRequest, EchoServicer
from tests.minion_grpc.stage import OPERATOR_KEY, raw, serving, stub


async def who(_request: object, _context: object) -> str:
    identity = caller()
    return f"{identity.kind.name} {identity.principal} {identity.tenant_id} {identity.on_behalf_of}"


async def whose(_request: object, _context: object) -> str:
    return str(tenant())


async def test_a_call_with_no_credential_is_unauthenticated() -> None:
    async with (
        serving() as served,
        grpc.aio.insecure_channel(served.server.address) as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"),
    ):
        await stub(channel).Echo(EchoRequest(text="x"))


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer mnk_short",
        "Bearer mnk_" + "x" * 43,
        "Bearer mnk_" + "x" * 5_000,
        "Bearer a.b.c",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZXJ2aWNlOmdhdGV3YXkifQ.",
        "Bearer not the operator's key",
        "mnk_" + "x" * 43,
    ],
)
async def test_a_bad_credential_is_unauthenticated(authorization: str) -> None:
    async with (
        serving() as served,
        grpc.aio.insecure_channel(served.server.address) as channel,
        refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"),
    ):
        await stub(channel).Echo(EchoRequest(text="x"), metadata=(("authorization", authorization),))


async def test_a_key_speaks_for_its_tenant() -> None:
    tenant_id = uuid4()
    async with serving(EchoServicer(whose)) as served, served.channel(served.keys.issue(tenant_id)) as channel:
        assert (await stub(channel).Echo(EchoRequest())).text == str(tenant_id)


async def test_a_service_acts_for_the_caller_of_the_call_in_hand() -> None:
    tenant_id = uuid4()
    async with (
        serving(EchoServicer(who)) as served,
        connect(served.server.address, telemetry=served.telemetry, tls=None, tokens=served.tokens) as channel,
    ):
        with acting_as(Identity(CallerKind.TENANT, tenant_id, "key:7")):
            answer = await stub(channel).Echo(EchoRequest())
        assert answer.text == f"SERVICE service:test {tenant_id} key:7"
        assert (await stub(channel).Echo(EchoRequest())).text == "SERVICE service:test None None"


async def test_an_operator_names_the_tenant_and_nobody_else_may() -> None:
    tenant_id = str(uuid4())
    metadata = (("minion-tenant", tenant_id),)
    async with serving(EchoServicer(whose)) as served:
        async with served.channel(OPERATOR_KEY) as channel:
            assert (await stub(channel).Echo(EchoRequest(), metadata=metadata)).text == tenant_id
            async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
                await stub(channel).Echo(EchoRequest())
            async with refused(grpc.StatusCode.INVALID_ARGUMENT, "TENANT_MISSING"):
                await stub(channel).Echo(EchoRequest(), metadata=(("minion-tenant", "mine"),))
        async with (
            served.channel() as channel,
            refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"),
        ):
            await stub(channel).Echo(EchoRequest(), metadata=metadata)


async def test_a_method_of_operators_is_denied_to_tenants_and_names_the_permission() -> None:
    async with serving() as served:
        async with served.channel() as channel:
            async with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as refusal:
                await stub(channel).Secret(EchoRequest())
            assert refusal.metadata["permission"] == "echo.secret"
        async with served.channel(OPERATOR_KEY) as channel:
            assert (await stub(channel).Secret(EchoRequest())).text == "secret"


@pytest.mark.parametrize("authorization", [None, "Bearer mnk_nobody"])
@pytest.mark.parametrize(
    "path",
    [f"/{SERVICE}/Nothing", "/nobody.v1.Nobody/Nothing", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"],
)
async def test_an_unknown_method_is_unimplemented_whoever_asks_and_makes_no_label(
    path: str, authorization: str | None
) -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.server.address) as channel:
        metadata = (("authorization", authorization),) if authorization else ()
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await raw(channel, path)(b"", metadata=metadata)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "Nothing" not in served.metrics()
        assert "Reflection" not in served.metrics()


async def test_health_and_reflection_need_no_credential() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = [service.name async for answer in call for service in answer.list_services_response.service]
        assert SERVICE in listed
        assert "grpc.health.v1.Health" in listed
        assert "grpc.health" not in served.metrics()
        assert served.spans() == ()


async def test_reflection_can_be_switched_off() -> None:
    async with serving(reflection=False) as served, grpc.aio.insecure_channel(served.server.address) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await reflection.ServerReflectionInfo(iter([])).read()
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_disabled_mode_takes_everybody_for_the_development_tenant() -> None:
    async with (
        serving(EchoServicer(who), auth_mode="disabled") as served,
        grpc.aio.insecure_channel(served.server.address) as channel,
    ):
        answer = await stub(channel).Echo(EchoRequest())
        assert answer.text == "TENANT development 00000000-0000-0000-0000-000000000001 None"
        assert (await stub(channel).Secret(EchoRequest())).text == "secret"
