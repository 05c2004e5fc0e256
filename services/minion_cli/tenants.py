"""`minion tenants`: whose data is whose; for operators."""

from typing import Annotated

import typer
from minion.registry.v1 import tenant_pb2, tenant_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.finding import is_id
from minion_cli.output import Column, Format, FormatOption, LimitOption
from minion_cli.paging import take

app = group("Tenants: whose data is whose. For operators (MINION_OPERATOR_KEY).")

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name or id.")]

_COLUMNS = (
    Column("NAME", lambda tenant: tenant.name),
    Column("STATUS", lambda tenant: output.enum_text(tenant_pb2.TenantStatus, tenant.status)),
    Column("TENANT ID", lambda tenant: tenant.tenant_id),
    Column("CREATED (UTC)", lambda tenant: output.time_text(tenant.create_time)),
    Column("SUSPENDED FOR", lambda tenant: tenant.suspend_reason, wide=True),
)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: active or suspended.")] = None,
    limit: LimitOption = 50,
    form: FormatOption = Format.TABLE,
) -> None:
    """List tenants by name."""
    request = tenant_service_pb2.ListTenantsRequest(
        status=output.enum_value(tenant_pb2.TenantStatus, status, "--status")
    )

    async def work(services: Services) -> list[tenant_pb2.Tenant]:
        return await take(services.tenants.ListTenants, request, "tenants", tenant_pb2.Tenant, limit)

    output.show_list(call(work, operator=True), _COLUMNS, form)


@app.command()
def show(tenant: TenantArgument, form: FormatOption = Format.TABLE) -> None:
    """Show a tenant."""
    output.show_one(call(lambda services: find_tenant(services, tenant), operator=True), form)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The tenant's name, unique: a-z, 0-9 and -, starting with a letter.")],
    display_name: Annotated[str, typer.Option(help="A name for people.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Create a tenant."""

    async def work(services: Services) -> tenant_pb2.Tenant:
        request = tenant_service_pb2.CreateTenantRequest(
            tenant=tenant_pb2.Tenant(name=name, display_name=display_name), request_id=str(uuid7())
        )
        return (await services.tenants.CreateTenant(request)).tenant

    output.show_one(call(work, operator=True), form)


@app.command()
def suspend(
    tenant: TenantArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Have every service refuse a tenant's API keys and JWTs, within 5 seconds; what it has stays."""

    async def work(services: Services) -> tenant_pb2.Tenant:
        request = tenant_service_pb2.SuspendTenantRequest(
            tenant_id=await tenant_id_of(services, tenant), reason=reason, request_id=str(uuid7())
        )
        return (await services.tenants.SuspendTenant(request)).tenant

    output.show_one(call(work, operator=True), form)


@app.command()
def resume(tenant: TenantArgument, form: FormatOption = Format.TABLE) -> None:
    """Let a suspended tenant's API keys and JWTs work again, within 5 seconds."""

    async def work(services: Services) -> tenant_pb2.Tenant:
        request = tenant_service_pb2.ResumeTenantRequest(
            tenant_id=await tenant_id_of(services, tenant), request_id=str(uuid7())
        )
        return (await services.tenants.ResumeTenant(request)).tenant

    output.show_one(call(work, operator=True), form)


async def find_tenant(services: Services, name_or_id: str) -> tenant_pb2.Tenant:
    """Gets a tenant by whichever of name and id is given, as an operator."""
    request = tenant_service_pb2.GetTenantRequest()
    if is_id(name_or_id):
        request.tenant_id = name_or_id
    else:
        request.name = name_or_id
    return (await services.tenants.GetTenant(request)).tenant


async def tenant_id_of(services: Services, name_or_id: str) -> str:
    """Gives the tenant's id, which is asked for where a name is given."""
    return name_or_id if is_id(name_or_id) else (await find_tenant(services, name_or_id)).tenant_id
