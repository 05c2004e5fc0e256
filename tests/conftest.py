"""Loads Minion's own pytest plugin."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Tests start programs beside a running gRPC, whose fork handlers crash such a child now and then (1.85.1). Read when
# gRPC starts, so it must be set before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# How fast an example is made and run is the machine's load, and no property of what is tested. (Where CI is set, the
# profile below it also takes the same examples each time.)
settings.register_profile(
    "minion",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("minion")

pytest_plugins = ["minion_testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what `make privileges` says."""
    parser.addoption("--write-privileges", action="store_true", help="write docs/privileges.md from the database")
