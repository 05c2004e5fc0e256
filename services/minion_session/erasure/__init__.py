"""Erasing what is kept of a user."""
