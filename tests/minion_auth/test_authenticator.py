import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from minion_auth import Authenticator, AuthSettings, ServiceTokens, api_keys
from minion_errors import DeadlineExceeded, InvalidArgument, MinionError, PermissionDenied, Unauthenticated, Unavailable
from pydantic import SecretStr

from tests.minion_auth.stage import KEY, Clock, Registry

METHOD = "/minion.session.v1.SessionService/GetSession"


class Desk:
    """An authenticator with its registry and clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.authenticator = Authenticator(
            AuthSettings(auth_mode="required", service_key=SecretStr(KEY), **settings),
            self.registry,
            ServiceTokens(KEY, "session", now=self.clock),
            monotonic=self.clock,
            wall=self.clock,
        )

    async def ask(self, secret: str, method: str = METHOD) -> str:
        """Gives the principal, or the reason of the refusal."""
        try:
            identity = await self.authenticator.authenticate((("authorization", f"Bearer {secret}"),), method)
        except MinionError as error:
            return error.reason
        return identity.principal


async def test_a_key_is_looked_up_once_in_five_seconds() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    principal = await desk.ask(secret)
    assert principal.startswith("key:")
    desk.clock.now += 4.9
    assert await desk.ask(secret) == principal
    assert desk.registry.asked == 1
    desk.clock.now += 0.2
    assert await desk.ask(secret) == principal
    assert desk.registry.asked == 2


async def test_a_revoked_key_is_refused_within_five_seconds() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    await desk.ask(secret)
    desk.registry.keys.clear()
    desk.clock.now += 5
    assert await desk.ask(secret) == "CREDENTIAL_INVALID"


async def test_a_key_that_expires_is_refused_at_once_though_it_is_remembered() -> None:
    desk = Desk()
    secret = desk.registry.issue(datetime.fromtimestamp(desk.clock.now + 2, UTC))
    assert (await desk.ask(secret)).startswith("key:")
    desk.clock.now += 2
    assert await desk.ask(secret) == "CREDENTIAL_INVALID"


async def test_an_unknown_key_is_remembered_for_as_long() -> None:
    desk = Desk()
    secret = api_keys.generate().secret
    for _ in range(3):
        assert await desk.ask(secret) == "CREDENTIAL_INVALID"
    assert desk.registry.asked == 1
    desk.clock.now += 5
    await desk.ask(secret)
    assert desk.registry.asked == 2


async def test_what_cannot_be_a_key_is_never_asked_about() -> None:
    desk = Desk()
    for secret in ("mnk_", "mnk_short", "mnk_" + "é" * 43, "mnk_" + "x" * 4_000):
        assert await desk.ask(secret) == "CREDENTIAL_INVALID"
    assert desk.registry.asked == 0


async def test_a_flood_of_unknown_keys_neither_grows_without_end_nor_drives_out_good_ones() -> None:
    desk = Desk()
    good = desk.registry.issue()
    await desk.ask(good)
    for _ in range(5_000):
        await desk.ask(api_keys.generate().secret)
    remembered = desk.authenticator.remembered
    assert remembered.known == 1
    assert remembered.unknown == 4_096
    asked = desk.registry.asked
    await desk.ask(good)
    assert desk.registry.asked == asked


async def test_calls_at_once_share_one_lookup_even_if_the_first_goes_away() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    desk.registry.answer.clear()
    first = asyncio.create_task(desk.ask(secret))
    others = [asyncio.create_task(desk.ask(secret)) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    desk.registry.answer.set()
    assert len(set(await asyncio.gather(*others))) == 1
    assert desk.registry.asked == 1


async def test_a_key_seen_before_stays_good_for_the_grace_while_the_registry_is_away() -> None:
    desk = Desk(credential_grace_seconds=60)
    secret = desk.registry.issue()
    principal = await desk.ask(secret)
    desk.registry.away = True
    desk.clock.now += 64
    assert await desk.ask(secret) == principal
    assert await desk.ask(api_keys.generate().secret) == "IDENTITY_UNAVAILABLE"
    desk.clock.now += 1.5
    assert await desk.ask(secret) == "IDENTITY_UNAVAILABLE"


async def test_a_registry_that_is_away_is_asked_once_a_second_for_a_known_key() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    await desk.ask(secret)
    desk.registry.away = True
    desk.clock.now += 6
    for _ in range(10):
        await desk.ask(secret)
    assert desk.registry.asked == 2
    desk.clock.now += 1
    await desk.ask(secret)
    assert desk.registry.asked == 3


async def test_one_call_waits_for_a_registry_that_hangs_and_the_others_live_on_what_is_known() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    principal = await desk.ask(secret)
    desk.registry.away = True
    desk.clock.now += 6
    assert await desk.ask(secret) == principal
    desk.registry.answer.clear()
    desk.clock.now += 1
    asking = asyncio.create_task(desk.ask(secret))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        for _ in range(5):
            assert await desk.ask(secret) == principal
    assert desk.registry.asked == 3
    assert not asking.done()
    # What nobody knew before is waited for by all, and so is what the grace is over for.
    desk.clock.now += 60
    late = asyncio.create_task(desk.ask(secret))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not late.done()
    desk.registry.answer.set()
    assert await asking == await late == "IDENTITY_UNAVAILABLE"


async def test_calls_wait_for_a_registry_that_is_not_known_to_be_away() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    await desk.ask(secret)
    desk.registry.away = True
    desk.clock.now += 6
    await desk.ask(secret)
    desk.registry.away = False
    desk.clock.now += 1
    await desk.ask(secret)
    # It has answered since: a key revoked meanwhile is refused to all that come at once.
    desk.registry.keys.clear()
    desk.registry.answer.clear()
    desk.clock.now += 6
    asking = [asyncio.create_task(desk.ask(secret)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    desk.registry.answer.set()
    assert await asyncio.gather(*asking) == ["CREDENTIAL_INVALID"] * 3


async def test_a_database_that_is_too_slow_is_a_registry_that_is_away() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    principal = await desk.ask(secret)
    desk.registry.away = DeadlineExceeded("too slow", reason="DATABASE_TIMEOUT")
    desk.clock.now += 64
    assert await desk.ask(secret) == principal
    assert await desk.ask(api_keys.generate().secret) == "IDENTITY_UNAVAILABLE"
    desk.clock.now += 1.5
    assert await desk.ask(secret) == "IDENTITY_UNAVAILABLE"


async def test_a_key_revoked_meanwhile_is_refused_when_the_registry_is_back() -> None:
    desk = Desk()
    secret = desk.registry.issue()
    await desk.ask(secret)
    desk.registry.away = True
    desk.clock.now += 10
    assert (await desk.ask(secret)).startswith("key:")
    desk.registry.keys.clear()
    desk.registry.away = False
    desk.clock.now += 1
    assert await desk.ask(secret) == "CREDENTIAL_INVALID"
    desk.registry.away = True
    desk.clock.now += 10
    assert await desk.ask(secret) == "IDENTITY_UNAVAILABLE"


async def test_unavailable_says_when_to_come_back() -> None:
    desk = Desk()
    desk.registry.away = True
    with pytest.raises(Unavailable) as refusal:
        await desk.authenticator.authenticate((("authorization", f"Bearer {api_keys.generate().secret}"),), METHOD)
    assert refusal.value.retry_after == timedelta(seconds=2)


async def test_a_method_with_no_row_is_denied_to_everybody() -> None:
    desk = Desk(operator_key=SecretStr("o" * 32))
    for secret in (desk.registry.issue(), ServiceTokens(KEY, "gateway", now=desk.clock).mint(), "o" * 32):
        with pytest.raises(PermissionDenied):
            await desk.authenticator.authenticate((("authorization", f"Bearer {secret}"),), "/minion.x.v1.X/Y")


async def test_a_service_alone_begins_turns_and_verifies_credentials() -> None:
    desk = Desk()
    service = ServiceTokens(KEY, "gateway", now=desk.clock).mint(uuid4(), "key:7")
    for method in ("/minion.session.v1.SessionService/BeginTurn", "/minion.registry.v1.ApiKeyService/VerifyCredential"):
        assert await desk.ask(desk.registry.issue(), method) == "PERMISSION_MISSING"
        assert await desk.ask(service, method) == "service:gateway"


async def test_two_tenants_named_in_one_call_are_refused() -> None:
    desk, one, other = Desk(operator_key=SecretStr("o" * 32)), str(uuid4()), str(uuid4())
    operator = ("authorization", f"Bearer {'o' * 32}")
    assert (await desk.authenticator.authenticate((operator, ("minion-tenant", one)), METHOD)).tenant_id == UUID(one)
    for named in ((one, other), (other, one), (one, one, other)):
        with pytest.raises(InvalidArgument) as refusal:
            await desk.authenticator.authenticate((operator, *(("minion-tenant", each) for each in named)), METHOD)
        assert refusal.value.reason == "TENANT_MISSING"


async def test_two_credentials_in_one_call_are_refused() -> None:
    desk = Desk()
    good = desk.registry.issue()
    with pytest.raises(Unauthenticated):
        await desk.authenticator.authenticate(
            (("authorization", "Bearer mnk_other"), ("authorization", f"Bearer {good}")), METHOD
        )
