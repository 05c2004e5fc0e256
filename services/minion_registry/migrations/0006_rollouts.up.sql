-- Rollouts: a candidate revision that takes a share of an agent's sessions, under watch.

-- `version` counts every change but the checks'. `check_due_time` is when it is looked at next, by whichever replica.
CREATE TABLE registry.rollouts (
    tenant_id          uuid        NOT NULL,
    rollout_id         uuid        NOT NULL,
    agent_id           uuid        NOT NULL,
    candidate_revision bigint      NOT NULL,
    baseline_revision  bigint      NOT NULL CHECK (baseline_revision <> candidate_revision),
    steps              jsonb       NOT NULL CHECK (jsonb_array_length(steps) BETWEEN 1 AND 20),
    step_index         integer     NOT NULL DEFAULT 0 CHECK (step_index >= 0 AND step_index < jsonb_array_length(steps)),
    basis_points       integer     NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
    guardrails         jsonb       NOT NULL,
    evidence           text        NOT NULL CHECK (evidence IN ('evaluation', 'none')),
    status             text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'promoted', 'aborted')),
    abort_reason       text        NOT NULL DEFAULT '',
    breached_guardrail text        CHECK (breached_guardrail IN ('error_rate', 'latency', 'cost', 'feedback')),
    last_check         jsonb,
    principal          text        NOT NULL,
    version            bigint      NOT NULL DEFAULT 1,
    create_time        timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    step_start_time    timestamptz NOT NULL DEFAULT now(),
    end_time           timestamptz,
    check_due_time     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, rollout_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE,
    CHECK ((status = 'running') = (end_time IS NULL)),
    CHECK ((status = 'aborted') = (abort_reason <> '')),
    CHECK (breached_guardrail IS NULL OR status = 'aborted'),
    CONSTRAINT rollouts_share CHECK (basis_points = CASE status
        WHEN 'running' THEN (steps -> step_index ->> 'basis_points')::integer
        WHEN 'promoted' THEN 10000
        ELSE 0 END)
);
-- At most one rollout of an agent runs.
CREATE UNIQUE INDEX rollouts_running ON registry.rollouts (tenant_id, agent_id) WHERE status = 'running';
CREATE INDEX rollouts_due ON registry.rollouts (check_due_time) WHERE status = 'running';
CREATE INDEX rollouts_create_time ON registry.rollouts (tenant_id, create_time DESC, rollout_id DESC);
CREATE INDEX rollouts_agent ON registry.rollouts (tenant_id, agent_id, create_time DESC, rollout_id DESC);
CREATE INDEX rollouts_status ON registry.rollouts (tenant_id, status, create_time DESC, rollout_id DESC);

-- A rollout's life, whoever writes: it begins running, goes to later steps alone, and what has ended stays as it is.
-- `Rollout` says the same; a test holds them together.
CREATE FUNCTION registry.guard_rollout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'running' OR NEW.step_index <> 0 THEN
            RAISE EXCEPTION 'a rollout begins running, with its first step' USING ERRCODE = 'restrict_violation';
        END IF;
    ELSIF OLD.status <> 'running' THEN
        RAISE EXCEPTION 'ROLLOUT_ENDED' USING ERRCODE = 'MN412',
            DETAIL = 'The rollout has ended.',
            HINT = jsonb_build_object('rollout_id', OLD.rollout_id, 'status', upper(OLD.status))::text;
    ELSIF NEW.step_index < OLD.step_index THEN
        RAISE EXCEPTION 'a rollout never goes back to an earlier step' USING ERRCODE = 'restrict_violation';
    ELSIF (NEW.agent_id, NEW.candidate_revision, NEW.baseline_revision, NEW.steps, NEW.guardrails, NEW.evidence,
           NEW.principal, NEW.create_time)
       IS DISTINCT FROM
          (OLD.agent_id, OLD.candidate_revision, OLD.baseline_revision, OLD.steps, OLD.guardrails, OLD.evidence,
           OLD.principal, OLD.create_time) THEN
        RAISE EXCEPTION 'what a rollout was started with never changes' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rollouts_guard BEFORE INSERT OR UPDATE ON registry.rollouts
    FOR EACH ROW EXECUTE FUNCTION registry.guard_rollout();
-- A check is no change: callers who read the rollout before it still know it.
CREATE TRIGGER rollouts_updated_at BEFORE UPDATE ON registry.rollouts
    FOR EACH ROW WHEN (OLD.version <> NEW.version OR OLD.updated_at <> NEW.updated_at)
    EXECUTE FUNCTION registry.set_updated_at();

ALTER TABLE registry.rollouts ENABLE ROW LEVEL SECURITY;
ALTER TABLE registry.rollouts FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON registry.rollouts TO minion_registry_owner USING (true);
CREATE POLICY app ON registry.rollouts TO minion_registry_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT,
      UPDATE (step_index, basis_points, status, abort_reason, breached_guardrail, last_check, version, step_start_time,
              end_time, check_due_time)
   ON registry.rollouts TO minion_registry_app;
