-- name: get_revision
-- One state of a memory, or no row.
SELECT * FROM memory.get_revision($1, $2, $3);

-- name: list_revisions
-- One page of the states of a memory, newest first; no row when there is no such memory.
SELECT row_count, (state).* FROM memory.list_revisions($1, $2, $3, $4, $5);

-- name: roll_back_memory
-- Puts a memory back into a former state; no row when there is none, or no such state.
SELECT * FROM memory.roll_back_memory($1, $2, $3, $4, $5, $6, $7, $8, $9);
