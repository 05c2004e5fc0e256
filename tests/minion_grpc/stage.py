"""What tests of serving stand on: echo servers with real authentication, and what they measured."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import grpc
from minion_auth import EVERYTHING, Authenticator, ServiceTokens, VerifiedKey, api_keys
from minion_grpc import Server, ServerSettings, connect
from minion_telemetry import Telemetry
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from tests.minion_grpc.echo import DESCRIPTOR, RULES, EchoServicer, EchoStub, add_echo_servicer_to_server

SERVICE_KEY = "a service key of tests, long enough to be one"
OPERATOR_KEY = "an operator key of tests, long enough to be one"


class Keys:
    """A registry's keys in memory: the authenticator's other side, which the tests make answer or fail."""

    def __init__(self) -> None:
        self.known: dict[bytes, VerifiedKey] = {}
        self.tenants: dict[UUID, bool] = {}
        self.asked = 0
        self.fault: Exception | None = None

    def issue(self, tenant_id: UUID | None = None, scopes: frozenset[str] = EVERYTHING) -> str:
        """Makes a key that works."""
        key = api_keys.generate()
        self.known[key.digest] = VerifiedKey(uuid4(), tenant_id or uuid4(), None, scopes)
        return key.secret

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        """Gives the key, or None."""
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.known.get(digest)

    async def suspended(self, tenant_id: UUID) -> bool | None:
        """Gives whether a tenant that was told of is suspended."""
        if self.fault is not None:
            raise self.fault
        return self.tenants.get(tenant_id)


@dataclass
class Served:
    """One running echo server."""

    server: Server
    servicer: EchoServicer
    telemetry: Telemetry
    spans_of: InMemorySpanExporter
    keys: Keys
    tokens: ServiceTokens

    def channel(self, credential: str | None = None) -> grpc.aio.Channel:
        """Opens a plain channel of a client outside the house, with a tenant's key unless another one is given."""
        return connect(
            self.server.address, telemetry=self.telemetry, tls=None, credential=credential or self.keys.issue()
        )

    def metrics(self) -> str:
        """Gives the text that /metrics would."""
        return generate_latest(self.telemetry.registry).decode()

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Gives the finished spans."""
        self.telemetry.flush()
        return self.spans_of.get_finished_spans()


def settings(**values: Any) -> ServerSettings:
    """Makes settings for tests, on free loopback ports."""
    return ServerSettings(
        **{
            "auth_mode": "required",
            "service_key": SERVICE_KEY,
            "operator_key": OPERATOR_KEY,
            "drain_seconds": 5,
            **values,
        }
    )


@asynccontextmanager
async def serving(
    servicer: EchoServicer | None = None, *, deadlines: Mapping[str, float | None] | None = None, **values: Any
) -> AsyncIterator[Served]:
    """Runs an echo server with everything that a service has around it."""
    configured = settings(**values)
    spans = InMemorySpanExporter()
    telemetry = Telemetry.start("test", configured, span_exporters=[spans])
    keys = Keys()
    tokens = ServiceTokens(SERVICE_KEY, "test")
    authenticator = Authenticator(configured, keys, tokens, rules=RULES)
    server = Server("test", configured, telemetry, authenticator, deadlines=deadlines)
    servicer = servicer or EchoServicer()
    server.add(add_echo_servicer_to_server, servicer, DESCRIPTOR)
    await server.start()
    try:
        yield Served(server, servicer, telemetry, spans, keys, tokens)
    finally:
        await server.drain_and_stop()
        telemetry.shutdown()


def raw(channel: grpc.aio.Channel, path: str) -> Any:
    """Gives a call of bytes, which need not be a message."""
    call: Any = channel.unary_unary(path)
    return call


def stub(channel: grpc.aio.Channel) -> Any:
    """Gives a stub of the echo service."""
    return EchoStub(channel)
