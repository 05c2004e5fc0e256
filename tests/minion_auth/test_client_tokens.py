"""JWTs as a client's credential: whose, for how long, with which scopes, and what the registry says of the tenant."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from minion_auth import Authenticator, AuthSettings, Identity, ServiceTokens, api_keys, client_tokens
from minion_auth.api_keys import PREFIX
from minion_errors import MinionError, PermissionDenied, Unauthenticated
from pydantic import SecretStr

from tests.minion_auth.issuer import AUDIENCE, ISSUER, Issuer, private_key, public_jwk
from tests.minion_auth.stage import KEY, Clock, Registry

GET = "/minion.session.v1.SessionService/GetSession"
ERASE = "/minion.session.v1.SessionService/EraseSubject"
LIST_AGENTS = "/minion.registry.v1.AgentService/ListAgents"


class Desk:
    """An authenticator that takes an issuer's tokens, with its registry and clock."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.issuer = Issuer(uuid4(), self.clock)
        self.registry.tenants[self.issuer.tenant_id] = False
        self.jwks = directory / "jwks.json"
        self.issuer.publish(self.jwks)
        values: dict[str, Any] = {
            "auth_mode": "required",
            "service_key": SecretStr(KEY),
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "jwt_jwks": str(self.jwks),
        }
        self.settings = AuthSettings.load({}, **{**values, **settings})
        self.authenticator = Authenticator(
            self.settings,
            self.registry,
            ServiceTokens(KEY, "session", now=self.clock),
            monotonic=self.clock,
            wall=self.clock,
        )

    async def identify(self, credential: str, method: str = GET) -> Identity:
        return await self.authenticator.authenticate((("authorization", f"Bearer {credential}"),), method)

    async def ask(self, credential: str, method: str = GET) -> str:
        """Gives the principal, or the reason of the refusal."""
        try:
            return (await self.identify(credential, method)).principal
        except MinionError as error:
            return error.reason


@pytest.fixture(autouse=True)
def time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each reading of the keys the time that a busy machine needs; tests of the limit set their own."""
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 60.0)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_token_speaks_for_a_user_of_its_tenant(desk: Desk) -> None:
    identity = await desk.identify(desk.issuer.token())
    assert identity.principal == "user:ada"
    assert identity.tenant_id == desk.issuer.tenant_id
    assert identity.scopes == {"sessions.*", "agents.*"}


@pytest.mark.parametrize(
    "changes",
    [
        {"nbf": None},
        {"sub": "auth0|5f7c8ec7c33c6c004bbafe82"},
        {"sub": "zoë@example.com"},
        {"aud": AUDIENCE, "azp": "app", "jti": "1", "email": "ada@example.com"},
        {"exp": 1_800_000_600.5},
    ],
)
async def test_a_token_may_say_what_providers_say(desk: Desk, changes: dict[str, Any]) -> None:
    assert (await desk.ask(desk.issuer.token(desk.issuer.claims(**changes)))).startswith("user:")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_a_token_is_a_jwt_or_an_access_token(desk: Desk, kind: str | None) -> None:
    assert await desk.ask(desk.issuer.token(header={"typ": kind})) == "user:ada"


async def test_a_token_may_do_what_its_scopes_cover(desk: Desk) -> None:
    for scope, reads, erases, lists in (
        ("sessions.read", True, False, False),
        ("openid sessions.* profile", True, True, False),
        (["sessions.read", "agents.read"], True, False, True),
        ("*", True, True, True),
        ("", False, False, False),
        ([], False, False, False),
        ("sessions", False, False, False),
    ):
        token = desk.issuer.token(desk.issuer.claims(scope=scope))
        for method, allowed in ((GET, reads), (ERASE, erases), (LIST_AGENTS, lists)):
            assert await desk.ask(token, method) == ("user:ada" if allowed else "PERMISSION_MISSING"), (scope, method)


async def test_a_token_with_no_scopes_may_do_nothing_unless_the_deployment_says_what(tmp_path: Path) -> None:
    for default, expected in (([], "PERMISSION_MISSING"), (["sessions.read"], "user:ada")):
        desk = Desk(tmp_path, jwt_default_scopes=default)
        assert await desk.ask(desk.issuer.token(desk.issuer.claims(scope=None))) == expected
        # An empty claim is one: it says that nothing is allowed.
        assert await desk.ask(desk.issuer.token(desk.issuer.claims(scope=""))) == "PERMISSION_MISSING"


async def test_the_claims_are_those_that_the_deployment_names(tmp_path: Path) -> None:
    desk = Desk(tmp_path, jwt_tenant_claim="https://minion.example/tenant", jwt_scope_claim="permissions")
    tenant_id = str(desk.issuer.tenant_id)
    claims = {"https://minion.example/tenant": tenant_id, "permissions": ["sessions.read"], "minion_tenant": "other"}
    assert await desk.ask(desk.issuer.token(desk.issuer.claims(**claims))) == "user:ada"
    assert await desk.ask(desk.issuer.token()) == "CREDENTIAL_INVALID"


async def test_a_token_expires_though_it_is_remembered(desk: Desk) -> None:
    token = desk.issuer.token()
    assert await desk.ask(token) == "user:ada"
    desk.clock.now += 604
    assert await desk.ask(token) == "user:ada"  # clocks differ by up to 5 s
    desk.clock.now += 1
    assert await desk.ask(token) == "CREDENTIAL_INVALID"


async def test_a_remembered_token_is_not_verified_again_until_the_keys_change(desk: Desk) -> None:
    token = desk.issuer.token()
    assert await desk.ask(token) == "user:ada"
    # The issuer took the key back; what was signed by it is refused though it was seen.
    desk.issuer.keys = [public_jwk(private_key("P-256"), "p256")]
    desk.issuer.publish(desk.jwks)
    desk.clock.now += 3.5
    assert await desk.ask(token) == "CREDENTIAL_INVALID"


async def test_a_call_waits_once_for_keys_that_hang_and_the_next_not_at_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered, another = desk.issuer.token(), desk.issuer.token(desk.issuer.claims(sub="eve"))
    assert await desk.ask(remembered) == "user:ada"
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 0.2)
    # Opening a pipe that nobody writes to hangs.
    desk.jwks.unlink()
    os.mkfifo(desk.jwks)
    desk.clock.now += 3.5
    with structlog.testing.capture_logs() as lines:
        assert await desk.ask(remembered) == "user:ada"
    assert [line["failures"] for line in lines] == [1]
    monkeypatch.setattr("minion_auth.key_sources._FETCH_SECONDS", 600.0)
    desk.clock.now += 10
    async with asyncio.timeout(60):
        for _ in range(5):
            desk.clock.now += 1
            assert await desk.ask(remembered) == "user:ada"
            assert await desk.ask(another) == "user:eve"
    # Whoever hangs at the pipe goes on; whoever was about to read finds a file and no pipe.
    pipe = desk.jwks.rename(desk.jwks.with_name("pipe"))
    desk.issuer.publish(desk.jwks)
    # Nobody may hang there yet, on a machine that is slow to begin threads: then there is nobody to let go.
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


async def test_a_remembered_token_is_not_verified_again_while_the_keys_cannot_be_read(desk: Desk) -> None:
    clients = client_tokens.configured(desk.settings, now=desk.clock, monotonic=desk.clock)
    assert clients is not None
    token = desk.issuer.token()
    await clients.verify(token)
    desk.jwks.write_text("{")
    desk.clock.now += 3.5
    # It was to be seen first whether there are others.
    assert clients.remembered(token) is None
    await clients.verify(token)
    for _ in range(3):
        desk.clock.now += 60
        assert clients.remembered(token) is not None
    # They come in the background, and from then on they alone count.
    desk.issuer.keys = []
    desk.issuer.publish(desk.jwks)
    desk.clock.now += 60
    async with asyncio.timeout(60):
        while clients.remembered(token) is not None:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)
    with pytest.raises(Unauthenticated):
        await clients.verify(token)


async def test_a_service_can_act_for_the_longest_subject(desk: Desk) -> None:
    identity = await desk.identify(desk.issuer.token(desk.issuer.claims(sub="\U0001f600" * 64)))
    acting = ServiceTokens(KEY, "gateway", now=desk.clock).mint(identity.tenant_id, identity.principal)
    assert (await desk.identify(acting)).origin == identity.principal


async def test_tokens_are_taken_by_no_deployment_that_names_no_issuer() -> None:
    issuer = Issuer(uuid4(), Clock())
    authenticator = Authenticator(
        AuthSettings(auth_mode="required", service_key=SecretStr(KEY)),
        Registry(),
        ServiceTokens(KEY, "session", now=issuer.now),
        wall=issuer.now,
    )
    with pytest.raises(Unauthenticated) as refusal:
        await authenticator.authenticate((("authorization", f"Bearer {issuer.token()}"),), GET)
    assert refusal.value.reason == "CREDENTIAL_INVALID"


async def test_a_token_is_unavailable_until_the_keys_were_read(desk: Desk) -> None:
    desk.jwks.unlink()
    assert await desk.ask(desk.issuer.token()) == "IDENTITY_UNAVAILABLE"
    # What can't be one whatever the keys is refused at once.
    assert await desk.ask(desk.issuer.token(header={"crit": ["exp"]})) == "CREDENTIAL_INVALID"
    desk.issuer.publish(desk.jwks)
    desk.clock.now += 1
    assert await desk.ask(desk.issuer.token()) == "user:ada"


async def test_the_registry_is_asked_about_the_tenant_once_in_five_seconds(desk: Desk) -> None:
    for number in range(20):
        assert await desk.ask(desk.issuer.token(desk.issuer.claims(sub=f"user-{number}"))) == f"user:user-{number}"
    assert desk.registry.asked == 1
    desk.clock.now += 5
    await desk.ask(desk.issuer.token())
    assert desk.registry.asked == 2


async def test_a_suspended_tenants_tokens_and_keys_are_refused_and_work_again_when_it_resumes(desk: Desk) -> None:
    tenant_id = desk.issuer.tenant_id
    credentials = [desk.issuer.token(), desk.registry.issue(tenant_id=tenant_id)]
    service = ServiceTokens(KEY, "gateway", now=desk.clock).mint(tenant_id, "user:ada")
    for credential in credentials:
        assert (await desk.ask(credential)).startswith(("user:", "key:"))
    desk.registry.tenants[tenant_id] = True
    desk.clock.now += 5
    for credential in credentials:
        assert await desk.ask(credential) == "TENANT_SUSPENDED"
    assert await desk.ask(service) == "service:gateway"
    desk.registry.tenants[tenant_id] = False
    desk.clock.now += 5
    for credential in credentials:
        assert (await desk.ask(credential)).startswith(("user:", "key:"))


async def test_a_tenant_seen_before_stays_as_it_was_for_the_grace_while_the_registry_is_away(desk: Desk) -> None:
    token = desk.issuer.token()
    other = Issuer(uuid4(), desk.clock)
    desk.registry.tenants[other.tenant_id] = True
    assert await desk.ask(token) == "user:ada"
    assert await desk.ask(other.token()) == "TENANT_SUSPENDED"
    desk.registry.away = True
    desk.clock.now += 64
    assert await desk.ask(token) == "user:ada"
    assert await desk.ask(other.token()) == "TENANT_SUSPENDED"
    # Of the same tenant, though this very token was never seen.
    assert await desk.ask(desk.issuer.token(desk.issuer.claims(sub="eve"))) == "user:eve"
    assert await desk.ask(Issuer(uuid4(), desk.clock).token()) == "IDENTITY_UNAVAILABLE"
    desk.clock.now += 1.5
    assert await desk.ask(token) == "IDENTITY_UNAVAILABLE"


async def test_a_token_names_no_tenant_in_metadata(desk: Desk) -> None:
    metadata = (("authorization", f"Bearer {desk.issuer.token()}"), ("minion-tenant", str(desk.issuer.tenant_id)))
    with pytest.raises(PermissionDenied):
        await desk.authenticator.authenticate(metadata, GET)


async def test_ten_thousand_tokens_that_begin_alike_never_share_an_identity(desk: Desk) -> None:
    key = private_key("Ed25519")
    tokens = {
        f"user:{number}": desk.issuer.token(
            desk.issuer.claims(sub=str(number)), algorithm="EdDSA", key_id="ed", key=key, header={"x": "y" * 64}
        )
        for number in range(10_000)
    }
    assert len({token[:64] for token in tokens.values()}) == 1
    for _ in ("verified", "remembered"):
        found = [await desk.ask(token) for token in tokens.values()]
        assert found == list(tokens)


async def test_ten_thousand_service_tokens_that_begin_alike_never_share_an_identity(desk: Desk) -> None:
    minting = ServiceTokens(KEY, "gateway", now=desk.clock)
    tokens = {f"key:{number}": minting.mint(None, f"key:{number}") for number in range(10_000)}
    assert len({token[:64] for token in tokens.values()}) == 1
    for _ in ("verified", "remembered"):
        found = [(await desk.identify(token)).on_behalf_of for token in tokens.values()]
        assert found == list(tokens)


async def test_ten_thousand_keys_that_begin_alike_never_share_an_identity(desk: Desk) -> None:
    # A key has 47 characters: all but the last three are the same, which is more than the first 64 of anything longer.
    secrets = [f"{PREFIX}{'k' * 40}{_three(number)}" for number in range(10_000)]
    whose = {}
    for secret in secrets:
        made = desk.registry.issue()
        desk.registry.keys[api_keys.digest(secret)] = key = desk.registry.keys.pop(api_keys.digest(made))
        whose[secret] = (key.tenant_id, f"key:{key.key_id}")
    assert len({secret[:44] for secret in secrets}) == 1
    assert len(set(whose.values())) == 10_000
    for _ in ("looked up", "remembered"):
        for secret in secrets:
            identity = await desk.identify(secret)
            assert (identity.tenant_id, identity.principal) == whose[secret]
    assert desk.registry.asked == 10_000
    too_long = [f"{PREFIX}{'k' * 70}{number}" for number in range(10_000)]
    assert {await desk.ask(secret) for secret in too_long} == {"CREDENTIAL_INVALID"}


def _three(number: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return letters[number // 4_096] + letters[number // 64 % 64] + letters[number % 64]
