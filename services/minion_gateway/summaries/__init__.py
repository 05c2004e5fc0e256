"""Summaries of long sessions, made after a turn where the agent's policy asks; never in a turn's way."""
