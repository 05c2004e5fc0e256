"""Runs the registry: `python -m minion_registry`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import resources

from minion.registry.v1 import (
    agent_service_pb2,
    api_key_service_pb2,
    rollout_service_pb2,
    tenant_service_pb2,
    tool_service_pb2,
)
from minion.registry.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from minion.registry.v1.api_key_service_pb2_grpc import add_ApiKeyServiceServicer_to_server
from minion.registry.v1.rollout_service_pb2_grpc import add_RolloutServiceServicer_to_server
from minion.registry.v1.tenant_service_pb2_grpc import add_TenantServiceServicer_to_server
from minion.registry.v1.tool_service_pb2_grpc import add_ToolServiceServicer_to_server
from minion_audit import RETRYABLE as AUDIT_RETRYABLE
from minion_audit import ActivityPeer, OutboxStore, Relay
from minion_auth import Authenticator, ServiceTokens
from minion_grpc import Server, connect, run
from minion_postgres import ChangeFeed, Database, Migrations
from minion_telemetry import Telemetry

from minion_registry.agents.service import AgentChanges, Agents
from minion_registry.agents.servicer import AgentServicer
from minion_registry.agents.store import AgentStore
from minion_registry.agents.worker import purge_for_ever
from minion_registry.api_keys.service import ApiKeys
from minion_registry.api_keys.servicer import ApiKeyServicer
from minion_registry.api_keys.store import ApiKeyStore
from minion_registry.audit.store import AuditStore
from minion_registry.bindings.service import Bindings
from minion_registry.bindings.store import BindingStore
from minion_registry.cards.service import Cards
from minion_registry.json_values import Checkers
from minion_registry.rollouts import peer as rollouts_peer
from minion_registry.rollouts.service import Rollouts
from minion_registry.rollouts.servicer import RolloutServicer
from minion_registry.rollouts.store import RolloutStore
from minion_registry.rollouts.worker import RolloutWatcher
from minion_registry.settings import RegistrySettings
from minion_registry.tenants.service import Tenants
from minion_registry.tenants.servicer import TenantServicer
from minion_registry.tenants.store import TenantStore
from minion_registry.tools.service import Tools
from minion_registry.tools.servicer import ToolServicer
from minion_registry.tools.store import ToolStore


@asynccontextmanager
async def compose(settings: RegistrySettings, telemetry: Telemetry) -> AsyncIterator[Server]:
    """Builds the service, ready to start; what it holds is let go at the end of the block."""
    key = settings.service_key
    tokens = None if key is None else ServiceTokens(key.get_secret_value(), settings.service)
    async with AsyncExitStack() as held:
        activity = await held.enter_async_context(
            connect(
                settings.activity_address,
                telemetry=telemetry,
                tls=settings.peer_files,
                tokens=tokens,
                retryable=(*AUDIT_RETRYABLE, *rollouts_peer.RETRYABLE),
            )
        )
        database = await held.enter_async_context(
            await Database.connect(
                settings.app_dsn,
                schema="registry",
                settings=settings,
                telemetry=telemetry,
                migrations=Migrations("registry", resources.files("minion_registry") / "migrations"),
            )
        )
        agents, tools, api_keys = AgentStore(), ToolStore(), ApiKeyStore(database)
        bindings, audit, checkers = BindingStore(database), AuditStore(), Checkers()
        tenants = Tenants(database, TenantStore(database), audit)
        if settings.auth_mode == "disabled":
            await tenants.ensure_development_tenant()
        feed = ChangeFeed(database, schema="registry", interval=settings.feed_poll_seconds, kept=settings.changes_kept)
        # The registry knows the keys itself: asking over the wire, as the other services do, would be asking itself.
        server = Server("registry", settings, telemetry, Authenticator(settings, api_keys, tokens))
        server.add(
            add_TenantServiceServicer_to_server,
            TenantServicer(tenants),
            tenant_service_pb2.DESCRIPTOR.services_by_name["TenantService"],
        )
        server.add(
            add_ApiKeyServiceServicer_to_server,
            ApiKeyServicer(ApiKeys(database, api_keys, audit)),
            api_key_service_pb2.DESCRIPTOR.services_by_name["ApiKeyService"],
        )
        server.add(
            add_ToolServiceServicer_to_server,
            ToolServicer(Tools(database, tools, audit, checkers)),
            tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"],
        )
        server.add(
            add_AgentServiceServicer_to_server,
            AgentServicer(
                Agents(database, agents, audit),
                Bindings(database, agents, tools, bindings, audit, checkers),
                Cards(bindings, settings.a2a_url),
                AgentChanges(feed, settings.watch_sync_seconds),
            ),
            agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
        )
        relay = Relay(
            OutboxStore(database, schema="registry"),
            ActivityPeer(activity),
            telemetry,
            service="registry",
            poll_seconds=settings.outbox_poll_seconds,
            claim_seconds=settings.outbox_claim_seconds,
        )
        server.background(relay.run, name="outbox")
        rollout_store = RolloutStore(database, agents)
        rollouts = Rollouts(database, rollout_store, agents, audit, rollouts_peer.ActivityPeer(activity))
        server.add(
            add_RolloutServiceServicer_to_server,
            RolloutServicer(rollouts),
            rollout_service_pb2.DESCRIPTOR.services_by_name["RolloutService"],
        )
        watcher = RolloutWatcher(rollouts, rollout_store, telemetry.registry, seconds=settings.rollout_check_seconds)
        server.background(watcher.run, name="rollouts")
        server.background(partial(purge_for_ever, database, feed, settings.purge_seconds), name="purge")
        yield server


def main() -> None:
    """Runs the registry until it is told to stop."""
    run(RegistrySettings, compose)


if __name__ == "__main__":
    main()
