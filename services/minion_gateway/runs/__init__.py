"""Runs: a turn of an agent, accepted, leased, fenced, recovered, told in events."""
