"""Agents: contents, revisions, lifecycle, and the feed of their changes."""
