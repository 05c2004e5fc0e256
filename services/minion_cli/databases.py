"""Where the services' databases are, as the environment says; for commands that need nothing else of the settings."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from minion_errors import FailedPrecondition
from minion_postgres import DatabaseSettings
from minion_postgres.roles import SCHEMAS
from minion_settings import SettingsError


def database_settings(
    names: Sequence[str] = SCHEMAS, environ: Mapping[str, str] | None = None
) -> list[DatabaseSettings]:
    """Loads the database settings of these services; raises FailedPrecondition that lists every fault once."""
    loaded: list[DatabaseSettings] = []
    faults: dict[str, str] = {}
    for name in names:
        try:
            loaded.append(_kind(name).load(environ))
        except SettingsError as error:
            faults |= {fault.variable: fault.description for fault in error.faults}
    if faults:
        listed = "; ".join(f"{variable} {description}" for variable, description in faults.items())
        raise FailedPrecondition(f"The settings are wrong: {listed}", reason="SETTINGS_INVALID")
    return loaded


def _kind(name: str) -> type[DatabaseSettings]:
    class OfService(DatabaseSettings):
        """The database of one service."""

        service: ClassVar[str] = name

    return OfService
