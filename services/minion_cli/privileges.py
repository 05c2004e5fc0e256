"""`minion privileges`: which database role may do what, as the database itself says."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated

import asyncpg
import typer
from minion_postgres import SCHEMAS, queries, roles
from minion_postgres.driver import Connection, connect

from minion_cli.application import single
from minion_cli.databases import database_settings

app = single("Print which database role may do what, as Markdown: the matrix of docs/privileges.md for your database.")

_QUERIES = queries.load("minion_cli", "privileges.sql")
_TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
_SCHEMA_RIGHTS = ("USAGE", "CREATE")
_NOTHING = "-"
_HEAD = """\
# Privileges

Which role may do what in which schema. Made from the database by `make privileges`; a test compares it with a freshly
migrated one, so that it is exact. `minion privileges` prints the same of your own database.

Each service has two roles: its *owner* migrates and maintains, its *app* role is what the service runs as. Both are no
superusers, bypass no row-level security and have no right on any other service's schema. Row-level security is forced
on every table of tenants: the app role sees the rows of its transaction's tenant. Functions with the owner's rights are
the only ways past it; each does one narrow thing. A right on some columns alone names them. Partitions are reached
through their tables alone.
"""


@app.command()
def privileges(
    service: Annotated[str, typer.Option(help="Whose owner connects; any sees the whole catalogue.")] = "registry",
) -> None:
    """Print which database role may do what, as Markdown.

    Connects as the owner: MINION_DATABASE_URL (or MINION_<SERVICE>_DATABASE_URL) says where, and
    MINION_<SERVICE>_OWNER_DATABASE_URL as whom where that is another.
    """
    if service not in SCHEMAS:
        raise typer.BadParameter(f"{service!r} is none of {', '.join(SCHEMAS)}.", param_hint="--service")
    print(asyncio.run(_printed(database_settings([service])[0].owner_dsn)), end="")


async def _printed(dsn: str) -> str:
    connection = await connect(dsn, application="minion privileges")
    try:
        return await matrix(connection)
    finally:
        await connection.close()


async def matrix(connection: Connection) -> str:
    """Returns the matrix of the database that a connection is to, as Markdown."""
    names = list(SCHEMAS)
    parts = [_HEAD, _schemas(await connection.fetch(_QUERIES.schemas.text, names))]
    relations = await connection.fetch(_QUERIES.relations.text, names)
    functions = await connection.fetch(_QUERIES.functions.text, names)
    for schema in SCHEMAS:
        parts.append(_relations(schema, [row for row in relations if row["schema"] == schema]))
        parts.append(_functions([row for row in functions if row["schema"] == schema]))
    return "\n".join(parts)


def _schemas(rows: Sequence[asyncpg.Record]) -> str:
    held = {(row["role"], row["schema"]): _ordered(row["privileges"], _SCHEMA_RIGHTS) for row in rows}
    lines = [
        [f"`{role}`", *(held.get((role, schema), _NOTHING) for schema in SCHEMAS)]
        for role in _roles(r for r, _ in held)
    ]
    return "## Schemas\n\n" + _table(["role", *SCHEMAS], lines)


def _relations(schema: str, rows: Sequence[asyncpg.Record]) -> str:
    held: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        columns = f" ({', '.join(row['columns'])})" if row["columns"] else ""
        # A right on the whole includes that on each column.
        held[(row["name"], row["role"])].setdefault(row["privilege"], row["privilege"] + columns)
    known = _roles(role for _, role in held)
    lines = [
        [f"`{name}`", *(_rights(held.get((name, role), {})) for role in known)]
        for name in sorted({name for name, _ in held})
    ]
    return f"## {schema}\n\n" + _table(["table", *(f"`{role}`" for role in known)], lines)


def _functions(rows: Sequence[asyncpg.Record]) -> str:
    lines = [[f"`{row['name']}`", ", ".join(f"`{role}`" for role in _roles(row["roles"]))] for row in rows]
    return "Functions with the owner's rights:\n\n" + _table(["function", "may be called by"], lines)


def _rights(held: dict[str, str]) -> str:
    if {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"} <= {
        name for name, text in held.items() if name == text
    }:
        return "all"
    return ", ".join(held[name] for name in (*_TABLE_RIGHTS, "USAGE") if name in held) or _NOTHING


def _ordered(held: Sequence[str], order: Sequence[str]) -> str:
    return ", ".join(name for name in order if name in held) or _NOTHING


def _roles(found: Iterator[str] | Sequence[str]) -> list[str]:
    """Orders roles as the services are ordered, app before owner; whoever else holds something comes last."""
    ours = [role for schema in SCHEMAS for role in (roles(schema).app, roles(schema).owner)]
    return sorted(set(found), key=lambda role: (ours.index(role) if role in ours else len(ours), role))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
