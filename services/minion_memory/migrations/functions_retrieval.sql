-- The functions that find memories: by meaning and by words, weighed in one pass.

-- Who spoke in a scope, at most sixteen, by leaps from one name to the next in their index. The caller has set the tenant.
CREATE OR REPLACE FUNCTION memory.speakers(tenant uuid, agent uuid, subject text)
RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 4 AS $$
DECLARE
    name text := '';
BEGIN
    FOR leap IN 1..16 LOOP
        SELECT m.speaker INTO name FROM memory.memories m
         WHERE m.tenant_id = tenant AND m.agent_id = agent AND m.user_id = subject AND m.speaker <> ''
           AND m.speaker > name
         ORDER BY m.speaker LIMIT 1;
        EXIT WHEN name IS NULL;
        RETURN NEXT name;
    END LOOP;
END $$;

-- The speakers of a scope whom a text names, in full or by the first of their names, with the form that it uses.
CREATE OR REPLACE FUNCTION memory.named_speakers(tenant uuid, agent uuid, subject text, said text)
RETURNS TABLE (speaker text, form text) LANGUAGE plpgsql STABLE ROWS 2 AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    RETURN QUERY
        SELECT DISTINCT ON (name) name, called
          FROM memory.speakers(tenant, agent, subject) AS name, unnest(ARRAY[name, split_part(name, ' ', 1)]) AS called
         WHERE length(called) > 1 AND said ~* ('\m' || regexp_replace(called, '(\W)', '\\\1', 'g') || '\M')
         ORDER BY name, length(called) DESC;
END $$;

-- The words of a query that are looked up: stemmed, without those that stand in every text and without the names in
-- `forms`, unless nothing else is left. At most 32, the longest, which are the rare ones.
CREATE OR REPLACE FUNCTION memory.query_words(said text, forms text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(
        (SELECT array_agg(lexeme) FROM (
            SELECT lexeme FROM unnest(tsvector_to_array(to_tsvector('english', regexp_replace(said,
                   '\m(' || (SELECT string_agg(regexp_replace(form, '(\W)', '\\\1', 'g'), '|') FROM unnest(forms) form)
                   || ')(''s|’s)?\M', ' ', 'gi')))) AS lexeme
             ORDER BY length(lexeme) DESC, lexeme LIMIT 32) kept),
        (SELECT array_agg(lexeme) FROM (
            SELECT lexeme FROM unnest(tsvector_to_array(to_tsvector('english', said))) AS lexeme
             ORDER BY length(lexeme) DESC, lexeme LIMIT 32) kept));
$$;

-- How well the words of a scope's memories match: 1 if a memory said nothing but each word of the query, over and over.
-- Each word counts by how rare it is in the scope (inverse document frequency as in BM25) and by how often the memory
-- says it, which levels off (ts_rank without normalisation: 0.61, 0.76, … 1). Words that nobody said don't count.
--
-- Of each word at most `most` memories are read. One that more have hardly tells them apart: it is taken to be in as many
-- as lie midway (in powers) between `most` and all, and picks none where rarer words do.
--
-- Runs as the owner, since under row-level security no index answers `@>` and `@@`: the tenant is that of the
-- transaction, whatever is asked. With scans of the table off, the index is taken even while nothing is known of it.
CREATE OR REPLACE FUNCTION memory.match_words(agent uuid, subject text, lexemes text[], counted bigint, most integer)
RETURNS TABLE (memory_id uuid, score double precision) LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 200
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_nestloop = on AS $$
DECLARE
    tenant constant uuid := nullif(current_setting('minion.tenant', true), '')::uuid;
BEGIN
    RETURN QUERY
        WITH terms AS MATERIALIZED (
            SELECT number, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS word,
                   memory.scope_terms(tenant, agent, subject, array_to_tsvector(ARRAY[lexeme])) AS term
              FROM unnest(lexemes) WITH ORDINALITY AS given (lexeme, number)
        ), met AS MATERIALIZED (
            SELECT terms.number, near.memory_id, near.words, 10 * ts_rank(near.words, terms.word) AS share
              FROM terms CROSS JOIN LATERAL (
                   SELECT m.memory_id, m.words
                     FROM (SELECT * FROM memory.memories
                            WHERE memory.scope_terms(tenant_id, agent_id, user_id, words) @> terms.term OFFSET 0) m
                    WHERE m.tenant_id = tenant AND m.agent_id = agent AND m.user_id = subject AND m.words @@ terms.word
                    LIMIT most) near
        ), weights AS MATERIALIZED (
            SELECT number, terms.word, seen = most AS is_common,
                   ln(1 + (counted - frequency + 0.5) / (frequency + 0.5)) AS weight
              FROM (SELECT met.number, count(*) AS seen,
                           CASE WHEN count(*) < most THEN least(count(*), counted)
                                ELSE sqrt(most::double precision * counted) END AS frequency
                      FROM met GROUP BY 1) counts JOIN terms USING (number)
        ), shares AS (
            SELECT met.memory_id, weight * share AS part
              FROM met JOIN weights USING (number)
             WHERE NOT is_common OR NOT EXISTS (SELECT FROM weights WHERE NOT is_common)
             UNION ALL
            SELECT rare.memory_id, weight * 10 * ts_rank(rare.words, weights.word)
              FROM (SELECT DISTINCT ON (met.memory_id) met.memory_id, met.words
                      FROM met JOIN weights USING (number) WHERE NOT is_common) rare
              JOIN weights ON is_common AND rare.words @@ weights.word
        )
        SELECT shares.memory_id, sum(part) / (SELECT sum(weight) FROM weights) FROM shares GROUP BY 1;
END $$;

-- The walk of a model's index: the nearest vectors of a scope, filtered on the way. The cast makes it match the index's
-- expression. $1 tenant, $2 agent, $3 user, $4 types or NULL, $5 the query's vector, $6 the most rows, as those of
-- memory.walk.
CREATE OR REPLACE FUNCTION memory.walk_query(model smallint, dimension integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('SELECT memory_id, embedding <=> $5 AS distance FROM memory.memory_vectors
                    WHERE model_id = %1$s AND tenant_id = $1 AND agent_id = $2 AND user_id = $3
                      AND ($4 IS NULL OR type = ANY ($4))
                    ORDER BY (embedding::%2$s) <=> $5::%2$s LIMIT $6', model, memory.indexed_type(dimension));
$$;

-- Whether a text tells when: days, seasons, and what is counted from now.
CREATE OR REPLACE FUNCTION memory.tells_time(words tsvector) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT words @@ to_tsquery('english',
        'yesterday | today | tonight | tomorrow | ago | last | next | recently | lately | since | day | week | weekend |
         month | year | morning | afternoon | evening | night | spring | summer | autumn | winter | monday | tuesday |
         wednesday | thursday | friday | saturday | sunday | january | february | march | april | june | july | august |
         september | october | november | december');
$$;

-- Whether a memory is one that a wish is about; inlined where it is called, as the three below. What something else takes
-- the place of is so until its end, which may be yet to come; where it has none, its successor ended it.
CREATE OR REPLACE FUNCTION memory.passes(
    wish memory.search_wish, moment timestamptz, type text, labels jsonb, metadata jsonb, occur_time timestamptz,
    source_session uuid, trust text, valid_from timestamptz, valid_until timestamptz, superseded_by uuid
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (wish.types IS NULL OR type = ANY (wish.types))
       AND (wish.labels IS NULL OR labels @> wish.labels)
       AND (wish.metadata IS NULL OR metadata @> wish.metadata)
       AND (wish.occurred_after IS NULL OR occur_time >= wish.occurred_after)
       AND (wish.occurred_before IS NULL OR occur_time < wish.occurred_before)
       AND (wish.session_id IS NULL OR source_session = wish.session_id)
       AND (wish.trusts IS NULL OR trust = ANY (wish.trusts))
       AND valid_from <= moment AND (valid_until IS NULL OR valid_until > moment)
       AND (wish.as_of IS NOT NULL OR superseded_by IS NULL OR valid_until IS NOT NULL);
$$;

-- What is left, 1 to 0, of the newness of what occurred; the half-life is in seconds. After 500 of them it is no less:
-- Postgres refuses numbers that are too small for it.
CREATE OR REPLACE FUNCTION memory.newness(occur_time timestamptz, moment timestamptz, half_life double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    -- date_part counts in floating point, where extract would in decimal digits.
    SELECT exp(-ln(2::double precision) * least(greatest(date_part('epoch', moment - occur_time), 0) / half_life, 500));
$$;

-- What somebody's word is worth, 0 to 1.
CREATE OR REPLACE FUNCTION memory.worth(trust text) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE trust WHEN 'user' THEN 1 WHEN 'asserted' THEN 0.5 ELSE 0 END;
$$;

-- What importance and confidence come to together, 0 to 1. What is next to nothing is nothing: Postgres refuses products
-- that are too small for it.
CREATE OR REPLACE FUNCTION memory.regard(importance double precision, confidence double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN importance > 1e-100 AND confidence > 1e-100 THEN importance * confidence ELSE 0 END;
$$;

-- Weighs memories and gives the best, with their shares in the order of memory.search_wish.weights: those in `picked`,
-- or the whole scope where that is NULL. `nearest` and `distances` say what is known of the vectors already, `matched` and
-- `matches` how well words match, `named` who is named.
--
-- Neighbours are the turns of a session: what was said before and after, whether or not it passes the filters. The access
-- count is looked up for the best alone, as it decides between near equals only: a hundred times bring half its share, so
-- that what is found often doesn't keep itself in front.
CREATE OR REPLACE FUNCTION memory.weigh(
    tenant uuid, wish memory.search_wish, model smallint, query vector, picked uuid[], nearest uuid[],
    distances double precision[], matched uuid[], matches double precision[], named text[]
) RETURNS TABLE (memory_id uuid, similarity double precision, shares double precision[], byte_count integer)
LANGUAGE plpgsql STABLE ROWS 10 SET enable_nestloop = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    agent constant uuid := wish.agent_id;
    subject constant text := wish.user_id;
    by_meaning constant double precision := wish.weights[1];
    by_words constant double precision := wish.weights[2];
    by_last constant double precision := wish.weights[3];
    by_next constant double precision := wish.weights[4];
    by_sign constant double precision := wish.weights[5];
    by_question constant double precision := wish.weights[6];
    by_recency constant double precision := wish.weights[7];
    by_importance constant double precision := wish.weights[8];
    by_access constant double precision := wish.weights[9];
    by_trust constant double precision := wish.weights[10];
    moment constant timestamptz := coalesce(wish.as_of, now());
    half_life constant double precision := extract(epoch FROM wish.half_life);
    dated constant boolean := cardinality(wish.months) > 0 OR cardinality(wish.years) > 0;
BEGIN
    RETURN QUERY
        WITH placed AS MATERIALIZED (
            SELECT v.memory_id, v.embedding <=> query AS distance
              FROM memory.memory_vectors v
             WHERE picked IS NULL AND query IS NOT NULL AND v.model_id = model AND v.tenant_id = tenant
               AND v.agent_id = agent AND v.user_id = subject
             UNION ALL
            SELECT one.id, coalesce(known.distance, (
                       SELECT v.embedding <=> query FROM memory.memory_vectors v
                        WHERE v.tenant_id = tenant AND v.memory_id = one.id AND v.model_id = model LIMIT 1))
              FROM unnest(picked) AS one (id)
              LEFT JOIN unnest(nearest, distances) AS known (id, distance) ON known.id = one.id
             WHERE query IS NOT NULL
        ), stood AS MATERIALIZED (
            SELECT m.* FROM memory.memories m
             WHERE picked IS NULL AND m.tenant_id = tenant AND m.agent_id = agent AND m.user_id = subject
             UNION ALL
            SELECT m.* FROM unnest(picked) AS one (id)
             CROSS JOIN LATERAL (SELECT * FROM memory.memories m
                                  WHERE m.tenant_id = tenant AND m.memory_id = one.id LIMIT 1) m
        ), based AS (
            SELECT m.memory_id, 1 - d.distance AS similarity, coalesce(by_meaning * (1 - d.distance), 0) AS semantic,
                   coalesce(by_words * w.score, 0) AS lexical,
                   CASE WHEN m.type = 'context' THEN m.source_session END AS session,
                   CASE WHEN m.type = 'context' THEN m.source_sequences[1] END AS turn,
                   CASE WHEN m.speaker = ANY (named) THEN by_sign ELSE 0 END
                       + CASE WHEN wish.asks_when AND memory.tells_time(m.words) THEN by_sign ELSE 0 END
                       + CASE WHEN dated
                               AND (cardinality(wish.months) = 0
                                    OR extract(month FROM m.occur_time AT TIME ZONE 'UTC') = ANY (wish.months))
                               AND (cardinality(wish.years) = 0
                                    OR extract(year FROM m.occur_time AT TIME ZONE 'UTC') = ANY (wish.years))
                              THEN by_sign ELSE 0 END
                       - CASE WHEN m.is_question THEN by_question ELSE 0 END AS cues,
                   by_recency * memory.newness(m.occur_time, moment, half_life) AS recency,
                   by_importance * memory.regard(m.importance, m.confidence) AS importance,
                   by_trust * memory.worth(m.trust) AS trust,
                   m.byte_count,
                   memory.passes(wish, moment, m.type, m.labels, m.metadata, m.occur_time, m.source_session, m.trust,
                                 m.valid_from, m.valid_until, m.superseded_by) AS passes
              FROM stood m
              LEFT JOIN placed d USING (memory_id)
              LEFT JOIN unnest(matched, matches) AS w (memory_id, score) USING (memory_id)
        ), beside AS (
            SELECT *, CASE WHEN session IS NULL OR turn IS NULL THEN 0
                           ELSE coalesce(by_last * lag(semantic + lexical) OVER turns, 0)
                                + coalesce(by_next * lead(semantic + lexical) OVER turns, 0) END AS neighborhood
              FROM based WINDOW turns AS (PARTITION BY session ORDER BY turn)
        ), best AS (
            SELECT *, semantic + lexical + neighborhood + cues + recency + importance + trust AS score
              FROM beside
             WHERE passes AND (beside.similarity IS NOT NULL OR lexical > 0 OR neighborhood > 0)
               AND (wish.least_similarity IS NULL OR beside.similarity IS NULL
                    OR beside.similarity >= wish.least_similarity)
             ORDER BY score DESC, beside.similarity DESC NULLS LAST, memory_id LIMIT wish.most + 50
        ), used AS (
            SELECT best.*, by_access * coalesce(a.access_count::double precision / (a.access_count + 100), 0) AS access
              FROM best
              LEFT JOIN LATERAL (SELECT access_count FROM memory.memory_access a
                                  WHERE a.tenant_id = tenant AND a.memory_id = best.memory_id LIMIT 1) a ON true
        )
        SELECT used.memory_id, used.similarity,
               ARRAY[semantic, lexical, neighborhood, cues, recency, importance, access, trust], used.byte_count
          FROM used
         ORDER BY score + access DESC, used.similarity DESC NULLS LAST, used.memory_id LIMIT wish.most;
END $$;

-- Memories and, of those that are turns of a session, the two before and the two after: what they take from their
-- neighbours, and those that take from them.
CREATE OR REPLACE FUNCTION memory.with_neighbors(tenant uuid, agent uuid, subject text, ids uuid[])
RETURNS uuid[] LANGUAGE plpgsql STABLE SET enable_nestloop = on SET enable_sort = off AS $$
BEGIN
    RETURN (
        WITH told AS MATERIALIZED (
            -- By id alone: with more to go by, the planner may take another index.
            SELECT m.source_session, m.source_sequences[1] AS turn FROM unnest(ids) AS one (id)
             CROSS JOIN LATERAL (SELECT * FROM memory.memories m
                                  WHERE m.tenant_id = tenant AND m.memory_id = one.id LIMIT 1) m
             WHERE m.type = 'context' AND m.source_session IS NOT NULL
        )
        SELECT array_agg(id) FROM (
            SELECT unnest(ids) AS id
             UNION
            SELECT last.memory_id FROM told CROSS JOIN LATERAL (
                   SELECT m.memory_id FROM memory.memories m
                    WHERE m.tenant_id = tenant AND m.agent_id = agent AND m.user_id = subject AND m.type = 'context'
                      AND m.source_session = told.source_session AND m.source_sequences[1] < told.turn
                    ORDER BY m.source_sequences[1] DESC LIMIT 2) last
             UNION
            SELECT next.memory_id FROM told CROSS JOIN LATERAL (
                   SELECT m.memory_id FROM memory.memories m
                    WHERE m.tenant_id = tenant AND m.agent_id = agent AND m.user_id = subject AND m.type = 'context'
                      AND m.source_session = told.source_session AND m.source_sequences[1] > told.turn
                    ORDER BY m.source_sequences[1] LIMIT 2) next
        ) all_of_them
    );
END $$;

-- Makes memory.walk, a function with a statement for each model: planning a walk costs as much as half of it, so each keeps
-- its plan, and to find it takes no statement that is made of text and parsed. For the owner; install_embedding_models
-- calls it when there are other models. One at a time, so that none leaves out what another adds. A model that it doesn't
-- know brings nothing, and the search compares all.
CREATE OR REPLACE FUNCTION memory.make_walk() RETURNS void LANGUAGE plpgsql AS $make$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('minion memory walk', 0));
    EXECUTE format($walk$
        CREATE OR REPLACE FUNCTION memory.walk(
            tenant uuid, agent uuid, subject text, types text[], query vector, most integer, model smallint,
            OUT ids uuid[], OUT distances double precision[]
        ) LANGUAGE plpgsql STABLE SET enable_sort = off SET plan_cache_mode = force_generic_plan AS $$
        BEGIN
            CASE model %s ELSE NULL; END CASE;
        END $$
    $walk$, (SELECT string_agg(format('WHEN %s THEN
                     SELECT array_agg(memory_id), array_agg(distance) INTO ids, distances FROM (%s) AS nearest;',
                     model_id, memory.walk_query(model_id, dimension)), ' ' ORDER BY model_id)
               FROM memory.embedding_models WHERE install_time IS NOT NULL));
END $make$;
REVOKE EXECUTE ON FUNCTION memory.make_walk() FROM minion_memory_app;
-- An installation that the release before has begun knows nothing of this function: it is waited for.
LOCK TABLE memory.embedding_models IN EXCLUSIVE MODE;
SELECT memory.make_walk();

-- The nearest vectors of a scope, by comparing all. Its rows of a type lie in one run of the index, in the order of the
-- table: a bitmap of them would only be made and read again.
CREATE OR REPLACE FUNCTION memory.compare(
    tenant uuid, agent uuid, subject text, types text[], query vector, most integer, model smallint,
    OUT ids uuid[], OUT distances double precision[]
) LANGUAGE plpgsql STABLE SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT array_agg(memory_id), array_agg(distance) INTO ids, distances
      FROM (SELECT v.memory_id, v.embedding <=> query AS distance
              FROM memory.memory_vectors v
             WHERE v.model_id = model AND v.tenant_id = tenant AND v.agent_id = agent AND v.user_id = subject
               AND (types IS NULL OR v.type = ANY (types))
             ORDER BY distance LIMIT most) nearest;
END $$;

-- The memories of a scope that fit a wish best, in order, with how they were found and how many the scope has; one row
-- with no memory when nothing was found. `query` is NULL where there is no vector, `wish.said` empty where no words are.
--
-- Up to `whole_limit` all of the scope are weighed. Of more, candidates are: the nearest by meaning, the best by words,
-- and what stands beside them. The nearest are found by comparing all where at most `exact_limit` match scope and types
-- (the counts say), and where the walk of the index, which holds every tenant's vectors, would meet so many others that
-- comparing is cheaper. Whatever brings fewer than wanted, for a filter that no count knows, is done again with all.
-- The best come that `most_bytes` hold, one in any case. Stable, so that all of it sees one snapshot.
--
-- NULL stands for what is empty (labels, metadata, source_sequences), for a time that is the same as create_time, and for
-- an embedding_model that is the one asked for: most memories have only such, and sending and reading them costs more
-- than finding out.
--
-- Each statement in here costs a search 10 to 50 µs before it has read a row: what can be asked together is, and what a
-- plain assignment can do (which needs no executor) is no statement.
CREATE OR REPLACE FUNCTION memory.retrieve_memories(
    tenant uuid, request jsonb, model smallint, query vector, whole_limit bigint, exact_limit bigint,
    walk_candidates integer, walk_limit integer, most_bytes bigint
) RETURNS TABLE (
    plan text, scope_count bigint, similarity double precision, shares double precision[],
    memory_id uuid, agent_id uuid, user_id text, key text, type text, content text, speaker text,
    importance double precision, confidence double precision, trust text, labels jsonb, metadata jsonb,
    source_session uuid, source_sequences bigint[], source_quote text, embedding_model text,
    create_time timestamptz, update_time timestamptz, valid_from timestamptz, valid_until timestamptz,
    occur_time timestamptz, superseded_by uuid, access_count bigint, access_time timestamptz, revision bigint
)
LANGUAGE plpgsql STABLE ROWS 10 SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    wish constant memory.search_wish := jsonb_populate_record(NULL::memory.search_wish, request);
    agent constant uuid := wish.agent_id;
    subject constant text := wish.user_id;
    types constant text[] := wish.types;
    most constant integer := wish.most;
    least_similarity constant double precision := wish.least_similarity;
    with_words constant boolean := wish.said <> '';
    most_matches constant integer := greatest(50, 2 * most);
    moment constant timestamptz := coalesce(wish.as_of, now());
    half_life constant double precision := extract(epoch FROM wish.half_life);
    by_meaning constant double precision := wish.weights[1];
    by_question constant double precision := wish.weights[6];
    by_recency constant double precision := wish.weights[7];
    by_importance constant double precision := wish.weights[8];
    by_access constant double precision := wish.weights[9];
    by_trust constant double precision := wish.weights[10];
    setting text;
    moved boolean;
    counted bigint;
    matching bigint;
    told bigint;
    indexed bigint;
    fetched integer;
    candidates bigint;
    visited bigint;
    chosen text := CASE WHEN query IS NULL THEN 'lexical' ELSE 'exact' END;
    named text[];
    forms text[];
    matched uuid[];
    matches double precision[];
    enough boolean;
    walked record;
    nearest uuid[];
    distances double precision[];
    picked uuid[];
    all_weighed boolean := false;
    hits memory.search_hit[];
    hit memory.search_hit;
    filled bigint := 0;
    fitting integer := 0;
BEGIN
    setting := set_config('minion.tenant', tenant::text, true);
    SELECT scope.memory_count,
           CASE WHEN types IS NULL THEN scope.memory_count
                ELSE CASE WHEN 'fact' = ANY (types) THEN scope.fact_count ELSE 0 END
                   + CASE WHEN 'preference' = ANY (types) THEN scope.preference_count ELSE 0 END
                   + CASE WHEN 'context' = ANY (types) THEN scope.context_count ELSE 0 END
                   + CASE WHEN 'skill' = ANY (types) THEN scope.skill_count ELSE 0 END END,
           scope.context_count,
           EXISTS (SELECT FROM memory.tenant_models own WHERE own.tenant_id = tenant AND own.model_id <> model),
           CASE WHEN query IS NOT NULL AND scope.memory_count > whole_limit
                THEN (SELECT reltuples::bigint FROM pg_class
                       WHERE oid = format('memory.memory_vectors_%s', model)::regclass) END
      INTO counted, matching, told, moved, indexed
      FROM (SELECT) asked
      LEFT JOIN memory.scope_counts scope
             ON scope.tenant_id = tenant AND scope.agent_id = agent AND scope.user_id = subject;
    IF moved THEN
        PERFORM memory.require_model(tenant, model);
    END IF;
    plan := chosen;
    scope_count := coalesce(counted, 0);
    IF coalesce(matching, 0) = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF with_words THEN
        SELECT array_agg(n.speaker), array_agg(n.form) INTO named, forms
          FROM memory.named_speakers(tenant, agent, subject, wish.said) n;
        SELECT array_agg(m.memory_id), array_agg(m.score) INTO matched, matches
          FROM memory.match_words(agent, subject, memory.query_words(wish.said, forms), counted, 5000) m;
        -- Two that are named tell nothing of who speaks.
        named := CASE WHEN cardinality(named) = 1 THEN named END;
    END IF;

    IF query IS NOT NULL AND counted > whole_limit THEN
        indexed := greatest(matching, indexed);
        fetched := most * 2;
        visited := CASE WHEN with_words THEN greatest(fetched, 50) ELSE fetched END * indexed / matching;
        -- A vector met on a walk costs about as much as ten compared in a row.
        IF matching > exact_limit AND visited * 10 <= matching THEN
            chosen := 'hnsw';
        END IF;
        IF with_words OR chosen = 'exact' THEN
            -- More, since what else weighs may put another first; comparing costs the same however many are taken.
            fetched := greatest(fetched, 50);
        END IF;
    END IF;

    -- By the plan; if that brings too few, by comparing all; if that still may have missed some, by weighing all.
    LOOP
        IF counted > whole_limit AND NOT all_weighed THEN
            IF chosen = 'hnsw' THEN
                -- As many as the setting says where the whole index is the scope's. Where a part of it is, more by the
                -- root of that: since the others' vectors lead the way too, so many find as much (0.992 to 0.997 of the
                -- nearest, from the whole to a twentieth). But enough for half as many of the scope again as are fetched,
                -- and no more than cost as much as comparing all.
                candidates := least(1000, greatest(walk_candidates, fetched, least(matching / 10, ceil(greatest(
                    walk_candidates * sqrt(indexed::double precision / matching), visited * 1.5::double precision)))));
                -- All of them end with the transaction.
                setting := set_config('hnsw.ef_search', candidates::text, true);
                setting := set_config('hnsw.max_scan_tuples', least(greatest(8 * visited, 1000), walk_limit)::text, true);
                -- A walk that may go on keeps all that it passes by, which makes it dearer by a tenth to a third. So the
                -- first batch of candidates is walked alone, where it is likely to hold enough: it is the same either way.
                enough := candidates * 2 >= visited * 3;
                IF enough THEN
                    setting := set_config('hnsw.iterative_scan', 'off', true);
                    walked := memory.walk(tenant, agent, subject, types, query, fetched, model);
                    enough := coalesce(cardinality(walked.ids) >= fetched, false);
                END IF;
                IF NOT enough THEN
                    -- Past its first batch a walk brings vectors in nearly the order of their distances, so the best of
                    -- several times as many are taken. Measured with one in thirty matching: 92 % of the nearest ten are
                    -- among the first ten, 99 % among the first forty.
                    setting := set_config('hnsw.iterative_scan', 'relaxed_order', true);
                    walked := memory.walk(tenant, agent, subject, types, query, fetched * 2, model);
                END IF;
                nearest := walked.ids;
                distances := walked.distances;
            ELSIF query IS NOT NULL THEN
                walked := memory.compare(tenant, agent, subject, types, query, fetched, model);
                nearest := walked.ids;
                distances := walked.distances;
            END IF;
            IF told = 0 AND NOT with_words THEN
                -- No words and no turns: what memory.weigh would make of the nearest, with less to plan and to join, and
                -- brought at once. Nothing comes unless as many as wanted pass, all of them fit, and each is embedded with
                -- the model asked for.
                RETURN QUERY
                    SELECT chosen, counted, 1 - distance,
                           ARRAY[semantic, 0, 0, cues, by_newness, by_weight, by_use, by_worth],
                           memory_id, agent_id, user_id, key, type, content, speaker, importance, confidence, trust,
                           nullif(labels, '{}'), nullif(metadata, '{}'),
                           source_session, nullif(source_sequences, '{}'), source_quote, NULL::text,
                           create_time, nullif(updated_at, create_time), nullif(valid_from, create_time), valid_until,
                           nullif(occur_time, create_time), superseded_by, coalesce(access_count, 0), access_time, revision
                      FROM (SELECT m.*, a.access_count, a.access_time,
                                   by_meaning * (1 - m.distance) AS semantic,
                                   CASE WHEN m.is_question THEN -by_question ELSE 0 END AS cues,
                                   by_recency * memory.newness(m.occur_time, moment, half_life) AS by_newness,
                                   by_importance * memory.regard(m.importance, m.confidence) AS by_weight,
                                   by_access * coalesce(a.access_count::double precision / (a.access_count + 100), 0)
                                       AS by_use,
                                   by_trust * memory.worth(m.trust) AS by_worth,
                                   count(*) OVER () AS passing, sum(m.byte_count) OVER () AS passing_bytes,
                                   bool_and(m.model_id IS NOT DISTINCT FROM model) OVER () AS of_one_model
                              FROM (SELECT one.distance, known.*
                                      FROM unnest(nearest, distances) AS one (id, distance)
                                     CROSS JOIN LATERAL (SELECT * FROM memory.memories known
                                                          WHERE known.tenant_id = tenant AND known.memory_id = one.id
                                                          LIMIT 1) known) m
                              LEFT JOIN LATERAL (SELECT used.access_count, used.access_time FROM memory.memory_access used
                                                  WHERE used.tenant_id = tenant AND used.memory_id = m.memory_id
                                                  LIMIT 1) a ON true
                             WHERE memory.passes(wish, moment, m.type, m.labels, m.metadata, m.occur_time,
                                                 m.source_session, m.trust, m.valid_from, m.valid_until, m.superseded_by)
                               AND (least_similarity IS NULL OR 1 - m.distance >= least_similarity)) weighed
                     WHERE passing >= most AND passing_bytes <= most_bytes AND of_one_model
                     ORDER BY semantic + cues + by_newness + by_weight + by_use + by_worth DESC, distance, memory_id
                     LIMIT most;
                IF FOUND THEN
                    RETURN;
                END IF;
            END IF;
            picked := nearest;
            IF matched IS NOT NULL THEN
                SELECT array_agg(DISTINCT id) INTO picked
                  FROM (SELECT unnest(nearest) AS id
                         UNION ALL
                        (SELECT id FROM unnest(matched, matches) AS given (id, score)
                          ORDER BY score DESC, id LIMIT most_matches)) together;
            END IF;
            IF told > 0 THEN
                picked := memory.with_neighbors(tenant, agent, subject, picked);
            END IF;
            picked := coalesce(picked, '{}');
        ELSE
            all_weighed := true;
            picked := NULL;
        END IF;
        SELECT array_agg(ROW(w.memory_id, w.similarity, w.shares, w.byte_count)::memory.search_hit) INTO hits
          FROM memory.weigh(tenant, wish, model, query, picked, nearest, distances, matched, matches, named) w;
        EXIT WHEN all_weighed OR coalesce(cardinality(hits), 0) >= most;
        IF chosen = 'hnsw' THEN
            chosen := 'hnsw_then_exact';
            fetched := greatest(fetched, 50);
        ELSE
            -- Nothing was missed where all that have words were candidates, and all that have vectors, or all that are as
            -- near as asked for.
            EXIT WHEN coalesce(cardinality(matched), 0) <= most_matches
                  AND (query IS NULL OR coalesce(cardinality(nearest), 0) < fetched
                       OR coalesce(1 - distances[cardinality(distances)] < least_similarity, false));
            all_weighed := true;
        END IF;
    END LOOP;
    FOREACH hit IN ARRAY coalesce(hits, '{}') LOOP
        filled := filled + hit.byte_count;
        EXIT WHEN filled > most_bytes AND fitting > 0;
        fitting := fitting + 1;
    END LOOP;
    IF fitting = 0 THEN
        plan := chosen;
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT chosen, counted, found.similarity, found.shares,
               d.memory_id, d.agent_id, d.user_id, d.key, d.type, d.content, d.speaker, d.importance, d.confidence, d.trust,
               nullif(d.labels, '{}'), nullif(d.metadata, '{}'),
               d.source_session, nullif(d.source_sequences, '{}'), d.source_quote,
               nullif(d.embedding_model, (SELECT e.name FROM memory.embedding_models e WHERE e.model_id = model)),
               d.create_time, nullif(d.update_time, d.create_time), nullif(d.valid_from, d.create_time), d.valid_until,
               nullif(d.occur_time, d.create_time), d.superseded_by, d.access_count, d.access_time, d.revision
          FROM unnest(hits[:fitting]) WITH ORDINALITY AS found (memory_id, similarity, shares, byte_count, place)
         CROSS JOIN LATERAL (SELECT * FROM memory.memory_details d
                              WHERE d.tenant_id = tenant AND d.memory_id = found.memory_id LIMIT 1) d
         ORDER BY found.place;
END $$;

-- What the release before asks, for as long as its replicas are about. The next release drops it, and with it
-- memory.make_walk(smallint, integer) and memory.walk_1, memory.walk_2 and so on, which its own find_memories goes on to.
CREATE OR REPLACE FUNCTION memory.find_memories(
    tenant uuid, request jsonb, model smallint, query vector, whole_limit bigint, exact_limit bigint,
    walk_candidates integer, walk_limit integer, most_bytes bigint
) RETURNS TABLE (
    plan text, scope_count bigint, similarity double precision, shares double precision[],
    memory_id uuid, agent_id uuid, user_id text, key text, type text, content text, speaker text,
    importance double precision, confidence double precision, trust text, labels jsonb, metadata jsonb,
    source_session uuid, source_sequences bigint[], source_quote text, embedding_model text,
    create_time timestamptz, update_time timestamptz, valid_from timestamptz, valid_until timestamptz,
    occur_time timestamptz, superseded_by uuid, access_count bigint, access_time timestamptz, revision bigint
)
LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT found.plan, scope_count, similarity, shares, memory_id, agent_id, user_id, key, type, content, speaker,
           importance, confidence, trust, coalesce(labels, '{}'), coalesce(metadata, '{}'), source_session,
           coalesce(source_sequences, '{}'), source_quote,
           coalesce(embedding_model, (SELECT e.name FROM memory.embedding_models e WHERE e.model_id = model)),
           create_time, coalesce(update_time, create_time), coalesce(valid_from, create_time), valid_until,
           coalesce(occur_time, create_time), superseded_by, access_count, access_time, revision
      FROM memory.retrieve_memories(
               tenant, request, model, query, whole_limit, exact_limit, walk_candidates, walk_limit, most_bytes) found;
$$;

-- Of the release before the last one.
DROP FUNCTION IF EXISTS memory.search_memories(uuid, jsonb, smallint, vector, bigint, bigint, integer, integer, bigint);
DROP FUNCTION IF EXISTS memory.weigh_nearest(uuid, memory.search_wish, uuid[], double precision[]);

-- Adds to how often memories were brought; `counts` runs in parallel to `ids`. Those that are being deleted are left
-- out: nobody waits, and no lock is taken in another order than a deletion's.
CREATE OR REPLACE FUNCTION memory.note_accesses(tenant uuid, ids uuid[], counts bigint[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('minion.tenant', tenant::text, true);
    WITH there AS MATERIALIZED (
        SELECT m.memory_id, noted.count
          FROM unnest(ids, counts) AS noted (memory_id, count)
          JOIN memory.memories m ON m.tenant_id = tenant AND m.memory_id = noted.memory_id
         ORDER BY m.memory_id FOR KEY SHARE OF m SKIP LOCKED
    )
    INSERT INTO memory.memory_access AS known (tenant_id, memory_id, access_count, access_time)
    SELECT tenant, memory_id, count, now() FROM there ORDER BY memory_id
    ON CONFLICT (tenant_id, memory_id) DO UPDATE
       SET access_count = known.access_count + excluded.access_count,
           access_time = greatest(known.access_time, excluded.access_time);
END $$;
