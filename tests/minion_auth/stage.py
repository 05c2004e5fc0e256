"""What tests of authentication stand on: a clock, and a registry that answers, stalls or is away."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from minion_auth import EVERYTHING, VerifiedKey, api_keys
from minion_errors import MinionError, Unavailable

KEY = "a service key of tests, long enough to be one"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Registry:
    """The keys that work, and whether they can be asked for."""

    def __init__(self) -> None:
        self.keys: dict[bytes, VerifiedKey] = {}
        self.tenants: dict[UUID, bool] = {}
        self.asked = 0
        self.away: bool | MinionError = False  # or what it fails with
        self.answer = asyncio.Event()
        self.answer.set()

    def issue(
        self,
        expire_time: datetime | None = None,
        *,
        tenant_id: UUID | None = None,
        scopes: frozenset[str] = EVERYTHING,
    ) -> str:
        key = api_keys.generate()
        self.keys[key.digest] = VerifiedKey(uuid4(), tenant_id or uuid4(), expire_time, scopes)
        return key.secret

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        self.asked += 1
        await self.answer.wait()
        if isinstance(self.away, MinionError):
            raise self.away
        if self.away:
            raise Unavailable("away", reason="PEER_UNAVAILABLE", retry_after=timedelta(seconds=2))
        key = self.keys.get(digest)
        return None if key is None else replace(key, suspended=self.tenants.get(key.tenant_id, False))

    async def suspended(self, tenant_id: UUID) -> bool | None:
        self.asked += 1
        if self.away:
            raise Unavailable("away", reason="PEER_UNAVAILABLE")
        return self.tenants.get(tenant_id)
