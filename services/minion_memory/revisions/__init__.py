"""Revisions: the states that memories were in, and the way back to them."""
