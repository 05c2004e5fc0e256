"""Tools that agents can be given."""
