import base64
import json
from typing import Any
from uuid import uuid4

import jwt
import pytest
from minion_auth import CallerKind, Identity, ServiceTokens
from minion_errors import Unauthenticated

KEY = "a service key of tests, long enough to be one"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock, service: str = "gateway", key: str = KEY) -> ServiceTokens:
    return ServiceTokens(key, service, now=clock)


def claims(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "iss": "minion",
        "aud": "minion",
        "sub": "service:gateway",
        "iat": 1_800_000_000,
        "nbf": 1_800_000_000,
        "exp": 1_800_000_060,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def test_a_token_proves_the_service_the_tenant_and_the_principal() -> None:
    clock, tenant_id = Clock(), uuid4()
    proven = tokens(clock, "session").verify(tokens(clock).mint(tenant_id, "key:7"))
    assert proven == Identity(CallerKind.SERVICE, tenant_id, "service:gateway", "key:7", "gateway")
    assert tokens(clock).verify(tokens(clock).mint()).tenant_id is None


def test_a_token_is_reused_for_half_of_its_life() -> None:
    clock = Clock()
    minted = tokens(clock)
    first = minted.mint(None, "key:7")
    clock.now += 29
    assert minted.mint(None, "key:7") == first
    clock.now += 2
    assert minted.mint(None, "key:7") != first


def test_a_token_of_before_the_clock_was_set_back_is_not_reused() -> None:
    clock = Clock()
    minted = tokens(clock)
    ahead = minted.mint(None, "key:7")
    # It ran ahead of the others' by an hour, and is set right: they would refuse this token for that hour.
    clock.now -= 3_600
    with pytest.raises(Unauthenticated):
        tokens(clock, "session").verify(ahead)
    assert tokens(clock, "session").verify(minted.mint(None, "key:7")).on_behalf_of == "key:7"


def test_a_token_expires_even_when_it_was_remembered() -> None:
    clock = Clock()
    token = tokens(clock).mint()
    verifier = tokens(clock)
    verifier.verify(token)
    clock.now += 66
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_token_from_the_future_is_refused() -> None:
    clock = Clock()
    token = tokens(clock).mint()
    clock.now -= 30
    with pytest.raises(Unauthenticated):
        tokens(clock).verify(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": ["minion", "somebody"]},
        {"exp": None},
        {"nbf": None},
        {"iat": None},
        {"sub": None},
        {"sub": "operator"},
        {"act_for": "no uuid"},
        {"act_for": 7},
        {"obo": 7},
        {"exp": "soon"},
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_refused(changes: dict[str, Any]) -> None:
    token = jwt.encode(claims(**changes), KEY, algorithm="HS256")
    with pytest.raises(Unauthenticated) as refusal:
        tokens(Clock()).verify(token)
    assert refusal.value.reason == "CREDENTIAL_INVALID"


def test_a_token_signed_with_another_key_or_algorithm_is_refused() -> None:
    foreign = jwt.encode(claims(), KEY[::-1], algorithm="HS256")
    other = jwt.encode(claims(), KEY + KEY, algorithm="HS512")
    for token in (foreign, other):
        with pytest.raises(Unauthenticated):
            tokens(Clock()).verify(token)


def test_headers_that_point_at_other_keys_decide_nothing() -> None:
    header = {"alg": "HS256", "typ": "JWT", "jku": "https://evil.example/keys", "jwk": {"kty": "oct", "k": "AAAA"}}
    foreign = jwt.encode(claims(), "x" * 32, algorithm="HS256", headers=header)
    with pytest.raises(Unauthenticated):
        tokens(Clock()).verify(foreign)
    unsigned = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims())
    )
    with pytest.raises(Unauthenticated):
        tokens(Clock()).verify(f"{unsigned}.")


def test_a_token_that_was_tampered_with_is_refused() -> None:
    clock = Clock()
    head, _, signature = tokens(clock).mint(uuid4()).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(act_for=str(uuid4()))).encode()).decode().rstrip("=")
    verifier = tokens(clock)
    with pytest.raises(Unauthenticated):
        verifier.verify(f"{head}.{body}.{signature}")


def test_a_short_service_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServiceTokens("short", "gateway")
