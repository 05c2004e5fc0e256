-- Sessions whose summary is due: one job a session, named by the step of the run that asked for it. It holds ids alone;
-- what is said and what it costs stand in the step, its attempts and the ledger. A job that has ended is deleted.
CREATE TABLE gateway.summary_jobs (
    tenant_id      uuid        NOT NULL,
    session_id     uuid        NOT NULL,
    run_id         uuid        NOT NULL,
    step_sequence  integer     NOT NULL,
    epoch          bigint      NOT NULL DEFAULT 0,
    owner          uuid,
    lease_until    timestamptz NOT NULL DEFAULT now(),
    recovery_count integer     NOT NULL DEFAULT 0,
    deferral_count integer     NOT NULL DEFAULT 0,
    create_time    timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, session_id)
) WITH (fillfactor = 70);
CREATE TRIGGER summary_jobs_updated_at BEFORE UPDATE ON gateway.summary_jobs
    FOR EACH ROW EXECUTE FUNCTION gateway.set_updated_at();
-- The picker's, across tenants: as long as what is under way now.
CREATE INDEX summary_jobs_due ON gateway.summary_jobs (lease_until);

ALTER TABLE gateway.summary_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE gateway.summary_jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON gateway.summary_jobs TO minion_gateway_owner USING (true);
CREATE POLICY app ON gateway.summary_jobs TO minion_gateway_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON gateway.summary_jobs TO minion_gateway_app;
