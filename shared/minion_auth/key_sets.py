"""JSON Web Key Sets (RFC 7517): which public key verifies which algorithm, by key id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt

from minion_auth import strict_json

if TYPE_CHECKING:
    # Exists for the type checker alone.
    from jwt.algorithms import AllowedPublicKeys

MAXIMUM_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
_MOST_ID_CHARACTERS: Final = 256
# NIST SP 800-131A: shorter RSA keys are no longer good; longer ones than this cost more than they give.
_RSA_BITS: Final = range(2_048, 8_193)
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final[Mapping[tuple[str, str], str]] = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("OKP", "Ed25519"): "EdDSA",
}
# Names under which private keys hold what must not be in a public set.
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")

ALGORITHMS: Final = (*_RSA, *_CURVES.values())


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, and the algorithms that it may verify."""

    key: "AllowedPublicKeys"
    algorithms: frozenset[str]


def parse(document: bytes) -> dict[str, SigningKey]:
    """Reads a key set: its keys by key id.

    What can't verify a signature is passed over, as RFC 7517 wants: keys of other kinds, for encryption, with no id,
    with private parts, too short. An id that two keys have is nobody's.

    Raises:
        ValueError: the document is no key set.
    """
    if len(document) > MAXIMUM_BYTES:
        raise ValueError(f"a key set has at most {MAXIMUM_BYTES} bytes")
    content = strict_json.loads(document)
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ValueError(f"a key set is an object with at most {_MOST_KEYS} `keys`")
    found: dict[str, SigningKey] = {}
    seen: set[str] = set()
    for each in listed:
        key_id = each.get("kid") if isinstance(each, dict) else None
        if not isinstance(key_id, str) or not 0 < len(key_id) <= _MOST_ID_CHARACTERS:
            continue
        key = None if key_id in seen else _usable(each)
        seen.add(key_id)
        found.pop(key_id, None)
        if key is not None:
            found[key_id] = key
    return found


def _usable(jwk: Mapping[str, Any]) -> SigningKey | None:
    if jwk.get("use", "sig") != "sig" or any(name in jwk for name in _PRIVATE):
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithms = _algorithms(jwk)
    if not algorithms:
        return None
    try:
        # Any of its algorithms reads the key: they differ in what they sign, not in what a key is.
        made = jwt.get_algorithm_by_name(min(algorithms)).from_jwk(dict(jwk))
    except Exception:  # noqa: BLE001 - whatever a strange key does to the libraries, the others of the set stay
        return None
    if jwk["kty"] == "RSA" and made.key_size not in _RSA_BITS:
        return None
    return SigningKey(made, algorithms)


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    kind, curve, named = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    if kind == "RSA":
        possible = frozenset(_RSA)
    elif isinstance(kind, str) and isinstance(curve, str) and (kind, curve) in _CURVES:
        possible = frozenset({_CURVES[kind, curve]})
    else:
        return frozenset()
    if named is None:
        return possible
    return possible & {named} if isinstance(named, str) else frozenset()
