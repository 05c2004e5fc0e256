"""What a tool is, and what its digest is made of."""

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

# What the gateway can do by itself.
BUILTINS = ("clock", "calculator", "workspace", "remember", "recall", "read_blob")


class ToolTransport(enum.Enum):
    """How a tool is reached."""

    BUILTIN = "builtin"


class ToolEffect(enum.Enum):
    """What calling a tool does to the world."""

    READ_ONLY = "read_only"
    IDEMPOTENT = "idempotent"
    SIDE_EFFECT = "side_effect"


@dataclass(frozen=True, slots=True)
class ToolContents:
    """What the owner of a tool says about it; `time_limit` None means the default of 30 s."""

    name: str
    description: str
    input_schema: dict[str, Any]
    transport: ToolTransport
    builtin: str
    effect: ToolEffect
    time_limit: timedelta | None
    cost_per_call_nanos: int
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as stored."""

    tool_id: UUID
    contents: ToolContents
    version: int
    digest: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class ToolName:
    """Names a tool by its id or by its name: exactly one is set."""

    tool_id: UUID | None = None
    name: str | None = None


def digest(name: str, description: str, input_schema: Mapping[str, Any]) -> str:
    """Gives the SHA-256, hexadecimal, of what a model and an approver are shown of a tool.

    Over canonical JSON: keys sorted by code point, no white space, UTF-8 unescaped, whole numbers without a fraction.
    """
    shown = {"name": name, "description": description, "input_schema": input_schema}
    canonical = json.dumps(shown, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
