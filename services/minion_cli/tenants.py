"""`minion tenants`: whose data is whose; for operators."""

from typing import Annotated

import typer
from minion.registry.v1 import tenant_pb2, tenant_service_pb2
from uuid_utils.compat import uuid7

from minion_cli import output
from minion_cli.application import group
from minion_cli.connection import Services, call
from minion_cli.output import Format, FormatOption

app = group("Tenants: whose data is whose. For operators (MINION_OPERATOR_KEY).")


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
