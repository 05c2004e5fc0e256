DROP INDEX session.sessions_sharing_with;
DROP INDEX session.sessions_forked_from;
