"""Sessions and their life cycle."""
