"""The extractors, by name and version: a prompt and the schema of its answers, as files of this package.

A prompt that is changed gets a new version: what was drawn says by which it was.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import orjson

from minion_memory.extraction.domain import EPISODES, SourceMessage

# Extractors that ask a model.
_PROMPTED = ("facts-1",)
# What one question to a model holds at most; of bytes the gateway takes 1 MiB, and a `<` takes six here.
_MESSAGES_A_QUESTION = 40
_MOST_CHARACTERS = 6_000
_MOST_TRANSCRIPT_BYTES = 512 * 1024
_MOST_KNOWN = 300
_MOST_KNOWN_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Extractor:
    """How memories are drawn: what the model is told, and what its answer looks like."""

    name: str
    instructions: str
    schema: Mapping[str, Any]


def names() -> tuple[str, ...]:
    """The extractors that there are."""
    return (*_PROMPTED, EPISODES)


@cache
def prompted(name: str) -> Extractor | None:
    """Finds an extractor that asks a model; None where there is none of this name, or it asks none."""
    if name not in _PROMPTED:
        return None
    folder = resources.files(__package__) / "prompts"
    return Extractor(
        name,
        (folder / f"{name}.md").read_text(encoding="utf-8"),
        orjson.loads((folder / f"{name}.json").read_bytes()),
    )


def parts(messages: Iterable[SourceMessage]) -> Iterator[list[SourceMessage]]:
    """Parts a stretch into what is asked about at once."""
    part: list[SourceMessage] = []
    filling = 0
    for message in messages:
        size = len(_said(message).encode())
        if part and (len(part) == _MESSAGES_A_QUESTION or filling + size > _MOST_TRANSCRIPT_BYTES):
            yield part
            part, filling = [], 0
        part.append(message)
        filling += size
    if part:
        yield part


def question(messages: Iterable[SourceMessage], known: Iterable[tuple[str, str]]) -> str:
    """Writes what the model is shown: known memories and the transcript, as data between marks that it can't forge.

    A line is a JSON object with `<` and `>` escaped, so that nothing said in a session closes its block. Of what is
    known, the last come that there is room for.
    """
    remembered: list[str] = []
    filling = 0
    for key, content in reversed(list(known)):
        line = _line({"key": key, "content": content[:_MOST_KNOWN]})
        filling += len(line.encode())
        if filling > _MOST_KNOWN_BYTES:
            break
        remembered.append(line)
    remembered.reverse()
    said = [_said(message) for message in messages]
    return "\n".join(["<known>", *remembered, "</known>", "<transcript>", *said, "</transcript>"])


def _said(message: SourceMessage) -> str:
    return _line(
        {
            "sequence": message.sequence,
            "role": message.role.value,
            "speaker": message.speaker,
            "time": message.create_time.isoformat(timespec="seconds"),
            "text": message.text[:_MOST_CHARACTERS],
        }
    )


def _line(item: Mapping[str, object]) -> str:
    return orjson.dumps(item).decode().replace("<", "\\u003c").replace(">", "\\u003e")
