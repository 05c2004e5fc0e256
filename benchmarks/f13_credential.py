"""F13c: what a remembered credential adds to the CPU of a GetSession, against the service with authentication off.

Two session services on one database, each in a process of its own and called in turn by the same client: one that
requires a credential, and asks the registry about it once in 5 s; one that asks for none, and is sent as long a header
all the same, so that what is compared is the checking and not the bytes.
"""

import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import grpc
import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa
from minion.registry.v1 import api_key_service_pb2, tenant_pb2, tenant_service_pb2
from minion.registry.v1.api_key_service_pb2_grpc import ApiKeyServiceStub
from minion.registry.v1.tenant_service_pb2_grpc import TenantServiceStub
from minion.session.v1 import session_service_pb2 as pb
from minion_auth.authenticator import DEVELOPMENT_IDENTITY, TENANT_METADATA
from minion_testing.postgres import cluster
from minion_testing.serving import OPERATOR_KEY

from benchmarks import session_stage
from benchmarks.figure import Comparison, Figure, Operation, Options, interleave
from benchmarks.serving import serving

ID = "F13c"
LOOP_FACTORY = uvloop.new_event_loop

_METHOD = "/minion.session.v1.SessionService/GetSession"
_ISSUER, _AUDIENCE, _KEY_ID = "https://issuer.example/", "minion", "one"
_CONCURRENCY = 16
_SECONDS = 0.25
_GOAL = 0.05


async def measure(options: Options) -> list[Figure]:
    """Measures what an API key adds, and what a JWT adds."""
    key = rsa.generate_private_key(65537, 2_048)
    async with AsyncExitStack() as running:
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="minion-bench-")))
        jwks = place / "jwks.json"
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        jwks.write_text(json.dumps({"keys": [{**public, "kid": _KEY_ID, "use": "sig", "alg": "RS256"}]}))
        database = await (await running.enter_async_context(cluster(durable=True))).clone()
        services = await running.enter_async_context(
            serving(
                database,
                "registry",
                "session",
                operator_key=OPERATOR_KEY,
                jwt_issuer=_ISSUER,
                jwt_audience=_AUDIENCE,
                jwt_jwks=str(jwks),
                pool_min_size="16",
                pool_max_size="16",
            )
        )
        tenant_id, api_key = await _tenant(services["registry"].address)
        development = DEVELOPMENT_IDENTITY.tenant_id
        assert development is not None
        environ = session_stage.environ(database, development) | {"MINION_AUTH_MODE": "disabled"}
        without = await running.enter_async_context(session_stage.serving("-m", "minion_session", environ=environ))
        token = _token(key, tenant_id)
        figures = []
        for name, credential in (("an API key", api_key), ("a JWT", token)):
            yardstick = await running.enter_async_context(_caller(without.address, "x" * len(credential)))
            ours = await running.enter_async_context(_caller(services["session"].address, credential))
            compared = await interleave(
                ours,
                yardstick,
                # Many short turns: what is looked for is smaller than what a machine's speed drifts by.
                rounds=4 * options.rounds,
                seconds=_SECONDS,
                concurrency=_CONCURRENCY,
                pids=[services["session"].pid],
                yardstick_pids=[without.pid],
            )
            figures.append(_figure(name, compared))
    return figures


def _figure(name: str, compared: Comparison) -> Figure:
    cpu, without, ratio = compared.value(lambda part: part.cpu_per_operation * 1e6)
    return Figure(
        id=ID,
        name=f"GetSession: CPU with {name} that was seen, {_CONCURRENCY} callers",
        value=cpu,
        unit="µs",
        yardstick="the same service with authentication off",
        yardstick_value=without,
        ratio=ratio,
        goal=f"ratio <= {1 + _GOAL}",
        ok=ratio <= 1 + _GOAL,
        cpu_us_per_op=cpu,
        runs=len(compared.ours),
    )


async def _tenant(registry: str) -> tuple[UUID, str]:
    operator = ("authorization", f"Bearer {OPERATOR_KEY}")
    async with grpc.aio.insecure_channel(registry) as channel:
        wanted = tenant_service_pb2.CreateTenantRequest(tenant=tenant_pb2.Tenant(name="bench"))
        made = await TenantServiceStub(channel).CreateTenant(wanted, metadata=(operator,))
        named = (operator, (TENANT_METADATA, made.tenant.tenant_id))
        key = await ApiKeyServiceStub(channel).CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(), metadata=named)
    return UUID(made.tenant.tenant_id), key.secret


def _token(key: rsa.RSAPrivateKey, tenant_id: UUID) -> str:
    now = int(time.time())
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": "ada",
        "iat": now,
        "exp": now + 3_600,
        "minion_tenant": str(tenant_id),
        "scope": "sessions.read sessions.write",
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": _KEY_ID})


@asynccontextmanager
async def _caller(address: str, credential: str) -> AsyncIterator[Operation]:
    """Gives the call of a session of its own: bytes in, bytes out, so that the client costs the same either way."""
    metadata = (("authorization", f"Bearer {credential}"),)
    session_id = await session_stage.open_session(address, credential)
    request = pb.GetSessionRequest(session_id=str(session_id)).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

        async def operation() -> object:
            return await call(request, metadata=metadata)

        yield operation
