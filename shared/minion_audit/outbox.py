"""The table of an outbox, for services' migrations."""

from minion_postgres.parts import part


def table_sql(schema: str) -> str:
    """The outbox's table, for a migration of the schema."""
    return part("outbox.sql", "table", package="minion_audit", schema=schema)


def functions_sql(schema: str) -> str:
    """The outbox's functions, for the schema's functions.sql."""
    return part("outbox.sql", "functions", package="minion_audit", schema=schema)
