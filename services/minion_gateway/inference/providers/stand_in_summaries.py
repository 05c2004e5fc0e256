"""The rule by which the local stand-in summarizes: sentences picked from what was said, in order, and said so."""

import re

from minion_gateway.inference.estimator import estimate_text
from minion_gateway.inference.summary_section import Asked

_HEADING = "An extract by Minion's local stand-in, which picks sentences and understands nothing:"
_BULLET = "- "
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_LONGEST_PICK = 240
# Where an answer has no limit of its own.
_USUAL_TOKENS = 500
# Who speaks first in a line, as in `user: …`; what tools answer is said again by the assistant.
_PICKED = ("user:", "assistant:", "system:")


def extract(asked: Asked, maximum_tokens: int | None) -> str:
    """Returns the first sentence of each thing said, as many of the newest as there is room for.

    What an earlier extract picked is picked again, after what is new; of other summaries the sentences are.
    """
    room = (maximum_tokens or _USUAL_TOKENS) - estimate_text(_HEADING) - 1
    picks = [*_earlier(asked.before), *(pick for line in asked.lines if (pick := _pick(line)))]
    kept: list[str] = []
    for pick in reversed(picks):
        cost = estimate_text(f"{_BULLET}{pick}\n") + 1
        if cost > room:
            break
        room -= cost
        kept.append(_BULLET + pick)
    return "\n".join([_HEADING, *reversed(kept)])


def _earlier(summary: str) -> list[str]:
    if summary.startswith(_HEADING):
        return [line.removeprefix(_BULLET) for line in summary.split("\n")[1:] if line.startswith(_BULLET)]
    return [_short(match[0]) for match in _SENTENCE.finditer(summary) if match[0].strip()]


def _pick(line: str) -> str:
    if not line.startswith(_PICKED):
        return ""
    speaker, _, said = line.partition(":")
    first = _SENTENCE.match(said.strip())
    return f"{speaker}: {_short(first[0])}" if first else ""


def _short(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= _LONGEST_PICK else f"{folded[:_LONGEST_PICK]}…"
