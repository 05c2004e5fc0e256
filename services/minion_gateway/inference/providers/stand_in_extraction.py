"""The local stand-in as an extractor of memories: rules that know some ways in which people speak of themselves.

It understands nothing. It answers the memory service's extraction prompt, known by its schema's title, with what its
patterns find in the user's own messages; the prompt's form is `minion_memory/extraction/prompt.py`. The same transcript
always gives the same proposals, and different wordings of a thing the same key and content.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from minion_gateway.inference.domain import ChatMessage, Role
from minion_gateway.inference.providers.stand_in_clauses import clauses
from minion_gateway.inference.providers.stand_in_statements import Statement, statements

# The title of the schema that asks for memories.
TITLE = "minion.extraction.facts"
# A stand-in is not sure of anything.
_CONFIDENCE = 0.8
_MOST_SOURCES = 32
_BLOCK = r"<{0}>\n(.*?)\n?</{0}>"


@dataclass(frozen=True, slots=True)
class _Proposal:
    statement: Statement
    quote: str
    speaker: str
    sequences: tuple[int, ...]


def extract(messages: Sequence[ChatMessage]) -> str:
    """Answers an extraction prompt: a JSON object with the memories found."""
    prompt = next((each.text for each in reversed(messages) if each.role is Role.USER), "")
    known = {str(item.get("key")): str(item.get("content")) for item in _lines(prompt, "known")}
    found: list[_Proposal] = []
    for message in _lines(prompt, "transcript"):
        if message.get("role") == "user":
            for proposal in _said(message):
                _add(found, proposal)
    return orjson.dumps({"memories": [_written(proposal, known) for proposal in found]}).decode()


def _said(message: Mapping[str, Any]) -> Iterator[_Proposal]:
    speaker, sequences = str(message.get("speaker") or "user"), (int(message["sequence"]),)
    for clause in clauses(str(message.get("text") or "")):
        for statement in statements(clause):
            yield _Proposal(statement, clause.quote, speaker, sequences)


def _add(found: list[_Proposal], proposal: _Proposal) -> None:
    """Adds a proposal; one that says what was said before only adds where."""
    for index in range(len(found) - 1, -1, -1):
        if found[index].statement.key != proposal.statement.key:
            continue
        if _same(found[index].statement.content, proposal.statement.content):
            sequences = tuple(dict.fromkeys(found[index].sequences + proposal.sequences))[:_MOST_SOURCES]
            found[index] = replace(found[index], sequences=sequences)
        else:
            # Said otherwise within one stretch: the later is what is so.
            found.append(replace(proposal, statement=replace(proposal.statement, corrects=True)))
        return
    found.append(proposal)


def _written(proposal: _Proposal, known: Mapping[str, str]) -> dict[str, Any]:
    statement = proposal.statement
    changes = statement.key in known and not _same(known[statement.key], statement.content)
    return {
        "type": statement.kind,
        "key": statement.key,
        "content": statement.content,
        "quote": proposal.quote,
        "sequences": list(proposal.sequences),
        "speaker": proposal.speaker,
        "importance": statement.importance,
        "confidence": _CONFIDENCE,
        "valid_from": None,
        "supersedes": statement.key if statement.corrects or changes else None,
    }


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _lines(prompt: str, block: str) -> Iterator[Mapping[str, Any]]:
    match = re.search(_BLOCK.format(block), prompt, re.S)
    for line in match[1].split("\n") if match else ():
        try:
            item = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict):
            yield item
