"""Memories: storing, listing, deleting, and searching by vector."""
