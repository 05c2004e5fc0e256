"""The audit's way to the activity service, for services that have something to tell.

A row is written in the transaction of what it tells of, into the schema's `outbox`; the relay sends it on until the
activity service has acknowledged it, which stores it once by its id. So nothing that happened is missing, nothing that
was rolled back is told, and nobody waits for the audit.
"""

from minion_audit.domain import Activity, ActivityKind, ActivityStatus, Waiting, clipped, error_fields
from minion_audit.peer import RETRYABLE, ActivityPeer
from minion_audit.relay import Relay
from minion_audit.store import Lag, OutboxStore

__all__ = [
    "RETRYABLE",
    "Activity",
    "ActivityKind",
    "ActivityPeer",
    "ActivityStatus",
    "Lag",
    "OutboxStore",
    "Relay",
    "Waiting",
    "clipped",
    "error_fields",
]
