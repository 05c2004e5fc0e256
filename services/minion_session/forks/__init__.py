"""Forks: sessions that begin with another one's messages."""
