-- A step whose job goes is not made any more.
UPDATE gateway.run_steps s SET state = 'SKIPPED', end_time = now()
  FROM gateway.summary_jobs j
 WHERE s.tenant_id = j.tenant_id AND s.run_id = j.run_id AND s.sequence = j.step_sequence AND s.state = 'STARTED';
DROP TABLE gateway.summary_jobs;
