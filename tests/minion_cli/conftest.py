"""The environment by which commands find a database of the tests' cluster."""

from collections.abc import Callable

import pytest
from minion_postgres import SCHEMAS
from minion_testing.postgres import ClonedDatabase


@pytest.fixture
def point_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[ClonedDatabase], None]:
    """Sets the environment so that commands use a database."""

    def point(database: ClonedDatabase) -> None:
        monkeypatch.setenv("MINION_DATABASE_URL", database.dsn("registry"))
        monkeypatch.setenv("MINION_ADMIN_DATABASE_URL", database.admin_dsn)
        for service in SCHEMAS:
            monkeypatch.setenv(f"MINION_{service.upper()}_DATABASE_URL", database.dsn(service))
            monkeypatch.setenv(f"MINION_{service.upper()}_OWNER_DATABASE_URL", database.dsn(service, "owner"))

    return point
