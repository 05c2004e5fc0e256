"""How a credential travels: as `authorization: Bearer …` metadata."""

from typing import Final

_SCHEME: Final = "bearer "
_MAXIMUM_CHARACTERS: Final = 4_096


def can_be_sent(token: str) -> bool:
    """Tells whether a credential can be metadata at all, and is taken as it was sent.

    gRPC refuses other characters than printable ASCII, and a call with them never ends (grpcio 1.85.1).
    """
    return (
        0 < len(token) <= _MAXIMUM_CHARACTERS - len(_SCHEME)
        and token.isascii()
        and token.isprintable()
        and token == token.strip()
    )


def token_of(credential: str | bytes) -> str | None:
    """Gives the token of a call's metadata; None where it is none."""
    if len(credential) > _MAXIMUM_CHARACTERS or not isinstance(credential, str):
        return None
    if credential[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = credential[len(_SCHEME) :]
    return token if token and token == token.strip() else None
