-- name: export_memories
-- One page of memories on their way out, newest first.
SELECT row_count, (memory).*, embedding FROM memory.export_memories($1, $2, $3, $4, $5, $6, $7, $8);
