"""What an API key is, apart from its secret, which nobody keeps."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that is to be; `ttl` None means that it works until it is revoked."""

    display_name: str
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored. `prefix` is the visible part of its secret."""

    api_key_id: UUID
    display_name: str
    prefix: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
