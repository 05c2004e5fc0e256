"""Loads Minion's own pytest plugin."""

import os

import pytest

# Tests start programs beside a running gRPC, whose fork handlers crash such a child now and then (1.85.1). Read when
# gRPC starts, so it must be set before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

pytest_plugins = ["minion_testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what `make privileges` says."""
    parser.addoption("--write-privileges", action="store_true", help="write docs/privileges.md from the database")
