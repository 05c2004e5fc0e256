-- name: schemas
-- Who may do what with each schema, whoever it was granted to; PUBLIC is everybody.
SELECT n.nspname::text AS schema, coalesce(r.rolname, 'PUBLIC')::text AS role,
       array_agg(a.privilege_type::text ORDER BY a.privilege_type) AS privileges
  FROM pg_namespace n
 CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE n.nspname = ANY ($1)
 GROUP BY 1, 2 ORDER BY 1, 2;

-- name: relations
-- Who may do what with each table, view and sequence: on the whole, and on single columns. Partitions are reached through
-- their tables alone, and stand in no line unless somebody but the owner may reach them past it.
SELECT n.nspname::text AS schema, c.relname::text AS name, coalesce(r.rolname, 'PUBLIC')::text AS role,
       g.privilege::text, array_remove(array_agg(g.col::text ORDER BY g.attnum), NULL) AS columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
       SELECT a.grantee, a.privilege_type AS privilege, NULL::name AS col, 0::smallint AS attnum
         FROM aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                                       c.relowner))) a
       UNION ALL
       SELECT a.grantee, a.privilege_type, t.attname, t.attnum
         FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) a
        WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
       ) g
  LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
   AND NOT (c.relispartition AND g.grantee = c.relowner)
 GROUP BY 1, 2, 3, 4, g.col IS NULL
 ORDER BY 1, 2, 3, 4, g.col IS NULL DESC;

-- name: functions
-- Who may call each function that acts with its owner's rights: the ways past row-level security.
SELECT n.nspname::text AS schema, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name,
       array_agg(DISTINCT coalesce(r.rolname, 'PUBLIC')::text ORDER BY coalesce(r.rolname, 'PUBLIC')::text) AS roles
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
  LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE n.nspname = ANY ($1) AND p.prosecdef AND a.privilege_type = 'EXECUTE'
 GROUP BY 1, 2 ORDER BY 1, 2;
