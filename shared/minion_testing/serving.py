"""Real services on free loopback ports: one for its own tests, or all five."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import grpc
from minion_auth import ServiceTokens
from minion_grpc import Server, ServerSettings, connect
from minion_settings import ports
from minion_telemetry import Telemetry
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from minion_testing.postgres import PATIENCE_SECONDS, TRANSACTION_IDLE_SECONDS, ClonedDatabase

SERVICE_KEY: Final = "the service key of tests, long enough to be one"
OPERATOR_KEY: Final = "the operator key of tests, long enough to be one"

_NOBODY: Final = "127.0.0.1:1"

# Who is called stands before who calls.
SERVICES: Final = ("registry", "session", "activity", "memory", "gateway")


class ActingTokens(ServiceTokens):
    """Mints tokens of a service that always acts for one tenant and principal."""

    def __init__(self, service: str, tenant_id: UUID | None, principal: str | None) -> None:
        super().__init__(SERVICE_KEY, service)
        self._acting_for = (tenant_id, principal)

    def mint(self, tenant_id: UUID | None = None, principal: str | None = None) -> str:
        """Gives a token for the tenant and principal that this object was made for."""
        del tenant_id, principal
        return super().mint(*self._acting_for)


@dataclass(frozen=True, slots=True)
class Served:
    """One running service."""

    service: str
    server: Server
    settings: ServerSettings
    telemetry: Telemetry
    collected: InMemorySpanExporter

    @property
    def address(self) -> str:
        """Where it answers, as `host:port`."""
        return self.server.address

    def channel(self, credential: str | None) -> grpc.aio.Channel:
        """Opens a channel of a client with this API key or operator key; None sends no credential."""
        return connect(self.address, telemetry=self.telemetry, tls=None, credential=credential)

    def acting(
        self, tenant_id: UUID | None, *, service: str = "gateway", principal: str | None = "key:test"
    ) -> grpc.aio.Channel:
        """Opens a channel of another service that acts for a tenant."""
        tokens = ActingTokens(service, tenant_id, principal)
        return connect(self.address, telemetry=self.telemetry, tls=None, tokens=tokens)

    def operator(self) -> grpc.aio.Channel:
        """Opens a channel of an operator."""
        return self.channel(OPERATOR_KEY)

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Gives the spans that have ended so far."""
        self.telemetry.flush()
        return self.collected.get_finished_spans()

    def metric(self, name: str, **labels: str) -> float | None:
        """Gives a metric's value, or None where there is no such series."""
        return self.telemetry.registry.get_sample_value(name, labels)


@dataclass(frozen=True, slots=True)
class Stack:
    """Five running services that know each other."""

    services: Mapping[str, Served]

    def __getitem__(self, service: str) -> Served:
        return self.services[service]

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Gives the spans that have ended so far, of all services."""
        return tuple(span for served in self.services.values() for span in served.spans())


@asynccontextmanager
async def serve(
    service: str,
    database: ClonedDatabase,
    *,
    environ: Mapping[str, str] | None = None,
    **overrides: object,
) -> AsyncIterator[Served]:
    """Runs one service for a block, by its own `compose`.

    Args:
        environ: variables beside those that point at the database and the tests' keys.
        overrides: values of single settings, by field.
    """
    settings = _settings(service, database, environ or {}, overrides)
    collected = InMemorySpanExporter()
    telemetry = Telemetry.start(service, settings, span_exporters=[collected])
    compose = importlib.import_module(f"minion_{service}.__main__").compose
    try:
        async with compose(settings, telemetry) as server:
            try:
                await server.start()
                yield Served(service, server, settings, telemetry, collected)
            finally:
                await server.drain_and_stop()
    finally:
        await asyncio.to_thread(telemetry.shutdown)


@asynccontextmanager
async def serve_all(
    database: ClonedDatabase,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> AsyncIterator[Stack]:
    """Runs all five services for a block, wired to each other; `overrides` are settings' values by service."""
    numbers = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    wiring = {f"MINION_{service.upper()}_ADDRESS": f"127.0.0.1:{port}" for service, port in numbers.items()}
    services: dict[str, Served] = {}
    async with AsyncExitStack() as running:
        for service in SERVICES:
            services[service] = await running.enter_async_context(
                serve(
                    service,
                    database,
                    environ={**wiring, **(environ or {})},
                    **{"port": numbers[service], **(overrides or {}).get(service, {})},
                )
            )
        yield Stack(services)


def free_ports(count: int) -> list[int]:
    """Finds ports that stay free until a server binds them, and that no other process of the tests finds."""
    return ports.free_ports(count)


def _settings(
    service: str, database: ClonedDatabase, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> ServerSettings:
    kind: Any = getattr(importlib.import_module(f"minion_{service}.settings"), f"{service.title()}Settings")
    variables = {
        "MINION_DATABASE_URL": database.dsn(service),
        "MINION_AUTH_MODE": "required",
        "MINION_SERVICE_KEY": SERVICE_KEY,
        "MINION_OPERATOR_KEY": OPERATOR_KEY,
        # The documented ports may be those of anybody's connection, or of another test's service.
        **{f"MINION_{peer.upper()}_ADDRESS": _NOBODY for peer in SERVICES},
        **environ,
    }
    # Quick to start and to stop, and few connections: many services run in one test session.
    values = {
        "port": 0,
        "operations_port": 0,
        "pool_min_size": 1,
        "pool_max_size": 8,
        "pool_acquire_seconds": PATIENCE_SECONDS,
        "statement_seconds": PATIENCE_SECONDS,
        "transaction_idle_seconds": TRANSACTION_IDLE_SECONDS,
        "drain_seconds": 5,
    }
    loaded: ServerSettings = kind.load(variables, **{**values, **overrides})
    return loaded
