"""What an API key is, apart from its secret, which nobody keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that is to be; `ttl` None means that it works until it is revoked."""

    display_name: str
    ttl: timedelta | None
    scopes: Sequence[str]
    replaces: UUID | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which key gives its place to a new one; it works for `overlap` more, and the new one for `ttl`."""

    api_key_id: UUID
    overlap: timedelta
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored. `prefix` is the visible part of its secret.

    The defaults are what results say that the release before this one kept for repeats.
    """

    api_key_id: UUID
    display_name: str
    prefix: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    scopes: Sequence[str] = ("*",)
    replaces: UUID | None = None

    def works_at(self, moment: datetime) -> bool:
        """Tells whether the key is neither revoked nor expired."""
        return self.revoke_time is None and (self.expire_time is None or self.expire_time > moment)


@dataclass(frozen=True, slots=True)
class LockedKey:
    """A key that nobody else changes, and for how long it was made (None means until it is revoked); `now` is then."""

    api_key: ApiKey
    made_for: timedelta | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Rotated:
    """A new key, and the one whose place it takes."""

    api_key: ApiKey
    replaced: ApiKey
