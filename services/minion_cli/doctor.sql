-- name: server
-- What the database server is, and which pgvector it has or could install.
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('server_version') AS version_text,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS vector_available,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector_installed;
