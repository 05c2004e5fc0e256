-- name: list_embedding_models
-- The models after a name, by name.
SELECT model_id, name, provider, dimension, install_time IS NOT NULL AS ready, create_time
  FROM memory.embedding_models WHERE name > $1 ORDER BY name LIMIT $2;

-- name: all_embedding_models
-- Every model.
SELECT model_id, name, provider, dimension, install_time IS NOT NULL AS ready, create_time
  FROM memory.embedding_models;

-- name: register_embedding_model
-- Registers a model, or finds the one of this name.
SELECT model_id, name, provider, dimension, install_time IS NOT NULL AS ready, create_time
  FROM memory.register_embedding_model($1, $2);

-- name: get_tenant_model
-- The model that a tenant chose; NULL where it chose none.
SELECT memory.get_tenant_model($1);

-- name: set_tenant_model
-- Makes a model the tenant's, where no memory lacks its vector.
SELECT memory.set_tenant_model($1, $2);

-- name: install_embedding_models
-- Makes partition and index of every model that has none, as the owner; returns the models' names.
SELECT m.name FROM memory.install_embedding_models() AS made (model_id) JOIN memory.embedding_models m USING (model_id);

-- name: claim_sweeps
-- Takes tenants whose vectors of other models are to be removed.
SELECT tenant_id, epoch FROM memory.claim_sweeps($1, $2);

-- name: sweep_vectors
-- Removes the vectors of other models from a tenant's next memories; the last one's id, NULL when all are done.
SELECT memory.sweep_vectors($1, $2, $3, $4, $5);
