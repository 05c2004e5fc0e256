-- The functions by which agents are found; applied again whenever this file has changed.

-- The values of an agent's metadata, each as the SHA-256 of its place and itself: texts, numbers, true, false and null
-- under the path of names that leads to them. A place in a list is no part of the path, so that any item may be meant.
CREATE OR REPLACE FUNCTION registry.metadata_leaves(metadata jsonb)
RETURNS SETOF bytea LANGUAGE sql STABLE AS $$
    WITH RECURSIVE node (place, value) AS (
        SELECT '[]'::jsonb, metadata
         UNION ALL
        SELECT inner_node.place, inner_node.value
          FROM node CROSS JOIN LATERAL (
               SELECT node.place || to_jsonb(entry.key) AS place, entry.value
                 FROM jsonb_each(CASE jsonb_typeof(node.value) WHEN 'object' THEN node.value ELSE '{}' END) entry
                UNION ALL
               SELECT node.place, item.value
                 FROM jsonb_array_elements(CASE jsonb_typeof(node.value) WHEN 'array' THEN node.value ELSE '[]' END) item
               ) inner_node
    )
    SELECT DISTINCT sha256(convert_to(jsonb_build_array(place, value)::text, 'UTF8'))
      FROM node WHERE jsonb_typeof(value) NOT IN ('object', 'array');
$$;
