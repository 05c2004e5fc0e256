"""Loads Minion's own pytest plugin."""

pytest_plugins = ["minion_testing.plugin"]
