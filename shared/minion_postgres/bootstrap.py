"""What an administrator does once for a database: extension, roles, schemas, privileges.

The services' own roles can do none of it. All of it may be repeated, which also sets new passwords.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from minion_postgres import dsn as dsns
from minion_postgres.driver import Connection, connect
from minion_postgres.queries import Query, load
from minion_postgres.roles import MONITOR, roles

_QUERIES = load("minion_postgres", "sql/bootstrap.sql")

MINIMUM_POSTGRES: Final = 16
MINIMUM_VECTOR: Final = (0, 8, 2)
# Owners migrate and maintain: a statement of theirs may take long, but none may idle inside a transaction for long.
_OWNER_LIMITS: Final = ("10s", "0")
_APP_LIMITS: Final = ("1s", "30s")
_MONITOR_LIMITS: Final = ("1s", "10s")


class BootstrapError(Exception):
    """The database or the given access is not fit; the message says why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class ServiceAccess:
    """How a service's two roles will log in; their passwords are taken from here."""

    service: str
    owner_dsn: str
    app_dsn: str


async def bootstrap(admin_dsn: str, services: Sequence[ServiceAccess], *, monitor_password: str | None = None) -> None:
    """Prepares the database that `admin_dsn` points at for these services, in one transaction.

    With `monitor_password` there is a role `minion_monitor` too, which reads the server's statistics. Without it, one
    that is there already stays as it is.

    Raises BootstrapError when Postgres is older than 16, pgvector is missing or older than 0.8.2 (where memory is among
    the services), the administrator's rights don't suffice, or a DSN names another role than the service's own; raises
    Unavailable when the server can't be reached.
    """
    logins = [login for access in services for login in _logins(access)]
    if monitor_password is not None:
        logins.append((MONITOR, monitor_password, _MONITOR_LIMITS))
    connection = await connect(admin_dsn, "minion-bootstrap")
    try:
        async with connection.transaction():
            await connection.execute(_QUERIES.lock.text)
            is_superuser = await _check_server(connection, with_vector=any(a.service == "memory" for a in services))
            for role, password, limits in logins:
                await _run(connection, _QUERIES.make_role, role)
                if await connection.fetchval(_QUERIES.check_role.text, role):
                    raise BootstrapError(f"{role} has rights beyond its own tables, which only a superuser can take")
                if password is not None:
                    await _run(connection, _QUERIES.set_password, role, scram_verifier(password))
                await _run(connection, _QUERIES.set_limits, role, *limits)
                await _run(connection, _QUERIES.let_in, role)
            if monitor_password is not None:
                await _run(connection, _QUERIES.let_monitor, MONITOR)
            await _run(connection, _QUERIES.close_database)
            for access in services:
                own = roles(access.service)
                if not is_superuser:
                    await _run(connection, _QUERIES.join_role, own.owner)
                await _run(connection, _QUERIES.make_schema, access.service, own.owner, own.app)
    except asyncpg.InsufficientPrivilegeError as error:
        place = dsns.parse(admin_dsn)
        raise BootstrapError(f"{place.user or 'the role'} at {place.place} is no administrator: {error}") from error
    finally:
        await connection.close(timeout=5)


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """Computes what Postgres stores for a password (RFC 5802, SCRAM-SHA-256), so that the server never sees it.

    Raises BootstrapError for a password that is not printable ASCII, which clients would prepare in different ways.
    """
    if not (password.isascii() and password.isprintable()):
        raise BootstrapError("passwords of database roles must be printable ASCII")
    salt = salt or os.urandom(16)
    iterations = 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


def _logins(access: ServiceAccess) -> Sequence[tuple[str, str | None, tuple[str, str]]]:
    own = roles(access.service)
    found = []
    for expected, dsn, limits in ((own.owner, access.owner_dsn, _OWNER_LIMITS), (own.app, access.app_dsn, _APP_LIMITS)):
        target = dsns.parse(dsn)
        if target.user not in (None, expected):
            raise BootstrapError(f"{access.service} logs in as {target.user}; its policies are made for {expected}")
        found.append((expected, target.password, limits))
    return found


async def _check_server(connection: Connection, *, with_vector: bool) -> bool:
    """Refuses a server that is not fit, installs pgvector; returns whether we are a superuser."""
    server = await connection.fetchrow(_QUERIES.server.text)
    assert server is not None
    if server["version"] < MINIMUM_POSTGRES * 10_000:
        raise BootstrapError(f"Postgres {server['version_text']} is too old: {MINIMUM_POSTGRES} or later is needed")
    if with_vector:
        check_vector(server["available"])
        if server["installed"] is None:
            await connection.execute("CREATE EXTENSION vector SCHEMA public")
        elif _version(server["installed"]) < MINIMUM_VECTOR:
            await connection.execute("ALTER EXTENSION vector UPDATE")
    return bool(server["is_superuser"])


def check_vector(available: str | None) -> None:
    """Raises BootstrapError unless this version of pgvector will do."""
    needed = ".".join(str(part) for part in MINIMUM_VECTOR)
    if available is None:
        raise BootstrapError(f"this Postgres lacks pgvector: install {needed} or later on the server")
    if _version(available) < MINIMUM_VECTOR:
        raise BootstrapError(
            f"pgvector {available} is too old: its parallel index builds overflow a buffer; {needed} or later is needed"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


async def _run(connection: Connection, maker: Query, *args: str) -> None:
    """Lets the server write a statement with its names quoted, and runs that."""
    await connection.execute(await connection.fetchval(maker.text, *args))
