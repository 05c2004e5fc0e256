"""Cutting messages that are too large for a budget, each with a mark that says what isn't shown."""

from collections.abc import Sequence
from dataclasses import replace

from minion_session.contexts.exchanges import Unit, as_text, retold
from minion_session.messages.domain import (
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    content_bytes,
)

_TRIES = 12


def cut_unit(unit: Unit, tokens: int, *, whole: Message | None = None) -> Unit | None:
    """Cuts the largest messages of a unit until it takes at most so many tokens; None where that can't be done.

    Args:
        unit: what is too large.
        tokens: what it may take.
        whole: the message that must not be cut, by its sequence, if it is one of them.
    """
    kept = [whole is not None and message.sequence == whole.sequence for message in unit]
    left = tokens - sum(message.token_count for message, stays in zip(unit, kept, strict=True) if stays)
    most = _evened([message.token_count for message, stays in zip(unit, kept, strict=True) if not stays], left)
    shown: list[Message] = []
    for message, stays in zip(unit, kept, strict=True):
        cut = message if stays or message.token_count <= most else cut_message(message, most)
        if cut is None:
            return None
        shown.append(cut)
    return tuple(shown) if sum(message.token_count for message in shown) <= tokens else None


def cut_message(message: Message, tokens: int) -> Message | None:
    """Cuts the largest parts of a message until it takes at most so many tokens; None where that can't be done."""
    sizes = [content_bytes(part) for part in message.parts]
    # By the message's own measure: what its caller counted may be more than what we would estimate.
    left = sum(sizes) * tokens // message.token_count
    most = _evened(sizes, left)
    parts: list[Part] = []
    for part, size in zip(message.parts, sizes, strict=True):
        cut = part if size <= most else _cut_part(part, most, message.sequence)
        if cut is None:
            return None
        parts.append(cut)
    shown = retold(message, parts)
    return shown if shown.token_count <= tokens else None


def _evened(sizes: Sequence[int], total: int) -> int:
    """Gives the size to which the largest have to come down for all to take `total` together."""
    left = total
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return max(share, 0)
        left -= size
    return max(sizes, default=0)


def _cut_part(part: Part, size: int, sequence: int) -> Part | None:
    match part:
        case TextPart(text):
            shown = _cut_text(text, size, f"message {sequence}")
            return TextPart(shown) if shown is not None else None
        case ToolCallPart(_, name, arguments):
            what = f"the arguments of {name} in message {sequence}"
            whole, room = as_text(arguments), size
            for _ in range(_TRIES):
                shown = _cut_text(whole, room, what)
                if shown is None:
                    return None
                call = replace(part, arguments={"cut": shown})
                if content_bytes(call) <= size:
                    return call
                room = min(room - 1, room * size // content_bytes(call))
            return None
        case ToolResultPart(_, name, output, _, blob_id):
            where = f"; the whole of it is the blob {blob_id}" if blob_id is not None else ""
            what = f"the result of {name} in message {sequence}"
            whole, room = as_text(output), size
            for _ in range(_TRIES):
                shown = _cut_text(whole, room, what, where)
                if shown is None:
                    return None
                # Written as JSON, quotes and line breaks take more than they are.
                result = replace(part, output=shown)
                if content_bytes(result) <= size:
                    return result
                room = min(room - 1, room * size // content_bytes(result))
            return None
        case _:
            return None


def _cut_text(text: str, size: int, what: str, where: str = "") -> str | None:
    """Cuts a text to so many bytes, its mark included; None where the mark alone takes more."""
    encoded = text.encode()
    mark = f"\n[Cut: {len(encoded)} of {len(encoded)} bytes of {what} are not shown{where}.]"
    room = size - len(mark.encode())
    if room < 0:
        return None
    head = encoded[:room].decode(errors="ignore")
    left_out = len(encoded) - len(head.encode())
    return f"{head}\n[Cut: {left_out} of {len(encoded)} bytes of {what} are not shown{where}.]"
