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
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take
from minion_cli.spans import span
from minion_cli.tenants import tenant_id_of

app = group("API keys: the credentials of a tenant.")

TenantOption = Annotated[
    str,
    typer.Option(
        "--tenant", help="The tenant's name or id, when an operator asks; else the key's own tenant is meant."
    ),
]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id (not its secret).")]
DaysOption = Annotated[float | None, typer.Option(help="Days that the new key works; for ever when not given.")]

_COLUMNS = (
    Column("PREFIX", lambda key: key.prefix),
    Column("KEY ID", lambda key: key.api_key_id),
    Column("SCOPES", lambda key: " ".join(key.scopes)),
    Column("CREATED (UTC)", lambda key: output.time_text(key.create_time)),
    Column("EXPIRES (UTC)", lambda key: output.time_text(key.expire_time)),
    Column("REVOKED (UTC)", lambda key: output.time_text(key.revoke_time)),
    Column("NAME", lambda key: key.display_name, wide=True),
)


@app.command("list")
def list_(tenant: TenantOption = "", limit: LimitOption = 50, form: FormatOption = Format.TABLE) -> None:
    """List keys, newest first, revoked and expired ones too; never a secret."""

    async def work(services: Services) -> list[api_key_pb2.ApiKey]:
        metadata = await _naming(services, tenant)
        return await take(
            lambda request: services.keys.ListApiKeys(request, metadata=metadata),
            api_key_service_pb2.ListApiKeysRequest(),
            "api_keys",
            api_key_pb2.ApiKey,
            limit,
        )

    output.show_list(call(work, operator=bool(tenant)), _COLUMNS, form)


@app.command()
def create(
    display_name: Annotated[str, typer.Argument(help="What the key is for.")] = "",
    tenant: TenantOption = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: agents.read, agents.* or * (everything, the default); repeatable."),
    ] = None,
    days: DaysOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Create a key and show its secret, this once."""

    async def work(services: Services) -> api_key_service_pb2.CreateApiKeyResponse:
        request = api_key_service_pb2.CreateApiKeyRequest(
            display_name=display_name, ttl=_duration(days), scopes=scope, request_id=str(uuid7())
        )
        return await services.keys.CreateApiKey(request, metadata=await _naming(services, tenant))

    output.show_one(call(work, operator=bool(tenant)), form)


@app.command()
def rotate(
    key: KeyArgument,
    overlap: Annotated[
        str | None, typer.Option(help="How long the old key works on: 0s, 15m, 12h or 7d; 24 h when not given.")
    ] = None,
    days: DaysOption = None,
    tenant: TenantOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Make a key that takes the place of another, with its scopes, and show its secret, this once."""
    request = api_key_service_pb2.RotateApiKeyRequest(
        api_key_id=key, overlap=span(overlap, "--overlap"), ttl=_duration(days), request_id=str(uuid7())
    )

    async def work(services: Services) -> api_key_service_pb2.RotateApiKeyResponse:
        return await services.keys.RotateApiKey(request, metadata=await _naming(services, tenant))

    output.show_one(call(work, operator=bool(tenant)), form)


@app.command()
def revoke(key: KeyArgument, tenant: TenantOption = "", form: FormatOption = Format.TABLE) -> None:
    """Revoke a key; every service refuses it within 5 seconds."""

    async def work(services: Services) -> api_key_pb2.ApiKey:
        request = api_key_service_pb2.RevokeApiKeyRequest(api_key_id=key, request_id=str(uuid7()))
        return (await services.keys.RevokeApiKey(request, metadata=await _naming(services, tenant))).api_key

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


async def _naming(services: Services, tenant: str) -> tuple[tuple[str, str], ...]:
    return ((TENANT_METADATA, await tenant_id_of(services, tenant)),) if tenant else ()


def _duration(days: float | None) -> Duration | None:
    if days is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(days=days))
    return duration
