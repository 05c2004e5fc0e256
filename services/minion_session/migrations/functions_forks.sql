-- Forks: sessions that begin with another one's messages. A session's own messages are those after `shared_sequence`;
-- the ones before belong to `shares_with`, or to the session that this one shares with, and so on. Each of them holds at
-- least one message of its own up to where it is shared, so that reading so many messages looks at no more sessions.

-- The messages of a session after a sequence, up to another, whoever holds them. One statement, so that a parent that is
-- deleted meanwhile is seen either before or after its messages were handed down.
CREATE OR REPLACE FUNCTION session.read_stretch(tenant uuid, target uuid, after bigint, upto bigint)
RETURNS SETOF session.messages LANGUAGE sql STABLE AS $$
    WITH RECURSIVE holders AS (
        SELECT s.session_id, s.shares_with, s.shared_sequence AS floor, upto AS ceiling
          FROM session.sessions s
         WHERE s.tenant_id = tenant AND s.session_id = target
        UNION ALL
        SELECT s.session_id, s.shares_with, s.shared_sequence, least(h.floor, h.ceiling)
          FROM holders h
          JOIN session.sessions s ON s.tenant_id = tenant AND s.session_id = h.shares_with
         WHERE h.floor > after
    )
    SELECT m.*
      FROM holders h
      JOIN LATERAL (SELECT own.* FROM session.messages own
                     WHERE own.tenant_id = tenant AND own.session_id = h.session_id
                       AND own.sequence > greatest(h.floor, after) AND own.sequence <= h.ceiling) m ON true;
$$;

-- Which session holds a message of another's as its own; NULL when there is no such session.
CREATE OR REPLACE FUNCTION session.holder_of(tenant uuid, target uuid, place bigint)
RETURNS uuid LANGUAGE sql VOLATILE AS $$
    WITH RECURSIVE holders AS (
        SELECT s.session_id, s.shares_with, s.shared_sequence
          FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target
        UNION ALL
        SELECT s.session_id, s.shares_with, s.shared_sequence
          FROM holders h JOIN session.sessions s ON s.tenant_id = tenant AND s.session_id = h.shares_with
         WHERE h.shared_sequence >= place
    )
    SELECT h.session_id FROM holders h WHERE h.shared_sequence < place OR h.shares_with IS NULL;
$$;

-- Locks a session that is to be forked, and whoever holds the last message of the fork, until the transaction ends: the
-- holder first, in which order a session that is deleted locks itself and its forks. `wanted` is NULL for the last
-- message; `place` is where the fork ends. All is NULL when there is no such session.
CREATE OR REPLACE FUNCTION session.lock_for_fork(
    tenant uuid, target uuid, wanted bigint,
    OUT last_sequence bigint, OUT place bigint, OUT holder uuid, OUT user_id text
) LANGUAGE plpgsql AS $$
DECLARE
    held uuid;
BEGIN
    LOOP
        SELECT s.last_sequence INTO last_sequence
          FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target;
        EXIT WHEN NOT FOUND;
        held := session.holder_of(tenant, target, coalesce(wanted, last_sequence));
        PERFORM FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = held FOR KEY SHARE;
        SELECT s.last_sequence, s.user_id INTO last_sequence, user_id
          FROM session.sessions s WHERE s.tenant_id = tenant AND s.session_id = target
           FOR NO KEY UPDATE;
        EXIT WHEN NOT FOUND;
        place := coalesce(wanted, last_sequence);
        holder := session.holder_of(tenant, target, place);
        -- It may have been deleted, or appended to, before it was locked.
        EXIT WHEN holder = held;
    END LOOP;
    IF NOT FOUND THEN
        last_sequence := NULL;
        place := NULL;
        holder := NULL;
    END IF;
END $$;

-- Opens a fork of a session that `lock_for_fork` has locked; false when its id is taken. Summaries, blobs and working
-- memory are copied (of blobs the entry, not the bytes): what the parent is given later, the fork doesn't see.
CREATE OR REPLACE FUNCTION session.fork_session(
    tenant uuid, target uuid, fork uuid, name text, ttl interval, place bigint, holder uuid
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session.sessions
           (tenant_id, session_id, agent_id, user_id, display_name, metadata, expire_time, last_sequence,
            parent_session_id, fork_sequence, shares_with, shared_sequence)
    SELECT tenant, fork, s.agent_id, s.user_id, coalesce(name, s.display_name), s.metadata, now() + ttl, place,
           target, place, CASE WHEN place > 0 THEN holder END, place
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
    ON CONFLICT (tenant_id, session_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO session.changes (tenant_id, resource_id, kind) VALUES (tenant, fork, 'created');
    INSERT INTO session.workspace_entries (tenant_id, session_id, version, updated_at, byte_count, key, value)
    SELECT tenant, fork, e.version, e.updated_at, e.byte_count, e.key, e.value
      FROM session.workspace_entries e
     WHERE e.tenant_id = tenant AND e.session_id = target;
    INSERT INTO session.summaries
           (tenant_id, session_id, summary_id, run_id, first_sequence, last_sequence, saved_after, create_time, place,
            token_count, model, content)
    SELECT tenant, fork, m.summary_id, m.run_id, m.first_sequence, m.last_sequence, least(m.saved_after, fork_session.place),
           m.create_time, row_number() OVER (ORDER BY m.place), m.token_count, m.model, m.content
      FROM session.summaries m
     WHERE m.tenant_id = tenant AND m.session_id = target AND m.last_sequence <= fork_session.place;
    INSERT INTO session.blobs
           (tenant_id, session_id, blob_id, size_bytes, stored_after, create_time, sha256, media_type, name)
    SELECT tenant, fork, b.blob_id, b.size_bytes, b.stored_after, b.create_time, b.sha256, b.media_type, b.name
      FROM session.blobs b
     WHERE b.tenant_id = tenant AND b.session_id = target AND b.stored_after < fork_session.place;
    RETURN true;
END $$;

-- Gives what a session's forks share with it to them, before it is deleted: the fork that shares the most is given copies
-- of the messages, and the others share with that one from then on. Returns how many messages were copied. The caller
-- deletes the session, its messages and the rest in the same transaction; blobs need nothing, since forks have entries
-- of their own.
CREATE OR REPLACE FUNCTION session.hand_down_messages(tenant uuid, target uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    given  record;
    heir   record;
    copied bigint := 0;
BEGIN
    SELECT s.shares_with, s.shared_sequence INTO given
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.session_id = target
       FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM FROM session.sessions s
      WHERE s.tenant_id = tenant AND (s.shares_with = target OR s.parent_session_id = target)
      -- What was forked before what was forked from it: whoever deletes one of them locks in the same order.
      ORDER BY s.create_time, s.session_id
        FOR NO KEY UPDATE;
    SELECT s.session_id, s.shared_sequence INTO heir
      FROM session.sessions s
     WHERE s.tenant_id = tenant AND s.shares_with = target
     ORDER BY s.shared_sequence DESC, s.session_id LIMIT 1;
    IF FOUND THEN
        INSERT INTO session.messages
               (tenant_id, session_id, run_id, sequence, create_time, token_count, byte_count, role, author, parts,
                metadata)
        SELECT tenant, heir.session_id, m.run_id, m.sequence, m.create_time, m.token_count, m.byte_count, m.role, m.author,
               m.parts, m.metadata
          FROM session.messages m
         WHERE m.tenant_id = tenant AND m.session_id = target AND m.sequence <= heir.shared_sequence;
        GET DIAGNOSTICS copied = ROW_COUNT;
        UPDATE session.sessions s
           SET shares_with = given.shares_with, shared_sequence = given.shared_sequence
         WHERE s.tenant_id = tenant AND s.session_id = heir.session_id;
        UPDATE session.sessions s SET shares_with = heir.session_id
         WHERE s.tenant_id = tenant AND s.shares_with = target;
    END IF;
    UPDATE session.sessions s SET parent_session_id = NULL, fork_sequence = 0
     WHERE s.tenant_id = tenant AND s.parent_session_id = target;
    RETURN copied;
END $$;
