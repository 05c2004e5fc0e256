"""Rollouts: candidate revisions that take a share of an agent's sessions, under watch."""
