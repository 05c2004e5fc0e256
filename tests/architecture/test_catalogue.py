"""What the database itself says: keys, row-level security, roles and functions of all five schemas."""

import asyncpg
import pytest
from minion_postgres import SCHEMAS, roles
from minion_testing.postgres import ClonedDatabase

# Tables that hold no tenant's content, and why.
_INFRASTRUCTURE = {
    ("session", "activity_rounds"): "one row with two times, reached through functions of the owner alone",
    ("memory", "embedding_models"): "models are the deployment's, not a tenant's",
}
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced,
       (SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = c.oid AND i.indisprimary) AS key_starts_with,
       (SELECT array_agg(p.polname::text ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
       c.relispartition AS is_partition
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') AND c.relname <> 'schema_migrations'
   AND c.relname <> 'schema_functions'
 ORDER BY 1, 2
"""


async def _tables(postgres: ClonedDatabase) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        return list(await connection.fetch(_TABLES, list(SCHEMAS)))
    finally:
        await connection.close()


async def test_every_tenant_table_is_keyed_by_tenant_and_secured(postgres: ClonedDatabase) -> None:
    tables = await _tables(postgres)
    assert {table["schema"] for table in tables} == set(SCHEMAS)
    faults = []
    for table in tables:
        place = (table["schema"], table["name"])
        if place in _INFRASTRUCTURE:
            continue
        if table["key_starts_with"] != "tenant_id":
            faults.append((*place, "key starts with", table["key_starts_with"]))
        # Partitions are reached through their parent, whose policies hold; the app role has no grant on them.
        if table["is_partition"]:
            continue
        if not (table["secured"] and table["forced"]):
            faults.append((*place, "row-level security is not forced", ""))
        if not {"app", "owner"} <= set(table["policies"] or ()):
            faults.append((*place, "policies", table["policies"]))
    assert faults == []


async def test_no_app_role_reaches_a_partition_past_its_parent(postgres: ClonedDatabase) -> None:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        for table in await _tables(postgres):
            if table["is_partition"]:
                reachable = await connection.fetchval(
                    "SELECT has_table_privilege($1, format('%I.%I', $2::text, $3::text), 'SELECT')",
                    roles(table["schema"]).app,
                    table["schema"],
                    table["name"],
                )
                assert not reachable, table["name"]
    finally:
        await connection.close()


@pytest.mark.parametrize("service", SCHEMAS)
async def test_each_role_is_refused_on_every_other_schema(postgres: ClonedDatabase, service: str) -> None:
    tables = await _tables(postgres)
    foreign = [table for table in tables if table["schema"] != service]
    assert foreign
    for role in ("app", "owner"):
        connection = await asyncpg.connect(postgres.dsn(service, role))
        try:
            for table in foreign:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.fetch(f'SELECT 1 FROM {table["schema"]}."{table["name"]}" LIMIT 1')  # noqa: S608
        finally:
            await connection.close()


@pytest.mark.parametrize("service", SCHEMAS)
async def test_no_role_of_a_service_is_mighty(postgres: ClonedDatabase, service: str) -> None:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        for role in (roles(service).app, roles(service).owner):
            row = await connection.fetchrow(
                "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles "
                "WHERE rolname = $1",
                role,
            )
            assert row is not None
            assert not any(row.values())
        may_create = await connection.fetchval(
            "SELECT has_schema_privilege($1, $2, 'CREATE')", roles(service).app, service
        )
        assert not may_create
    finally:
        await connection.close()


async def test_functions_with_their_owners_rights_pin_their_search_path(postgres: ClonedDatabase) -> None:
    connection = await asyncpg.connect(postgres.admin_dsn)
    try:
        found = await connection.fetch(
            "SELECT n.nspname, p.proname, p.proconfig, pg_get_userbyid(p.proowner) AS owner FROM pg_proc p "
            "JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY ($1) AND p.prosecdef",
            list(SCHEMAS),
        )
    finally:
        await connection.close()
    assert found
    for function in found:
        assert any(line.startswith("search_path=pg_catalog") for line in function["proconfig"] or ()), function
        assert function["owner"] == roles(function["nspname"]).owner
