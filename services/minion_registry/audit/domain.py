"""What the audit says of a change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, as `tool.update` or `binding.block`, and what is to be known of it: JSON, 32 KiB at most.

    `agent_id` and `agent_revision` are set where it concerns an agent. Never put a secret or an agent's texts into
    `details`: name the revision or version that holds them.
    """

    name: str
    details: Mapping[str, Any] = field(default_factory=dict)
    agent_id: UUID | None = None
    agent_revision: int = 0
