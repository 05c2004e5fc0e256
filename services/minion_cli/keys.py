"""`minion keys`: the credentials of a tenant."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from minion.registry.v1 import api_key_pb2, api_key_service_pb2
from minion_auth.authenticator import TENANT_METADATA
from minion_errors import FailedPrecondition
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.development.directory import DEFAULT, Directory
from minion_cli.output import Format, FormatOption

app = group("API keys: the credentials of a tenant.")

TenantOption = Annotated[
    str, typer.Option("--tenant", help="The tenant's id, when an operator asks; else the key's own tenant is meant.")
]


@app.command()
def create(
    display_name: Annotated[str, typer.Argument(help="What the key is for.")] = "",
    tenant: TenantOption = "",
    days: Annotated[float | None, typer.Option(help="Days that the key works; for ever when not given.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Create a key and show its secret, this once."""

    async def work(services: Services) -> api_key_service_pb2.CreateApiKeyResponse:
        request = api_key_service_pb2.CreateApiKeyRequest(
            display_name=display_name, ttl=None if days is None else _duration(days), request_id=str(uuid7())
        )
        return await services.keys.CreateApiKey(request, metadata=_naming(tenant))

    output.show_one(call(work, operator=bool(tenant)), form)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id (not its secret).")],
    tenant: TenantOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Revoke a key; every service refuses it within 5 seconds."""

    async def work(services: Services) -> api_key_pb2.ApiKey:
        request = api_key_service_pb2.RevokeApiKeyRequest(api_key_id=key, request_id=str(uuid7()))
        return (await services.keys.RevokeApiKey(request, metadata=_naming(tenant))).api_key

    output.show_one(call(work, operator=bool(tenant)), form)


@app.command()
def show(
    directory: Annotated[Path, typer.Option(help="The directory of the development stack.")] = DEFAULT,
) -> None:
    """Print the key that `minion dev` made for its tenant: export MINION_API_KEY=$(minion keys show)."""
    credentials = Directory(directory).find_credentials()
    if credentials is None or not credentials.api_key:
        raise FailedPrecondition(f"{directory} holds no key: run `minion dev` first.", reason="CREDENTIAL_MISSING")
    print(credentials.api_key)


def _naming(tenant: str) -> tuple[tuple[str, str], ...]:
    return ((TENANT_METADATA, tenant),) if tenant else ()


def _duration(days: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(days=days))
    return duration
