-- The runner's own statements; {schema} is one of the names in minion_postgres.roles.

-- name: create_table
-- Makes the table of what was applied. The app role may read it, so that a service can say what is missing.
DO $$ BEGIN
    IF to_regclass('{schema}.schema_migrations') IS NULL THEN
        CREATE TABLE {schema}.schema_migrations (
            name       text        PRIMARY KEY,
            checksum   bytea       NOT NULL,
            apply_time timestamptz NOT NULL DEFAULT now()
        );
        GRANT SELECT ON {schema}.schema_migrations TO minion_{schema}_app;
    END IF;
END $$;

-- name: list_applied
-- What was applied to this schema.
SELECT name, checksum, apply_time FROM {schema}.schema_migrations ORDER BY name;

-- name: note_applied
-- Notes a migration or a file of functions as applied.
INSERT INTO {schema}.schema_migrations (name, checksum) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, apply_time = now();

-- name: note_taken_back
-- Forgets a migration.
DELETE FROM {schema}.schema_migrations WHERE name = $1;

-- name: drop_functions
-- Drops the schema's functions that nothing depends on (a trigger's function stays), and forgets their files.
DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN SELECT oid FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace LOOP
        BEGIN
            EXECUTE format('DROP ROUTINE %s', routine);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL;
        END;
    END LOOP;
    DELETE FROM {schema}.schema_migrations WHERE name LIKE 'functions%';
END $$;
