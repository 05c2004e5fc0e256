"""What a deployment decides about the audit's way."""

from minion_settings import Address, Settings
from pydantic import Field


class AuditSettings(Settings):
    """Where the audit goes, and how it gets there."""

    activity_address: Address = Field(default="localhost:50054", description="Where the activity service answers.")
    outbox_poll_seconds: float = Field(
        default=0.25, ge=0.01, le=60, description="Seconds between two looks of the audit's relay at the outbox."
    )
    outbox_claim_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=3_600,
        description="How long audit rows stay with a replica that took them to send and died.",
    )
