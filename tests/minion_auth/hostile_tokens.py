"""Tokens that nobody may get in with, by what is wrong with them."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.minion_auth.issuer import AUDIENCE, ISSUER, Issuer, encode, hmac_signed, part, private_key, public_jwk

ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]


def hostile_tokens(issuer: Issuer, service_key: str) -> dict[str, str]:
    """Gives the tokens; the issuer's deployment takes `ALGORITHMS`."""
    made: dict[str, str] = {}
    for collection in (
        _unsigned(issuer),
        _confused_keys(issuer, service_key),
        _pointing_elsewhere(issuer),
        _key_ids(issuer),
        _headers(issuer),
        _times(issuer),
        _audiences_and_issuers(issuer),
        _subjects_and_tenants(issuer),
        _tampered(issuer),
        _malformed(issuer),
        _of_services(issuer, service_key),
    ):
        for name, token in collection:
            assert name not in made, name
            made[name] = token
    return made


def _unsigned(issuer: Issuer) -> Iterator[tuple[str, str]]:
    body = part(issuer.claims())
    for spelling in ("none", "None", "NONE", "nOnE", "", " none", "RS256 ", "rs256"):
        yield f"alg {spelling!r} with no signature", f"{part({'alg': spelling, 'kid': 'rsa'})}.{body}."
        head = part({"alg": spelling, "typ": "JWT", "kid": "rsa"})
        yield f"alg {spelling!r} with the issuer's signature", issuer.signed(head, body)
    strange: dict[str, dict[str, Any]] = {
        "missing": {},
        "null": {"alg": None},
        "a list": {"alg": ["RS256"]},
        "a number": {"alg": 256},
        "true": {"alg": True},
    }
    for name, member in strange.items():
        yield f"alg {name}", issuer.signed(part({"kid": "rsa", "typ": "JWT", **member}), body)
    good = issuer.token()
    yield "an empty signature", f"{good.rpartition('.')[0]}."
    yield "no signature", good.rpartition(".")[0]


def _confused_keys(issuer: Issuer, service_key: str) -> Iterator[tuple[str, str]]:
    public = private_key("RSA").public_key()
    secrets = {
        "PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "PEM with no last newline": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        "PKCS #1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(public_jwk(private_key("RSA"), "rsa", alg="RS256")).encode(),
        "JWKS": issuer.document(),
        "modulus": public.public_numbers().n.to_bytes(256, "big"),
        "key id": b"rsa".ljust(32, b"\0"),
        "nothing": b"",
        "key of the set that is shared": b"k" * 32,
    }
    for name, secret in secrets.items():
        yield f"HS256 by the issuer's {name}", hmac_signed({"alg": "HS256", "kid": "rsa"}, issuer.claims(), secret)
    for algorithm in ("HS384", "HS512"):
        yield (
            f"{algorithm} by the issuer's PEM",
            hmac_signed({"alg": algorithm, "kid": "rsa"}, issuer.claims(), secrets["PEM"]),
        )
    yield "HS256 by the shared key of the set", hmac_signed({"alg": "HS256", "kid": "oct"}, issuer.claims(), b"k" * 32)
    yield (
        "HS256 by the service key for a client",
        hmac_signed({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, issuer.claims(), service_key.encode()),
    )


def _pointing_elsewhere(issuer: Issuer) -> Iterator[tuple[str, str]]:
    thief = private_key("RSA", "thief")
    jwk = public_jwk(thief, "rsa", alg="RS256")
    der = base64.b64encode(thief.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for name, member in {
        "jku": "https://thief.example/jwks.json",
        "x5u": "https://thief.example/cert.pem",
        "x5c": [der],
        "jwk": jwk,
        "x5t": "AAAA",
    }.items():
        yield f"{name} of a thief's key", issuer.token(header={name: member}, key=thief)
        yield f"{name} and a thief's key id", issuer.token(header={name: member}, key_id="thief", key=thief)
    yield "a thief's key under the issuer's key id", issuer.token(key=thief)


def _key_ids(issuer: Issuer) -> Iterator[tuple[str, str]]:
    for name, key_id in {
        "missing": None,
        "unknown": "nobody",
        "empty": "",
        "a path": "../../../../etc/passwd",
        "a device": "/dev/null",
        "SQL": "' OR '1'='1",
        "a NUL": "rsa\0",
        "with a space": "rsa ",
        "in capitals": "RSA",
        "huge": "k" * 1_500,
    }.items():
        yield f"kid {name}", issuer.token(key_id=key_id)
    for name, value in (("a number", 7), ("a list", ["rsa"]), ("an object", {"kid": "rsa"}), ("true", True)):
        yield f"kid {name}", issuer.token(header={"kid": value})
    yield "kid of a key for encryption", issuer.token(key_id="encrypts", key=private_key("RSA", "encrypts"))
    yield "kid of two keys, the first", issuer.token(key_id="twin", key=private_key("RSA", "twin"))
    yield (
        "kid of two keys, the second",
        issuer.token(key_id="twin", algorithm="ES256", key=private_key("P-256", "twin")),
    )
    yield "kid of a short key", issuer.token(key_id="short", key=private_key("RSA1024"))
    yield "kid of a key of another kind", issuer.token(key_id="p256")
    yield "kid of another curve", issuer.token(key_id="p384", algorithm="ES256", key=private_key("P-256"))
    yield "ES256 by a key of another curve", _on_the_wrong_curve(issuer)
    yield "PS256 by a key that is for RS256", issuer.token(algorithm="PS256")
    yield "EdDSA under an RSA key", issuer.token(algorithm="EdDSA", key=private_key("Ed25519"))
    for algorithm, kind, key_id in (
        ("RS512", "RSA", "any-rsa"),
        ("PS384", "RSA", "any-rsa"),
        ("ES512", "P-521", "p521"),
    ):
        key = private_key(kind, "second" if kind == "RSA" else "")
        yield f"{algorithm}, which is not allowed", issuer.token(algorithm=algorithm, key_id=key_id, key=key)


def _on_the_wrong_curve(issuer: Issuer) -> str:
    # A signature of P-384, presented as one of P-256.
    head = part({"alg": "ES256", "typ": "JWT", "kid": "p384"})
    return issuer.signed(head, part(issuer.claims()), "ES384", private_key("P-384"))


def _headers(issuer: Issuer) -> Iterator[tuple[str, str]]:
    cases: dict[str, dict[str, Any]] = {
        "crit of a claim": {"crit": ["exp"], "exp": 1},
        "crit of nothing": {"crit": []},
        "crit of something unknown": {"crit": ["urn:example"], "urn:example": True},
        "crit that is no list": {"crit": "b64"},
        "b64=false": {"crit": ["b64"], "b64": False},
        "b64=false with no crit": {"b64": False},
        "b64=true": {"b64": True},
        "cty of a nested token": {"cty": "JWT"},
        "enc": {"enc": "A128GCM"},
        "zip": {"zip": "DEF"},
        "typ of a logout token": {"typ": "logout+jwt"},
        "typ of a proof of possession": {"typ": "dpop+jwt"},
        "typ of an event": {"typ": "secevent+jwt"},
        "typ of an encrypted token": {"typ": "JWE"},
        "typ that is a number": {"typ": 7},
    }
    for name, header in cases.items():
        yield name, issuer.token(header=header)
    head = part({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False})
    body = json.dumps(issuer.claims())
    yield "an unencoded payload", issuer.signed(head, body)


def _times(issuer: Issuer) -> Iterator[tuple[str, str]]:
    now = int(issuer.now())
    cases: dict[str, dict[str, Any]] = {
        "expired": {"iat": now - 700, "nbf": now - 700, "exp": now - 100},
        "expired long ago": {"iat": 1, "nbf": 1, "exp": 2},
        "exp missing": {"exp": None},
        "exp a text": {"exp": str(now + 600)},
        "exp true": {"exp": True},
        "exp a list": {"exp": [now + 600]},
        "exp negative": {"exp": -1},
        "exp in a thousand years": {"exp": now + 31_536_000_000},
        "a life of 25 h": {"exp": now + 25 * 3_600},
        "a life of 25 h, half over": {"iat": now - 13 * 3_600, "nbf": now - 13 * 3_600, "exp": now + 12 * 3_600},
        "nbf in the future": {"nbf": now + 60},
        "nbf a text": {"nbf": "now"},
        "iat in the future": {"iat": now + 60, "nbf": now},
        "iat missing": {"iat": None},
        "iat a text": {"iat": "now"},
    }
    for name, changes in cases.items():
        yield name, issuer.token(issuer.claims(**changes))
    for name, text in {
        "beyond a double": "1e400",
        "NaN": "NaN",
        "infinity": "Infinity",
        "of a mile": "9" * 400,
    }.items():
        yield f"exp {name}", issuer.token(json.dumps(issuer.claims(exp="X")).replace('"X"', text).encode())
        yield f"nbf {name}", issuer.token(json.dumps(issuer.claims(nbf="X")).replace('"X"', text).encode())


def _audiences_and_issuers(issuer: Issuer) -> Iterator[tuple[str, str]]:
    cases: dict[str, dict[str, Any]] = {
        "aud of another": {"aud": "another-api"},
        "aud missing": {"aud": None},
        "aud empty": {"aud": ""},
        "aud a list with ours": {"aud": [AUDIENCE]},
        "aud a list with others": {"aud": [AUDIENCE, "another-api"]},
        "aud an object": {"aud": {AUDIENCE: 1}},
        "aud that begins as ours": {"aud": f"{AUDIENCE}.evil.example"},
        "aud in capitals": {"aud": AUDIENCE.upper()},
        "iss of another": {"iss": "https://thief.example/"},
        "iss missing": {"iss": None},
        "iss a list": {"iss": [ISSUER]},
        "iss with no slash": {"iss": ISSUER.rstrip("/")},
        "iss that begins as ours": {"iss": f"{ISSUER}evil"},
        "iss in capitals": {"iss": ISSUER.upper()},
        "iss of the services": {"iss": "minion"},
    }
    for name, changes in cases.items():
        yield name, issuer.token(issuer.claims(**changes))


def _subjects_and_tenants(issuer: Issuer) -> Iterator[tuple[str, str]]:
    tenant = str(issuer.tenant_id)
    cases: dict[str, dict[str, Any]] = {
        "sub missing": {"sub": None},
        "sub empty": {"sub": ""},
        "sub a number": {"sub": 7},
        "sub a list": {"sub": ["ada"]},
        "sub too long": {"sub": "a" * 257},
        "sub too long in bytes": {"sub": "\U0001f600" * 65},
        "sub with a newline": {"sub": "ada\noperator"},
        "sub with a NUL": {"sub": "ada\0"},
        "sub half a character": {"sub": "\ud800"},
        "tenant missing": {"minion_tenant": None},
        "tenant empty": {"minion_tenant": ""},
        "tenant a number": {"minion_tenant": issuer.tenant_id.int},
        "tenant a list": {"minion_tenant": [tenant]},
        "tenant a name": {"minion_tenant": "acme"},
        "tenant with no hyphens": {"minion_tenant": issuer.tenant_id.hex},
        "tenant in braces": {"minion_tenant": f"{{{tenant}}}"},
        "tenant as a URN": {"minion_tenant": f"urn:uuid:{tenant}"},
        "tenant with a space": {"minion_tenant": f"{tenant} "},
        "tenant SQL": {"minion_tenant": f"{tenant}' OR '1'='1"},
        "tenant of nobody": {"minion_tenant": str(uuid4())},
        "tenant nil": {"minion_tenant": "00000000-0000-0000-0000-000000000000"},
        "scope a number": {"scope": 7},
        "scope an object": {"scope": {"*": True}},
        "scope a list of numbers": {"scope": ["agents.read", 7]},
        "scope true": {"scope": True},
        "jti a number": {"jti": 7},
    }
    for name, changes in cases.items():
        yield name, issuer.token(issuer.claims(**changes))


def _tampered(issuer: Issuer) -> Iterator[tuple[str, str]]:
    head, body, signature = issuer.token().split(".")
    wider = part(issuer.claims(scope="*", sub="eve"))
    yield "a payload of another", f"{head}.{wider}.{signature}"
    yield "a header of another", f"{part({'alg': 'RS256', 'kid': 'rsa', 'typ': 'at+jwt'})}.{body}.{signature}"
    yield "a bit of the signature", f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    yield "a signature cut short", f"{head}.{body}.{signature[:-8]}"
    yield "a signature grown longer", f"{head}.{body}.{signature}AAAA"
    yield "a signature of zeros", f"{head}.{body}.{encode(bytes(256))}"
    for algorithm, key_id, kind, size in (("ES256", "p256", "P-256", 64), ("EdDSA", "ed", "Ed25519", 64)):
        made = issuer.token(algorithm=algorithm, key_id=key_id, key=private_key(kind))
        start = made.rpartition(".")[0]
        yield f"{algorithm} with a signature of zeros", f"{start}.{encode(bytes(size))}"
        yield f"{algorithm} with a signature of another", f"{start}.{encode(b'x' * size)}"
    start, _, raw = issuer.token(algorithm="ES256", key_id="p256", key=private_key("P-256")).rpartition(".")
    both = base64.urlsafe_b64decode(raw + "==")
    der = encode_dss_signature(int.from_bytes(both[:32], "big"), int.from_bytes(both[32:], "big"))
    yield "ES256 with a signature in DER", f"{start}.{encode(der)}"


def _malformed(issuer: Issuer) -> Iterator[tuple[str, str]]:
    good = issuer.token()
    head, body, signature = good.split(".")
    standing_twice = f'{{"minion_tenant": "{uuid4()}", ' + json.dumps(issuer.claims())[1:]
    yield "a claim that stands twice", issuer.token(standing_twice.encode())
    twice = encode(b'{"alg":"none","kid":"rsa","alg":"RS256"}')
    yield "an alg that stands twice", issuer.signed(twice, body)
    yield "claims that are a list", issuer.token(b"[]")
    yield "claims that are a text", issuer.token(b'"claims"')
    yield "claims that are null", issuer.token(b"null")
    yield "claims with something after them", issuer.token(json.dumps(issuer.claims()).encode() + b"{}")
    yield "claims with a byte order mark", issuer.token(b"\xef\xbb\xbf" + json.dumps(issuer.claims()).encode())
    yield "claims that are no UTF-8", issuer.token(b'{"sub": "\xff"}')
    yield "claims in UTF-16", issuer.token(json.dumps(issuer.claims()).encode("utf-16"))
    yield "claims nested without end", issuer.token(b'{"x":' + b"[" * 2_000)
    yield "a header nested without end", issuer.signed(encode(b'{"alg":' + b"[" * 2_000), part({}))
    yield "a header that is a list", issuer.signed(part(["RS256"]), body)
    yield "a header that is no JSON", issuer.signed(encode(b"RS256"), body)
    yield from {
        "padding after the signature": f"{good}==",
        "half of the padding after the signature": f"{good}=",
        "padding after the payload": f"{head}.{body}=.{signature}",
        "padding after the header": f"{head}==.{body}.{signature}",
        "a space before": f" {good}",
        "a space after": f"{good} ",
        "a space within": f"{head}. {body}.{signature}",
        "a newline after": f"{good}\n",
        "a newline within": f"{head}.\n{body}.{signature}",
        "a NUL after": f"{good}\0",
        "a tab within": f"{head}.{body}.\t{signature}",
        "bits left over in the signature": _with_bits_left_over(good),
        "four parts": f"{good}.{signature}",
        "an empty header": f".{body}.{signature}",
        "an empty payload": f"{head}..{signature}",
        "dots alone": "..",
        "five parts as of an encrypted token": f"{part({'alg': 'RSA-OAEP', 'enc': 'A128GCM'})}.AA.AA.AA.AA",
        "characters of plain base64": f"{head}.{body}.{signature[:-1]}+",
        "characters that are no ASCII": f"{head}.{body}.{signature[:-1]}é",
        "another token with a scheme": f"Bearer {good}",
    }.items()
    huge: dict[str, Any] = issuer.claims(filling="x" * 5_000)
    yield "huge", issuer.token(huge)


def _with_bits_left_over(token: str) -> str:
    # 256 bytes leave four bits in the last character that mean nothing: sixteen spellings of one signature.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(token[-1])
    return token[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + 1]


def _of_services(issuer: Issuer, service_key: str) -> Iterator[tuple[str, str]]:
    now = int(issuer.now())
    service = {
        "iss": "minion",
        "aud": "minion",
        "sub": "service:gateway",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "act_for": str(issuer.tenant_id),
    }
    head = {"alg": "HS256", "typ": "JWT"}
    yield "a service's claims by the issuer", issuer.token(service)
    yield "a service's claims by the issuer as HS256", issuer.signed(part(head), part(service))
    yield "a service's claims by the issuer's public key", hmac_signed(head, service, issuer.document())
    yield "a service's claims by another service key", hmac_signed(head, service, service_key[::-1].encode())
    yield "a service's claims, unsigned", f"{part({'alg': 'none'})}.{part(service)}."
    real = hmac_signed(head, service, service_key.encode())
    _, body, signature = real.split(".")
    yield "a service's token called RS256", f"{part({'alg': 'RS256', 'typ': 'JWT', 'kid': 'rsa'})}.{body}.{signature}"
    yield "a service's token with a header of mixed case", f"{part({'alg': 'hs256', 'typ': 'JWT'})}.{body}.{signature}"
    yield "a client's claims by the service key", hmac_signed(head, issuer.claims(), service_key.encode())
    for_clients = {**service, "aud": AUDIENCE, "iss": ISSUER, "minion_tenant": str(issuer.tenant_id), "scope": "*"}
    yield "a service for clients by the service key", hmac_signed(head, for_clients, service_key.encode())
