-- name: retrieve_memories
-- The memories of a scope that fit best, in order; one row with no memory when there is none.
SELECT * FROM memory.retrieve_memories($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: named_speakers
-- The names by which a text calls speakers of a scope.
SELECT form FROM memory.named_speakers($1, $2, $3, $4);

-- name: note_accesses
-- Adds to how often memories were brought.
SELECT memory.note_accesses($1, $2, $3);
