"""Blobs: what is too large for a message."""
