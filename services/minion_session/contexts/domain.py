"""What a model is shown of a session: the newest messages that fit, and what came before them in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from minion_errors import InvalidArgument, Violation

from minion_session.contexts.cutting import cut_unit
from minion_session.contexts.exchanges import Unit, exchanges
from minion_session.messages.domain import Message, Role
from minion_session.sessions.domain import Session
from minion_session.summaries.domain import Summary


@dataclass(frozen=True, slots=True)
class Limits:
    """What a context may take."""

    token_budget: int
    max_messages: int


@dataclass(frozen=True, slots=True)
class ContextQuery:
    """Which session's context is wanted, and how much of it."""

    session_id: UUID
    limits: Limits


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is shown, oldest first; `truncated` when older messages were left out.

    `token_count` is that of the messages and the summary. A message that was made for the context has the sequence 0.
    """

    messages: tuple[Message, ...]
    summary: Summary | None
    token_count: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class SessionContext:
    """A session and its context."""

    session: Session
    context: Context


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A session in which a turn began, the user's message as stored, and what the model is to be shown."""

    session: Session
    message: Message
    context: Context


def build(messages: Sequence[Message], limits: Limits, summary: Summary | None = None) -> Context:
    """Cuts a context from the end of a transcript, oldest message first in both.

    It is a transcript that OpenAI, Anthropic and Gemini accept: it begins with a user's message or is empty, and every
    call of a tool has its one result right after it (see `exchanges`). The newest messages are taken as long as they
    fit. What alone takes more than half of the budget and doesn't fit is shown cut to half of what is left, so that
    what came before it has its chance; the last message is never cut. Where the messages that fit begin amid a turn,
    the user's message that opened it is put first, cut if need be, and what stands between is left out: a turn of many
    steps keeps its question and its newest steps.

    Args:
        messages: the transcript; it may begin amid an exchange, and lack what stands between the first and the rest.
        limits: what the context may take, the summary included.
        summary: the newest summary; it is shown when messages that it covers are not, if it fits.

    Raises:
        InvalidArgument: the last message alone takes more than the budget (`CONTEXT_BUDGET_TOO_SMALL`).
    """
    units = exchanges(messages)
    last = messages[-1] if messages else None
    chosen = _choose(units, last, limits)
    told = None
    if summary is not None and summary.first_sequence < _whole_from(chosen, messages):
        smaller = Limits(limits.token_budget - summary.token_count, limits.max_messages)
        try:
            chosen, told = _choose(units, last, smaller), summary
        except InvalidArgument:
            # The last message goes before what came long ago.
            told = None
    return Context(
        messages=tuple(message for unit in chosen.units for message in unit),
        summary=told,
        token_count=sum(map(_tokens, chosen.units)) + (told.token_count if told is not None else 0),
        truncated=_whole_from(chosen, messages) > 1,
    )


def too_small(token_budget: int, known: Mapping[str, str]) -> InvalidArgument:
    """Makes the error of a budget that the last message alone breaks."""
    return InvalidArgument(
        "The last message alone takes more than the budget.",
        reason="CONTEXT_BUDGET_TOO_SMALL",
        metadata={**known, "token_budget": str(token_budget)},
        violations=[Violation("token_budget", "must be at least what the last message takes")],
    )


@dataclass(frozen=True, slots=True)
class _Chosen:
    units: Sequence[Unit]
    # From which sequence on nothing is left out for want of room; None when nothing is shown.
    whole_from: int | None


def _choose(units: Sequence[Unit], last: Message | None, limits: Limits) -> _Chosen:
    if last is not None and last.token_count > limits.token_budget:
        raise too_small(limits.token_budget, {"token_count": str(last.token_count)})
    taken = _newest(units, last, limits)
    begin = next((place for place, unit in enumerate(taken) if _opens(unit)), len(taken))
    trimmed = _Chosen(taken[begin:], taken[begin][0].sequence if begin < len(taken) else None)
    if begin == 0:
        return trimmed
    opened = _opened(units, taken, last, limits)
    # The message that opens it takes room: it has to bring more than itself.
    return opened if len(opened.units) - 1 > len(trimmed.units) else trimmed


def _newest(units: Sequence[Unit], last: Message | None, limits: Limits) -> list[Unit]:
    taken: list[Unit] = []
    left, room = limits.token_budget, limits.max_messages
    for unit in reversed(units):
        fitted = unit if _tokens(unit) <= left else _cut(unit, last, left, limits.token_budget)
        if fitted is None or len(fitted) > room:
            break
        taken.append(fitted)
        left -= _tokens(fitted)
        room -= len(fitted)
    return taken[::-1]


def _cut(unit: Unit, last: Message | None, left: int, token_budget: int) -> Unit | None:
    """Cuts what doesn't fit to half of what is left, if it is large; None where it isn't, or can't be."""
    if last is None or all(message.sequence != last.sequence for message in unit):
        return cut_unit(unit, left // 2) if _tokens(unit) > token_budget // 2 else None
    # As it is shown: a result that answers nothing is left out of it.
    whole = next(message.token_count for message in unit if message.sequence == last.sequence)
    cut = None
    if whole <= left:
        cut = cut_unit(unit, whole + (left - whole) // 2, whole=last) or cut_unit(unit, left, whole=last)
    if cut is None:
        # It can't be shown without its call; or it is a result that came late, and what came since its call takes all.
        raise too_small(token_budget, {"token_count": str(whole)})
    return cut


def _opened(units: Sequence[Unit], taken: Sequence[Unit], last: Message | None, limits: Limits) -> _Chosen:
    """Puts the user's message that opened the turn before its newest units, as many as fit beside it; nothing where
    none does.
    """
    nothing = _Chosen((), None)
    place = next((at for at in reversed(range(len(units) - len(taken))) if _opens(units[at])), None)
    if not taken or place is None or limits.max_messages < 1 + len(taken[-1]):
        return nothing
    share = min(limits.token_budget // 4, limits.token_budget - _tokens(taken[-1]))
    first = units[place] if _tokens(units[place]) <= share else cut_unit(units[place], share)
    if first is None:
        return nothing
    try:
        rest = _newest(units[place + 1 :], last, Limits(limits.token_budget - _tokens(first), limits.max_messages - 1))
    except InvalidArgument:
        return nothing
    if not rest:
        return nothing
    adjoins = len(rest) == len(units) - place - 1
    return _Chosen((first, *rest), (first if adjoins else rest[0])[0].sequence)


def _whole_from(chosen: _Chosen, messages: Sequence[Message]) -> int:
    if not messages:
        return 1
    if chosen.whole_from is None:
        return messages[-1].sequence + 1
    apart = len(messages) > 1 and messages[1].sequence > messages[0].sequence + 1
    return max(chosen.whole_from, messages[1].sequence) if apart else chosen.whole_from


def _opens(unit: Unit) -> bool:
    return unit[0].role is Role.USER


def _tokens(unit: Unit) -> int:
    return sum(message.token_count for message in unit)
