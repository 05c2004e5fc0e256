-- name: erase_subject
-- Deletes sessions of a user, about so many messages at once, and at the end what is stored for replays.
SELECT * FROM session.erase_subject($1, $2, $3);
