"""No hostile token gets in, whoever it says that it is."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest
from minion_auth import Authenticator, AuthSettings, ServiceTokens, VerifiedKey
from minion_errors import Unauthenticated
from pydantic import SecretStr

from tests.minion_auth.hostile_tokens import ALGORITHMS, hostile_tokens
from tests.minion_auth.issuer import AUDIENCE, ISSUER, Issuer, private_key

METHOD = "/minion.session.v1.SessionService/GetSession"
KEY = "a service key of tests, long enough to be one"
NOW = 1_800_000_000.0

_ISSUER = Issuer(uuid4(), lambda: NOW)
_HOSTILE = hostile_tokens(_ISSUER, KEY)


class OneTenant:
    """Knows the issuer's tenant, and no key."""

    async def verify(self, digest: bytes) -> VerifiedKey | None:
        return None

    async def suspended(self, tenant_id: UUID) -> bool | None:
        return False if tenant_id == _ISSUER.tenant_id else None


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    settings = AuthSettings.load(
        {},
        auth_mode="required",
        service_key=SecretStr(KEY),
        operator_key=SecretStr("o" * 32),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks=str(_ISSUER.publish(tmp_path / "jwks.json")),
        jwt_algorithms=ALGORITHMS,
        jwt_default_scopes=["*"],
    )
    tokens = ServiceTokens(KEY, "session", now=lambda: NOW)
    return Authenticator(settings, OneTenant(), tokens, wall=lambda: NOW)


async def identify(authenticator: Authenticator, token: str) -> str:
    identity = await authenticator.authenticate((("authorization", f"Bearer {token}"),), METHOD)
    return f"{identity.kind.name} {identity.principal} {identity.tenant_id}"


def test_there_are_many() -> None:
    assert len(_HOSTILE) >= 150
    assert len(set(_HOSTILE.values())) == len(_HOSTILE)


@pytest.mark.parametrize("name", _HOSTILE)
async def test_a_hostile_token_is_refused(authenticator: Authenticator, name: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await identify(authenticator, _HOSTILE[name])
    assert refusal.value.reason == "CREDENTIAL_INVALID"


async def test_hostile_tokens_are_refused_though_good_ones_were_seen_and_harm_none(
    authenticator: Authenticator,
) -> None:
    good = _ISSUER.token()
    whose = f"TENANT user:ada {_ISSUER.tenant_id}"
    assert await identify(authenticator, good) == whose
    for token in _HOSTILE.values():
        with pytest.raises(Unauthenticated):
            await identify(authenticator, token)
    assert await identify(authenticator, good) == whose


@pytest.mark.parametrize(
    ("algorithm", "key_id", "kind", "name"),
    [
        ("RS256", "rsa", "RSA", ""),
        ("RS256", "any-rsa", "RSA", "second"),
        ("PS256", "any-rsa", "RSA", "second"),
        ("ES256", "p256", "P-256", ""),
        ("ES384", "p384", "P-384", ""),
        ("EdDSA", "ed", "Ed25519", ""),
    ],
)
async def test_what_they_were_made_from_is_good(
    authenticator: Authenticator, algorithm: str, key_id: str, kind: str, name: str
) -> None:
    # Otherwise the hostile ones could be refused for nothing but the stage that they stand on.
    key = private_key(kind, name) if name else private_key(kind)
    token = _ISSUER.token(algorithm=algorithm, key_id=key_id, key=key)
    assert await identify(authenticator, token) == f"TENANT user:ada {_ISSUER.tenant_id}"


async def test_a_services_token_is_a_services_and_never_a_clients(authenticator: Authenticator) -> None:
    token = ServiceTokens(KEY, "gateway", now=lambda: NOW).mint(_ISSUER.tenant_id, "user:ada")
    assert await identify(authenticator, token) == f"SERVICE service:gateway {_ISSUER.tenant_id}"


async def test_a_subject_cannot_take_the_name_of_another_kind(authenticator: Authenticator) -> None:
    for subject in ("operator", "service:gateway", "key:1"):
        token = _ISSUER.token(_ISSUER.claims(sub=subject))
        assert await identify(authenticator, token) == f"TENANT user:{subject} {_ISSUER.tenant_id}"
