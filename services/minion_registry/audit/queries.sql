-- name: record_audit
-- Writes audit rows down, to be sent on.
INSERT INTO registry.outbox (tenant_id, activity_id, principal, payload)
SELECT $1, a.activity_id, a.principal, a.payload
  FROM jsonb_to_recordset($2::jsonb) AS a(activity_id uuid, principal text, payload json);
