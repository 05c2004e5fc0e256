"""The pytest plugin: fixtures that every test may ask for, and the mark of those that take a database."""

from collections.abc import Sequence

import pytest

from minion_testing.postgres import database_factory, postgres, postgres_cluster

__all__ = ["database_factory", "postgres", "postgres_cluster", "pytest_collection_modifyitems"]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks each test that asks for Postgres, directly or through a fixture, so that quick checks can leave it out."""
    for item in items:
        if "postgres_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
