"""From a model's answer to what may be remembered: each proposal is read, bounded, and held against its source.

The model has read what users, tools and strangers wrote, so nothing it says is taken on its word: a quote that doesn't
stand in a message that it names is refused, and trust comes from who spoke the quoted words, never from the answer.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from minion_memory.extraction.domain import Drawn, Proposal, Role, SourceMessage
from minion_memory.memories.domain import MemoryType, Trust

_MOST_PROPOSALS = 200
_MOST_KEY, _MOST_CONTENT, _MOST_QUOTE, _MOST_SOURCES = 120, 2_000, 2_000, 32
_TYPES = {"fact": MemoryType.FACT, "preference": MemoryType.PREFERENCE, "skill": MemoryType.SKILL}
# Keys that are made elsewhere.
_RESERVED = frozenset({"episode"})
_COMMON_WORDS = """
the a an is are was were be been has have had do does did not no of in on at to for from by with and or as that this it
its user users s their they he she his her name named likes like lives live works work
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_TOKEN = re.compile(r"\S+")
_WORD = re.compile(r"[^\W_]+")


class AnswerUnreadable(Exception):  # noqa: N818 - named for what went wrong
    """The model's answer is not the JSON that was asked for."""


def read(answer: str) -> tuple[list[Proposal], int]:
    """Reads a model's answer; says too how many of its proposals are malformed.

    Raises:
        AnswerUnreadable: it is no list of proposals at all.
    """
    try:
        items = orjson.loads(answer)["memories"]
    except (ValueError, LookupError, TypeError) as fault:
        raise AnswerUnreadable from fault
    if not isinstance(items, list):
        raise AnswerUnreadable
    read_items = [_proposal(item) for item in items[:_MOST_PROPOSALS]]
    proposals = [proposal for proposal in read_items if proposal is not None]
    return proposals, len(items) - len(proposals)


def check(proposal: Proposal, messages: Mapping[int, SourceMessage]) -> Drawn | None:
    """Holds a proposal against its source messages; None where its quote stands in none of them."""
    named = [messages[sequence] for sequence in proposal.sequences if sequence in messages]
    found = [(message, words) for message in named if (words := _quoted(proposal.quote, message.text))]
    if not found:
        return None
    # What the user said counts for more than that a tool repeated it.
    source, words = min(found, key=lambda each: (each[0].role is not Role.USER, each[0].sequence))
    said_by_user = source.role is Role.USER and _bears(words, source.text, proposal.content)
    return Drawn(
        proposal=_within(proposal, named),
        quote=words,
        speaker=source.speaker[:200],
        trust=Trust.USER if said_by_user else Trust.TOOL,
        occur_time=source.create_time,
        valid_from=proposal.valid_from or source.create_time,
    )


def key_path(key: str) -> str:
    """Writes a key as `subject/attribute`: in small letters, with hyphens for spaces.

    All else stays, so that no two things fall under one key: C++ and C# are two.
    """
    plain = unicodedata.normalize("NFKC", key).casefold()
    parts = [re.sub(r"[\s_-]+", "-", part).strip("-") for part in plain.split("/")]
    return "/".join(part for part in parts if part)


def _proposal(item: Any) -> Proposal | None:
    """Reads one proposal; None where it is malformed."""
    if not isinstance(item, dict):
        return None
    kind, content, quote = _TYPES.get(str(item.get("type"))), _text(item, "content"), _text(item, "quote")
    key = key_path(_text(item, "key"))
    sequences = item.get("sequences")
    if (
        kind is None
        or not 0 < len(content) <= _MOST_CONTENT
        or not 0 < len(quote) <= _MOST_QUOTE
        or not 0 < len(key) <= _MOST_KEY
        or "/" not in key
        or key.partition("/")[0] in _RESERVED
        or not isinstance(sequences, list)
    ):
        return None
    return Proposal(
        type=kind,
        key=key,
        content=content,
        quote=quote,
        sequences=tuple(dict.fromkeys(one for one in sequences if isinstance(one, int)))[:_MOST_SOURCES],
        importance=_share(item.get("importance"), 0.5),
        confidence=_share(item.get("confidence"), 1.0),
        valid_from=_moment(item.get("valid_from")),
        # A memory may end by what is said of the very same thing alone: another key named here counts for nothing.
        supersedes=key_path(_text(item, "supersedes")) == key,
    )


def _within(proposal: Proposal, named: Sequence[SourceMessage]) -> Proposal:
    sequences = tuple(sorted(message.sequence for message in named))
    return Proposal(
        proposal.type,
        proposal.key,
        proposal.content,
        proposal.quote,
        sequences,
        proposal.importance,
        proposal.confidence,
        proposal.valid_from,
        proposal.supersedes,
    )


def _quoted(quote: str, text: str) -> str:
    """Finds a quote in a text, whatever its case and spacing; gives the text's own words, or nothing.

    By plain searches, which take as long as the text is: what is looked for was written by somebody else.
    """
    wanted = " ".join(quote.split()).casefold()
    spans = [match.span() for match in _TOKEN.finditer(text)]
    tokens = [text[start:end].casefold() for start, end in spans]
    normal = " ".join(tokens)
    if len("".join(_WORD.findall(quote))) < 3 and wanted != normal:
        # A letter or two stand in any message.
        return ""
    place = normal.find(wanted)
    if place < 0:
        return ""
    if quote in text:
        return quote
    first = normal.count(" ", 0, place)
    last = first + wanted.count(" ")
    return text[spans[first][0] : spans[last][1]][:_MOST_QUOTE]


def _bears(quote: str, text: str, content: str) -> bool:
    """Whether the user's words bear a content: it shares a word with the quote, and its numbers stand in the message.

    A quote of the user under words that a tool brought in would lend them the user's trust.
    """
    said, quoted = _words(text), _words(quote)
    wanted = _words(content)
    if any(word not in said for word in wanted if any(map(str.isdigit, word))):
        return False
    telling = [word for word in wanted if word not in _COMMON]
    return not telling or any(word == other or _kin(word, other) for word in telling for other in quoted)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", text))]


def _kin(one: str, other: str) -> bool:
    """Whether two words seem to be forms of one: they share their first four letters, or one is the other's stem."""
    return len(one) >= 4 and len(other) >= 4 and one[:4] == other[:4]


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    return value.strip() if isinstance(value, str) and "\x00" not in value else ""


def _share(value: Any, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return min(max(float(value), 0.0), 1.0)


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # What Postgres and the wire hold; a year that nobody lives in is a model's slip.
    return moment if 1900 <= moment.year <= 2200 else None
