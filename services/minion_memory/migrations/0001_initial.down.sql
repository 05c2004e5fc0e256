-- Takes back everything; what was remembered is lost.
DROP TABLE memory.idempotency_keys;
DROP VIEW memory.memory_details;
DROP TABLE memory.memory_vectors;
DROP TABLE memory.memories;
DROP TABLE memory.scope_counts;
DROP TABLE memory.embedding_models;
DROP FUNCTION memory.count_stored();
DROP FUNCTION memory.count_deleted();
DROP FUNCTION memory.set_updated_at();
