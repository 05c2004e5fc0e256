"""Takes what a user says apart into clauses that say one thing each, for the stand-in's rules."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A full stop inside a word, as in an address or a number, ends no sentence.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=\w))+[.!?]*")
_SELF = r"(?:i|i'm|i've|i'd|my|call me|we)\b"
_BORDER = re.compile(
    rf"\s*[;,]\s*(?:and |but |so )?(?:now |also )?(?={_SELF})|\s+(?:and|but)\s+(?:now |also )?(?={_SELF})|\s*;\s*", re.I
)
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|hallo|well|so|also|and|but|please|yes|ok|okay|oh|btw|by the way|as you know|for the record|"
    r"fyi|just so you know|remember that|please remember that|note that|keep in mind that|don't forget that|"
    r"you should know that|i should mention that|i wanted to tell you that)(?: there| again| everyone)?[,:!]*\s+)+",
    re.I,
)
_CORRECTION = re.compile(
    r"^(?:no|actually|correction|sorry|wait|not any ?more|update|in fact|i was wrong)[,:!.]*\s+(?:actually[,:]?\s+)?",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of a sentence: `text` is what the rules read, `quote` the words exactly as they stand in the message."""

    text: str
    quote: str
    corrects: bool = False


def clauses(text: str) -> Iterator[Clause]:
    """Yields the clauses of a message that state something; questions state nothing."""
    # The typographic apostrophe has the length of the plain one, so that places in the text stay the same.
    plain = text.replace("’", "'")  # noqa: RUF001
    for sentence in _SENTENCE.finditer(plain):
        if sentence[0].rstrip().endswith("?"):
            continue
        start = sentence.start()
        for border in _BORDER.finditer(plain, sentence.start(), sentence.end()):
            yield from _clause(text[start : border.start()])
            start = border.end()
        yield from _clause(text[start : sentence.end()])


def _clause(piece: str) -> Iterator[Clause]:
    quote = piece.strip().rstrip(".!, ")
    corrects = False
    said = quote.replace("’", "'")  # noqa: RUF001
    while True:
        opened = _OPENING.sub("", said)
        corrected = _CORRECTION.sub("", opened)
        corrects = corrects or corrected != opened
        if corrected == said:
            break
        said = corrected
    if said:
        yield Clause(" ".join(said.split()), quote, corrects)
