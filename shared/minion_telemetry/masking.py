"""Takes personal data and secrets out of text: pattern first, then checksum where the format has one.

Recognised: e-mail addresses, telephone numbers, payment cards (Luhn, ISO/IEC 7812-1), IBANs (mod 97, ISO 13616),
our own and well-known API keys, bearer tokens and JWTs, credentials inside URLs. Ids (UUIDs, trace ids), timestamps and
plain numbers are left alone, or logs would be of no use.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

EMAIL = "[EMAIL]"
PHONE = "[PHONE]"
CARD = "[CARD]"
IBAN = "[IBAN]"
API_KEY = "[API_KEY]"
TOKEN = "[TOKEN]"  # noqa: S105 - the mark, no secret
CREDENTIALS = "[CREDENTIALS]"
SECRET = "[SECRET]"  # noqa: S105 - the mark, no secret

# Text longer than this is cut before it is masked: masking is linear, yet a log line has no use for megabytes.
MAXIMUM_CHARACTERS = 16_384
# So much of what begins before a cut is looked at: as long as is what only its end tells, credentials inside a URL.
_AHEAD = 1_300
_MAXIMUM_DEPTH = 8
_MAXIMUM_ITEMS = 1_000
_SHORTEST_CARD = 10**12  # 13 digits

# Every quantifier is bounded or possessive, so that hostile text costs linear time. UUIDs stand first, so that their
# digits are never read as a number of another kind.
_PATTERN = re.compile(
    r"""
      (?P<uuid>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)
    | (?P<token>\b[Bb][Ee][Aa][Rr][Ee][Rr]\s{1,8}[\w.~+/=-]{8,8192}
              | \beyJ[\w-]{8,4096}\.[\w-]{8,8192}(?:\.[\w-]{0,4096}|\Z))
    | (?P<key>\bmnk_[\w-]{8,256} | \bmno_[\w-]{8,256} | \bsk-[\w-]{16,256} | \bAKIA[0-9A-Z]{16}\b
              | \bgh[pousr]_\w{20,255} | \bAIza[\w-]{30,64} | \bxox[abprs]-[\w-]{10,256})
    | (?P<credentials>(?<=://)[^\s:/@]{1,256}:[^\s/@]{1,1024}(?=@))
    | (?P<email>(?<![\w.%+'-])[\w.%+'-]++@[^\W_](?:[\w-]{0,62})(?:\.[^\W_][\w-]{0,62}){1,8})
    | (?P<iban>\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b)
    | (?P<card>(?<![\w-])(?<!\d\.)[2-6]\d{3}(?:[ -]?\d{4}){2}(?:[ -]?\d{1,7})(?![\w-])
              | (?<![\w-])(?<!\d\.)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]))
    | (?P<phone>(?<![\w+])\+\d(?:[ ().-]{0,2}\d){7,14}(?![\w-])
              | (?<![\w.(-])\(\d{3}\)[ ]?\d{3}[ .-]\d{4}(?![\w-])
              | (?<![\w.-])\d{3}[ .-]\d{3}[ .-]\d{4}(?![\w-])
              | (?<![\w.:-])0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}(?![\w:-]))
    """,
    re.VERBOSE,
)

# What letters are in an IBAN's checksum: A is 10, Z is 35.
_LETTERS = {ord("A") + place: str(10 + place) for place in range(26)}

# Most log strings hold none of these, and one scan is ten times cheaper than the whole pattern.
_SUSPECT = re.compile(r"@|(?:\d\D{0,2}){5}|[A-Z]{2}\d\d|eyJ|mn[ko]_|sk-|AKIA|AIza|gh._|xox|(?i:bearer)")

# Values under these names are secrets whatever they look like.
_SECRET_NAMES = frozenset(
    {"authorization", "password", "secret", "api_key", "apikey", "token", "access_token", "refresh_token", "credential"}
)


def mask(text: str) -> str:
    """Replaces personal data and secrets by marks such as `[EMAIL]`; text beyond 16,384 characters is cut."""
    if len(text) > MAXIMUM_CHARACTERS:
        text = f"{text[:MAXIMUM_CHARACTERS]}… ({len(text)} characters)"
    return mask_whole(text)


def mask_whole(text: str) -> str:
    """Replaces personal data and secrets by marks and cuts nothing: for what is stored, whose size is bounded.

    Costs up to 1 µs a character: 64 KiB of it belong off the event loop.
    """
    if _SUSPECT.search(text) is None:
        return text
    kept: list[str] = []
    done = 0
    for start, end, mark in _marks(text):
        kept += (text[done:start], mark)
        done = end
    kept.append(text[done:])
    return "".join(kept)


def mask_beginning(text: str, characters: int) -> str:
    """Gives a text's first characters, masked: what begins among them and goes on is masked whole."""
    seen = text[: characters + _AHEAD]
    if _SUSPECT.search(seen) is None:
        return seen[:characters]
    kept: list[str] = []
    done = 0
    for start, end, mark in _marks(seen):
        if start >= characters:
            break
        kept += (seen[done:start], mark)
        done = end
    kept.append(seen[done:characters])
    return "".join(kept)


def mask_principal(principal: str) -> str:
    """Masks who is behind a call: e-mail addresses and the like in a user's name, which an identity provider gives.

    A name of another form (`user:ada.lovelace`) stays as it is, and so do all other principals: words and ids of ours.
    """
    return mask(principal) if principal.startswith("user:") else principal


def mask_value(value: Any, depth: int = 0) -> Any:
    """Masks every string inside a value of mappings, sequences and scalars; what lies too deep is dropped."""
    if isinstance(value, str):
        return mask(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= _MAXIMUM_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            mask(str(name)): SECRET if is_secret_name(name) else mask_value(item, depth + 1)
            for name, item in list(value.items())[:_MAXIMUM_ITEMS]
        }
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, (Sequence, set, frozenset)):
        return [mask_value(item, depth + 1) for item in list(value)[:_MAXIMUM_ITEMS]]
    return mask(str(value))


def mask_json(value: Any) -> Any:
    """Masks a JSON value whole, for what is stored: nothing is cut or dropped, names are masked too.

    Names that become the same mark are told apart (`[EMAIL]`, `[EMAIL] 2`). A whole number is masked where its digits
    are those of a payment card. The value's depth must be bounded.
    """
    match value:
        case str():
            return mask_whole(value)
        case bool() | float() | None:
            return value
        case int():
            return CARD if value >= _SHORTEST_CARD and mask_whole(str(value)) == CARD else value
        case Mapping():
            masked: dict[str, Any] = {}
            seen: dict[str, int] = {}
            for name, item in value.items():
                mark = kept = mask_whole(name)
                while kept != name and (kept in masked or kept in value):
                    seen[mark] = seen.get(mark, 1) + 1
                    kept = f"{mark} {seen[mark]}"
                masked[kept] = SECRET if is_secret_name(name) and item is not None else mask_json(item)
            return masked
        case _:
            return [mask_json(item) for item in value]


def is_secret_name(name: object) -> bool:
    """Tells whether a field of this name holds a secret by its name alone."""
    return isinstance(name, str) and name.lower() in _SECRET_NAMES


def _marks(text: str) -> Iterator[tuple[int, int, str]]:
    """Gives where personal data and secrets stand in a text, from the left, and the mark of each."""
    at = looked_at = 0
    while (match := _PATTERN.search(text, at)) is not None:
        start, end = match.span()
        found = match.group()
        mark = ""
        match match.lastgroup:
            case "uuid":
                at = end
                continue
            case "card":
                mark = CARD if _luhn(found) else ""
            case "iban":
                if length := _iban_length(found):
                    mark, end = IBAN, start + length
            case "phone":
                # A number of groups that is none by its checksum is no telephone's either.
                mark = PHONE if start >= looked_at else ""
            case "email":
                mark = EMAIL
            case "key":
                mark = API_KEY
            case "credentials":
                mark = CREDENTIALS
            case _:
                mark = f"{found[:6]} {TOKEN}" if found[:6].lower() == "bearer" else TOKEN
        if mark:
            yield start, end, mark
            at = end
        else:
            # Its first group is none of it: what looks like the rest may begin a card's or an IBAN's.
            looked_at = max(looked_at, end)
            at = start + (found.find(" ") + 1 or len(found))


def _luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban_length(text: str) -> int:
    """Gives how many characters of a text that begins as an IBAN are one by its checksum (mod 97); 0 where none are.

    Words in capitals and numbers behind one look as if they were its last groups: the longest that passes is taken.
    """
    first = int(f"{int(text[0], 36)}{int(text[1], 36)}{text[2:4]}")
    place, digits, remainder, length = 4, 4, 0, 0
    for group in text[4:].split(" "):
        if group:
            digits += len(group)
            number = group.translate(_LETTERS)
            remainder = (remainder * 10 ** len(number) + int(number)) % 97
            if 15 <= digits <= 34 and (remainder * 1_000_000 + first) % 97 == 1:
                length = place + len(group)
        place += len(group) + 1
    return length
