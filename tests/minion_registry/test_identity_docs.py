"""docs/registry.md: its examples of tenants and keys work, and its table of scopes is that of the permissions."""

import re
from pathlib import Path
from uuid import UUID

from google.protobuf import json_format
from minion.registry.v1 import api_key_service_pb2, tenant_service_pb2
from minion_auth import RULES, CallerKind, scopes
from minion_auth.authenticator import TENANT_METADATA
from minion_testing.examples import as_json
from minion_testing.serving import Served

from tests.minion_registry.stage import over

_TEXT = (Path(__file__).parents[2] / "docs" / "registry.md").read_text(encoding="utf-8")
_EXAMPLE = re.compile(
    r'^grpcurl -plaintext -H "authorization: Bearer \$(OPERATOR|KEY)"( -H "minion-tenant: \$TENANT")? -d \'(.*)\''
    r" localhost:50051 minion\.registry\.v1\.(TenantService|ApiKeyService)/(\w+)$",
    re.MULTILINE,
)
_MODULES = {"TenantService": tenant_service_pb2, "ApiKeyService": api_key_service_pb2}


async def test_every_rpc_of_tenants_and_keys_has_an_example_that_works(registry: Served) -> None:
    examples: list[tuple[str, str, str, str, str]] = _EXAMPLE.findall(_TEXT)
    methods = {
        method.name
        for service, module in _MODULES.items()
        for method in module.DESCRIPTOR.services_by_name[service].methods
    }
    # VerifyCredential is for services, which have no shell.
    assert sorted(name for *_, name in examples) == sorted(methods - {"VerifyCredential"})
    values: dict[str, str] = {}
    secret = ""
    async with registry.operator() as operator_channel:
        for who, named, body, service, name in examples:
            filled = re.sub(r"\$[A-Z_]+", lambda variable: values[variable.group()], body)
            request = json_format.Parse(as_json(filled), getattr(_MODULES[service], f"{name}Request")())
            metadata = ((TENANT_METADATA, values["$TENANT"]),) if named else ()
            async with registry.channel(secret or "mnk_none") as key_channel:
                caller = over(operator_channel if who == "OPERATOR" else key_channel, UUID(int=0))
                stub = caller.tenants if service == "TenantService" else caller.api_keys
                answer = await getattr(stub, name)(request, metadata=metadata)
            if name == "CreateTenant":
                values["$TENANT"] = answer.tenant.tenant_id
            elif name == "CreateApiKey":
                values["$KEY_ID"], secret = answer.api_key.api_key_id, answer.secret


def test_the_table_of_scopes_is_that_of_the_permissions() -> None:
    lines = ["| scope | allows |", "|---|---|"]
    for permission in sorted(scopes.permissions()):
        methods = sorted(
            method.rpartition("/")[2]
            for method, rule in RULES.items()
            if rule.permission == permission and CallerKind.TENANT in rule.callers
        )
        lines.append(f"| `{permission}` | {', '.join(methods)} |")
    table = "\n".join(lines)
    assert table in _TEXT, f"the table of scopes in docs/registry.md must be:\n{table}"
