"""Portability: memories on their way out, and on their way in."""
