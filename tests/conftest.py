"""Loads Minion's own pytest plugin."""

import os

# Tests start programs beside a running gRPC, whose fork handlers crash such a child now and then (1.85.1). Read when
# gRPC starts, so it must be set before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

pytest_plugins = ["minion_testing.plugin"]
