"""Subjects: erasing all that is kept of a user, and what was kept for long enough."""
