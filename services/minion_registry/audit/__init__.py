"""The audit of who may run what: written with what it tells of, sent on to the activity service."""
