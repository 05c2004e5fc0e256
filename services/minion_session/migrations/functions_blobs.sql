-- Blobs: what is too large for a message. Bytes come in pieces, each in a transaction of its own, and are nobody's until
-- the last of them is there.

-- Whether a session takes blobs, and messages and working memory besides; `status` is NULL when there is no session.
CREATE OR REPLACE FUNCTION session.begin_upload(
    tenant uuid, target uuid, blob uuid, OUT outcome text, OUT status text
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT t.outcome, t.status INTO outcome, status FROM session.takes_blobs(tenant, target) t;
    IF outcome = 'OK' THEN
        INSERT INTO session.blob_contents (tenant_id, blob_id, session_id) VALUES (tenant, blob, target);
    END IF;
END $$;

-- Locks a session's row, shortly, and says whether it takes blobs: while it is active, and while a run holds it.
CREATE OR REPLACE FUNCTION session.takes_blobs(
    tenant uuid, target uuid, OUT outcome text, OUT status text, OUT last_sequence bigint
) LANGUAGE plpgsql AS $$
DECLARE
    is_held boolean;
BEGIN
    SELECT session.status_of(s.close_time, s.expire_time, s.hold_until, clock_timestamp(), s.archive_time),
           coalesce(s.hold_until > clock_timestamp(), false), s.last_sequence
      INTO status, is_held, last_sequence
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR NO KEY UPDATE;
    outcome := CASE WHEN NOT FOUND THEN 'SESSION_NOT_FOUND'
                    WHEN status = 'active' OR is_held THEN 'OK'
                    ELSE 'SESSION_NOT_ACTIVE' END;
END $$;

-- Keeps pieces of a blob that is on its way in, from a place on; false when it is no more: its session was deleted, or
-- it was given up.
CREATE OR REPLACE FUNCTION session.add_chunks(tenant uuid, blob uuid, first integer, pieces bytea[])
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    UPDATE session.blob_contents c SET updated_at = clock_timestamp()
     WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.session_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO session.blob_chunks (tenant_id, blob_id, place, bytes)
    SELECT tenant, blob, first + p.place - 1, p.bytes FROM unnest(pieces) WITH ORDINALITY AS p (bytes, place);
    RETURN true;
END $$;

-- Makes a blob whose bytes are all there its session's; or finds the one that has the same bytes, and drops these. With
-- SESSION_NOT_FOUND its session was deleted meanwhile, and the bytes with it.
CREATE OR REPLACE FUNCTION session.keep_blob(
    tenant uuid, target uuid, blob uuid, size bigint, digest bytea, new_media_type text, new_name text,
    OUT outcome text, OUT status text, OUT blob_id uuid, OUT session_id uuid, OUT size_bytes bigint, OUT sha256 bytea,
    OUT media_type text, OUT name text, OUT create_time timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    upto bigint;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT t.outcome, t.status, t.last_sequence INTO outcome, status, upto FROM session.takes_blobs(tenant, target) t;
    IF outcome <> 'OK' THEN
        RETURN;
    END IF;
    SELECT b.blob_id, b.session_id, b.size_bytes, b.sha256, b.media_type, b.name, b.create_time
      INTO blob_id, session_id, size_bytes, sha256, media_type, name, create_time
      FROM session.blobs b
     WHERE b.tenant_id = tenant AND b.session_id = target AND b.sha256 = digest;
    IF FOUND THEN
        -- Whoever put it may be about to drop it, since their call was broken off: it is ours too, or gone by now.
        UPDATE session.blob_contents c SET updated_at = clock_timestamp()
         WHERE c.tenant_id = tenant AND c.blob_id = keep_blob.blob_id;
    END IF;
    IF FOUND THEN
        DELETE FROM session.blob_contents c
         WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.session_id IS NOT NULL;
        RETURN;
    END IF;
    UPDATE session.blob_contents c SET session_id = NULL
     WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.session_id = target;
    IF NOT FOUND THEN
        outcome := 'UPLOAD_GIVEN_UP';
        RETURN;
    END IF;
    INSERT INTO session.blobs AS b
           (tenant_id, session_id, blob_id, size_bytes, stored_after, create_time, sha256, media_type, name)
    VALUES (tenant, target, blob, size, upto, clock_timestamp(), digest, new_media_type, new_name)
    RETURNING b.blob_id, b.session_id, b.size_bytes, b.sha256, b.media_type, b.name, b.create_time
      INTO blob_id, session_id, size_bytes, sha256, media_type, name, create_time;
END $$;

-- Drops a blob whose call was broken off: its bytes on their way, or, where the last step was done before the call's end
-- was seen, the blob itself, unless another call that put the same bytes was given it since.
CREATE OR REPLACE FUNCTION session.drop_upload(tenant uuid, blob uuid, target uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    -- The session first, as whoever deletes it.
    PERFORM FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target FOR KEY SHARE;
    -- The step may be under way yet.
    PERFORM FROM session.blob_contents c WHERE c.tenant_id = tenant AND c.blob_id = blob FOR UPDATE;
    DELETE FROM session.blobs b
     WHERE b.tenant_id = tenant AND b.session_id = target AND b.blob_id = blob
       AND NOT EXISTS (SELECT FROM session.blob_contents c
                        WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.updated_at > b.create_time);
    DELETE FROM session.blob_contents c
     WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.session_id IS NOT NULL;
END $$;

-- Drops a blob that is on its way in, unless it moved within an age. Says whether it did.
CREATE OR REPLACE FUNCTION session.drop_upload_left(tenant uuid, blob uuid, age interval)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    DELETE FROM session.blob_contents c
     WHERE c.tenant_id = tenant AND c.blob_id = blob AND c.session_id IS NOT NULL AND c.updated_at < now() - age;
    RETURN FOUND;
END $$;

-- Blobs of all tenants that have been on their way in and haven't moved for an age: ids alone.
CREATE OR REPLACE FUNCTION session.uploads_left(age interval, most integer)
RETURNS TABLE (tenant_id uuid, blob_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.tenant_id, c.blob_id
      FROM session.blob_contents c
     WHERE c.session_id IS NOT NULL AND c.updated_at < now() - age
     ORDER BY c.updated_at LIMIT most;
$$;

-- A blob, as a session has it; with no session as the one that it was put into has it, or the first fork that still does.
-- All columns are NULL when nobody does.
CREATE OR REPLACE FUNCTION session.get_blob(
    tenant uuid, wanted uuid, of_session uuid,
    OUT blob_id uuid, OUT session_id uuid, OUT size_bytes bigint, OUT sha256 bytea, OUT media_type text, OUT name text,
    OUT create_time timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT b.blob_id, b.session_id, b.size_bytes, b.sha256, b.media_type, b.name, b.create_time
      INTO blob_id, session_id, size_bytes, sha256, media_type, name, create_time
      FROM session.blobs b
      JOIN session.sessions s ON s.tenant_id = b.tenant_id AND s.session_id = b.session_id
     WHERE b.tenant_id = tenant AND b.blob_id = wanted AND (of_session IS NULL OR b.session_id = of_session)
     ORDER BY s.create_time, b.session_id LIMIT 1;
END $$;

-- A part of a piece of a blob, from its byte `start` (the first is 0) on; NULL when there is no such piece.
CREATE OR REPLACE FUNCTION session.read_chunk(tenant uuid, wanted uuid, piece integer, start integer, length integer)
RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    found bytea;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT substring(c.bytes FROM start + 1 FOR length) INTO found
      FROM session.blob_chunks c
     WHERE c.tenant_id = tenant AND c.blob_id = wanted AND c.place = piece;
    RETURN found;
END $$;

-- The first of some blobs that a session hasn't; NULL when it has them all, or when there is no such session.
CREATE OR REPLACE FUNCTION session.missing_blob(tenant uuid, target uuid, wanted uuid[]) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    missing uuid;
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    SELECT w.blob_id INTO missing
      FROM unnest(wanted) WITH ORDINALITY AS w (blob_id, place)
      JOIN session.sessions s ON s.tenant_id = tenant AND s.session_id = target
     WHERE NOT EXISTS (SELECT FROM session.blobs b
                        WHERE b.tenant_id = tenant AND b.session_id = target AND b.blob_id = w.blob_id)
     ORDER BY w.place LIMIT 1;
    RETURN missing;
END $$;
