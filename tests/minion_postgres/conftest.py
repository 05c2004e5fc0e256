"""Databases with roles and schemas, and no service's tables; one table of notes to try things on."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from minion_postgres import SCHEMAS, Database, Migrations, feed, idempotency
from minion_testing.postgres import ClonedDatabase, PostgresCluster

NOTES_UP = """
CREATE FUNCTION session.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

CREATE TABLE session.notes (
    tenant_id   uuid        NOT NULL,
    note_id     uuid        NOT NULL,
    body        jsonb       NOT NULL,
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
"""

NOTES_DOWN = """
DROP TABLE session.changes;
DROP TABLE session.idempotency_keys;
DROP TABLE session.notes;
DROP FUNCTION session.set_updated_at();
"""

FUNCTIONS = """
CREATE OR REPLACE FUNCTION session.add_note(tenant uuid, note uuid, body jsonb, request uuid, digest bytea)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known jsonb;
    result jsonb;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    IF request IS NOT NULL THEN
        known := session.recall_request(tenant, request, 'AddNote', digest);
        IF known IS NOT NULL THEN RETURN known; END IF;
    END IF;
    INSERT INTO session.notes (tenant_id, note_id, body) VALUES (tenant, note, body);
    result := jsonb_build_object('note_id', note);
    IF request IS NOT NULL THEN
        INSERT INTO session.idempotency_keys (tenant_id, request_id, method, digest, result)
             VALUES (tenant, request, 'AddNote', digest, result);
    END IF;
    RETURN result;
END $$;
"""


def write_migrations(directory: Path) -> Path:
    """Writes the migrations of schema `session` that these tests work on."""
    directory.mkdir(exist_ok=True)
    up = NOTES_UP + idempotency.table_sql("session") + feed.table_sql("session")
    (directory / "0001_notes.up.sql").write_text(up)
    (directory / "0001_notes.down.sql").write_text(NOTES_DOWN)
    functions = FUNCTIONS + idempotency.functions_sql("session") + feed.functions_sql("session")
    (directory / "functions.sql").write_text(functions)
    return directory


@pytest.fixture
def time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives pools time to open a connection, however little anybody may wait for one: a busy machine needs it."""
    create = asyncpg.create_pool

    def patient(dsn: str, **options: Any) -> Any:
        return create(dsn, **{**options, "timeout": 60})

    monkeypatch.setattr(asyncpg, "create_pool", patient)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def notes(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClonedDatabase]:
    """A module's database whose schema `session` has notes, idempotency keys and a feed; the others are empty."""
    database = await postgres_cluster.clone(migrated=False)
    migrations = tmp_path_factory.mktemp("migrations")
    directory, empty = write_migrations(migrations / "session"), migrations / "empty"
    empty.mkdir()
    for schema in SCHEMAS:
        await Migrations(schema, directory if schema == "session" else empty).up(database.dsn(schema, "owner"))
    yield database
    await postgres_cluster.drop(database)


@pytest_asyncio.fixture(loop_scope="session")
async def session_app(notes: ClonedDatabase) -> AsyncIterator[Database]:
    """The service's pool, as its app role."""
    async with await notes.connect("session") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def session_owner(notes: ClonedDatabase) -> AsyncIterator[Database]:
    """A pool of the owner's role."""
    async with await notes.connect("session", "owner") as database:
        yield database
