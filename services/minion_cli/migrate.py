"""`minion migrate`: the services' database schemas."""

import asyncio
import enum
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Final

import typer
from minion_errors import FailedPrecondition
from minion_postgres import SCHEMAS, BootstrapError, DatabaseSettings, MigrationError, ServiceAccess, bootstrap
from minion_postgres import dsn as dsns
from minion_settings import Fault

from minion_cli.application import single
from minion_cli.databases import database_settings, url_faults
from minion_cli.development.database import migrations

_ADMINISTRATOR: Final = "MINION_ADMIN_DATABASE_URL"

app = single("Move the services' database schemas up or down.")


class Direction(enum.StrEnum):
    """Where to move the schemas."""

    UP = "up"
    DOWN = "down"
    STATUS = "status"


@app.command()
def migrate(
    direction: Annotated[Direction, typer.Argument(help="up, down or status.")] = Direction.UP,
    service: Annotated[str, typer.Option(help="One service's schema; all five when not given.")] = "",
    steps: Annotated[int, typer.Option(help="How many migrations `down` takes back.", min=1)] = 1,
    bootstrap_: Annotated[
        bool, typer.Option("--bootstrap", help="First make extension, roles and schemas, as an administrator.")
    ] = False,
) -> None:
    """Move the services' database schemas up or down.

    The owner of each schema connects as MINION_DATABASE_URL or MINION_<SERVICE>_OWNER_DATABASE_URL says. --bootstrap
    needs MINION_ADMIN_DATABASE_URL (and MINION_ADMIN_DATABASE_PASSWORD where it holds none); the roles' passwords are
    those of the services' own settings. With MINION_MONITOR_DATABASE_PASSWORD it makes the role minion_monitor too.
    """
    if service and service not in SCHEMAS:
        raise typer.BadParameter(f"{service!r} is none of {', '.join(SCHEMAS)}.", param_hint="--service")
    if bootstrap_ and direction is not Direction.UP:
        raise typer.BadParameter("goes with `up` alone.", param_hint="--bootstrap")
    faults = _administrator_faults() if bootstrap_ else []
    settings = database_settings([service] if service else SCHEMAS, beside=faults)
    try:
        if bootstrap_:
            asyncio.run(_bootstrap(os.environ[_ADMINISTRATOR], settings))
        asyncio.run(_MOVES[direction](settings, steps))
    except (BootstrapError, MigrationError) as fault:
        raise FailedPrecondition(f"{fault}.", reason="MIGRATION_REFUSED") from fault


def _administrator_faults() -> list[Fault]:
    if not os.environ.get(_ADMINISTRATOR):
        return [Fault(_ADMINISTRATOR, "is required for --bootstrap: an administrator's connection string")]
    return url_faults(_ADMINISTRATOR, os.environ)


async def _bootstrap(administrator: str, settings: Sequence[DatabaseSettings]) -> None:
    password = os.environ.get("MINION_ADMIN_DATABASE_PASSWORD")
    if password:
        administrator = dsns.with_credentials(administrator, "postgres", password)
    await bootstrap(
        administrator,
        [ServiceAccess(each.service, each.owner_dsn, each.app_dsn) for each in settings],
        monitor_password=os.environ.get("MINION_MONITOR_DATABASE_PASSWORD") or None,
    )
    print(f"bootstrapped: {', '.join(each.service for each in settings)}")


async def _up(settings: Sequence[DatabaseSettings], steps: int) -> None:
    del steps
    for each in settings:
        _report(each.service, await migrations(each.service).up(each.owner_dsn), "applied", "up to date")


async def _down(settings: Sequence[DatabaseSettings], steps: int) -> None:
    for each in settings:
        _report(each.service, await migrations(each.service).down(each.owner_dsn, steps), "taken back", "nothing left")


async def _status(settings: Sequence[DatabaseSettings], steps: int) -> None:
    del steps
    for each in settings:
        for step in await migrations(each.service).status(each.owner_dsn):
            when = "pending" if step.apply_time is None else f"{step.apply_time:%Y-%m-%d %H:%M:%S}"
            print(f"{each.service:<9} {step.name:<32} {when}")


def _report(service: str, names: Sequence[str], done: str, nothing: str) -> None:
    print(f"{service:<9} {f'{done}: ' + ', '.join(names) if names else nothing}")


_MOVES: dict[Direction, Callable[[Sequence[DatabaseSettings], int], Coroutine[Any, Any, None]]] = {
    Direction.UP: _up,
    Direction.DOWN: _down,
    Direction.STATUS: _status,
}
