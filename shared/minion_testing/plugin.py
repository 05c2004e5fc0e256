"""The pytest plugin: fixtures that every test may ask for, and the mark of those that take a database."""

import io
from collections.abc import Iterator, Sequence

import pytest
import structlog
from minion_grpc import channel, verification
from minion_telemetry import configure_logging

from minion_testing.postgres import database_factory, postgres, postgres_cluster

__all__ = [
    "database_factory",
    "log",
    "postgres",
    "postgres_cluster",
    "pytest_collection_modifyitems",
    "pytest_configure",
]


def pytest_configure() -> None:
    """Gives services that run in a test's process more time for each other: a busy machine stops it for seconds."""
    channel.ATTEMPT_SECONDS = 60.0
    verification.TIMEOUT_SECONDS = 60.0


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
