-- The registry's schema: tenants, their API keys, agents with revisions, tools with versions, bindings, and the feed.

CREATE FUNCTION registry.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

-- The one table whose row is the tenant. Made by registry.create_tenant alone.
CREATE TABLE registry.tenants (
    tenant_id    uuid        NOT NULL PRIMARY KEY,
    name         text        NOT NULL CONSTRAINT tenants_name_key UNIQUE,
    display_name text        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE registry.api_keys (
    tenant_id    uuid        NOT NULL CONSTRAINT api_keys_tenant_fkey REFERENCES registry.tenants,
    api_key_id   uuid        NOT NULL,
    display_name text        NOT NULL,
    prefix       text        NOT NULL,
    digest       bytea       NOT NULL CONSTRAINT api_keys_digest_key UNIQUE CHECK (length(digest) = 32),
    create_time  timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    expire_time  timestamptz,
    revoke_time  timestamptz,
    PRIMARY KEY (tenant_id, api_key_id)
);

-- Each agent in its current revision. `version` counts every change, `revision` those of the contents.
CREATE TABLE registry.agents (
    tenant_id     uuid        NOT NULL CONSTRAINT agents_tenant_fkey REFERENCES registry.tenants,
    agent_id      uuid        NOT NULL,
    name          text        NOT NULL,
    display_name  text        NOT NULL,
    description   text        NOT NULL,
    behavior_type text        NOT NULL,
    instructions  text        NOT NULL,
    llm           jsonb       NOT NULL,
    capabilities  text[]      NOT NULL,
    behavior      jsonb       NOT NULL,
    metadata      jsonb       NOT NULL,
    labels        jsonb       NOT NULL,
    status        text        NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'inactive', 'archived')),
    revision      bigint      NOT NULL DEFAULT 1 CHECK (revision > 0),
    version       bigint      NOT NULL DEFAULT 1 CHECK (version >= revision),
    create_time   timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    -- At least what it takes on the wire, by which pages end: a JSON number of three characters takes eleven bytes there.
    wire_bytes    integer     NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)) STORED,
    PRIMARY KEY (tenant_id, agent_id),
    CONSTRAINT agents_name_key UNIQUE (tenant_id, name)
);
CREATE INDEX agents_create_time ON registry.agents (tenant_id, create_time DESC, agent_id DESC);
CREATE INDEX agents_status ON registry.agents (tenant_id, status, create_time DESC, agent_id DESC);
CREATE INDEX agents_behavior_type ON registry.agents (tenant_id, behavior_type, create_time DESC, agent_id DESC);

-- What the agent was in each of its revisions. The app role may add rows; they change never and go with the agent alone.
CREATE TABLE registry.agent_revisions (
    tenant_id     uuid        NOT NULL,
    agent_id      uuid        NOT NULL,
    revision      bigint      NOT NULL,
    name          text        NOT NULL,
    display_name  text        NOT NULL,
    description   text        NOT NULL,
    behavior_type text        NOT NULL,
    instructions  text        NOT NULL,
    llm           jsonb       NOT NULL,
    capabilities  text[]      NOT NULL,
    behavior      jsonb       NOT NULL,
    metadata      jsonb       NOT NULL,
    labels        jsonb       NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT now(),
    wire_bytes    integer     NOT NULL GENERATED ALWAYS AS (
        1000 + octet_length(display_name) + octet_length(description) + octet_length(instructions)
        + 260 * cardinality(capabilities) + 4 * octet_length(metadata::text) + 4 * octet_length(labels::text)) STORED,
    PRIMARY KEY (tenant_id, agent_id, revision),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE
);

-- Side tables of the lists' filters: `@>` on jsonb and arrays uses no index under row-level security, equality does.
-- They repeat the agent's create_time, so that an index gives a page in the list's order.
CREATE TABLE registry.agent_labels (
    tenant_id         uuid        NOT NULL,
    agent_id          uuid        NOT NULL,
    key               text        NOT NULL,
    value             text        NOT NULL,
    agent_create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, key),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE
);
CREATE INDEX agent_labels_value
    ON registry.agent_labels (tenant_id, key, value, agent_create_time DESC, agent_id DESC);

CREATE TABLE registry.agent_capabilities (
    tenant_id         uuid        NOT NULL,
    agent_id          uuid        NOT NULL,
    capability        text        NOT NULL,
    agent_create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, capability),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE
);
CREATE INDEX agent_capabilities_capability
    ON registry.agent_capabilities (tenant_id, capability, agent_create_time DESC, agent_id DESC);

-- Each tool in its current version.
CREATE TABLE registry.tools (
    tenant_id           uuid        NOT NULL CONSTRAINT tools_tenant_fkey REFERENCES registry.tenants,
    tool_id             uuid        NOT NULL,
    name                text        NOT NULL,
    description         text        NOT NULL,
    input_schema        jsonb       NOT NULL,
    transport           text        NOT NULL CHECK (transport IN ('builtin')),
    builtin             text        NOT NULL,
    effect              text        NOT NULL CHECK (effect IN ('read_only', 'idempotent', 'side_effect')),
    time_limit          interval,
    cost_per_call_nanos bigint      NOT NULL CHECK (cost_per_call_nanos >= 0),
    labels              jsonb       NOT NULL,
    version             bigint      NOT NULL DEFAULT 1 CHECK (version > 0),
    digest              text        NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    create_time         timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    wire_bytes          integer     NOT NULL GENERATED ALWAYS AS (
        500 + octet_length(description) + 4 * octet_length(input_schema::text) + 4 * octet_length(labels::text)) STORED,
    PRIMARY KEY (tenant_id, tool_id),
    CONSTRAINT tools_name_key UNIQUE (tenant_id, name)
);
CREATE INDEX tools_transport ON registry.tools (tenant_id, transport, name);

-- What the tool was in each of its versions.
CREATE TABLE registry.tool_versions (
    tenant_id           uuid        NOT NULL,
    tool_id             uuid        NOT NULL,
    version             bigint      NOT NULL,
    name                text        NOT NULL,
    description         text        NOT NULL,
    input_schema        jsonb       NOT NULL,
    transport           text        NOT NULL,
    builtin             text        NOT NULL,
    effect              text        NOT NULL,
    time_limit          interval,
    cost_per_call_nanos bigint      NOT NULL,
    labels              jsonb       NOT NULL,
    digest              text        NOT NULL,
    create_time         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, tool_id, version),
    FOREIGN KEY (tenant_id, tool_id) REFERENCES registry.tools ON DELETE CASCADE
);

CREATE TABLE registry.agent_tools (
    tenant_id     uuid        NOT NULL,
    agent_id      uuid        NOT NULL,
    tool_id       uuid        NOT NULL,
    configuration jsonb       NOT NULL,
    bound_digest  text        NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id, tool_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES registry.agents ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, tool_id) REFERENCES registry.tools
);
CREATE INDEX agent_tools_tool ON registry.agent_tools (tenant_id, tool_id);

-- The lifecycle, whoever writes: draft → active ⇄ inactive → archived, and draft → archived; an archived agent stays as
-- it is. `AgentStatus.may_become` says the same; a test holds them together.
CREATE FUNCTION registry.guard_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'draft' THEN
            RAISE EXCEPTION 'AGENT_STATUS_UNSUITABLE' USING ERRCODE = 'MN412',
                DETAIL = 'An agent begins as a draft.',
                HINT = jsonb_build_object('agent_id', NEW.agent_id, 'status', upper(NEW.status))::text;
        END IF;
    ELSIF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('draft', 'active'), ('draft', 'archived'),
        ('active', 'inactive'),
        ('inactive', 'active'), ('inactive', 'archived')
    ) THEN
        RAISE EXCEPTION 'AGENT_TRANSITION_ILLEGAL' USING ERRCODE = 'MN412',
            DETAIL = format('An agent can''t go from %s to %s.', OLD.status, NEW.status),
            HINT = jsonb_build_object('agent_id', OLD.agent_id, 'from', upper(OLD.status), 'to', upper(NEW.status))::text;
    ELSIF OLD.status = 'archived' THEN
        RAISE EXCEPTION 'AGENT_STATUS_UNSUITABLE' USING ERRCODE = 'MN412',
            DETAIL = 'An archived agent takes no changes.',
            HINT = jsonb_build_object('agent_id', OLD.agent_id, 'status', 'ARCHIVED')::text;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agents_guard BEFORE INSERT OR UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.guard_agent();

-- Revisions and versions never change, whoever asks.
CREATE FUNCTION registry.refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER agent_revisions_immutable BEFORE UPDATE ON registry.agent_revisions
    FOR EACH ROW EXECUTE FUNCTION registry.refuse_update();
CREATE TRIGGER tool_versions_immutable BEFORE UPDATE ON registry.tool_versions
    FOR EACH ROW EXECUTE FUNCTION registry.refuse_update();

CREATE TRIGGER tenants_updated_at BEFORE UPDATE ON registry.tenants
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();
CREATE TRIGGER api_keys_updated_at BEFORE UPDATE ON registry.api_keys
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();
CREATE TRIGGER agents_updated_at BEFORE UPDATE ON registry.agents
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();
CREATE TRIGGER tools_updated_at BEFORE UPDATE ON registry.tools
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();
CREATE TRIGGER agent_tools_updated_at BEFORE UPDATE ON registry.agent_tools
    FOR EACH ROW EXECUTE FUNCTION registry.set_updated_at();

-- Row-level security: the owner sees all, the app role the rows of the tenant of its transaction.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenants', 'api_keys', 'agents', 'agent_revisions', 'agent_labels',
                                'agent_capabilities', 'tools', 'tool_versions', 'agent_tools'] LOOP
        EXECUTE format($sql$
            ALTER TABLE registry.%1$I ENABLE ROW LEVEL SECURITY;
            ALTER TABLE registry.%1$I FORCE ROW LEVEL SECURITY;
            CREATE POLICY owner ON registry.%1$I TO minion_registry_owner USING (true);
            CREATE POLICY app ON registry.%1$I TO minion_registry_app
                USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
                WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
        $sql$, name);
    END LOOP;
END $$;

GRANT SELECT ON registry.tenants TO minion_registry_app;
-- The digest of a key is written and looked up, never read.
GRANT SELECT (tenant_id, api_key_id, display_name, prefix, create_time, updated_at, expire_time, revoke_time),
      INSERT, UPDATE (revoke_time) ON registry.api_keys TO minion_registry_app;
GRANT SELECT, INSERT, UPDATE ON registry.agents TO minion_registry_app;
GRANT SELECT, INSERT ON registry.agent_revisions TO minion_registry_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.agent_labels TO minion_registry_app;
GRANT SELECT, INSERT, DELETE ON registry.agent_capabilities TO minion_registry_app;
GRANT SELECT, INSERT ON registry.tools TO minion_registry_app;
GRANT SELECT, INSERT ON registry.tool_versions TO minion_registry_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.agent_tools TO minion_registry_app;

-- Copied from minion_postgres: idempotency.table_sql("registry") and feed.table_sql("registry").

CREATE TABLE registry.idempotency_keys (
    tenant_id   uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    method      text        NOT NULL,
    digest      bytea       NOT NULL,
    subject     text,       -- whose content the result holds, so that erasure reaches it
    result      jsonb,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_keys_create_time ON registry.idempotency_keys USING brin (create_time);
CREATE INDEX idempotency_keys_subject ON registry.idempotency_keys (tenant_id, subject) WHERE subject IS NOT NULL;
ALTER TABLE registry.idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE registry.idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON registry.idempotency_keys TO minion_registry_owner USING (true);
CREATE POLICY app ON registry.idempotency_keys TO minion_registry_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.idempotency_keys TO minion_registry_app;

CREATE TABLE registry.changes (
    tenant_id   uuid        NOT NULL,
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    resource_id uuid        NOT NULL,
    kind        text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, xid, id)
);
CREATE INDEX changes_order ON registry.changes (xid, id) INCLUDE (tenant_id);
CREATE INDEX changes_create_time ON registry.changes USING brin (create_time);
ALTER TABLE registry.changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE registry.changes FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON registry.changes TO minion_registry_owner USING (true);
CREATE POLICY app ON registry.changes TO minion_registry_app
    USING (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('minion.tenant', true), '')::uuid);
GRANT SELECT, INSERT ON registry.changes TO minion_registry_app;
