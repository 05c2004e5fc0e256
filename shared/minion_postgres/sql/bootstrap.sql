-- What an administrator does once for a database; all of it may be repeated. Names arrive as parameters and are quoted
-- by format(), because statements about roles take no parameters of their own.

-- name: lock
-- Two administrators at once take turns, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('minion bootstrap', 0));

-- name: server
-- What the server is and whether it can have pgvector.
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed;

-- name: make_role
-- The statement that makes a role, or takes from an existing one what it must not have. Only a superuser may say
-- NOSUPERUSER of an existing role; another administrator looks with check_role.
SELECT format(CASE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) THEN 'CREATE ROLE %1$I LOGIN %2$s'
                   WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN 'ALTER ROLE %1$I LOGIN %2$s'
                   ELSE 'ALTER ROLE %1$I LOGIN' END,
              $1::text, 'NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS');

-- name: check_role
-- Whether a role has any right that would lead past its policies.
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = $1;

-- name: set_password
-- The statement that sets a role's password, given as a SCRAM verifier.
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text);

-- name: set_limits
-- The statements that bound a role's sessions, whoever opens them.
SELECT format('ALTER ROLE %1$I SET idle_in_transaction_session_timeout = %2$L;
               ALTER ROLE %1$I SET statement_timeout = %3$L;', $1::text, $2::text, $3::text);

-- name: join_role
-- The statement by which an administrator who is no superuser may act for the owner.
SELECT format('GRANT %I TO CURRENT_USER', $1::text);

-- name: make_schema
-- The statements that make a service's schema: its owner's alone, with the app role let in.
SELECT format('CREATE SCHEMA IF NOT EXISTS %1$I AUTHORIZATION %2$I;
               ALTER SCHEMA %1$I OWNER TO %2$I;
               REVOKE ALL ON SCHEMA %1$I FROM PUBLIC;
               GRANT USAGE ON SCHEMA %1$I TO %3$I;
               ALTER DEFAULT PRIVILEGES FOR ROLE %2$I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
               ALTER DEFAULT PRIVILEGES FOR ROLE %2$I IN SCHEMA %1$I GRANT EXECUTE ON FUNCTIONS TO %3$I;',
              $1::text, $2::text, $3::text);

-- name: let_in
-- The statement by which a role may connect to this database.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1::text);

-- name: let_monitor
-- The statement by which a role may read the server's statistics, those of others' sessions and of other databases too;
-- not its settings, nor tables for their statistics, as pg_monitor may beside that.
SELECT format('GRANT pg_read_all_stats TO %I', $1::text);

-- name: close_database
-- The statements that take from everybody what nobody needs: temporary tables and new objects in schema public.
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC;',
              current_database());
