-- name: begin_upload
-- Makes room for a blob on its way in, or says why not.
SELECT * FROM session.begin_upload($1, $2, $3);

-- name: add_chunks
-- Keeps pieces of a blob on its way in; false when it is no more.
SELECT session.add_chunks($1, $2, $3, $4);

-- name: keep_blob
-- Makes a blob whose bytes are all there its session's, or finds the one that has the same, or says why not.
SELECT * FROM session.keep_blob($1, $2, $3, $4, $5, $6, $7);

-- name: drop_upload
-- Drops a blob whose call was broken off.
SELECT session.drop_upload($1, $2, $3);

-- name: drop_upload_left
-- Drops a blob on its way in, unless it moved within an age.
SELECT session.drop_upload_left($1, $2, $3);

-- name: uploads_left
-- Blobs of all tenants that are on their way in and haven't moved for an age.
SELECT tenant_id, blob_id FROM session.uploads_left($1, $2);

-- name: get_blob
-- A blob; a row of NULLs when there is none.
SELECT * FROM session.get_blob($1, $2, $3);

-- name: read_chunk
-- A part of a piece of a blob; NULL when there is no such piece.
SELECT session.read_chunk($1, $2, $3, $4, $5);
