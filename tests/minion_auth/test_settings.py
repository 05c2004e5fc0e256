"""What a deployment may say of authentication, and that all that is wrong is said at once."""

from pathlib import Path
from typing import Any

import pytest
from minion_auth import AuthSettings
from minion_settings import SettingsError


def load(**values: Any) -> AuthSettings:
    return AuthSettings.load({}, auth_mode="required", **values)


def faults(**values: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as refusal:
        load(**values)
    return {fault.variable: fault.description for fault in refusal.value.faults}


def test_no_jwt_is_taken_by_default() -> None:
    settings = load()
    assert (settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks) == (None, None, None)
    assert settings.jwt_algorithms == ["RS256", "ES256", "EdDSA"]
    assert settings.jwt_default_scopes == []


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"jwt_issuer": "https://issuer.example/"}, {"MINION_JWT_AUDIENCE", "MINION_JWT_JWKS"}),
        ({"jwt_audience": "minion"}, {"MINION_JWT_ISSUER", "MINION_JWT_JWKS"}),
        ({"jwt_jwks": "https://issuer.example/jwks"}, {"MINION_JWT_ISSUER", "MINION_JWT_AUDIENCE"}),
        ({"jwt_issuer": "i", "jwt_jwks": "https://issuer.example/jwks"}, {"MINION_JWT_AUDIENCE"}),
    ],
)
def test_an_incomplete_configuration_is_refused_and_all_that_is_missing_named(
    given: dict[str, str], missing: set[str]
) -> None:
    assert set(faults(**given)) == missing


@pytest.mark.parametrize("name", ["jwt_issuer", "jwt_audience", "jwt_jwks"])
def test_what_is_missing_is_named_beside_what_can_not_be_used(name: str) -> None:
    told = faults(**{name: "x" * 2_001})
    assert set(told) == {"MINION_JWT_ISSUER", "MINION_JWT_AUDIENCE", "MINION_JWT_JWKS"}
    assert sum(f"is required where MINION_{name.upper()} is set" in text for text in told.values()) == 2


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert set(
        faults(
            jwt_issuer="minion",
            jwt_jwks="ftp://issuer.example/jwks",
            jwt_scope_claim="minion_tenant",
            jwt_default_scopes=["agents.read", "agents.all"],
        )
    ) == {
        "MINION_JWT_AUDIENCE",
        "MINION_JWT_ISSUER",
        "MINION_JWT_JWKS",
        "MINION_JWT_SCOPE_CLAIM",
        "MINION_JWT_DEFAULT_SCOPES",
    }


@pytest.mark.parametrize(
    "address",
    [
        "http://issuer.example/jwks",
        "http://localhost.example/jwks",
        "http://127.0.0.1.example/jwks",
        "http://10.0.0.1/jwks",
        "ftp://issuer.example/jwks",
        "file:///etc/passwd",
        "https://",
        "https://user:password@issuer.example/jwks",
        "https://issuer.example/jwks#key",
        "https://issuer.example:port/jwks",
        "/nowhere/jwks.json",
        ".",
    ],
)
def test_keys_come_by_https_from_loopback_or_from_a_file(address: str) -> None:
    assert set(faults(jwt_issuer="i", jwt_audience="a", jwt_jwks=address)) == {"MINION_JWT_JWKS"}


def test_what_they_may_come_from_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text("{}")
    for address in ("https://issuer.example/jwks?v=1", "http://localhost:8080/jwks", "http://[::1]/jwks", str(file)):
        assert load(jwt_issuer="i", jwt_audience="a", jwt_jwks=address).jwt_jwks == address


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "ES512", "ES256K", "rs256", "RSA-OAEP"])
def test_algorithms_with_a_shared_secret_or_none_cannot_be_allowed(algorithm: str) -> None:
    assert [*faults(jwt_algorithms=["RS256", algorithm])] == ["MINION_JWT_ALGORITHMS[1]"]
    assert [*faults(jwt_algorithms=[])] == ["MINION_JWT_ALGORITHMS"]


def test_lists_are_read_from_the_environment() -> None:
    settings = AuthSettings.load(
        {
            "MINION_AUTH_MODE": "required",
            "MINION_JWT_ALGORITHMS": "ES256, EdDSA",
            "MINION_JWT_DEFAULT_SCOPES": "agents.read,sessions.*",
        }
    )
    assert settings.jwt_algorithms == ["ES256", "EdDSA"]
    assert settings.jwt_default_scopes == ["agents.read", "sessions.*"]


_LONG = "x" * 32


@pytest.mark.parametrize(
    "values",
    [
        {"operator_key": f"mnk_{_LONG}"},
        {"operator_key": f"a.b.{_LONG}", "service_key": _LONG},
        {"operator_key": f"..{_LONG}", "jwt_issuer": "i", "jwt_audience": "a", "jwt_jwks": "https://issuer.example/"},
    ],
)
def test_an_operators_key_that_looks_like_another_credential_is_refused_and_not_shown(values: dict[str, str]) -> None:
    [(variable, fault)] = faults(**values).items()
    assert variable == "MINION_OPERATOR_KEY"
    assert _LONG not in fault


@pytest.mark.parametrize("key", [f"{_LONG}\n", f" {_LONG}", f"{_LONG}\n{_LONG}", f"{_LONG}ü", _LONG * 128])
def test_an_operators_key_that_no_call_could_bring_is_refused_and_not_shown(key: str) -> None:
    [(variable, fault)] = faults(operator_key=key).items()
    assert variable == "MINION_OPERATOR_KEY"
    assert _LONG not in fault


@pytest.mark.parametrize(
    "values",
    [
        {"operator_key": f"a.b.{_LONG}"},
        {"operator_key": f"a.b.c.{_LONG}", "service_key": _LONG},
        {"operator_key": f"a.{_LONG}", "service_key": _LONG},
    ],
)
def test_an_operators_key_that_is_known_by_its_looks_is_taken(values: dict[str, str]) -> None:
    assert load(**values).operator_key is not None
