"""The audit's way to the activity service: written with what it tells of, sent on until it is acknowledged."""
