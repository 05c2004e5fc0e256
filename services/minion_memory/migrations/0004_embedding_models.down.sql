-- Takes back the tenants' choices and the moves. Memories keep the vectors that they have; those of tenants that left the
-- deployment's model are found by their vectors again when their model is the deployment's.
DROP TRIGGER drop_moved_vectors ON memory.memories;
DROP FUNCTION memory.drop_moved_vectors();
DROP TABLE memory.reembeddings;
DROP TABLE memory.tenant_models;
