"""The pytest plugin: fixtures that every test may ask for, and the mark of those that take a database."""

import io
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
import structlog
from minion_grpc import verification
from minion_telemetry import configure_logging

from minion_testing.postgres import database_factory, postgres, postgres_cluster

__all__ = [
    "database_factory",
    "log",
    "patient_checks",
    "postgres",
    "postgres_cluster",
    "pytest_collection_modifyitems",
]

# A service waits for two seconds for what the registry says of a key: a busy machine may stop a process for longer.
CHECK_SECONDS: Final = 30.0


@pytest.fixture(scope="session", autouse=True)
def patient_checks() -> Iterator[None]:
    """Has services wait longer for what the registry says of a key: each tenant's first call hangs on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_TIMEOUT_SECONDS", CHECK_SECONDS)
        yield


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    """Collects the log's lines, as JSON; afterwards the log is as before, or later tests would miss theirs."""
    lines = io.BytesIO()
    configure_logging("info", "json", stream=lines)
    yield lines
    structlog.reset_defaults()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks each test that asks for Postgres, directly or through a fixture, so that quick checks can leave it out."""
    for item in items:
        if "postgres_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
