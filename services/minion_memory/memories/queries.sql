-- name: store_memories
-- Stores a batch of memories with their vectors, all or none; says what became of each.
SELECT memory.store_memories($1, $2, $3, $4, $5, $6, $7, $8);

-- name: recall_store
-- The first result of a store, NULL when it is new.
SELECT memory.recall_store($1, $2, $3);

-- name: get_memory
-- A memory, or no row.
SELECT * FROM memory.get_memory($1, $2);

-- name: get_memory_by_key
-- A memory by what it is filed under, or no row.
SELECT * FROM memory.get_memory_by_key($1, $2, $3, $4);

-- name: recall_change
-- The memory as a change under this request left it; no row when the request is new.
SELECT * FROM memory.recall_change($1, $2, $3, $4);

-- name: change_memory
-- Changes a memory; no row when there is none.
SELECT * FROM memory.change_memory($1, $2, 'UpdateMemory', $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: list_memories
-- One page of memories, newest first.
SELECT row_count, (memory).* FROM memory.list_memories($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: delete_memory
-- Deletes a memory; says whether there was one.
SELECT memory.delete_memory($1, $2, $3, $4);

-- name: search_memories
-- The memories of a scope nearest to a vector, best first; one row with no memory when there is none.
SELECT plan, scope_count, score, (memory).*
  FROM memory.search_memories($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);
