"""Memories put in order: what says the same becomes one, what is no longer so ends, what is of no worth goes."""
