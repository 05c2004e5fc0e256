"""The stack's database: an embedded Postgres of its own, or the one that `MINION_DATABASE_URL` names."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from minion_errors import FailedPrecondition
from minion_postgres import (
    SCHEMAS,
    BootstrapError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    EmbeddedPostgresInUseError,
    MigrationError,
    Migrations,
    ServiceAccess,
    bootstrap,
    roles,
)
from minion_postgres import dsn as dsns


@asynccontextmanager
async def prepared(environ: Mapping[str, str], directory: Path, password: str) -> AsyncIterator[dict[str, str]]:
    """Gives the environment by which the services find their database: running, bootstrapped, migrated.

    `environ` is one whose settings were found right. Raises FailedPrecondition when the database isn't fit, or another
    stack runs in the directory; Unavailable when it can't be reached.
    """
    given = environ.get("MINION_DATABASE_URL", "")
    if given:
        administrator = environ.get("MINION_ADMIN_DATABASE_URL") or given
        accesses = [_access(service, given, password) for service in SCHEMAS]
        await _bring_up(administrator, accesses)
        yield _variables(accesses)
        return
    postgres = EmbeddedPostgres(directory)
    try:
        await asyncio.to_thread(postgres.start)
    except EmbeddedPostgresInUseError as fault:
        raise stack_running(directory.parent) from fault
    except EmbeddedPostgresError as fault:
        raise FailedPrecondition(f"The embedded Postgres can't be used: {fault}", reason="DATABASE_UNFIT") from fault
    try:
        accesses = [
            ServiceAccess(
                service, postgres.dsn(roles(service).owner, password), postgres.dsn(roles(service).app, password)
            )
            for service in SCHEMAS
        ]
        await _bring_up(postgres.admin_dsn(), accesses, f"; to begin anew, move {directory} away")
        yield _variables(accesses)
    finally:
        await asyncio.to_thread(postgres.stop)


def stack_running(directory: Path) -> FailedPrecondition:
    """Gives the error that says whose place this is."""
    return FailedPrecondition(
        f"A stack is running in {directory} already: stop it, or take another --directory.", reason="STACK_RUNNING"
    )


def migrations(service: str) -> Migrations:
    """Gives the migrations of a service's schema."""
    return Migrations(service, resources.files(f"minion_{service}") / "migrations")


async def _bring_up(administrator: str, accesses: list[ServiceAccess], remedy: str = "") -> None:
    try:
        await bootstrap(administrator, accesses)
        await asyncio.gather(*(migrations(access.service).up(access.owner_dsn) for access in accesses))
    except (BootstrapError, MigrationError) as fault:
        raise FailedPrecondition(f"The database can't be used: {fault}{remedy}.", reason="DATABASE_UNFIT") from fault


def _access(service: str, url: str, password: str) -> ServiceAccess:
    own = roles(service)
    return ServiceAccess(
        service, dsns.as_other_user(url, own.owner, password), dsns.as_other_user(url, own.app, password)
    )


def _variables(accesses: list[ServiceAccess]) -> dict[str, str]:
    variables = {}
    for access in accesses:
        variables[f"MINION_{access.service.upper()}_DATABASE_URL"] = access.app_dsn
        variables[f"MINION_{access.service.upper()}_OWNER_DATABASE_URL"] = access.owner_dsn
    return variables
