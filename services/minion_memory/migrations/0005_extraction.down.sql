-- What was drawn stays; who was followed and what was tried is forgotten.
DROP TABLE memory.session_feed, memory.extraction_jobs, memory.watched_sessions CASCADE;
