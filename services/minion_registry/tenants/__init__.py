"""Tenants: whoever's things are kept apart from all others'."""
