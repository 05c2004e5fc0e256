"""The pytest plugin: fixtures that every test may ask for."""

from minion_testing.postgres import database_factory, postgres, postgres_cluster

__all__ = ["database_factory", "postgres", "postgres_cluster"]
