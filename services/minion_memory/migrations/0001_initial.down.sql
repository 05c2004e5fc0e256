-- Takes back everything; what was remembered is lost.
DROP TABLE memory.idempotency_keys;
DROP VIEW memory.memory_details;
DROP TYPE memory.store_item;
DROP TABLE memory.memory_vectors;
DROP TABLE memory.memories;
DROP TABLE memory.scope_counts;
DROP TABLE memory.embedding_models;
DROP FUNCTION memory.keep_counts();
DROP FUNCTION memory.delete_vectors();
DROP FUNCTION memory.set_updated_at();
