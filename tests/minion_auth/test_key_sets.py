"""Key sets: which keys may verify what, and which are passed over."""

import json
from typing import Any

import pytest
from minion_auth import key_sets

from tests.minion_auth.issuer import private_key, public_jwk


def parse(*keys: Any) -> dict[str, frozenset[str]]:
    document = json.dumps({"keys": keys}).encode()
    return {key_id: key.algorithms for key_id, key in key_sets.parse(document).items()}


def rsa(**members: Any) -> dict[str, Any]:
    return public_jwk(private_key("RSA"), "k", **members)


def test_a_key_verifies_the_algorithms_of_its_kind_or_the_one_that_it_names() -> None:
    every_rsa = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
    assert parse(rsa()) == {"k": every_rsa}
    assert parse(rsa(alg="PS384")) == {"k": {"PS384"}}
    for kind, algorithm in (("P-256", "ES256"), ("P-384", "ES384"), ("Ed25519", "EdDSA")):
        assert parse(public_jwk(private_key(kind), "k")) == {"k": {algorithm}}
    assert parse(rsa(key_ops=["verify"])) == {"k": every_rsa}


@pytest.mark.parametrize(
    "key",
    [
        7,
        None,
        [],
        {},
        {"kid": "k"},
        {**rsa(), "kid": None},
        {**rsa(), "kid": ""},
        {**rsa(), "kid": 7},
        {**rsa(), "kid": "k" * 257},
        rsa(use="enc"),
        rsa(use=None),
        rsa(key_ops=["encrypt"]),
        rsa(key_ops="verify"),
        rsa(alg="RSA-OAEP"),
        rsa(alg="HS256"),
        rsa(alg="none"),
        rsa(alg=["RS256"]),
        rsa(kty="rsa"),
        rsa(kty="oct"),
        rsa(kty=["RSA"]),
        rsa(d="AQAB"),
        rsa(n=""),
        rsa(n="*"),
        rsa(n=7),
        {name: value for name, value in rsa().items() if name != "n"},
        {"kty": "oct", "k": "AAAA", "kid": "k", "alg": "HS256"},
        public_jwk(private_key("RSA1024"), "k"),
        public_jwk(private_key("P-521"), "k"),
        public_jwk(private_key("P-256"), "k", crv="P-384"),
        public_jwk(private_key("P-256"), "k", alg="ES384"),
        public_jwk(private_key("P-256"), "k", x="AAAA"),
        public_jwk(private_key("P-256"), "k", y=public_jwk(private_key("P-256", "other"), "k")["y"]),
        public_jwk(private_key("Ed25519"), "k", crv="X25519"),
        public_jwk(private_key("Ed25519"), "k", x="AAAA"),
    ],
)
def test_a_key_that_cannot_verify_is_passed_over_and_the_others_stay(key: Any) -> None:
    good = public_jwk(private_key("Ed25519"), "good")
    assert set(parse(key, good)) == {"good"}


def test_an_id_that_two_keys_have_is_nobodys() -> None:
    twins = [rsa(), public_jwk(private_key("P-256"), "k")]
    assert parse(*twins) == {}
    assert parse(*twins, rsa()) == {}
    # One of them is none that could verify; which one is meant is no less open.
    assert parse(rsa(use="enc"), rsa()) == {}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": null}',
        b'{"keys": {"k": 1}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [' + b"[" * 10_000,
        b"\xff\xfe",
        json.dumps({"keys": [{}] * 101}).encode(),
        b'{"keys": []}' + b" " * key_sets.MAXIMUM_BYTES,
    ],
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_sets.parse(document)
