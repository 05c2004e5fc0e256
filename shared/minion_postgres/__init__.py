"""Postgres for a service: its pool, its transactions, its migrations, and the embedded server for development.

Who may do what
    Each service has one schema and two roles (`roles`): the *owner* migrates and maintains, the *app* role is what the
    service runs as. Row-level security is enabled and FORCED on every tenant table; the app role sees one tenant, that
    of the setting `minion.tenant`, which lives as long as its transaction and is read as NULL when empty.

A tenant table, as a migration writes it (here in schema `session`)::

    CREATE TABLE session.notes (
        tenant_id   uuid        NOT NULL,
        note_id     uuid        NOT NULL,
        body        text        NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        updated_at  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, note_id)
    );
    ALTER TABLE session.notes ENABLE ROW LEVEL SECURITY;
    ALTER TABLE session.notes FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner ON session.notes TO minion_session_owner USING (true);
    CREATE POLICY app ON session.notes TO minion_session_app
        USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
        WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
    GRANT SELECT, INSERT, UPDATE, DELETE ON session.notes TO minion_session_app;
    CREATE TRIGGER notes_updated_at BEFORE UPDATE ON session.notes
        FOR EACH ROW EXECUTE FUNCTION session.set_updated_at();

Once in a schema's first migration, before its tables (a trigger's function belongs there, not into functions.sql)::

    CREATE FUNCTION session.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

and the table of `idempotency.table_sql("session")`. A tenant is a parameter of the query as well, so that its index is
used and a mistake shows as no rows, not as somebody else's.

Functions
    `functions*.sql` beside the migrations, applied again when changed. A hot operation is one function: it sets the
    tenant (`PERFORM set_config('minion.tenant', tenant::text, true)`) and does the work in one round trip. The app role
    may execute every function of its schema by default; revoke what is the owner's alone. Work across tenants is a
    `SECURITY DEFINER` function that pins its search_path (`SET search_path = pg_catalog, pg_temp`; `pg_catalog, public,
    pg_temp` where it needs pgvector's operators), qualifies every name, and returns `(tenant_id, id)` alone. Domain
    errors: see `faults`. Repeated writes: see `idempotency`. Feeds: see `feed`.
"""

from minion_postgres.binaries import EmbeddedPostgresError
from minion_postgres.bootstrap import BootstrapError, ServiceAccess, bootstrap
from minion_postgres.database import Database, Transaction
from minion_postgres.driver import Connection, Record
from minion_postgres.embedded import EmbeddedPostgres, EmbeddedPostgresInUseError
from minion_postgres.feed import Change, ChangeFeed, Synced
from minion_postgres.idempotency import Idempotent, Key
from minion_postgres.migrations import MigrationError, Migrations, MigrationStatus, SchemaState
from minion_postgres.queries import Queries, Query
from minion_postgres.roles import SCHEMAS, Roles, roles
from minion_postgres.settings import DatabaseSettings

__all__ = [
    "SCHEMAS",
    "BootstrapError",
    "Change",
    "ChangeFeed",
    "Connection",
    "Database",
    "DatabaseSettings",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "EmbeddedPostgresInUseError",
    "Idempotent",
    "Key",
    "MigrationError",
    "MigrationStatus",
    "Migrations",
    "Queries",
    "Query",
    "Record",
    "Roles",
    "SchemaState",
    "ServiceAccess",
    "Synced",
    "Transaction",
    "bootstrap",
    "roles",
]
