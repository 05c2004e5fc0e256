"""What a new stack holds: the tenant `dev`, its API key, and an agent to talk to; made by the services' own RPCs.

Everything is looked for first, by name: it may be there for longer than a request_id is remembered.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import grpc
from minion.registry.v1 import agent_service_pb2, api_key_service_pb2, tenant_pb2, tenant_service_pb2
from minion_auth.authenticator import TENANT_METADATA
from minion_errors import FailedPrecondition
from minion_grpc import peer_errors
from uuid_utils.compat import uuid7

from minion_cli.connection import Connection, Services, services
from minion_cli.development.agents import DEMO_AGENT, registered
from minion_cli.development.directory import Credentials, Directory

# The same for every stack, so that one whose secrets were lost finds its tenant again.
TENANT_ID: Final = UUID("00000000-0000-7000-8000-00000000de70")
TENANT_NAME: Final = "dev"


async def seeded(directory: Directory, credentials: Credentials, addresses: Mapping[str, str]) -> Credentials:
    """Makes what is missing and gives the credentials with the tenant's key; they are saved.

    Raises FailedPrecondition when the database holds another tenant of the name.
    """
    if not credentials.api_key or not await _is_good(credentials.api_key, addresses):
        async with services(Connection(addresses, credentials.operator_key)) as operator:
            key = await _tenant_key(operator)
        credentials = dataclasses.replace(credentials, tenant_id=str(TENANT_ID), api_key=key)
        directory.save(credentials)
    async with services(Connection(addresses, credentials.api_key)) as tenant:
        await registered(tenant, DEMO_AGENT)
    return credentials


async def _is_good(key: str, addresses: Mapping[str, str]) -> bool:
    """Tells whether the database knows the key: it may be another one than the last time."""
    async with services(Connection(addresses, key)) as tenant:
        try:
            await tenant.agents.ListAgents(agent_service_pb2.ListAgentsRequest(page_size=1))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
    return True


async def _tenant_key(operator: Services) -> str:
    tenant = tenant_pb2.Tenant(tenant_id=str(TENANT_ID), name=TENANT_NAME, display_name="Development")
    try:
        await operator.tenants.CreateTenant(
            tenant_service_pb2.CreateTenantRequest(tenant=tenant, request_id=str(uuid7()))
        )
    except grpc.aio.AioRpcError as error:
        # Ours, most likely; if it is another's, the key below is refused.
        if peer_errors.reason_of(error) != "TENANT_NAME_TAKEN":
            raise
    try:
        created = await operator.keys.CreateApiKey(
            api_key_service_pb2.CreateApiKeyRequest(display_name="minion dev", request_id=str(uuid7())),
            metadata=((TENANT_METADATA, str(TENANT_ID)),),
        )
    except grpc.aio.AioRpcError as error:
        if peer_errors.reason_of(error) != "TENANT_NOT_FOUND":
            raise
        raise FailedPrecondition(
            f"The database has a tenant named {TENANT_NAME!r} that no development stack made: use another database.",
            reason="TENANT_NAME_TAKEN",
        ) from error
    return created.secret
