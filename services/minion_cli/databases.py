"""Where the services' databases are, as the environment says; for commands that need nothing else of the settings."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from minion_postgres import SCHEMAS, DatabaseSettings
from minion_postgres import dsn as dsns
from minion_settings import Fault, SettingsError

from minion_cli.loading import refused


def database_settings(
    names: Sequence[str] = SCHEMAS, environ: Mapping[str, str] | None = None, *, beside: Sequence[Fault] = ()
) -> list[DatabaseSettings]:
    """Loads the database settings of these services.

    `beside` are the faults that the caller has found. Raises FailedPrecondition that lists every fault once.
    """
    loaded: list[DatabaseSettings] = []
    faults = [*beside]
    for name in names:
        try:
            loaded.append(_kind(name).load(environ))
        except SettingsError as error:
            faults += error.faults
    if faults:
        raise refused(faults)
    return loaded


def url_faults(variable: str, environ: Mapping[str, str]) -> list[Fault]:
    """Lists what is wrong with the connection string in a variable; nothing where it isn't set."""
    given = environ.get(variable, "")
    if given:
        try:
            dsns.parse(given)
        except ValueError as fault:
            return [Fault(variable, str(fault))]
    return []


def _kind(name: str) -> type[DatabaseSettings]:
    class OfService(DatabaseSettings):
        """The database of one service."""

        service: ClassVar[str] = name

    return OfService
