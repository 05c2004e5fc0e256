DROP TABLE gateway.outbox;
DROP TABLE gateway.ledger;
DROP TABLE gateway.attempts;
DROP TABLE gateway.run_events;
DROP TABLE gateway.run_steps;
DROP TABLE gateway.runs;
DROP TABLE gateway.agent_snapshots;
DROP FUNCTION gateway.set_updated_at();
